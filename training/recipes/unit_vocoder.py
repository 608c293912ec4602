"""Teach the vocoder to speak units. Learns the generator and the duration predictor.

Random crops of the reply voice's recordings, whose units are known frame by frame; spectral losses on the waveform, and
the mean squared error of log(duration + 1) on whole clips. With ``adversary=true`` discriminators join in after
``discriminator_after`` steps: spectral losses alone make speech intelligible, discriminators natural. Weight norm
(Salimans and Kingma, arXiv 1602.07868) steadies the training and is folded into plain weights when the vocoder is
handed on. A source-filter generator also learns the pitch of the recordings, and is given it while it learns the rest.

With ``voices=a,b,c`` it learns a table of speaker embeddings, from clips whose ``voice`` says which they are of, or
from a folder of data for each: ``data=work/a,work/b,work/c``. What starts from a vocoder of one voice begins with that
one in all of them.

Source: Kong et al. 2020, "HiFi-GAN" (arXiv 2010.05646), sections 2.2 and 2.3; Polyak et al. 2021
(arXiv 2104.00355), section 3.3; durations as in Lee et al. 2022 (arXiv 2107.05604), section 3.3.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from ...model.errors import DuologueError
from ...model.layers.conv import StreamingConv1d, StreamingConvTranspose1d
from ...model.speech_decoder.source_filter import SourceFilter
from ...model.speech_decoder.unit_vocoder import UnitVocoder, UnitVocoderConfig
from ...model.speech_decoder.voices import Speaker
from ..data.corpus import to_float
from ..data.units import UnitCorpus
from ..loop.task import Batch
from ..losses.waveform import WaveformRecipe, WaveformTask
from ..presets import preset


@dataclass(frozen=True, kw_only=True)
class UnitVocoderRecipe(WaveformRecipe):
    """Sizes and loss weights of the stage."""

    vocoder: UnitVocoderConfig
    voices: tuple[str, ...] = ()  # names, of a table of speaker embeddings; (): one voice
    crop_ms: int = 1200
    duration_weight: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(set(self.voices)) < len(self.voices) or not all(self.voices):
            raise DuologueError(f"voices are {', '.join(self.voices)}; each needs a name of its own")
        if self.voices:
            table = {name: Speaker(row=row) for row, name in enumerate(self.voices)}
            object.__setattr__(self, "vocoder", replace(self.vocoder, voices=table))
        frame_ms = 1000 * self.vocoder.hop / self.vocoder.sample_rate
        if self.crop_ms < frame_ms:
            raise DuologueError(f"crop_ms is {self.crop_ms}; it must be at least one frame, {frame_ms:g} ms")
        self.check_rate(self.vocoder.sample_rate, "vocoder")
        if (generator := self.vocoder.source_filter) is not None and generator.bands:
            raise DuologueError(f"source_filter bands is {generator.bands}; only a codec learns them, so leave it null")

    @property
    def crop_frames(self) -> int:
        """Frames a crop."""
        return self.crop_ms * self.vocoder.sample_rate // (1000 * self.vocoder.hop)

    def build(self) -> UnitVocoderTask:
        """The task of this recipe."""
        return UnitVocoderTask(self)


def recipe(name: str = "nano") -> UnitVocoderRecipe:
    """The stage's recipe, by the name of a preset."""
    return UnitVocoderRecipe(stage="unit_vocoder", out="runs/unit_vocoder", **preset(name, "unit_vocoder"))


def add_weight_norm(vocoder: UnitVocoder) -> None:
    """Parametrise every convolution of the generator by direction and length; plain weights can still be loaded."""
    for module in vocoder.generator.modules():
        if isinstance(module, (StreamingConv1d, StreamingConvTranspose1d)):
            weight_norm(module)
            module.register_load_state_dict_pre_hook(_split_plain_weight)


def _split_plain_weight(module: nn.Module, state_dict: dict[str, Tensor], prefix: str, *_: object) -> None:
    """Turn a plain weight about to be loaded into its length and direction."""
    weight = state_dict.pop(f"{prefix}weight", None)
    if weight is not None:
        length = weight.flatten(1).norm(dim=1).view(-1, *[1] * (weight.dim() - 1))  # (C, 1, 1)
        state_dict[f"{prefix}parametrizations.weight.original0"] = length
        state_dict[f"{prefix}parametrizations.weight.original1"] = weight


def _without_table(module: nn.Module, state_dict: dict[str, Tensor], prefix: str, *_: object) -> None:
    """All voices begin as that of a vocoder which has one."""
    table: Tensor = module.get_parameter("speakers.weight")
    state_dict.setdefault(f"{prefix}speakers.weight", torch.zeros_like(table))


def without_weight_norm(vocoder: UnitVocoder) -> UnitVocoder:
    """A copy with plain weights."""
    plain = UnitVocoder(vocoder.config).eval()
    folded = {}
    for name in plain.state_dict():
        owner, _, tensor = name.rpartition(".")
        folded[name] = getattr(vocoder.get_submodule(owner), tensor).detach()
    plain.load_state_dict(folded)
    return plain


class UnitVocoderTask(WaveformTask):
    """The vocoder, its losses and its batches."""

    def __init__(self, recipe: UnitVocoderRecipe) -> None:
        super().__init__(recipe)
        self.recipe = recipe
        self.vocoder = UnitVocoder(recipe.vocoder)
        add_weight_norm(self.vocoder)
        if recipe.voices:
            self.vocoder.register_load_state_dict_pre_hook(_without_table)
        self.corpus = self._open(recipe.data, self._folders_of(recipe.data))

    def _folders_of(self, folders: tuple[str, ...]) -> tuple[str, ...]:
        """The voice of each folder, where there are as many."""
        return self.recipe.voices if len(folders) == len(self.recipe.voices) else ()

    def _open(self, folders: tuple[str, ...], of: tuple[str, ...]) -> UnitCorpus:
        c = self.recipe.vocoder
        corpus = UnitCorpus(folders, c.units, c.hop, voices=self.recipe.voices, of=of)
        rates = {dataset.sample_rate for dataset in corpus.corpus.sets}
        if rates != {c.sample_rate}:
            raise DuologueError(f"the data have sample rates {sorted(rates)}; the vocoder's is {c.sample_rate} Hz")
        if len(corpus.frames) < self.recipe.crop_frames:
            raise DuologueError(
                f"{', '.join(folders)} holds {len(corpus.frames)} frames; a crop needs {self.recipe.crop_frames}"
            )
        return corpus

    def parts(self) -> dict[str, nn.Module]:
        return {"vocoder": without_weight_norm(self.vocoder)}

    def batch(self, number: int) -> Batch:
        return self._batch(self.corpus, np.random.default_rng((self.recipe.seed, number)))

    def _batch(self, corpus: UnitCorpus, rng: np.random.Generator) -> Batch:
        """Crops for the generator, and as many whole clips for the duration predictor."""
        size, length = self.recipe.batch_size, self.recipe.crop_frames
        starts = rng.integers(0, len(corpus.frames) - length + 1, size)
        crops = [corpus.crop(int(start), length) for start in starts]
        drawn = rng.integers(0, len(corpus), size)
        clips = [corpus.spoken[int(i)] for i in drawn]
        longest = max(1, max(len(clip.units) for clip in clips))
        units = torch.zeros(size, longest, dtype=torch.long)
        durations = torch.zeros(size, longest, dtype=torch.long)  # 0 marks padding
        for row, clip in enumerate(clips):
            units[row, : len(clip.units)] = torch.from_numpy(clip.units)
            durations[row, : len(clip.units)] = torch.from_numpy(clip.durations)
        batch = {
            "frames": torch.from_numpy(np.stack([frames for frames, _ in crops])),  # (B, F)
            "samples": torch.from_numpy(np.stack([to_float(samples) for _, samples in crops])),  # (B, F * hop)
            "units": units,  # (B, U)
            "durations": durations,  # (B, U)
        }
        if self.recipe.voices:
            batch["rows"] = torch.from_numpy(np.stack([corpus.speaker[at : at + length] for at in starts]))  # (B, F)
            batch["clip_rows"] = torch.from_numpy(corpus.speakers[drawn][:, None])  # (B, 1)
        if (generator := self.recipe.vocoder.source_filter) is not None:
            pitches = [corpus.pitch(int(start), length, generator.pieces) for start in starts]
            batch["pitch"] = torch.from_numpy(np.stack(pitches))  # (B, F * pieces)
        return batch

    def make(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor], Tensor]:
        vocoder = self.vocoder
        made, loss, metrics = self._made(vocoder.embed(batch["frames"], batch.get("rows")), batch)
        spectral, measured = self.compare(made, batch["samples"])
        loss, metrics = loss + spectral, measured | metrics
        predicted = vocoder.duration(vocoder.embed(batch["units"], batch.get("clip_rows")))[:, 0].float()  # (B, U)
        real = batch["durations"] > 0
        duration = F.mse_loss(predicted[real], torch.log(batch["durations"][real] + 1.0))
        return loss + self.recipe.duration_weight * duration, {**metrics, "duration": duration.detach()}, made

    def _made(self, x: Tensor, batch: Batch) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Embeddings (B, C, F) -> samples (B, F * hop), and what the generator has to learn beside them."""
        generator, nothing = self.vocoder.generator, x.new_zeros((), dtype=torch.float32)
        if not isinstance(generator, SourceFilter):
            return generator(x)[:, 0], nothing, {}
        controls, hertz = generator.controls(x), batch["pitch"]
        loss, metrics = self.pitch_loss(nothing, controls, hertz)
        return generator.sound(controls, hertz)[:, 0], loss, metrics

    @torch.no_grad()
    def evaluate(self) -> dict[str, float]:
        """The same losses on fixed crops of each held-out set."""
        metrics = {}
        dev = self.recipe.dev_data
        for at, folder in enumerate(dev):
            corpus = self._open((folder,), self._folders_of(dev)[at : at + 1])
            device = self.vocoder.embedding.weight.device
            rows = [self._batch(corpus, np.random.default_rng((1, i))) for i in range(4)]
            measured = [self.make({key: value.to(device) for key, value in row.items()})[1] for row in rows]
            name = folder.rstrip("/").split("/")[-1]
            for key in measured[0]:
                metrics[f"{key}_{name}"] = float(np.mean([float(row[key]) for row in measured]))
        return metrics
