"""What the model writes down of a turn before it replies: the words that may come next, and those that are expected.

While the user speaks, the language model's own predictions at the positions of speech are kept. Where it has learnt to
predict the words there by CTC (``ctc_weight`` above 0), they do two things: they are mixed with its predictions behind
the speech (:mod:`.ctc_prefix`), and the words that CTC alone would write are a draft, which the language model is fed
in one step and takes back where something else is written (speculative decoding, Leviathan et al., arXiv 2211.17192,
section 2.1). What is written is the same without a draft, to rounding.

A model whose adaptor hears tokens by itself (``Adaptor.transcribes``) has its transcript before it replies: the
language model is not asked for it.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Self

import torch
from torch import Tensor

from ..adaptor.adaptor import HeardToken
from ..streaming import State
from ..tokens import TokenLayout
from .ctc_prefix import NEVER, CTCPrefix


@dataclass
class TranscriptState(State):
    """What is known of one turn's transcript.

    room: tokens that it may still have: as many as there were embeddings of speech.
    heard: the language model's predictions at the positions of speech, (1, t, V) each.
    ctc: the words so far, as CTC sees them; ``None`` once something else was written.
    found: tokens that a decoder has decided on, and at last the one that ends them; empty: there was no decoder.
    draft: tokens that are expected next. foreseen: the states (1, 1, D) behind them, if the model has been fed them.
    question: tokens of a text question about the speech, which end the transcript.
    tokens: those that the adaptor heard by itself, once the turn is over. told: how many of them steps have brought.
    """

    room: int = 0
    heard: list[Tensor] = field(default_factory=list)
    ctc: CTCPrefix | None = None
    found: list[int] = field(default_factory=list)
    draft: list[int] = field(default_factory=list)
    foreseen: list[Tensor] = field(default_factory=list)
    question: list[int] = field(default_factory=list)
    tokens: list[HeardToken] = field(default_factory=list)
    told: int = 0

    def clone(self) -> Self:
        """The tensors are shared: they no longer change."""
        return replace(
            self, heard=list(self.heard), ctc=None if self.ctc is None else self.ctc.clone(), found=list(self.found),
            draft=list(self.draft), foreseen=list(self.foreseen), question=list(self.question),
            tokens=list(self.tokens),
        )  # fmt: skip


class Transcript:
    """Chooses a transcript's tokens.

    Args:
        ctc_weight: of CTC in the choice; 0: the language model alone.
    """

    def __init__(self, layout: TokenLayout, ctc_weight: float) -> None:
        self.layout, self.ctc_weight = layout, ctc_weight

    def end_of_speech(self, state: TranscriptState) -> None:
        """Draft the words that CTC finds in what was heard so far; the last positions of speech may still come."""
        if state.heard:
            best = torch.cat(state.heard, dim=1)[0].argmax(dim=-1).unique_consecutive()
            self._expect(best.tolist(), state)

    def begin(self, state: TranscriptState) -> None:
        """All of the speech has been heard: the transcript follows."""
        if state.heard:
            state.ctc = CTCPrefix.begin(torch.cat(state.heard, dim=1)[0], self.layout.pad)

    def joint(self, logits: Tensor, state: TranscriptState) -> Tensor:
        """The language model's logits (V,), mixed with CTC's for a word or the end, ``<reply>``, if there are any."""
        if state.ctc is None:
            return logits
        words, end = state.ctc.next()
        heard = torch.full_like(words, NEVER)
        heard[slice(*self.layout.text)] = words[slice(*self.layout.text)]
        heard[self.layout.reply] = end
        return (1 - self.ctc_weight) * logits.double().cpu().log_softmax(-1) + self.ctc_weight * heard

    def write(self, token: int, state: TranscriptState) -> int:
        """What is written where the model picked ``token``: ``<reply>`` once the transcript has as many tokens as there
        were embeddings of speech, and in the place of ``<reply>`` first the text question.

        Nobody says more words than that (nano: 12.5 a second), but a model that has lost its place may write them.
        """
        if self.layout.is_text(token):
            assert self.layout.reply is not None
            token = token if state.room > 0 else self.layout.reply
            state.room -= 1
        if state.question and token == self.layout.reply:
            token, state.room, state.ctc = state.question.pop(0), 0, None
        if state.ctc is not None and self.layout.is_text(token):
            state.ctc.push(token)
        else:
            state.ctc = None
        return token

    def redraft(self, token: int, state: TranscriptState) -> None:
        """``token`` was written, and not the one expected: CTC has heard a few words too many, or another one."""
        draft, state.draft = state.draft, []
        if state.ctc is not None:
            near = draft[:3].index(token) if token in draft[:3] else 0
            self._expect(draft[near + 1 :], state)

    def _expect(self, ids: list[int], state: TranscriptState) -> None:
        """The words among these are expected next, and then the reply."""
        state.draft = [word for word in ids if self.layout.is_text(word)]
        state.draft += [] if self.layout.reply is None else [self.layout.reply]
