"""The reply loop, over a scripted model: it ends with END, flushes once, and can be left and entered again."""

from __future__ import annotations

from typing import Any

import torch

from duologue.model.decoding.reply import reply, transcript
from duologue.model.dialogue_state import ReplyStep, Sampling
from duologue.model.tokens import TokenKind

KINDS = [TokenKind.TRANSCRIPT, TokenKind.CONTROL, TokenKind.REPLY, TokenKind.REPLY, TokenKind.END]


class Script:
    """Model and state: the steps above, a sample each, and two that are held back."""

    def __init__(self) -> None:
        self.at, self.speaking, self.flushed = 0, False, 0

    def reply_step(self, state: Any, sampling: Sampling, aloud: bool = True, forced: int | None = None) -> ReplyStep:
        kind = KINDS[self.at]
        self.at, self.speaking = self.at + 1, self.speaking or kind is TokenKind.CONTROL
        token = self.at if forced is None else forced
        units, pcm = torch.zeros(1, 0, dtype=torch.long), torch.ones(1, int(aloud))
        return ReplyStep(token=token, kind=kind, position=0, foreseen=False, units=units, pcm=pcm)

    def reply_flush(self, state: Any) -> torch.Tensor:
        self.flushed += 1
        return torch.ones(1, 2)


def test_it_ends_once_and_brings_all_samples() -> None:
    model: Any = Script()
    steps = list(reply(model, model, Sampling()))
    assert [step.kind for step in steps] == KINDS and model.flushed == 1
    assert [step.pcm.shape[1] for step in steps] == [1, 1, 1, 1, 3]


def test_another_iterator_goes_on_in_silence_where_the_first_was_left() -> None:
    model: Any = Script()
    first = [next(reply(model, model, Sampling(), aloud=False)) for _ in range(3)]
    rest = list(reply(model, model, Sampling(), aloud=False))
    assert [step.kind for step in first + rest] == KINDS
    assert model.flushed == 0 and not any(step.pcm.shape[1] for step in first + rest)


def test_tokens_may_be_chosen() -> None:
    model: Any = Script()
    tokens = iter([7, 8, 9, 10, 11])
    assert [step.token for step in reply(model, model, Sampling(), choose=lambda: next(tokens))] == [7, 8, 9, 10, 11]


def test_a_transcript_stops_where_the_reply_begins() -> None:
    model: Any = Script()
    assert [step.kind for step in transcript(model, model, Sampling())] == KINDS[:2]
    assert not list(transcript(model, model, Sampling())), "nothing before a reply that has begun"
