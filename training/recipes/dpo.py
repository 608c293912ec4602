"""Prefer one answer to another: from pairs of them to the same question. Learns the LLM, or whatever ``learn`` names.

With ``data=FILE[,FILE]`` turns in writing (see data_prep/datasets/conversations.py), with ``data=SET[,SET]`` clips; of
each, the answer and those that were ``rejected``. Behind the same system prompt, earlier turns and question, the answer
is to become likelier beside a rejected one than it is for the model that training starts from (``objective=dpo``), and
``sft_weight`` adds cross-entropy on it. Without a reference, bad answers are pushed down beside that cross-entropy:
by a margin (``objective=margin``), or token by token (``objective=unlikelihood``).

The reference's log-probabilities are computed once, before the first step, and kept in the checkpoints: no second model
is held. With ``lora=`` it is the model without its updates.

Sources: Rafailov et al. (arXiv 2305.18290); on speech: Qwen2-Audio (arXiv 2407.10759), section 2.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, Self
from zlib import crc32

import numpy as np
import torch
from torch import Tensor, nn

from ...model.adaptor.adaptor import HeardClips
from ...model.audio_encoder.mel import LogMelConfig
from ...model.errors import DuologueError
from ...model.language_model.causal_lm import LLM
from ...model.speech_lm_config import AdaptorConfig, EncoderConfig
from ..data.chat_tokens import turn_tokens
from ..data.corpus import Plan, pad
from ..data.turns import TurnsRecipe, TurnTokens, train_plainly
from ..loop.lora import LoraTask, merged, without_lora
from ..loop.task import Batch
from ..loop.throughput import StepCost, token_load
from ..loop.trainer import to_device
from ..preference.compared import Compared, compare, wins
from ..preference.losses import dpo_loss, margin_loss, unlikelihood
from ..preference.pairs import Pair, are_written, pack_pairs, pair_of, read_turns
from ..presets import preset
from ..recipe import CrossEntropyRecipe
from .speech_to_text import SpeechToText, SpeechToTextRecipe

MEASURED = 256  # held-out pairs at most


@dataclass(frozen=True, kw_only=True)
class DpoRecipe(TurnsRecipe, CrossEntropyRecipe):
    """Data, what a preference counts, and sizes of a row; a batch has ``batch_size`` pairs."""

    data: tuple[str, ...]
    dev_data: tuple[str, ...] = ()  # sets of clips on which speech_to_text's figures are measured
    held_out: float = 0.1  # fraction of the conversations, on whose pairs the stage is measured
    mel: LogMelConfig
    encoder: EncoderConfig
    adaptor: AdaptorConfig
    objective: Literal["dpo", "margin", "unlikelihood"] = "dpo"
    beta: float = 0.1  # the smaller, the farther from the reference the model may go
    label_smoothing: float = 0.0  # fraction of the pairs that are taken to be labelled the wrong way round
    per_token: bool = False  # log-probabilities are divided by the answer's length: long answers count no more
    margin: float = 1.0  # nats, with objective=margin
    sft_weight: float = 0.0  # of the cross-entropy on the better answers, and on transcripts where they are written
    history_speech: float = 0.5  # fraction of the earlier turns that are heard, where the data has them as clips
    longest: int = 1024  # positions of a pair in writing: the oldest turns that do not fit are left out
    row_tokens: int = 256  # pairs are packed into rows of so many positions; 1: each answer has its own row
    lora: int = 0  # rank of the LLM's low-rank updates, which learn in its weights' place; 0: the weights themselves

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_fractions("held_out", "history_speech")
        self.check_least(1, "row_tokens", "longest")
        if not self.beta > 0:
            raise DuologueError(f"beta is {self.beta}; it must be above 0, for example 0.1")
        if not 0 <= self.label_smoothing < 0.5:
            raise DuologueError(f"label_smoothing is {self.label_smoothing}; it must be 0 to below 0.5")

    @property
    def joins(self) -> tuple[str, ...]:
        return ("llm", "encoder", "adaptor")

    def fitted(self) -> Self:
        heard = self.speech_recipe().fitted()
        return replace(self, adaptor=heard.adaptor, questions=heard.questions)

    def completed(self) -> Self:
        """Of parts that hear, pairs in writing need none."""
        if not are_written(self.data):
            return self
        return replace(self, start=tuple(entry for entry in self.start if entry.startswith("llm=")))

    def speech_recipe(self) -> SpeechToTextRecipe:
        """Of the stage that has the same parts: its recipe, with clips as they are."""
        shared = {field.name for field in fields(SpeechToTextRecipe)} & {field.name for field in fields(self)}
        same = {name: getattr(self, name) for name in shared}
        return SpeechToTextRecipe(**same, augment="none", ctc_weight=0.0, text_fraction=0.0)

    def build(self) -> Preferences:
        """The task of this recipe."""
        return WrittenPreferences(self) if are_written(self.data) else SpokenPreferences(self)


def recipe(name: str = "nano") -> DpoRecipe:
    """The stage's recipe, by the name of a preset."""
    return DpoRecipe(stage="dpo", out="runs/dpo", **preset(name, "dpo"))


class Preferences(LoraTask):
    """Pairs and what is learnt of them; whether they are read or heard is up to the kinds below."""

    preferences: DpoRecipe
    tokens: TurnTokens
    reference: Tensor

    def begin(self, recipe: DpoRecipe, turns: Sequence[Mapping[str, Any]], lengths: np.ndarray) -> None:
        """Take the pairs of turns (clips' metadata) of these lengths. A pair that is the same in tokens is left out.

        Raises:
            DuologueError: none is left to learn from.
        """
        self.preferences, self.turns = recipe, turns
        encode = self.tokens.encode
        self.pairs = [
            (at, answer)
            for at, turn in enumerate(turns)
            for answer in _texts(turn["rejected"])
            if encode(answer) != encode(turn["answer"])
        ]
        held = [self._is_held_out(at) for at, _ in self.pairs]
        self.learnt = np.array([at for at, out in enumerate(held) if not out], int)
        self.held_out = np.array([at for at, out in enumerate(held) if out], int)
        if not len(self.learnt):
            why = "all are held out" if self.pairs else "in the model's tokens both answers are the same"
            raise DuologueError(f"no pair of {', '.join(recipe.data)} is left to learn from: {why}")
        self.lengths = lengths[[at for at, _ in self.pairs]]
        self.plan = Plan(self.lengths[self.learnt], recipe.batch_size, recipe.seed, recipe.accumulate)
        # Of each pair the log-probabilities of the model that training starts from; not a number: not yet known.
        self.register_buffer("reference", torch.full((len(self.pairs), 2), torch.nan))

    def _is_held_out(self, turn: int) -> bool:
        """All pairs of a conversation are, or none; the same each time, wherever its file lies."""
        name = str(self.turns[turn].get("conversation", turn)).rpartition("/")[2]
        return crc32(name.encode()) / 2**32 < self.preferences.held_out

    @property
    def lora(self) -> int:
        return self.preferences.lora

    def batch(self, number: int) -> Batch:
        return self.batch_of(self.learnt[self.plan(number)[1]])

    def batch_of(self, chosen: np.ndarray) -> Batch:
        """These pairs, always the same of each: the reference's log-probabilities are computed once."""
        return self.rows([self.pairs[int(at)] for at in chosen]) | {"which": torch.from_numpy(chosen)}

    def rows(self, pairs: Sequence[tuple[int, str]]) -> Batch:
        """The rows of pairs (turn, rejected answer), as :func:`pack_pairs` gives them, and what is heard in them."""
        raise NotImplementedError

    def read(self, batch: Batch) -> tuple[Tensor, Batch]:
        """The LLM's states (B, L, D) of the rows, and the batch as it is laid out then."""
        raise NotImplementedError

    def compared(self, batch: Batch) -> Compared:
        """What the model makes of the pairs."""
        return compare(self.llm, *self.read(batch), self.preferences.mile)

    def scores(self, found: Compared, which: Tensor) -> tuple[Tensor, Tensor]:
        """Log-probabilities (P, 2) that are compared, of the model and of the reference (0 without one)."""
        reference = self.reference[which] if self.preferences.objective == "dpo" else torch.zeros_like(found.sums)
        per = found.lengths if self.preferences.per_token else 1
        return found.sums / per, reference / per

    def forward(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        r = self.preferences
        if r.objective == "dpo" and self.reference.isnan().any():
            self.remember()
        found = self.compared(batch)
        scores, reference = self.scores(found, batch["which"])
        if r.objective == "dpo":
            loss = dpo_loss(scores, reference, r.beta, r.label_smoothing).mean()
        elif r.objective == "margin":
            loss = margin_loss(scores, r.margin).mean()
        else:
            loss = (unlikelihood(found.log_probs) * found.bad).sum() / found.bad.sum().clamp(min=1)
        shown = {r.objective: loss.detach(), "preferred": wins(scores - reference).mean()}
        if r.sft_weight:
            words = -(found.log_probs * found.weights).sum() / found.weights.sum().clamp(min=1e-6)
            loss, shown["words"] = loss + r.sft_weight * words, words.detach()
        return loss, shown

    @torch.no_grad()
    def remember(self) -> None:
        """Compute the reference's log-probabilities of all pairs, each process its part: of the model as it is now,
        without its low-rank updates."""
        order, size = np.argsort(self.lengths, kind="stable"), self.preferences.batch_size
        chunks = [order[at : at + size] for at in range(0, len(order), size)]
        several = torch.distributed.is_available() and torch.distributed.is_initialized()
        rank, world = (torch.distributed.get_rank(), torch.distributed.get_world_size()) if several else (0, 1)
        found, training = torch.zeros_like(self.reference), self.training
        self.eval()
        with without_lora(self.llm):
            for at in range(rank, -(-len(chunks) // world) * world, world):
                chunk = chunks[min(at, len(chunks) - 1)]  # as many in each process: sharded ones wait for each other
                sums = self.compared(to_device(self.batch_of(chunk), found.device)).sums
                if at < len(chunks):
                    found[torch.from_numpy(chunk).to(found.device)] = sums.to(found)
        if several:
            torch.distributed.all_reduce(found)
        self.reference.copy_(found)
        self.train(training)

    @torch.no_grad()
    def evaluate(self) -> dict[str, float]:
        """Of the held-out pairs the fraction in which the better answer gained on the worse one (``preferred``), in
        which it is likelier (``likelier``), and which the better one of two rules finds: the longer one, the shorter
        one (``by_length``)."""
        if not len(self.held_out):
            return {}
        chosen = self.held_out[:: -(-len(self.held_out) // MEASURED)]
        if self.preferences.objective == "dpo" and self.reference.isnan().any():
            self.remember()
        gained, likelier, longer = [], [], []
        for at in range(0, len(chosen), self.preferences.batch_size):
            batch = to_device(self.batch_of(chosen[at : at + self.preferences.batch_size]), self.reference.device)
            found = self.compared(batch)
            scores, reference = self.scores(found, batch["which"])
            gained.append(wins(scores - reference))
            likelier.append(wins(scores))
            longer.append(wins(found.lengths))
        by_length = float(torch.cat(longer).mean())
        return {"preferred": float(torch.cat(gained).mean()), "likelier": float(torch.cat(likelier).mean()),
                "by_length": max(by_length, 1 - by_length)}  # fmt: skip


def _texts(rejected: str | Sequence[str]) -> Sequence[str]:
    return (rejected,) if isinstance(rejected, str) else rejected


class WrittenPreferences(Preferences):
    """Pairs in writing: the LLM alone."""

    def __init__(self, recipe: DpoRecipe) -> None:
        super().__init__()
        torch.manual_seed(recipe.seed)
        self.tokens = turn_tokens(recipe.tokenizer, recipe.questions)
        self.llm = train_plainly(LLM(recipe.llm))
        self.longest = min(recipe.longest, self.llm.context or recipe.longest)
        turns = read_turns(recipe.data)
        self.begin(recipe, turns, np.array([sum(map(len, (turn["text"], turn["answer"]))) for turn in turns]))

    def parts(self) -> dict[str, nn.Module]:
        return {"llm": merged(self.llm)}

    def load_of(self, batch: Batch) -> StepCost:
        return token_load(batch["mask"])

    def rows(self, pairs: Sequence[tuple[int, str]]) -> Batch:
        made = [pair_of(self.tokens, self.turns[at], answer, longest=self.longest) for at, answer in pairs]
        return pack_pairs(made, self.preferences.row_tokens)[0]

    def read(self, batch: Batch) -> tuple[Tensor, Batch]:
        return self.llm.states(self.llm.embed(batch["ids"]), segments=batch["segments"]), batch


class SpokenPreferences(Preferences, SpeechToText):
    """Pairs of answers to clips: the parts of speech_to_text."""

    taught = "'rejected', answers that are worse than its 'answer'"

    def __init__(self, recipe: DpoRecipe) -> None:
        SpeechToText.__init__(self, recipe.speech_recipe())
        turns = [self.corpus.metas[int(item)] for item in self.items]
        self.begin(recipe, turns, self.corpus.lengths[self.items])

    def teaches(self, meta: Mapping[str, Any]) -> bool:
        return bool(meta.get("answer") and meta.get("rejected"))

    def rows(self, pairs: Sequence[tuple[int, str]]) -> Batch:
        made, waves = list[Pair](), list[np.ndarray]()
        for turn, answer in pairs:
            item = int(self.items[turn])
            wave = self.heard_wave(self.corpus, item, 0)
            hearing = self.hearing(self.corpus, item, waves, 0)  # the same earlier turns are heard each time
            pair = pair_of(self.tokens, self.turns[turn], answer, self.frames(len(wave)), hearing)
            for row in (pair.chosen, pair.rejected):
                row.clips.append(len(waves))
            made.append(pair)
            waves.append(wave)
        batch, order = pack_pairs(made, self.preferences.row_tokens)
        samples, lengths = pad(waves)
        heard = {"samples": samples, "lengths": lengths, "offsets": torch.zeros(len(waves), dtype=torch.long)}
        clips = torch.tensor([clip for row in order for clip in row.clips])
        return batch | heard | {"clips": clips, "frames": [row.speech for row in order]}

    def hear(self, batch: Batch) -> HeardClips:
        """Each clip is heard once for both answers."""
        heard = SpeechToText.hear(self, batch)
        return heard if "clips" not in batch else HeardClips(*(each[batch["clips"]] for each in heard))

    def read(self, batch: Batch) -> tuple[Tensor, Batch]:
        return SpeechToText.read(self, batch)

    def evaluate(self) -> dict[str, float]:
        return Preferences.evaluate(self) | SpeechToText.evaluate(self)
