"""Turns of a conversation as rows of token ids: what the language model reads and what it must say.

A :class:`TurnTokens` says what turns are written in, and makes rows; there are two kinds, and stages do not ask which.
marked_turns.py: a question set's own vocabulary with markers around a transcript and an answer. chat_turns.py: a
language model's own tokens and chat template; it answers at once. Where speech goes, a row holds one id for each
adaptor frame; the stage puts the embeddings in their place.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, Protocol, Self

import numpy as np
import torch
from torch import Tensor

from ...data_prep.datasets.question_sets import Dialogue, QuestionSet, question_set
from ...model.errors import DuologueError
from ...model.language_model.causal_lm import LLM
from ..losses.mile import cross_entropy
from ..recipe import Recipe

HISTORY = 8  # earlier turns that a row has at most


@dataclass(frozen=True, kw_only=True)
class TurnsRecipe(Recipe):
    """A stage that writes turns: for which language model, and in which tokens."""

    # A question set by name: what is asked in writing, and, without a tokenizer, its words. None: the data's own.
    questions: str | None = "nano"
    llm: dict[str, Any]
    tokenizer: str | None = None  # folder whose tokens and chat template the turns are written in


class TurnTokens(Protocol):
    """What turns are written in.

    transcribes: whether what was heard is written down before the answer.
    eos: ends an answer. pad: nobody's word. speech: stands for an embedding of speech, in rows alone.
    """

    transcribes: bool
    eos: int
    pad: int
    speech: int

    def encode(self, text: str) -> list[int]:
        """A text by itself."""

    def decode(self, ids: list[int]) -> str:
        """The text of ids, without markers."""

    def row(self, system: str | None = None) -> Row:
        """A conversation in which nothing was said yet; ``system``: its system prompt."""


class Earlier(NamedTuple):
    """The clip of an earlier turn, as a row holds it."""

    frames: int  # of the adaptor; 0: its words are read
    clip: int  # its number in the batch, where it is heard
    instruction: str | None  # the prompt in writing behind it


Hearing = Callable[[str, str], Earlier | None]  # the clip of an earlier question and its answer; None: there is none


@dataclass
class Row:
    """One sequence: ids, and for each position how much predicting it counts (0: not at all)."""

    tokens: TurnTokens
    ids: list[int] = field(default_factory=list)
    weights: list[float] = field(default_factory=list)
    spoken: list[int] = field(default_factory=list)  # the words of its speech, clip after clip
    clips: list[int] = field(default_factory=list)  # which clips its speech is, one after the other
    said: range = range(0)  # where the last answer stands, without what ends it

    @property
    def speech(self) -> int:
        """How many adaptor frames it holds."""
        return self.ids.count(self.tokens.speech)

    def copy(self) -> Self:
        """The same, to go on with."""
        lists: dict[str, Any] = {name: list(value) for name, value in vars(self).items() if isinstance(value, list)}
        return replace(self, **lists)

    def hear(self, speech: int) -> None:
        """Begin a turn with ``speech`` adaptor frames, which the row ends with."""
        raise NotImplementedError

    def add_turn(
        self,
        question: str,
        answer: str | None,
        speech: int = 0,
        question_weight: float = 1.0,
        answer_weight: float = 1.0,
        instruction: str | None = None,
    ) -> None:
        """Append a turn with ``speech`` adaptor frames, or a written one; ``answer=None``: nothing follows it.

        question_weight: of the transcript, where one is written. instruction: a prompt in writing behind the speech.
        """
        raise NotImplementedError

    def add_before(
        self, turn: Mapping[str, Any], rng: np.random.Generator, questions: QuestionSet, hearing: Hearing | None = None
    ) -> str | None:
        """Append the turns that this one, a clip's metadata or a :class:`Dialogue`'s fields, goes on from; return the
        answer to it then (None: it has none)."""
        raise NotImplementedError

    def in_writing(self) -> Row:
        """The same conversation with what was said in the place of the speech; the same tokens count."""
        raise NotImplementedError

    def takes(self, turn: Mapping[str, Any]) -> bool:
        """Whether a clip of these metadata may follow in the same row as one more turn."""
        raise NotImplementedError

    def add_dialogue(
        self, dialogue: Dialogue, question_weight: float, rng: np.random.Generator, questions: QuestionSet
    ) -> None:
        """Append a written question and its answer, behind what it goes on from (see :meth:`add_before`)."""
        answer = self.add_before(dialogue.fields(), rng, questions)
        self.add_turn(dialogue.question, answer, question_weight=question_weight)


def questions_of(name: str | None) -> QuestionSet:
    """The question set of a name; of none one in which nothing is asked."""
    return QuestionSet() if name is None else question_set(name)


def check_categories(key: str, named: tuple[str, ...], questions: str | None) -> None:
    """Raises DuologueError for a category that the question set does not have."""
    if named and (unknown := set(named) - set(known := questions_of(questions).categories)):
        raise DuologueError(
            f"{key} is {','.join(sorted(unknown))}; it must be some of {', '.join(known) or 'no categories'}"
        )


def stack(rows: list[Row]) -> dict[str, Tensor]:
    """Rows -> ids (B, L), mask (B, L) of real positions, weights (B, L); padded on the right."""
    longest = max(len(row.ids) for row in rows)
    ids = torch.full((len(rows), longest), rows[0].tokens.pad)
    weights = torch.zeros(len(rows), longest)
    mask = torch.zeros(len(rows), longest, dtype=torch.long)
    for i, row in enumerate(rows):
        ids[i, : len(row.ids)] = torch.tensor(row.ids)
        weights[i, : len(row.ids)] = torch.tensor(row.weights)
        mask[i, : len(row.ids)] = 1
    return {"ids": ids, "mask": mask, "weights": weights}


def pack(rows: list[Row], width: int) -> tuple[dict[str, Tensor], list[Row]]:
    """Several rows in one, so that little is padding: what :func:`stack` gives, and ``segments``; the rows in order.

    segments: (B, L), which row a position belongs to, counted along the batch; -1 for padding. A language model that is
    given them lets no row see another (:meth:`LLM.forward`), so the losses are those of the rows alone.
    width: positions that a packed row has at most, unless a single row is longer.
    """
    bins: list[list[Row]] = []
    for row in sorted(rows, key=lambda row: -len(row.ids)):  # first fit, the longest first
        place = next((b for b in bins if sum(len(r.ids) for r in b) + len(row.ids) <= width), None)
        if place is None:
            bins.append([row])
        else:
            place.append(row)
    order = [row for b in bins for row in b]
    joined = [Row(b[0].tokens, [i for r in b for i in r.ids], [w for r in b for w in r.weights]) for b in bins]
    batch = stack(joined)
    segments = torch.full(batch["ids"].shape, -1)
    number = 0
    for at, b in enumerate(bins):
        start = 0
        for row in b:
            segments[at, start : start + len(row.ids)] = number
            start, number = start + len(row.ids), number + 1
    return batch | {"segments": segments}, order


def spread(batch: dict[str, Any], counts: Tensor, tokens: TurnTokens) -> dict[str, Any]:
    """Packed rows that hold each clip in one position -> in as many as it has embeddings, 0 included.

    counts: (N,) embeddings of each clip, in the batch's order.
    """
    repeats = (batch["segments"] >= 0).long()  # padding is made anew
    repeats[batch["ids"] == tokens.speech] = counts.to(repeats)
    fill = {"ids": tokens.pad, "mask": 0, "weights": 0.0, "segments": -1, "answers": 0}
    found = dict(batch)
    for name in fill.keys() & batch.keys():
        rows = [row.repeat_interleave(count) for row, count in zip(batch[name], repeats, strict=True)]
        found[name] = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=fill[name])
    return found


def embed_rows(llm: LLM, ids: Tensor, tokens: TurnTokens, speech: Tensor, lengths: Tensor) -> Tensor:
    """Ids (B, L) as embeddings, speech (N, T, D) in its places, clip after clip; lengths (N,): how many are real."""
    real = torch.arange(speech.shape[1], device=speech.device) < lengths[:, None]  # (N, T)
    embeds = llm.embed(ids.clamp(min=0))  # (B, L, D)
    return embeds.masked_scatter((ids == tokens.speech)[..., None], speech[real].to(embeds.dtype))


def train_plainly(llm: LLM) -> LLM:
    """The LLM with its attention written out: on a CPU a step is a quarter shorter than with torch's kernel."""
    if not torch.cuda.is_available():
        llm.lm.set_attn_implementation("eager")
    return llm


def spoken_words_loss(logits: Tensor, rows: list[list[int]], frames: list[int], blank: int) -> Tensor:
    """CTC of the words that are said, from the LLM's own predictions (P, V) at the places of speech; per word.

    rows: the words of each row, in the batch's order; frames: how many places of speech each has.
    blank: a token that no text has.

    A next-word loss alone leaves the LLM to find out by itself where in the speech each word is; CTC tells it, and
    costs nothing later, for what the LLM predicts while it listens is not used.
    """
    heard = [i for i, words in enumerate(rows) if words]
    split = logits.split(frames)
    per_row = [split[i].float().log_softmax(-1) for i in heard]  # (T_i, V) each
    counts = torch.tensor([len(row) for row in per_row])
    words = torch.tensor([len(rows[i]) for i in heard])
    targets = torch.tensor([word for i in heard for word in rows[i]], device=logits.device)
    padded = torch.nn.utils.rnn.pad_sequence(per_row)  # (T, B', V)
    loss = torch.nn.functional.ctc_loss(
        padded, targets, counts, words, blank=blank, reduction="sum", zero_infinity=True
    )
    return loss / words.sum()


def counted(llm: LLM, hidden: Tensor, ids: Tensor, weights: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Of the positions that count: logits (N, V) of the next token, the token (N,), its weight (N,). The rest need no
    logits. From states (B, L, D), (B, L), (B, L)."""
    wanted = weights[:, 1:] > 0
    return llm.head(hidden[:, :-1][wanted]), ids[:, 1:][wanted], weights[:, 1:][wanted]


def weighted_mean(losses: Tensor, weights: Tensor) -> Tensor:
    """(N,), (N,) -> (); 0 where no weight is above 0."""
    return (losses * weights).sum() / weights.sum().clamp(min=1e-6)


def weighted_loss(llm: LLM, hidden: Tensor, ids: Tensor, weights: Tensor, mile: float = 0.0) -> Tensor:
    """Cross-entropy of the next token, averaged by weight: states (B, L, D), (B, L), (B, L) -> (). ``mile``: see
    :func:`cross_entropy`."""
    logits, wanted, heavy = counted(llm, hidden, ids, weights)
    return cross_entropy(logits.float(), wanted, heavy, mile)


@torch.no_grad()
def continue_greedily(llm: LLM, prompts: list[Tensor], stop: int, most: int = 40) -> list[list[int]]:
    """The most likely continuation of each prompt (T_i, D), batched with padding on the left (RoPE is relative)."""
    longest = max(prompt.shape[0] for prompt in prompts)
    embeds = torch.stack([torch.nn.functional.pad(p, (0, 0, longest - p.shape[0], 0)) for p in prompts])
    mask = torch.stack([torch.arange(longest) >= longest - p.shape[0] for p in prompts]).long().to(embeds.device)
    said: list[list[int]] = [[] for _ in prompts]
    live = [True] * len(prompts)
    for _ in range(most):
        best = llm(embeds, mask).logits[:, -1].argmax(-1)  # (B,)
        for i, token in enumerate(best.tolist()):
            live[i] = live[i] and token != stop
            if live[i]:
                said[i].append(token)
        if not any(live):
            break
        embeds = torch.cat([embeds, llm.embed(best)[:, None]], dim=1)
        mask = torch.cat([mask, mask.new_ones(len(prompts), 1)], dim=1)
    return said
