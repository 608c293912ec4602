"""The encoder learns to hear from speech alone. Learns the encoder; it predicts labels of masked frames.

Stretches of the log-mel give way to noise, and a linear layer says from the encoder's frames which labels they had. In
the first iteration a random quantiser of the log-mel makes the labels. Then a middle layer's clusters do, chosen by
probes (recipe ``probe``) and written by ``duologue prepare units … file=ssl_units.jsonl``: a second run with
``units=ssl_units.jsonl clusters=…`` predicts those, from a fresh start.

Source: LUISE of Seed-ASR (arXiv 2407.04675), section 3.2; BEST-RQ (arXiv 2202.01855), section 3. Its masks of 400 ms
are shorter here: nano's encoder hears nothing beyond its chunk of 160 ms, so that the far end of a long mask can only
be guessed.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...model.audio_encoder.mel import LogMel
from ...model.errors import DuologueError
from ..augment.augment import augment
from ..augment.presets import augmentation_of, keeps_time
from ..data.corpus import Corpus, Plan, dev_sets, pad, to_float
from ..data.speech import SpeechRecipe, SpeechTask, random_offsets
from ..data.units import read_units
from ..loop.task import Batch
from ..losses.codebooks import perplexity
from ..losses.mile import cross_entropy
from ..losses.random_quantiser import RandomQuantiser, RandomQuantiserConfig
from ..presets import preset
from ..recipe import CrossEntropyRecipe

STACK = 2  # mel frames that one of the encoder's describes
STANDARD_CLIPS = 200  # from which the mel bands' means and deviations are taken
NOISE = 0.1  # deviation of what masked frames become, where a band's own is 1
DEV_CLIPS = 128  # of each held-out set


@dataclass(frozen=True, kw_only=True)
class SslRecipe(SpeechRecipe, CrossEntropyRecipe):
    """Labels and masks of the stage. What is said in the data, and whether that is known, does not matter."""

    quantiser: RandomQuantiserConfig
    units: str = ""  # file of units in every data set, whose labels take the place of the quantiser's
    clusters: int = 0  # how many units there are
    longest_ms: int = 8000  # of a clip: longer ones are cut at random
    mask_ms: int = 200  # length of a masked stretch
    mask_chance: float = 0.05  # that one begins at a frame of 20 ms (with ten frames each, two fifths are masked)
    augment: str = "still"  # with units it must keep the time

    def __post_init__(self) -> None:
        super().__post_init__()
        frame = self.frame_samples * 1000 // self.mel.sample_rate
        if self.mask_ms < frame or self.longest_ms < self.mask_ms:
            raise DuologueError(
                f"mask_ms is {self.mask_ms}; it must be {frame} (a frame) to longest_ms = {self.longest_ms}"
            )
        if not 0 < self.mask_chance < 1:
            raise DuologueError(f"mask_chance is {self.mask_chance}; it must be between 0 and 1")
        if bool(self.units) != (self.clusters > 1):
            raise DuologueError("units=FILE and clusters=HOW_MANY go together: give both, or neither")
        augmentation = augmentation_of(self.augment)
        if self.units and augmentation is not None and not keeps_time(augmentation.sound):
            raise DuologueError(f"augment is {self.augment!r}, which moves sounds away from their units: none or still")

    @property
    def frame_samples(self) -> int:
        """Samples a frame of the encoder."""
        return STACK * self.mel.hop

    def build(self) -> Ssl:
        """The task of this recipe."""
        return Ssl(self)


def recipe(name: str = "nano") -> SslRecipe:
    """The stage's recipe, by the name of a preset."""
    return SslRecipe(stage="ssl", out="runs/ssl", **preset(name, "ssl"))


def span_mask(frames: Tensor, size: int, chance: float, span: int, generator: torch.Generator) -> Tensor:
    """(B, size) bool, true in stretches of ``span`` frames within the first frames[b] of each row: at least in one.

    Every frame begins a stretch with the same chance; stretches may overlap, and the last may be cut short.
    """
    begins = torch.rand(len(frames), size, generator=generator) < chance
    sure = (torch.rand(len(frames), generator=generator) * frames).long()
    begins[torch.arange(len(frames)), sure] = True
    inside = torch.arange(size) < frames[:, None]
    near = F.max_pool1d(F.pad((begins & inside).float()[:, None], (span - 1, 0)), span, stride=1)[:, 0]
    return (near > 0) & inside


class Ssl(SpeechTask):
    """The encoder, the labels, and the layer that predicts them."""

    def __init__(self, recipe: SslRecipe) -> None:
        super().__init__(recipe)
        self.recipe = recipe
        self.mel = LogMel(recipe.mel)
        self.encoder = recipe.encoder.build()
        q = recipe.quantiser
        self.quantiser = None if recipe.units else RandomQuantiser(q, recipe.mel.n_mels, STACK, recipe.seed)
        self.classes = (q.codebooks, q.size) if self.quantiser else (1, recipe.clusters)  # labels a frame, of so many
        self.head = nn.Linear(recipe.encoder.width, self.classes[0] * self.classes[1])
        self.longest = recipe.longest_ms * recipe.mel.sample_rate // 1000
        lengths = np.minimum(self.corpus.lengths, self.longest)
        self.plan = Plan(lengths, recipe.batch_size, recipe.seed, recipe.accumulate)
        self.spoken = self._units_of(self.corpus, recipe.data)
        mean, scale = self._standard()
        self.mean: Tensor
        self.scale: Tensor
        self.register_buffer("mean", mean)  # (M, 1)
        self.register_buffer("scale", scale)  # (M, 1)

    def _units_of(self, corpus: Corpus, folders: tuple[str, ...]) -> list[dict[str, np.ndarray]]:
        """For each data set the units of its clips, frame by frame; none without units."""
        if not self.recipe.units:
            return []
        tables = []
        for folder in folders:
            rows = read_units(folder, self.recipe.units)
            table = {name: np.repeat(one.units, one.durations) for name, one in rows.items()}
            highest = max((int(frames.max()) for frames in table.values() if len(frames)), default=0)
            if highest >= self.recipe.clusters:
                raise DuologueError(f"{folder} has unit {highest}; clusters={self.recipe.clusters} has none such")
            tables.append(table)
        for index, meta in enumerate(corpus.metas):
            part, _ = corpus.place(index)
            if meta["id"] not in tables[part]:
                raise DuologueError(f"{folders[part]} has no units for clip {meta['id']}: prepare the units again")
        return tables

    @torch.no_grad()
    def _standard(self) -> tuple[Tensor, Tensor]:
        """Mean and deviation (M, 1) of each mel band, over some clips as they are."""
        picked = np.random.default_rng(self.recipe.seed).permutation(len(self.corpus))[:STANDARD_CLIPS]
        waves = (to_float(self.corpus[int(i)].pcm[: self.longest]) for i in picked)
        mels = torch.cat([self.mel(torch.from_numpy(wave)[None])[0] for wave in waves], dim=1)  # (M, all frames)
        return mels.mean(1, keepdim=True), mels.std(1, keepdim=True).clamp(min=1e-3)

    def parts(self) -> dict[str, nn.Module]:
        return {"encoder": self.encoder}

    def batch(self, number: int) -> Batch:
        epoch, items = self.plan(number)
        clips = []
        for item in items:
            rng = np.random.default_rng((self.recipe.seed, epoch, int(item)))
            wave, units = self._cut(self.corpus, self.spoken, int(item), rng)
            if self.augmentation is not None:
                wave = augment(wave, rng, self.augmentation.sound, self.noises)
            clips.append((wave, units))
        return self._batch(clips, np.random.default_rng((self.recipe.seed, number, 1)))

    def _cut(
        self, corpus: Corpus, spoken: list[dict[str, np.ndarray]], item: int, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """A clip, or as much of it as may be, from the beginning of a frame on; and its units, if there are any."""
        clip, hop = corpus[item], self.recipe.frame_samples
        start = int(rng.integers(0, max(0, len(clip.pcm) - self.longest) // hop + 1))
        wave = to_float(clip.pcm[start * hop : start * hop + self.longest])
        if not spoken:
            return wave, np.zeros(0, np.int64)
        return wave, spoken[corpus.place(item)[0]][clip.meta["id"]][start : start + len(wave) // hop]

    def _batch(self, clips: list[tuple[np.ndarray, np.ndarray]], rng: np.random.Generator) -> Batch:
        samples, lengths = pad([wave for wave, _ in clips])
        size = samples.shape[1] // self.recipe.frame_samples
        frames = lengths // self.recipe.frame_samples
        units = torch.zeros(len(clips), size, dtype=torch.long)
        if self.recipe.units:
            frames = torch.minimum(frames, torch.tensor([len(row) for _, row in clips]))
            for row, (_, known) in zip(units, clips, strict=True):
                row[: len(known)] = torch.from_numpy(known[:size])
        return {
            "samples": samples,  # (B, n)
            "lengths": lengths,
            "frames": frames.clamp(min=1),
            "units": units,  # (B, T)
            "offsets": random_offsets(self.recipe.encoder, size, len(clips), rng),
            "mask_seed": int(rng.integers(2**31)),
        }

    def forward(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        loss, right, _ = self.predict(batch)
        return loss, {"accuracy": right}

    def predict(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """The loss, the fraction of masked frames' labels that are found, and those labels (N, K)."""
        device, span = self.mean.device, self.recipe.mask_ms * self.recipe.mel.sample_rate // 1000
        with torch.no_grad():
            mel = (self.mel(batch["samples"]) - self.mean) / self.scale  # (B, M, T) at 100 Hz
            labels = batch["units"][..., None] if self.quantiser is None else self.quantiser(mel)  # (B, T', K)
            # Drawn on the CPU, so that a seed masks the same on any device.
            generator = torch.Generator().manual_seed(batch["mask_seed"])
            masked = span_mask(batch["frames"].cpu(), labels.shape[1], self.recipe.mask_chance,
                               span // self.recipe.frame_samples, generator).to(device)  # (B, T')  # fmt: skip
            noise = NOISE * torch.randn(mel.shape, generator=generator).to(device)
            mel = torch.where(masked.repeat_interleave(STACK, dim=1)[:, None], noise, mel) * self.scale + self.mean
        hidden = self.encoder(mel, offsets=batch["offsets"])  # (B, T', D) at 50 Hz
        logits = self.head(hidden[masked]).unflatten(-1, self.classes).float()  # (N, K, classes)
        wanted = labels[masked]  # (N, K)
        mile, counted = self.recipe.mile if self.training else 0.0, torch.ones(wanted.numel(), device=device)
        loss = cross_entropy(logits.flatten(0, 1), wanted.flatten(), counted, mile)
        return loss, (logits.detach().argmax(-1) == wanted).float().mean(), wanted

    @torch.no_grad()
    def evaluate(self) -> dict[str, float]:
        """On each held-out set, with masks that are always the same: loss, accuracy, perplexity of the labels."""
        metrics: dict[str, float] = {}
        for folder, (name, corpus) in zip(self.recipe.dev_data, dev_sets(self.recipe.dev_data), strict=True):
            spoken = self._units_of(corpus, (folder,))
            chosen = range(0, len(corpus), max(1, len(corpus) // DEV_CLIPS))
            losses, rights = [], []
            counts = torch.zeros(self.classes[1])
            for begin in range(0, len(chosen), 16):
                rng = np.random.default_rng((1, begin))
                clips = [self._cut(corpus, spoken, item, rng) for item in chosen[begin : begin + 16]]
                batch = self._batch(clips, rng)
                batch |= {key: value.to(self.mean.device) for key, value in batch.items() if isinstance(value, Tensor)}
                loss, right, wanted = self.predict(batch)
                losses.append(float(loss))
                rights.append(float(right))
                counts += torch.bincount(wanted[:, 0].cpu(), minlength=len(counts))
            metrics |= {f"loss_{name}": float(np.mean(losses)), f"accuracy_{name}": float(np.mean(rights)),
                        f"perplexity_{name}": float(perplexity(counts))}  # fmt: skip
        return metrics
