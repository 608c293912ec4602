"""The reply loop: the one way in which replies and transcripts are generated, a typed step a token."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from ..dialogue_model import DialogueModel
from ..dialogue_state import DialogueState, ReplyStep, Sampling
from ..tokens import TokenKind


def reply(
    model: DialogueModel,
    state: DialogueState,
    sampling: Sampling,
    *,
    aloud: bool = True,
    choose: Callable[[], int] | None = None,
) -> Iterator[ReplyStep]:
    """The steps of the reply to the turn that ``state`` has heard or read; the last is of kind END.

    All that is remembered between steps is in ``state``: to stop and to go on with another iterator is the same.

    aloud: otherwise steps bring units alone, and samples are up to ``model.sound``. The last step's samples are those
        that the vocoder held back.
    choose: gives the next token, in the place of the model.
    """
    ended = False
    while not ended:
        if choose is None:
            step = model.reply_step(state, sampling, aloud=aloud)
        else:
            step = model.reply_step(state, sampling, aloud=aloud, forced=choose())
        ended = step.kind is TokenKind.END
        if ended and aloud:
            step = replace(step, pcm=torch.cat([step.pcm, model.reply_flush(state)], dim=1))
        yield step


def units_of(model: DialogueModel, ids: Sequence[int]) -> Tensor:
    """The units (1, U) of words ``ids`` that the model says as its reply to the same words in writing."""
    state, left = model.init_state(), [*ids, model.layout.eos]
    model.read_text(ids, state)
    steps = reply(model, state, Sampling(max_tokens=len(left) + 1), aloud=False, choose=lambda: left.pop(0))
    return torch.cat([step.units for step in steps], dim=1)


def transcript(model: DialogueModel, state: DialogueState, sampling: Sampling) -> Iterator[ReplyStep]:
    """The steps before the reply begins: what was heard, written down."""
    steps = reply(model, state, sampling, aloud=False)
    while not state.speaking and (step := next(steps)).kind is not TokenKind.END:
        yield step
