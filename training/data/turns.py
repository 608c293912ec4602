"""Dialogue turns as rows of token ids: what the LLM reads and what it must say.

A vocabulary with markers: ``<bos> <user> [speech] <transcript> question <reply> answer <eos> <user> …``. A language
model from elsewhere has its own tokens and its chat template (see chat_tokens.py), and writes down nothing: ``prefix
[speech] suffix answer eos …``. Where speech goes, a row holds one id for each adaptor frame; the stage puts the
embeddings in their place.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...data_prep.datasets.question_sets import Dialogue, QuestionSet, before_of, question_set
from ...data_prep.text.plain_text import words_or_text
from ...model.errors import DuologueError
from ...model.language_model.causal_lm import LLM
from ...model.speech_lm_config import PromptConfig, SpeechLMConfig
from ...model.tokens import TokenLayout
from ..recipe import Recipe


@dataclass(frozen=True, kw_only=True)
class TurnsRecipe(Recipe):
    """A stage that writes turns: for which language model, and in which tokens."""

    questions: str = "nano"  # a question set by name: what is asked in writing, and, without a tokenizer, its words
    llm: dict[str, Any]
    tokenizer: str | None = None  # folder whose tokens and chat template the turns are written in


@dataclass(frozen=True, kw_only=True)
class TurnTokens:
    """What turns are written in. ``prompt.next_prefix_ids`` begins with ``eos``."""

    prompt: PromptConfig
    reply: int | None  # between the transcript and the answer; None: nothing is written down before the answer
    eos: int
    pad: int
    speech: int  # stands for an embedding of speech; below 0 where the language model has no such token
    encode: Callable[[str], list[int]]
    decode: Callable[[list[int]], str]


@functools.cache
def marked_tokens(questions: str) -> TurnTokens:
    """Those of a question set's own vocabulary; a word outside of it becomes <unk>."""
    table = question_set(questions).token_ids()
    names, unknown = list(table), table["<unk>"]
    prompt = PromptConfig(
        prefix_ids=(table["<bos>"], table["<user>"]),
        suffix_ids=(table["<transcript>"],),
        next_prefix_ids=(table["<eos>"], table["<user>"]),
    )
    return TurnTokens(
        prompt=prompt, reply=table["<reply>"], eos=table["<eos>"], pad=table["<pad>"], speech=table["<speech>"],
        encode=lambda text: [table.get(word, unknown) for word in words_or_text(text).split()],
        decode=lambda said: " ".join(names[id_] for id_ in said if not names[id_].startswith("<")),
    )  # fmt: skip


def marked_config(questions: str, **parts: Any) -> SpeechLMConfig:
    """A model of these parts that writes in a question set's own tokens: what it heard, then its answer.

    It listens as the stages here teach it: with CTC at the places of speech, the past in writing, and not too long.
    """
    table, decoder = question_set(questions).token_ids(), parts.get("unit_decoder")
    markers = ("bos", "eos", "pad", "user", "speech", "transcript", "reply", "query", "noise", "wait")
    layout = TokenLayout(
        **{name: table[f"<{name}>"] for name in markers},
        text=(sum(token.startswith("<") for token in table), len(table)),
        units=0 if decoder is None else decoder.units,
    )
    usual: dict[str, Any] = {"transcript_ctc": 0.4, "history": 192, "past_in_words": True}
    return SpeechLMConfig(layout=layout, prompt=marked_tokens(questions).prompt, **usual | parts)


def check_categories(key: str, named: tuple[str, ...], questions: str) -> None:
    """Raises DuologueError for a category that the question set does not have."""
    if named and (unknown := set(named) - set(known := question_set(questions).categories)):
        raise DuologueError(f"{key} is {','.join(sorted(unknown))}; it must be some of {', '.join(known)}")


@dataclass
class Row:
    """One sequence: ids, and for each position how much predicting it counts (0: not at all)."""

    tokens: TurnTokens
    ids: list[int] = field(default_factory=list)
    weights: list[float] = field(default_factory=list)
    spoken: list[int] = field(default_factory=list)  # the words of its speech, clip after clip
    clips: list[int] = field(default_factory=list)  # which clips its speech is, one after the other

    def add(self, ids: list[int], weight: float) -> None:
        self.ids += ids
        self.weights += [weight] * len(ids)

    @property
    def speech(self) -> int:
        """How many adaptor frames it holds."""
        return self.ids.count(self.tokens.speech)

    def hear(self, speech: int) -> None:
        """Begin a turn with ``speech`` adaptor frames."""
        prompt = self.tokens.prompt
        self.add([*(prompt.next_prefix_ids[1:] if self.ids else prompt.prefix_ids), *[self.tokens.speech] * speech], 0)

    def add_turn(
        self,
        question: str,
        answer: str | None,
        speech: int = 0,
        question_weight: float = 1.0,
        answer_weight: float = 1.0,
    ) -> None:
        """Append a turn with ``speech`` adaptor frames; ``answer=None``: a transcript is all that is known."""
        tokens, asked = self.tokens, self.tokens.encode(question)
        self.hear(speech)
        if tokens.reply is None and not speech:
            self.add(asked, 0)
        self.add(list(tokens.prompt.suffix_ids), 0)
        if tokens.reply is not None:
            self.add(asked, question_weight)
        if speech:
            self.spoken += asked
        if answer is not None:
            reply = [] if tokens.reply is None else [tokens.reply]
            self.add([*reply, *tokens.encode(answer), tokens.eos], answer_weight)

    def add_before(self, turn: Mapping[str, Any], rng: np.random.Generator, questions: QuestionSet) -> str | None:
        """Append a turn that this one, a :class:`Dialogue`'s fields, goes on from, and return the answer to it then.

        A follow-up goes on from another turn each time (:meth:`QuestionSet.behind_another_turn`). If it only
        says the last answer again ("what did you say"), that is mostly cut short, as if it had been
        interrupted, and so is what is said again: what nobody heard was not said.
        """
        before, answer = before_of(turn), turn.get("answer")
        assert before is not None, "callers have asked before_of"
        if answer is not None:
            other = questions.behind_another_turn(turn.get("template", ""), turn.get("question", ""), rng)
            before, answer = other or (before, answer)
        question, earlier = before
        if answer != earlier:
            self.add_turn(question, earlier, question_weight=0.0)
            return answer
        words = earlier.split()
        heard = " ".join(words[: int(rng.integers(1, len(words) + 1 + len(words) // 3))])
        self.add_turn(question, heard, question_weight=0.0, answer_weight=0.0)  # no answer to the question, perhaps
        return heard

    def add_dialogue(
        self, dialogue: Dialogue, question_weight: float, rng: np.random.Generator, questions: QuestionSet
    ) -> None:
        """Append a written question and its answer, behind the turn that it goes on from (see :meth:`add_before`)."""
        answer: str | None = dialogue.answer
        if dialogue.before is not None:
            answer = self.add_before(dialogue.fields(), rng, questions)
        self.add_turn(dialogue.question, answer, question_weight=question_weight)


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


def spoken_words_loss(
    logits: Tensor, ids: Tensor, tokens: TurnTokens, rows: list[list[int]], frames: list[int]
) -> Tensor:
    """CTC of the words that are said, from the LLM's own predictions (B, L, V) at the places of speech; per word.

    rows: the words of each row, in the batch's order; frames: how many places of speech each has.

    A next-word loss alone leaves the LLM to find out by itself where in the speech each word is; CTC tells it, and
    costs nothing later, for what the LLM predicts while it listens is not used. <pad> is the blank.
    """
    places = ids == tokens.speech  # (B, L)
    heard = [i for i, words in enumerate(rows) if words]
    split = logits[places].split(frames)
    per_row = [split[i].float().log_softmax(-1) for i in heard]  # (T_i, V) each
    counts = torch.tensor([len(row) for row in per_row])
    words = torch.tensor([len(rows[i]) for i in heard])
    targets = torch.tensor([word for i in heard for word in rows[i]], device=logits.device)
    padded = torch.nn.utils.rnn.pad_sequence(per_row)  # (T, B', V)
    loss = torch.nn.functional.ctc_loss(
        padded, targets, counts, words, blank=tokens.pad, reduction="sum", zero_infinity=True
    )
    return loss / words.sum()


def weighted_loss(logits: Tensor, ids: Tensor, weights: Tensor) -> Tensor:
    """Cross-entropy of the next token, averaged by weight: (B, L, V), (B, L), (B, L) -> ()."""
    wanted = weights[:, 1:] > 0  # only positions that count: the rest need no softmax
    losses = torch.nn.functional.cross_entropy(logits[:, :-1][wanted].float(), ids[:, 1:][wanted], reduction="none")
    return (losses * weights[:, 1:][wanted]).sum() / weights[:, 1:].sum()


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
