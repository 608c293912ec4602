"""Tokens picked for a reply that may call functions: none is given out before it is known whether it is said.

pick a token -> is it the beginning of a call? -> pick on until that is known -> tokens of kind REPLY or CALL
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from torch import Tensor

from ..dialogue_state import DialogueState, Picked, Sampling
from ..tokens import TokenKind
from .tool_calls import CallFormat


def pick_decided(
    state: DialogueState,
    sampling: Sampling,
    calls: CallFormat | None,
    pick: Callable[[int | None], Picked],
    forced: int | None,
) -> Picked:
    """The next token of a reply; most of the time the one that is picked now.

    Args:
        calls: how the model writes calls; None: it writes none.
        pick: picks a token, or takes the one that is given.
        forced: the token, in a reply whose text is given.
    """
    if state.picked:
        return state.picked.pop(0)
    if calls is None or forced is not None or not may_call(state):
        return pick(forced)
    if state.calls is None:
        state.calls = calls.begin(sampling.must_call)
    undecided: list[Picked] = []
    while not state.picked:
        one = pick(state.calls.forced.pop(0) if state.calls.forced else None)
        if one.kind is TokenKind.REPLY:
            undecided.append(one)
            kinds = calls.push(one.token, state.calls)
        else:
            kinds = calls.end(state.calls)
        decided, undecided = undecided[: len(kinds)], undecided[len(kinds) :]
        state.picked = [dataclasses.replace(each, kind=kind) for each, kind in zip(decided, kinds, strict=True)]
        state.picked += [] if one.kind is TokenKind.REPLY else [one]
    return state.picked.pop(0)


def without_calls(logits: Tensor, state: DialogueState, sampling: Sampling, calls: CallFormat | None) -> Tensor:
    """Logits (V,) of the next token, of which none begins a call where none may be made."""
    if calls is None or sampling.may_call or not may_call(state) or (not calls.marker and state.generated):
        return logits
    logits = logits.clone()
    logits[list(calls.first_tokens)] = -float("inf")
    return logits


def may_call(state: DialogueState) -> bool:
    """Whether the model was told of functions."""
    return state.chat is not None and bool(state.chat.tools)
