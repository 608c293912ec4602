"""Teach an adaptor to hear the language model's tokens by CTC. Learns the adaptor; no pass through the language model.

Any encoder (``encoder=FOLDER``), any language model (``llm=FOLDER``), of which only the tokenizer and the input
embeddings are used. The adaptor hears ``adaptor.vocab`` tokens, chosen from what is said in the data (vocabulary.py);
its loss is CTC of the clips' words in them, and of a clip without words blanks alone. The word error rate is that of
the best label of each frame, of whole clips, and with ``window.*`` also of clips heard through the window that an
encoder of whole clips has in use. Most of a step is the frozen encoder's: with ``echo=4`` what it makes of a batch is
learnt from four times, each time masked anew; with ``pool=512`` the steps go round 512 such batches, whose frames are
kept in bfloat16, so that the four lie far apart: in a pool of few clips they are learnt by heart.

Sources: LegoSLM (arXiv 2505.11352), section 3; data echoing, Choi et al. (arXiv 1907.05550), section 2, and its
shuffled buffer, section 3.4; masks on the frames after SpecAugment (arXiv 1904.08779), section 2.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby, pairwise
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...checkpoints.parts import read_embeddings
from ...checkpoints.source import resolve
from ...checkpoints.store import load_tokenizer
from ...model.adaptor.ctc import STRIDE, CTCAdaptorConfig
from ...model.audio_encoder.mel import LogMel
from ...model.audio_encoder.windowed import WindowConfig, WindowedEncoder
from ...model.decoding.labels import Labels
from ...model.errors import DuologueError
from ...model.speech_lm_config import AdaptorConfig
from ..augment.augment import augment
from ..augment.spec import SpecAugmentConfig, spec_augment
from ..data.chat_tokens import shape_of
from ..data.corpus import Plan, dev_sets, pad, to_float
from ..data.speech import SpeechRecipe, SpeechTask, random_offsets
from ..data.vocabulary import choose_tokens, words_of
from ..loop.parts import load_parts
from ..loop.task import Batch
from ..loop.throughput import StepCost
from ..losses.error_rate import error_rate
from ..presets import preset


@dataclass(frozen=True, kw_only=True)
class CTCAdaptorRecipe(SpeechRecipe):
    """Whose tokens, which of them, and what is masked."""

    adaptor: CTCAdaptorConfig
    llm: dict[str, Any]
    tokenizer: str | None = None  # folder whose tokens are heard: that of llm=
    source: str = ""  # folder whose input embeddings they are compared with: that of llm=
    rare: int = 3  # a token that the data has fewer times is spelt by others
    longest_s: float = 20.0  # longer clips are left out
    # What is masked of the encoder's frames: "mels" are their dimensions, and time is at 50 Hz.
    frame_masks: SpecAugmentConfig = field(
        default_factory=lambda: SpecAugmentConfig(mel_masks=0, mel_width=0, time_masks=2, time_width=15)
    )
    echo: int = 1  # steps that learn from the same frames of a frozen encoder
    pool: int = 1  # batches whose frames are kept, and round which the steps go; 1: the echoes follow each other
    window: WindowConfig | None = None  # through which held-out clips are heard as well
    dev_clips: int = 128  # of each held-out set

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_least(1, "rare", "echo", "pool", "dev_clips")
        if self.echo > 1 and any(prefix.startswith("encoder") for prefix in self.learn):
            raise DuologueError(f"echo is {self.echo}, but the encoder learns, so that its frames change; it must be 1")
        if self.pool > 1 and self.echo == 1:
            raise DuologueError(f"pool is {self.pool}, but echo is 1, so that no batch serves twice; try echo=4")

    @property
    def joins(self) -> tuple[str, ...]:
        return ("llm", "encoder", "adaptor")

    def fitted(self) -> CTCAdaptorRecipe:
        """The language model is no part of the task: its folder is a setting.

        Raises:
            DuologueError: an adaptor of another kind.
        """
        adaptor: AdaptorConfig = self.adaptor
        if not isinstance(adaptor, CTCAdaptorConfig):
            raise DuologueError(f"recipe {self.stage} trains an adaptor of kind ctc; that of adaptor= is {adaptor}")
        llm = [entry.partition("=")[2] for entry in self.start if entry.startswith("llm=")]
        start = tuple(entry for entry in self.start if not entry.startswith("llm="))
        width = shape_of(self.llm)[0] if self.llm else self.adaptor.out_dim
        adaptor = replace(adaptor, in_dim=self.encoder.width, out_dim=width)
        return replace(self, start=start, source=llm[0] if llm else self.source, adaptor=adaptor)

    def build(self) -> CTCAdaptorTask:
        """The task of this recipe.

        Raises:
            DuologueError: there is no language model.
        """
        self.check_source()
        return CTCAdaptorTask(self)

    def check_source(self) -> None:
        """Raises DuologueError where there is no language model."""
        if not self.source or self.tokenizer is None:
            raise DuologueError(f"recipe {self.stage} needs llm=FOLDER: the language model whose tokens are heard")


def recipe(name: str = "mini") -> CTCAdaptorRecipe:
    """The stage's recipe, by the name of a preset."""
    return CTCAdaptorRecipe(stage="ctc_adaptor", out="runs/ctc_adaptor", **preset(name, "ctc_adaptor"))


class CTCAdaptorTask(SpeechTask):
    """Mel, encoder and adaptor, and clips with labels."""

    def __init__(self, recipe: CTCAdaptorRecipe) -> None:
        super().__init__(recipe)
        self.recipe = recipe
        self.mel, self.encoder, self.adaptor = LogMel(recipe.mel), recipe.encoder.build(), recipe.adaptor.build()
        tokenizer = load_tokenizer(resolve(str(recipe.tokenizer)))
        texts = [words_of(meta) for meta in self.corpus.metas]
        given = [entry for entry in recipe.start if entry.startswith("adaptor=")]
        if given:  # it goes on with the tokens that it has
            load_parts({"adaptor": self.adaptor}, given)
        else:
            chosen = choose_tokens(tokenizer, texts, recipe.adaptor.vocab, recipe.rare)
            self.adaptor.tokens.copy_(torch.tensor(chosen))
        self.labels = Labels(tokenizer, self.adaptor.tokens.tolist())
        self.vectors: Tensor
        self.register_buffer("vectors", read_embeddings(recipe.source, self.adaptor.tokens), persistent=False)
        self.rows = [self.labels.encode(text) for text in texts]
        self.items = np.array([at for at in range(len(texts)) if self._fits(at)], int)
        if left_out := len(texts) - len(self.items):
            why = f"longer than {recipe.longest_s:g} s, with more tokens than frames, or of unknown characters"
            print(f"ctc_adaptor: {left_out} of {len(texts)} clips are left out: {why}", file=sys.stderr)
        if not len(self.items):
            raise DuologueError(f"no clip in {', '.join(recipe.data)} fits")
        self.encoded: dict[int, tuple[Tensor, Tensor]] = {}  # of the batches of clips under way
        self.plan = Plan(self.corpus.lengths[self.items], recipe.batch_size, recipe.seed, recipe.accumulate)

    def _fits(self, at: int) -> bool:
        row, rate = self.rows[at], self.recipe.mel.sample_rate
        samples = int(self.corpus.lengths[at])
        longest = min(self.recipe.longest_s, self.recipe.encoder.positions / 50)
        repeats = 0 if row is None else sum(a == b for a, b in pairwise(row))
        return row is not None and samples <= longest * rate and len(row) + repeats <= self.frames(samples)

    def frames(self, samples: int) -> int:
        """Frames with scores of so many samples."""
        return -(-(samples // self.recipe.mel.hop) // (2 * STRIDE))

    def parts(self) -> dict[str, nn.Module]:
        learnt = {"encoder": self.encoder} if any(p.requires_grad for p in self.encoder.parameters()) else {}
        return {"adaptor": self.adaptor, **learnt}

    def load_state_dict(self, state_dict: Any, strict: bool = True, assign: bool = False) -> Any:
        """Raises RuntimeError for a vocabulary that these data do not give: the labels would be others."""
        before = self.adaptor.tokens.clone()
        loaded = super().load_state_dict(state_dict, strict, assign)
        if not before.equal(self.adaptor.tokens):
            raise RuntimeError("its vocabulary was chosen from other data; adaptor=RUN goes on with it")
        return loaded

    def batch(self, number: int) -> Batch:
        """The clips of a batch, or, once their frames are in the pool, only their labels and what is masked."""
        r = self.recipe
        step, turn = divmod(number, r.accumulate)
        block, within = divmod(step, r.echo * r.pool)
        clips = (block * r.pool + within % r.pool) * r.accumulate + turn
        _, places = self.plan(clips)
        items = self.items[places]
        rows = [self.rows[item] or [] for item in items]
        own = np.random.default_rng((r.seed, number, 2))
        batch = {
            "clips": clips,
            "labels": torch.tensor([label for row in rows for label in row], dtype=torch.long),
            "label_lengths": torch.tensor([len(row) for row in rows]),
            "adaptor_offsets": torch.from_numpy(own.random(len(items))),  # of the positions that are free
            "frame_mask_seed": int(own.integers(2**31)),
        }
        return batch if within >= r.pool else batch | self.heard(clips)

    def heard(self, clips: int) -> Batch:
        """What the encoder hears of a batch: samples (B, n), (B,) how many are real, positions, what is masked."""
        r = self.recipe
        epoch, places = self.plan(clips)
        items = self.items[places]
        samples, lengths = pad([self._heard(int(item), epoch) for item in items])
        rng = np.random.default_rng((r.seed, clips, 1))
        offsets = random_offsets(r.encoder, samples.shape[1] // (2 * r.mel.hop), len(items), rng)
        masks = int(rng.integers(2**31))
        return {"samples": samples, "lengths": lengths, "offsets": offsets, "mel_mask_seed": masks}

    def _heard_again(self, clips: int) -> Batch:
        return {name: torch.as_tensor(value, device=self.vectors.device) for name, value in self.heard(clips).items()}

    def load_of(self, batch: Batch) -> StepCost | None:
        return super().load_of(batch) if "samples" in batch else None

    def _heard(self, item: int, epoch: int) -> np.ndarray:
        """A clip (n,) as it is heard in an epoch."""
        wave = to_float(self.corpus[item].pcm)
        if self.augmentation is None:
            return wave
        rng = np.random.default_rng((self.recipe.seed, epoch, item))
        return augment(wave, rng, self.augmentation.sound, self.noises)

    def encode(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """The encoder's frames (B, T, D) at 50 Hz and (B,) how many are real."""
        with torch.no_grad():
            mel = self.mel(batch["samples"])  # (B, M, T) at 100 Hz
            lengths = batch["lengths"] // self.recipe.mel.hop
            if self.augmentation is not None:
                generator = torch.Generator().manual_seed(int(batch["mel_mask_seed"]))
                mel = spec_augment(mel, lengths, generator, self.augmentation.masks)
        x = self.encoder(mel, lengths=lengths, offsets=batch["offsets"])  # no graph while it is frozen
        return x, (lengths + 1) // 2

    def frames_of(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """The same, of clips that the steps before learnt from too: as they were encoded then; masked."""
        found = self.encoded.get(batch["clips"])
        if found is None:  # a run that goes on has an empty pool
            found = self.encode(batch if "samples" in batch else self._heard_again(batch["clips"]))
            if self.recipe.pool > 1:
                found = found[0].bfloat16(), found[1]
        if self.recipe.echo > 1:
            self.encoded[batch["clips"]] = found
            while len(self.encoded) > self.recipe.pool * self.recipe.accumulate:
                del self.encoded[min(self.encoded)]
        x, lengths = found[0].float(), found[1]
        if self.augmentation is not None:
            generator = torch.Generator().manual_seed(batch["frame_mask_seed"])
            x = spec_augment(x.transpose(1, 2), lengths, generator, self.recipe.frame_masks).transpose(1, 2)
        return x, lengths

    def logits(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """The adaptor's scores (B, U, V + 1) at 25 Hz and (B,) how many frames are real."""
        x, lengths = self.frames_of(batch)
        free = max(1, self.recipe.adaptor.positions - -(-x.shape[1] // STRIDE))
        hidden = self.adaptor.hidden(x, lengths, (batch["adaptor_offsets"] * free).long())
        return self.adaptor.scores(hidden, self.vectors), (lengths + 1) // STRIDE

    def forward(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        logits, frames = self.logits(batch)
        return self.ctc(logits, frames, batch["labels"], batch["label_lengths"]), {}

    def ctc(self, logits: Tensor, frames: Tensor, labels: Tensor, label_lengths: Tensor) -> Tensor:
        """CTC loss a token, from (B, U, V + 1) and (B,) real frames. A clip too short for its words contributes 0."""
        log_probs = logits.float().log_softmax(-1).transpose(0, 1)  # (U, B, V + 1)
        blank = self.recipe.adaptor.vocab
        loss = F.ctc_loss(log_probs, labels, frames, label_lengths, blank, reduction="sum", zero_infinity=True)
        return loss / label_lengths.sum().clamp(min=len(frames))

    def words(self, logits: Tensor, frames: Sequence[int]) -> list[str]:
        """The words of the best labels: (B, U, V + 1) -> texts."""
        best = logits.argmax(-1).tolist()
        blank = self.recipe.adaptor.vocab
        runs = [[label for label, _ in groupby(row[:length])] for row, length in zip(best, frames, strict=True)]
        return [self.labels.decode(label for label in row if label != blank) for row in runs]

    @torch.no_grad()
    def transcribe(self, waves: list[np.ndarray]) -> list[str]:
        """What is heard in whole clips (n,)."""
        samples, lengths = pad(waves)
        device = self.vectors.device
        mel_lengths = lengths.to(device) // self.recipe.mel.hop
        x = self.encoder(self.mel(samples.to(device)), lengths=mel_lengths)
        lengths = (mel_lengths + 1) // 2
        logits = self.adaptor.scores(self.adaptor.hidden(x, lengths), self.vectors)
        return self.words(logits, ((lengths + 1) // STRIDE).tolist())

    @torch.no_grad()
    def transcribe_through(self, window: WindowConfig, wave: np.ndarray) -> str:
        """What is heard in a clip (n,) that comes in piece by piece."""
        windowed = WindowedEncoder(self.mel, self.encoder, window)
        state, samples = windowed.init_state(), torch.from_numpy(wave)[None].to(self.vectors.device)
        step = window.chunk_ms * self.recipe.mel.sample_rate // 1000
        frames = [windowed.step(piece, state) for piece in samples.split(step, dim=1)]
        hidden = self.adaptor.hidden(torch.cat([*frames, windowed.flush(state)], dim=1))
        return self.words(self.adaptor.scores(hidden, self.vectors), [hidden.shape[1]])[0]

    def evaluate(self) -> dict[str, float]:
        """On each held-out set the word error rate, through the window too; and of clips without words, in how many of
        them none are heard."""
        metrics: dict[str, float] = {}
        for name, dev in dev_sets(self.recipe.dev_data):
            chosen = range(0, len(dev), max(1, len(dev) // self.recipe.dev_clips))
            waves, wanted = [to_float(dev[at].pcm) for at in chosen], [words_of(dev.metas[at]) for at in chosen]
            heard = [text for at in range(0, len(waves), 16) for text in self.transcribe(waves[at : at + 16])]
            metrics |= _measured(name, heard, wanted)
            if self.recipe.window is not None and self.recipe.encoder.chunk is None:
                heard = [self.transcribe_through(self.recipe.window, wave) for wave in waves]
                metrics |= _measured(f"window_{name}", heard, wanted)
        return metrics


def _measured(name: str, heard: list[str], wanted: list[str]) -> dict[str, float]:
    quiet = [not text for text, words in zip(heard, wanted, strict=True) if not words]
    metrics = {f"quiet_{name}": sum(quiet) / len(quiet)} if quiet else {}
    if any(wanted):
        metrics[f"wer_{name}"] = error_rate([text.split() for text in heard], [words.split() for words in wanted])
    return metrics
