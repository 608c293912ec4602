"""One step of a stage for several conversations at once: their states become one batch, and each gets its row back.

    kind = kind_of(call)                    calls of equal kind can be made together
    outputs = together(stage.step, calls)   a call: the arguments of one step, tensors of batch 1 and a state

Tensors are joined along the batch. Keys and values stay where they are, each row with its own length
(:class:`~.kv_cache.KVRows`). Anything else, a counter say, must be equal: so counters that differ from conversation to
conversation (how many frames there were) are better read off a buffer of keys than kept beside it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Hashable, Sequence
from typing import Any

import torch
from torch import Tensor

from ..streaming import State
from .kv_cache import KVBuffer, KVRows


def kind_of(value: Any) -> Hashable:
    """What values must have in common to be joined: classes, shapes, plain values; not the lengths of buffers."""
    if isinstance(value, Tensor):
        return value.shape, value.dtype, value.device
    if isinstance(value, KVBuffer):
        return KVBuffer, value.window
    if isinstance(value, State):
        return type(value), tuple(kind_of(each) for each in vars(value).values())
    if isinstance(value, (list, tuple)):
        return type(value), tuple(kind_of(each) for each in value)
    if value is None or isinstance(value, (int, float, str)):
        return type(value), value
    return object()  # of a kind of its own: it must not be shared


def together(step: Callable[..., Tensor], calls: Sequence[tuple[Any, ...]]) -> list[Tensor]:
    """What ``step(*call)`` gives for each of the calls, all of one kind, in one batch; states are advanced in place.

    If it raises, no state has changed.
    """
    batch = _joined(calls)
    rows = step(*batch).split(1)
    for i, call in enumerate(calls):
        for mine, ours in zip(call, batch, strict=True):
            if isinstance(mine, State):
                _row(mine, ours, i)
    return list(rows)


def _joined(values: Sequence[Any]) -> Any:
    first = values[0]
    if isinstance(first, Tensor):
        return torch.cat(list(values))
    if isinstance(first, KVBuffer):
        return KVRows([value.clone() for value in values])
    if isinstance(first, State):
        fields = [field.name for field in dataclasses.fields(first)]
        return type(first)(**{name: _joined([getattr(value, name) for value in values]) for name in fields})
    if isinstance(first, (list, tuple)):
        return type(first)(_joined(each) for each in zip(*values, strict=True))
    return first


def _row(mine: Any, ours: Any, i: int) -> Any:
    """Row i of a batch; states and buffers take it in place."""
    if isinstance(ours, Tensor):
        return ours[i : i + 1].clone()  # a view would keep the whole batch's storage alive
    if isinstance(ours, KVRows):
        mine.adopt(ours.rows[i])
        return mine
    if isinstance(ours, State):
        for field in dataclasses.fields(ours):
            setattr(mine, field.name, _row(getattr(mine, field.name), getattr(ours, field.name), i))
        return mine
    if isinstance(ours, (list, tuple)):
        return type(ours)(_row(its, each, i) for its, each in zip(mine, ours, strict=True))
    return ours
