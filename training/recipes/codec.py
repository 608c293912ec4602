"""A neural codec learns to carry sound in a few numbers a frame. Learns its encoder and its decoder.

Random crops of recordings, whatever is said in them. Spectral losses and the commitment of embeddings to the entries
they choose; with ``adversary=true`` discriminators join in after ``discriminator_after`` steps. The entries themselves
move by
averages (see codebooks.py). With several codebooks each step uses a random number of them, so that every bit rate is
learnt. A source-filter decoder also learns the pitch of the recordings, and is given it while it learns the rest. The
first ``quantise_after`` steps do without entries: a plain autoencoder. With ``learn=codec.decoder start=codec=RUN`` the
codes stay what they are in that run and their sound gets better: what was trained to write them still fits.

Source: Ji et al. 2024, "WavTokenizer" (arXiv 2408.16532), section 3; codebooks by turns: Zeghidour et al. 2021,
"SoundStream" (arXiv 2107.03312), section III-E.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ...model.codec.codec import Codec, CodecConfig, causal, published, waveform
from ...model.codec.quantiser import QuantiserConfig
from ...model.codec.spectral_encoder import SpectralEncoderConfig
from ...model.errors import DuologueError
from ...model.speech_decoder.source_filter import SourceFilter, SourceFilterConfig
from ..data.waveforms import Waveforms
from ..loop.task import AdversarialTask, Batch, Discriminator, Task
from ..losses.codebooks import CodebookConfig, Codebooks, perplexity
from ..losses.discriminators import DiscriminatorConfig, Discriminators
from ..losses.spectral import SpectralLoss, SpectralLossConfig, pitch_losses
from ..recipe import Recipe

PRESETS = ("published-75", "published-40", "causal-75", "causal-40", "nano-40")  # besides nano and tiny
KMEANS_BATCHES = 64  # at most, that k-means begins with

# 3.7 M parameters (7.0 MiB as float16), 74 frames a second, 67.5 ms behind the microphone.
NANO_CODEC = CodecConfig(
    sample_rate=16000,
    encoder=SpectralEncoderConfig(dim=64, hop=216),
    quantiser=QuantiserConfig(dim=64),
    decoder=SourceFilterConfig(ffn_dim=512, ahead=4, hop=216, n_fft=512, pitch_dim=64),
)
# The same at 40 frames a second, 75 ms behind the microphone.
NANO_CODEC_40 = replace(
    NANO_CODEC,
    encoder=SpectralEncoderConfig(dim=64, hop=400),
    decoder=SourceFilterConfig(ffn_dim=512, ahead=2, hop=400, n_fft=640, pitch_dim=64),
)
# As published (section 3.4), at 24 kHz.
PUBLISHED_SPECTRAL = SpectralLossConfig(
    sample_rate=24000, windows=(1024,), n_mels=100, mel_weight=45.0, magnitude_weight=0.0, convergence_weight=0.0
)
PUBLISHED_DISCRIMINATORS = DiscriminatorConfig(
    scales=3, resolutions=(2048, 1024, 512), hinge=True, feature_weight=1.0, adversarial_weight=1.0
)
NANO_CODEBOOKS = CodebookConfig()
NANO_SPECTRAL = SpectralLossConfig(windows=(1024, 256), band_weight=5.0)
NANO_DISCRIMINATORS = DiscriminatorConfig(
    channels=8, max_channels=64, periods=(2, 3, 5), scales=1, resolutions=(512,), hinge=True, feature_weight=2.0
)


@dataclass(frozen=True, kw_only=True)
class CodecRecipe(Recipe):
    """Data, sizes and loss weights of the stage."""

    data: tuple[str, ...]
    fractions: tuple[float, ...] = ()  # how often each data set is drawn from; by its length if not given
    dev_data: tuple[str, ...] = ()
    codec: CodecConfig = NANO_CODEC
    codebooks: CodebookConfig = NANO_CODEBOOKS
    crop_ms: int = 1000
    gain_db: tuple[float, float] = (-12.0, 6.0)  # crops are made softer or louder by so much
    spectral: SpectralLossConfig = NANO_SPECTRAL
    commitment_weight: float = 1.0
    pitch_weight: float = 5.0  # of a source-filter decoder: mean distance of log pitches where there is a voice
    voicing_weight: float = 0.5  # of the same: cross-entropy of whether there is one
    quantise_after: int = 0  # steps as a plain autoencoder: its embeddings are what the entries begin from
    adversary: bool = False
    discriminator_after: int = 0  # steps with spectral losses alone
    discriminator: DiscriminatorConfig = NANO_DISCRIMINATORS

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.spectral.sample_rate != self.codec.sample_rate:
            raise DuologueError(
                f"spectral.sample_rate is {self.spectral.sample_rate}; it must be the codec's, {self.codec.sample_rate}"
            )
        if self.crop < max(self.spectral.windows):
            raise DuologueError(
                f"crop_ms is {self.crop_ms}, {self.crop} samples; the losses' windows are {self.spectral.windows}"
            )
        if len(self.gain_db) != 2 or self.gain_db[0] > self.gain_db[1]:
            raise DuologueError(f"gain_db is {self.gain_db}; it must be the least and the most, for example -12,6")

    @property
    def crop(self) -> int:
        """Samples a crop, whole frames."""
        c = self.codec
        return self.crop_ms * c.sample_rate // (1000 * c.hop) * c.hop

    def build(self) -> Task:
        """The task of this recipe."""
        return AdversarialCodec(self) if self.adversary else CodecTask(self)


def recipe(preset: str = "nano") -> CodecRecipe:
    """The stage's recipe: ``nano`` (74 frames a second) or ``nano-40``, the published and the causal codecs at 24 kHz,
    or ``tiny`` for a test on a CPU."""
    base = CodecRecipe(
        stage="codec",
        out="runs/codec",
        learn=("codec",),
        data=("work/recordings_speech",),
        steps=9000,
        batch_size=16,
        lr=2e-3,
        warmup=200,
        optimiser="muon",
        quantise_after=200,
        betas=(0.8, 0.99),
        weight_decay=0.0,
        clip=10.0,
        precision="bf16",
        save_every=500,
    )
    if preset == "tiny":
        encoder = SpectralEncoderConfig(dim=16, width=32, ffn_dim=64, layers=2, hop=240)
        decoder = SourceFilterConfig(dim=64, ffn_dim=128, layers=2, ahead=4, hop=240, pitch_dim=16)
        codec = CodecConfig(sample_rate=16000, encoder=encoder, quantiser=QuantiserConfig(dim=16, size=64),
                            decoder=decoder)  # fmt: skip
        return replace(base, codec=codec, crop_ms=300, batch_size=8, steps=100, warmup=10, lr=3e-3, precision="no",
                       optimiser="adamw", quantise_after=0, codebooks=CodebookConfig(dead_after=10),
                       gain_db=(0.0, 0.0), workers=0, save_every=100)  # fmt: skip
    if preset == "nano-40":
        return replace(base, codec=NANO_CODEC_40)
    if preset in PRESETS:
        kind, _, rate = preset.partition("-")
        codec = published(int(rate)) if kind == "published" else causal(int(rate))
        return replace(
            base, codec=codec, crop_ms=3000, batch_size=40, steps=1_000_000, lr=2e-4, warmup=0, adversary=True,
            clip=1e3, gain_db=(0.0, 0.0), spectral=PUBLISHED_SPECTRAL, discriminator=PUBLISHED_DISCRIMINATORS,
            commitment_weight=1000.0,
            codebooks=CodebookConfig(kmeans_iterations=200), workers=8, save_every=5000, optimiser="adamw",
            quantise_after=0,
        )  # fmt: skip
    return base


class CodecTask(Task):
    """The codec, its losses and its batches."""

    def __init__(self, recipe: CodecRecipe) -> None:
        super().__init__()
        torch.manual_seed(recipe.seed)
        self.recipe = recipe
        self.codec = Codec(recipe.codec)
        self.averages = Codebooks(recipe.codec.quantiser, recipe.codebooks, recipe.accumulate, recipe.seed)
        self.spectral = SpectralLoss(recipe.spectral)
        self.data = self._open(recipe.data, recipe.fractions)
        self.dev = {folder.rstrip("/").split("/")[-1]: self._open((folder,), ()) for folder in recipe.dev_data}

    def _open(self, folders: tuple[str, ...], fractions: tuple[float, ...]) -> Waveforms:
        return Waveforms(folders, self.recipe.codec.sample_rate, self.recipe.crop, fractions)

    def parts(self) -> dict[str, nn.Module]:
        return {"codec": self.codec}

    def stays(self, name: str) -> bool:
        return name.startswith("codec.quantiser.")  # moved by averages

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
        """Samples (count, n), and their pitch (count, n / piece) where the decoder has one."""
        places, decoder = data.places(rng, count), self.recipe.codec.decoder
        batch: Batch = {"samples": data.samples(places, rng, gain_db)}
        if isinstance(decoder, SourceFilterConfig):
            batch["pitch"] = data.pitch(places, decoder.hop // decoder.pieces)
        return batch

    def forward(self, batch: Batch) -> Any:
        loss, metrics, _ = self.carry(batch)
        return loss, metrics

    def carry(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor], Tensor]:
        """The loss without a rival, its figures, and what the decoder makes of (B, n): samples (B, n)."""
        samples = batch["samples"]
        if not self.learns_codes:
            embedding = self.codec.quantiser.decode(self.codec.encode(samples, batch["codebooks"] or None))
            return self._compare(embedding, batch)
        embedding = self.codec.encoder(samples[:, None])  # (B, D, T)
        if not batch["codebooks"]:
            return self._compare(embedding, batch)
        if self.training and not self.averages.initialised:
            self._initialise(samples.device)
        quantised, commitment = self.averages.quantise(self.codec.quantiser, embedding, batch["codebooks"])
        loss, metrics, made = self._compare(quantised, batch)
        metrics = {**metrics, "commitment": commitment.detach(), **self.averages.metrics()}
        return loss + self.recipe.commitment_weight * commitment, metrics, made

    def _compare(self, embedding: Tensor, batch: Batch) -> tuple[Tensor, dict[str, Tensor], Tensor]:
        """Embeddings (B, D, T) -> the losses of what the decoder makes of them, and that: samples (B, n)."""
        decoder = self.codec.decoder
        if not isinstance(decoder, SourceFilter):
            made = waveform(decoder(embedding))
            return *self.spectral(made, batch["samples"]), made
        controls = decoder.controls(embedding)
        pitch, voicing = pitch_losses(controls, batch["pitch"])
        made = waveform(decoder.sound(controls, batch["pitch"]))
        loss, metrics = self.spectral(made, batch["samples"])
        loss = loss + self.recipe.pitch_weight * pitch + self.recipe.voicing_weight * voicing
        return loss, {**metrics, "pitch": pitch.detach(), "voicing": voicing.detach()}, made

    @property
    def learns_codes(self) -> bool:
        """Whether the encoder learns, and the entries with it."""
        return any(parameter.requires_grad for parameter in self.codec.encoder.parameters())

    @torch.no_grad()
    def _initialise(self, device: torch.device) -> None:
        """K-means of the untrained encoder's embeddings: where the entries begin."""
        wanted = self.recipe.codebooks.kmeans_vectors * self.recipe.codec.quantiser.size
        vectors: list[Tensor] = []
        while sum(map(len, vectors)) < wanted and len(vectors) < KMEANS_BATCHES:
            rng = np.random.default_rng((self.recipe.seed, len(vectors), 2))
            crops = self.data.crops(rng, self.recipe.batch_size, self.recipe.gain_db).to(device)
            vectors.append(self.codec.encoder(crops[:, None]).transpose(1, 2).flatten(0, 1).float())
        self.averages.initialise(self.codec.quantiser, torch.cat(vectors))

    @torch.no_grad()
    def evaluate(self) -> dict[str, float]:
        """On fixed crops of each held-out set: the losses, and which entries they need."""
        metrics: dict[str, float] = {}
        if self.learns_codes and not self.averages.initialised:
            return metrics
        device, codebooks = self.codec.quantiser.entries.device, self.recipe.codec.quantiser.codebooks
        for name, data in self.dev.items():
            counts = torch.zeros(self.recipe.codec.quantiser.size)
            sums: dict[str, float] = {}
            for i in range(8):
                crops = self._crops(data, np.random.default_rng((1, i)), self.recipe.batch_size)
                batch = {key: value.to(device) for key, value in crops.items()}
                _, measured, _ = self.carry(batch | {"codebooks": codebooks})
                for key in measured.keys() & {"mel", "magnitude", "band", "pitch", "voicing"}:
                    sums[key] = sums.get(key, 0.0) + float(measured[key]) / 8
                codes = self.codec.encode(batch["samples"], codebooks=1).flatten()
                counts += torch.bincount(codes.cpu(), minlength=len(counts))
            metrics |= {f"{key}_{name}": value for key, value in sums.items()}
            metrics[f"used_{name}"] = float((counts > 0).sum())
            metrics[f"perplexity_{name}"] = float(perplexity(counts))
        return metrics


class AdversarialCodec(CodecTask, AdversarialTask):
    """The same with discriminators."""

    def __init__(self, recipe: CodecRecipe) -> None:
        super().__init__(recipe)
        self.discriminator_after = recipe.discriminator_after

    def make_discriminator(self) -> Discriminator:
        torch.manual_seed(self.recipe.seed + 1)
        return Discriminators(self.recipe.discriminator)

    def forward(self, batch: Batch) -> Any:
        loss, metrics, made = self.carry(batch)
        return loss, metrics, made, batch["samples"]
