"""A neural codec learns to carry sound in a few numbers a frame. Learns its encoder and its decoder.

Random crops of recordings, whatever is said in them. Spectral losses and the commitment of embeddings to the entries
they choose; with ``adversary=true`` discriminators join in after ``discriminator_after`` steps. The entries themselves
move by averages (see codebooks.py); finite scalar quantisation learns by gradients as all else. With several codebooks
each step uses a random number of them, so that every bit rate is learnt. With ``semantic.encoder=…
learn=codec,semantic.head`` a speech encoder's frames are predicted from the quantised embeddings (see semantic.py). A
source-filter decoder also learns the pitch of the recordings and how much of each band is periodic, and is given both
while it learns the rest. The first ``quantise_after`` steps do without entries, or without rounding.
With ``learn=codec.decoder start=codec=RUN`` the codes stay what they are in that run and their sound gets better: what
was trained to write them still fits.

Source: Ji et al. 2024, "WavTokenizer" (arXiv 2408.16532), section 3; codebooks by turns: Zeghidour et al. 2021,
"SoundStream" (arXiv 2107.03312), section III-E.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from ...model.codec.codec import Codec, CodecConfig, waveform
from ...model.codec.finite_scalar import FiniteScalarQuantiser
from ...model.codec.quantiser import Quantiser
from ...model.errors import DuologueError
from ...model.speech_decoder.source_filter import SourceFilter, SourceFilterConfig
from ..data.waveforms import Waveforms
from ..loop.task import Batch
from ..losses.codebooks import CodebookConfig, Codebooks, perplexity
from ..losses.semantic import SemanticConfig, SemanticLoss
from ..losses.waveform import WaveformRecipe, WaveformTask
from ..presets import preset

KMEANS_BATCHES = 64  # at most, that k-means begins with
SHARPNESS = 0.5  # of fractions: a voice with less noise than was measured is nearer to it by STOI, PESQ and DNSMOS
SHOWN = {"mel", "magnitude", "band", "pitch", "voicing", "periodicity", "perceptual", "semantic"}  # of held-out sets
EPS = 1e-3  # periodic fractions are at least it, at most one less it


@dataclass(frozen=True, kw_only=True)
class CodecRecipe(WaveformRecipe):
    """Sizes and loss weights of the stage."""

    fractions: tuple[float, ...] = ()  # how often each data set is drawn from; by its length if not given
    codec: CodecConfig
    codebooks: CodebookConfig
    semantic: SemanticConfig = field(default_factory=SemanticConfig)  # a frozen speech encoder's frames, predicted
    crop_ms: int = 1000
    tracker: str = "autocorrelation"  # of the recordings' pitch, which a source-filter decoder learns; or pyin
    gain_db: tuple[float, float] = (-12.0, 6.0)  # crops are made softer or louder by so much
    commitment_weight: float = 1.0
    quantise_after: int = 0  # steps as a plain autoencoder: its embeddings are what the entries begin from

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_rate(self.codec.sample_rate, "codec")
        if self.crop < max(self.spectral.windows):
            raise DuologueError(
                f"crop_ms is {self.crop_ms}, {self.crop} samples; the losses' windows are {self.spectral.windows}"
            )
        if self.semantic.encoder and set(self.learn) != {"codec", "semantic.head"}:
            raise DuologueError(
                f"learn is {','.join(self.learn)}; with semantic.encoder, which the codes learn from, it must be "
                "codec,semantic.head"
            )
        if len(self.gain_db) != 2 or self.gain_db[0] > self.gain_db[1]:
            raise DuologueError(f"gain_db is {self.gain_db}; it must be the least and the most, for example -12,6")

    @property
    def crop(self) -> int:
        """Samples a crop, whole frames."""
        c = self.codec
        return self.crop_ms * c.sample_rate // (1000 * c.hop) * c.hop

    def build(self) -> CodecTask:
        """The task of this recipe."""
        return CodecTask(self)


def recipe(name: str = "nano") -> CodecRecipe:
    """The stage's recipe, by the name of a preset."""
    return CodecRecipe(stage="codec", out="runs/codec", **preset(name, "codec"))


class CodecTask(WaveformTask):
    """The codec, its losses and its batches."""

    def __init__(self, recipe: CodecRecipe) -> None:
        super().__init__(recipe)
        self.recipe = recipe
        self.codec = Codec(recipe.codec)
        self.averages: Codebooks | None = None
        if not recipe.codec.quantiser.levels:
            self.averages = Codebooks(recipe.codec.quantiser, recipe.codebooks, recipe.accumulate, recipe.seed)
        self.semantic: SemanticLoss | None = None
        if recipe.semantic.encoder:
            self.semantic = SemanticLoss(recipe.semantic, recipe.codec.quantiser.dim, recipe.codec.sample_rate)
        self.data = self._open(recipe.data, recipe.fractions)
        self.dev = {folder.rstrip("/").split("/")[-1]: self._open((folder,), ()) for folder in recipe.dev_data}

    def _open(self, folders: tuple[str, ...], fractions: tuple[float, ...]) -> Waveforms:
        return Waveforms(folders, self.recipe.codec.sample_rate, self.recipe.crop, fractions, self.recipe.tracker)

    def parts(self) -> dict[str, nn.Module]:
        return {"codec": self.codec}

    def stays(self, name: str) -> bool:
        return self.averages is not None and name.startswith("codec.quantiser.")  # moved by averages

    def moves(self, name: str) -> bool:
        return self.stays(name) and self.learns_codes

    def batch(self, number: int) -> Batch:
        recipe = self.recipe
        crops = self._crops(self.data, np.random.default_rng((recipe.seed, number)), recipe.batch_size, recipe.gain_db)
        # The same for all batches of a step, whose choices go into one update.
        step = np.random.default_rng((recipe.seed, number // recipe.accumulate, 1))
        codebooks = int(step.integers(1, recipe.codec.quantiser.codebooks + 1))
        return crops | {"codebooks": codebooks if number // recipe.accumulate >= recipe.quantise_after else 0}

    def _crops(
        self, data: Waveforms, rng: np.random.Generator, count: int, gain_db: tuple[float, float] = (0.0, 0.0)
    ) -> Batch:
        """Samples (count, n), and where the decoder has them their pitch and periodicity (count, n / piece, ·)."""
        places, decoder = data.places(rng, count), self.recipe.codec.decoder
        batch: Batch = {"samples": data.samples(places, rng, gain_db)}
        if isinstance(decoder, SourceFilterConfig):
            batch["pitch"], fractions = data.voice(places, decoder.hop // decoder.pieces, decoder.bands or 0)
            if decoder.bands:
                batch["periodic"] = fractions**SHARPNESS
        return batch

    def make(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor], Tensor]:
        samples = batch["samples"]
        if not self.learns_codes:
            embedding = self.codec.quantiser.decode(self.codec.encode(samples, batch["codebooks"] or None))
            return self._compare(embedding, batch)
        embedding = self.codec.encoder(samples[:, None])  # (B, D, T)
        if self.averages is not None and not batch["codebooks"]:
            return self._compare(embedding, batch)
        quantised, extra, measured = self._quantised(embedding, batch["codebooks"])
        loss, metrics, made = self._compare(quantised, batch)
        if self.semantic is not None:
            predicted = self.semantic(quantised, samples)
            extra, measured["semantic"] = extra + self.recipe.semantic.weight * predicted, predicted.detach()
        return loss + extra, {**metrics, **measured}, made

    def _quantised(self, embedding: Tensor, codebooks: int) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Embeddings (B, D, T) -> their quantised form (B, D, T), what the loss gains by it, and metrics."""
        quantiser = self.codec.quantiser
        if isinstance(quantiser, FiniteScalarQuantiser):
            quantised, codes = quantiser.straight_through(embedding, rounded=codebooks > 0)
            counts = torch.bincount(codes.flatten(), minlength=quantiser.config.size)
            return quantised, embedding.new_zeros((), dtype=torch.float32), {"perplexity": perplexity(counts)}
        assert self.averages is not None
        if self.training and not self.averages.initialised:
            self._initialise(embedding.device)
        quantised, commitment = self.averages.quantise(quantiser, embedding, codebooks)
        metrics = {"commitment": commitment.detach(), **self.averages.metrics()}
        return quantised, self.recipe.commitment_weight * commitment, metrics

    def _compare(self, embedding: Tensor, batch: Batch) -> tuple[Tensor, dict[str, Tensor], Tensor]:
        """Embeddings (B, D, T) -> the losses of what the decoder makes of them, and that: samples (B, n)."""
        decoder = self.codec.decoder
        if not isinstance(decoder, SourceFilter):
            made = waveform(decoder(embedding))
            return *self.compare(made, batch["samples"]), made
        controls = decoder.controls(embedding)
        fractions = batch.get("periodic")
        logits = None if fractions is None else fractions.logit(eps=EPS)
        made = waveform(decoder.sound(controls, batch["pitch"], periodic=logits))
        loss, metrics = self.compare(made, batch["samples"])
        loss, pitch = self.pitch_loss(loss, controls, batch["pitch"], fractions)
        return loss, {**metrics, **pitch}, made

    @property
    def learns_codes(self) -> bool:
        """Whether the encoder learns, and the entries with it."""
        return any(parameter.requires_grad for parameter in self.codec.encoder.parameters())

    @torch.no_grad()
    def _initialise(self, device: torch.device) -> None:
        """K-means of the untrained encoder's embeddings: where the entries begin."""
        quantiser = self.codec.quantiser
        assert self.averages is not None and isinstance(quantiser, Quantiser)
        wanted = self.recipe.codebooks.kmeans_vectors * self.recipe.codec.quantiser.size
        vectors: list[Tensor] = []
        while sum(map(len, vectors)) < wanted and len(vectors) < KMEANS_BATCHES:
            rng = np.random.default_rng((self.recipe.seed, len(vectors), 2))
            crops = self.data.crops(rng, self.recipe.batch_size, self.recipe.gain_db).to(device)
            vectors.append(self.codec.encoder(crops[:, None]).transpose(1, 2).flatten(0, 1).float())
        self.averages.initialise(quantiser, torch.cat(vectors))

    @torch.no_grad()
    def evaluate(self) -> dict[str, float]:
        """On fixed crops of each held-out set: the losses, and which entries they need."""
        metrics: dict[str, float] = {}
        if self.learns_codes and self.averages is not None and not self.averages.initialised:
            return metrics
        device, codebooks = next(self.codec.parameters()).device, self.recipe.codec.quantiser.codebooks
        for name, data in self.dev.items():
            counts = torch.zeros(self.recipe.codec.quantiser.size)
            sums: dict[str, float] = {}
            for i in range(8):
                crops = self._crops(data, np.random.default_rng((1, i)), self.recipe.batch_size)
                batch = {key: value.to(device) for key, value in crops.items()}
                _, measured, _ = self.make(batch | {"codebooks": codebooks})
                for key in measured.keys() & SHOWN:
                    sums[key] = sums.get(key, 0.0) + float(measured[key]) / 8
                codes = self.codec.encode(batch["samples"], codebooks=1).flatten()
                counts += torch.bincount(codes.cpu(), minlength=len(counts))
            metrics |= {f"{key}_{name}": value for key, value in sums.items()}
            metrics[f"used_{name}"] = float((counts > 0).sum())
            metrics[f"perplexity_{name}"] = float(perplexity(counts))
        return metrics
