"""Teach the encoder to hear. Learns the encoder; CTC on characters + attention on words.

The two heads serve the training alone: a linear layer for CTC (at the top, and with a smaller weight half-way, which
keeps the middle layers phonetic) and a small decoder over words that attends to the encoder's frames.

Source: joint CTC / attention, Watanabe et al., "Hybrid CTC/Attention Architecture for End-to-End Speech Recognition"
(IEEE JSTSP 2017), section III; intermediate CTC, Lee and Watanabe (arXiv 2102.03216), section 2.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...data_prep.nano.vocabulary import token_ids
from ...model.audio_encoder.mel import LogMel, LogMelConfig
from ...model.audio_encoder.whisper import sinusoids
from ...model.errors import DuologueError
from ...model.speech_lm_config import EncoderConfig, build_encoder
from ..augment.spec import spec_augment
from ..data.characters import LABELS, ctc_batch, ctc_loss, greedy
from ..data.corpus import Corpus, Plan, pad, to_float
from ..data.turns import encode
from ..loop.task import Batch, Task
from ..loop.throughput import StepCost, speech_load
from ..losses.error_rate import error_rate
from ..presets.nano import NANO_ENCODER, NANO_MEL, augmentation_of
from ..recipe import Recipe


@dataclass(frozen=True, kw_only=True)
class AsrPretrainRecipe(Recipe):
    """Data, sizes and loss weights of the stage."""

    data: tuple[str, ...]
    dev_data: tuple[str, ...] = ()
    noises: str | None = None  # a prepared set of recorded noise for the augmentation
    mel: LogMelConfig = NANO_MEL
    encoder: EncoderConfig = NANO_ENCODER
    ctc_weight: float = 1.0
    middle_ctc_weight: float = 0.3
    attention_weight: float = 0.5
    augment: str = "light"  # none | light | voices | full: how clips are disguised on the fly
    dropout: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        augmentation_of(self.augment)
        if not self.dropout < 1:
            raise DuologueError(f"dropout is {self.dropout}; it must be below 1")

    def build(self) -> AsrPretrain:
        """The task of this recipe."""
        return AsrPretrain(self)


def recipe(preset: str = "nano") -> AsrPretrainRecipe:
    """The stage's recipe: ``nano``, or ``tiny`` for a test on a CPU."""
    base = AsrPretrainRecipe(
        stage="asr_pretrain",
        out="runs/asr_pretrain",
        learn=("encoder", "ctc_head", "decoder"),
        data=("work/questions",),
        dev_data=("work/dev_questions",),
        steps=14000,
        batch_size=32,
        lr=2e-3,
        warmup=500,
        optimiser="muon",
        precision="bf16",
    )
    if preset == "tiny":
        tiny = replace(NANO_ENCODER, n_audio_state=64, n_audio_head=2, n_audio_layer=2)
        return replace(base, encoder=tiny, dev_data=(), steps=300, batch_size=8, warmup=20, augment="none",
                       precision="no", workers=0, save_every=300)  # fmt: skip
    return base


class WordDecoder(nn.Module):
    """A small attention decoder over words: (B, L) ids and (B, T, D) frames -> (B, L, words)."""

    def __init__(self, words: int, dim: int, heads: int, layers: int = 2) -> None:
        super().__init__()
        self.embedding = nn.Embedding(words, dim)
        layer = nn.TransformerDecoderLayer(dim, heads, 2 * dim, 0.1, batch_first=True, norm_first=True)
        self.layers = nn.TransformerDecoder(layer, layers, norm=nn.LayerNorm(dim))
        self.head = nn.Linear(dim, words)

    def forward(self, ids: Tensor, frames: Tensor, padded: Tensor) -> Tensor:
        x = self.embedding(ids)
        x = x + sinusoids(torch.arange(ids.shape[1], device=ids.device), x.shape[-1]).to(x.dtype)
        causal = nn.Transformer.generate_square_subsequent_mask(ids.shape[1], device=ids.device) < 0
        x = self.layers(x, frames, tgt_mask=causal, memory_key_padding_mask=padded, tgt_is_causal=True)
        return self.head(x)


class AsrPretrain(Task):
    """The encoder, its heads and its batches."""

    def __init__(self, recipe: AsrPretrainRecipe) -> None:
        super().__init__()
        torch.manual_seed(recipe.seed)
        self.recipe = recipe
        self.mel = LogMel(recipe.mel)
        self.encoder = build_encoder(recipe.encoder)
        dim = recipe.encoder.width
        self.ctc_head = nn.Linear(dim, LABELS)
        self.corpus = Corpus(recipe.data)
        self.plan = Plan(self.corpus.lengths, recipe.batch_size, recipe.seed, recipe.accumulate)
        self.words = token_ids()
        self.decoder = WordDecoder(len(self.words), dim, recipe.encoder.heads)
        self.augmentation = augmentation_of(recipe.augment)
        noise = None if recipe.noises is None else Corpus((recipe.noises,))
        self.noises = [] if noise is None else [to_float(noise[i].pcm) for i in range(len(noise))]

    def parts(self) -> dict[str, nn.Module]:
        return {"encoder": self.encoder}

    def load_of(self, batch: Batch) -> StepCost:
        return speech_load(batch["lengths"], batch["samples"], self.recipe.mel.sample_rate)

    def batch(self, step: int) -> Batch:
        sound = None if self.augmentation is None else self.augmentation.sound
        batch, texts = ctc_batch(self.corpus, self.plan, step, self.recipe.seed, sound, self.noises)
        words = [[self.words["<bos>"], *encode(text), self.words["<eos>"]] for text in texts]
        word_ids = torch.full((len(words), max(len(ids) for ids in words)), self.words["<pad>"])
        for row, ids in zip(word_ids, words, strict=True):
            row[: len(ids)] = torch.tensor(ids)
        rng = np.random.default_rng((self.recipe.seed, step, 1))
        longest = batch["samples"].shape[1] // (2 * self.recipe.mel.hop)
        room = max(1, self.recipe.encoder.positions - longest)
        return batch | {
            "words": word_ids,
            "offsets": torch.from_numpy(rng.integers(0, room, len(texts))),
            "mask_seed": int(rng.integers(2**31)),
        }

    def encode(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """The encoder's frames half-way (B, T, D), its frames at the top, and the (B,) number of real frames."""
        with torch.no_grad():
            mel = self.mel(batch["samples"])  # (B, M, T) at 100 Hz
            mel_lengths = batch["lengths"] // self.recipe.mel.hop
            if self.training and self.augmentation is not None:
                generator = torch.Generator().manual_seed(batch["mask_seed"])
                mel = spec_augment(mel, mel_lengths, generator, self.augmentation.masks)
        kept: list[Tensor] = []
        middle = self.encoder.blocks[(len(self.encoder.blocks) + 1) // 2 - 1]
        hook = middle.register_forward_hook(lambda module, args, output: kept.append(output))
        top = self.encoder(mel, offsets=batch["offsets"])
        hook.remove()
        return kept[0], top, mel_lengths // 2

    def forward(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        middle, top, frames = self.encode(batch)
        r = self.recipe
        labels = batch["labels"], batch["label_lengths"]
        ctc = [ctc_loss(self.ctc_head(x), frames, *labels) for x in (top, middle)]
        words = batch["words"]
        padded = torch.arange(top.shape[1], device=top.device) >= frames[:, None]
        logits = self.decoder(words[:, :-1], top, padded)  # (B, L - 1, words)
        attention = F.cross_entropy(
            logits.flatten(0, 1).float(), words[:, 1:].flatten(), ignore_index=self.words["<pad>"], label_smoothing=0.05
        )
        loss = r.ctc_weight * ctc[0] + r.middle_ctc_weight * ctc[1] + r.attention_weight * attention
        return loss, {"ctc": ctc[0].detach(), "attention": attention.detach()}

    @torch.no_grad()
    def transcribe(self, waves: list[np.ndarray]) -> list[str]:
        """Greedy CTC transcripts of whole clips."""
        samples, lengths = pad(waves)
        device = self.ctc_head.weight.device
        top = self.encoder(self.mel(samples.to(device)))
        return greedy(self.ctc_head(top), lengths // (2 * self.recipe.mel.hop))

    def evaluate(self) -> dict[str, float]:
        """Word error rate of greedy CTC on each held-out set."""
        metrics = {}
        for folder in self.recipe.dev_data:
            dev = Corpus((folder,))
            chosen = range(0, len(dev), max(1, len(dev) // 128))
            hypotheses = [
                text
                for i in range(0, len(chosen), 16)
                for text in self.transcribe([to_float(dev[j].pcm) for j in chosen[i : i + 16]])
            ]
            references = [dev[i].meta["text"] for i in chosen]
            name = f"wer_{folder.rstrip('/').split('/')[-1]}"
            metrics[name] = error_rate([h.split() for h in hypotheses], [r.split() for r in references])
        return metrics
