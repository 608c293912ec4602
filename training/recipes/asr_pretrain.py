"""Teach the encoder to hear. Learns the encoder; CTC on characters + attention on words.

The two heads serve the training alone: a linear layer for CTC (at the top, and with a smaller weight half-way, which
keeps the middle layers phonetic) and a small decoder over words that attends to the encoder's frames.

Source: joint CTC / attention, Watanabe et al., "Hybrid CTC/Attention Architecture for End-to-End Speech Recognition"
(IEEE JSTSP 2017), section III; intermediate CTC, Lee and Watanabe (arXiv 2102.03216), section 2.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from ...data_prep.datasets.question_sets import question_set
from ...data_prep.text.plain_text import spoken_words
from ...model.audio_encoder.mel import LogMel
from ...model.audio_encoder.whisper import sinusoids
from ..augment.spec import spec_augment
from ..data.characters import LABELS, ctc_batch, ctc_loss, greedy
from ..data.corpus import Plan, dev_sets, pad, to_float
from ..data.marked_turns import marked_tokens
from ..data.speech import SpeechRecipe, SpeechTask, random_offsets
from ..loop.task import Batch
from ..losses.error_rate import error_rate
from ..losses.mile import cross_entropy
from ..presets import preset
from ..recipe import CrossEntropyRecipe


@dataclass(frozen=True, kw_only=True)
class AsrPretrainRecipe(SpeechRecipe, CrossEntropyRecipe):
    """Loss weights of the stage."""

    questions: str = "nano"  # the question set whose words the decoder writes
    ctc_weight: float = 1.0
    middle_ctc_weight: float = 0.3
    attention_weight: float = 0.5

    @property
    def joins(self) -> tuple[str, ...]:
        return ("encoder",)

    def build(self) -> AsrPretrain:
        """The task of this recipe."""
        return AsrPretrain(self)


def recipe(name: str = "nano") -> AsrPretrainRecipe:
    """The stage's recipe, by the name of a preset."""
    return AsrPretrainRecipe(stage="asr_pretrain", out="runs/asr_pretrain", **preset(name, "asr_pretrain"))


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


class AsrPretrain(SpeechTask):
    """The encoder, its heads and its batches."""

    def __init__(self, recipe: AsrPretrainRecipe) -> None:
        super().__init__(recipe)
        self.recipe = recipe
        self.mel = LogMel(recipe.mel)
        self.encoder = recipe.encoder.build()
        dim = recipe.encoder.width
        self.ctc_head = nn.Linear(dim, LABELS)
        self.plan = Plan(self.corpus.lengths, recipe.batch_size, recipe.seed, recipe.accumulate)
        self.words = question_set(recipe.questions).token_ids()
        self.tokens = marked_tokens(recipe.questions)
        self.decoder = WordDecoder(len(self.words), dim, recipe.encoder.heads)

    def parts(self) -> dict[str, nn.Module]:
        return {"encoder": self.encoder, "ctc_head": self.ctc_head}  # the head: for a student (recipe distil)

    def batch(self, number: int) -> Batch:
        sound = None if self.augmentation is None else self.augmentation.sound
        batch, texts = ctc_batch(self.corpus, self.plan, number, self.recipe.seed, sound, self.noises)
        words = [[self.words["<bos>"], *self.tokens.encode(text), self.words["<eos>"]] for text in texts]
        word_ids = torch.full((len(words), max(len(ids) for ids in words)), self.words["<pad>"])
        for row, ids in zip(word_ids, words, strict=True):
            row[: len(ids)] = torch.tensor(ids)
        rng = np.random.default_rng((self.recipe.seed, number, 1))
        longest = batch["samples"].shape[1] // (2 * self.recipe.mel.hop)
        return batch | {
            "words": word_ids,
            "offsets": random_offsets(self.recipe.encoder, longest, len(texts), rng),
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
        return self.heads(batch)[2:]

    def heads(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor, dict[str, Tensor]]:
        """The logits (B, T, LABELS) of CTC at the top, the (B,) number of real frames, the loss, and its parts."""
        middle, top, frames = self.encode(batch)
        r = self.recipe
        labels, logits = (batch["labels"], batch["label_lengths"]), self.ctc_head(top)
        ctc = [ctc_loss(logits, frames, *labels), ctc_loss(self.ctc_head(middle), frames, *labels)]
        words = batch["words"]
        padded = torch.arange(top.shape[1], device=top.device) >= frames[:, None]
        written = self.decoder(words[:, :-1], top, padded)  # (B, L - 1, words)
        wanted = words[:, 1:].flatten()
        real = (wanted != self.words["<pad>"]).float()
        attention = cross_entropy(written.flatten(0, 1).float(), wanted, real, r.mile, label_smoothing=0.05)
        loss = r.ctc_weight * ctc[0] + r.middle_ctc_weight * ctc[1] + r.attention_weight * attention
        return logits, frames, loss, {"ctc": ctc[0].detach(), "attention": attention.detach()}

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
        for name, dev in dev_sets(self.recipe.dev_data):
            chosen = range(0, len(dev), max(1, len(dev) // 128))
            hypotheses = [
                text
                for i in range(0, len(chosen), 16)
                for text in self.transcribe([to_float(dev[j].pcm) for j in chosen[i : i + 16]])
            ]
            references = [spoken_words(dev[i].meta) for i in chosen]
            metrics[f"wer_{name}"] = error_rate([h.split() for h in hypotheses], [r.split() for r in references])
        return metrics
