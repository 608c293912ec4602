"""The streaming contract that every stage keeps: state is a value.

A stage holds weights and nothing else. What one conversation has accumulated lives in a :class:`State` that is passed
in, so one set of weights serves any number of conversations, and a state can be cloned, moved or dropped.

The law (tests/test_streaming_law.py): for any chunking of ``x``,

    cat(step(chunk_0, s), step(chunk_1, s), ..., flush(s)) == forward(x)        within 1e-5,

and after ``n`` input frames at least ``floor((n - latency) * rate)`` output frames have come out. A stage that cannot
obey (bidirectional attention, a global normaliser) says ``exact = False`` and is wrapped in a window.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Self

import torch
from torch import Tensor, nn


def _rebuild(value: Any, on_tensor: Any, on_state: Any) -> Any:
    """Rebuild ``value`` with ``on_tensor`` applied to every tensor and ``on_state`` to every nested state."""
    if isinstance(value, Tensor):
        return on_tensor(value)
    if isinstance(value, State):
        return on_state(value)
    if isinstance(value, (list, tuple)):
        return type(value)(_rebuild(item, on_tensor, on_state) for item in value)
    if isinstance(value, dict):
        return {key: _rebuild(item, on_tensor, on_state) for key, item in value.items()}
    return value


@dataclass
class State:
    """What one stage remembers of one stream (or one batch of streams): tensors, batch first, and plain values."""

    def map(self, fn: Any) -> Self:
        """A new state with ``fn`` applied to every tensor in it."""
        return self._remade(fn, lambda state: state.map(fn))

    def clone(self) -> Self:
        """An independent copy: stepping one never changes the other. A nested state clones itself its own way."""
        return self._remade(Tensor.clone, lambda state: state.clone())

    def _remade(self, on_tensor: Any, on_state: Any) -> Self:
        fields = {f.name: _rebuild(getattr(self, f.name), on_tensor, on_state) for f in dataclasses.fields(self)}
        return type(self)(**fields)

    @classmethod
    def of(cls, parts: nn.Module, batch_size: int, **own: Any) -> Self:
        """The state of a stage made of stages: the initial state of each part that has a field's name (of a list of
        parts, a list; of no part, ``None``), and the fields of the stage's ``own``."""

        def initial(part: Any) -> Any:
            if isinstance(part, nn.ModuleList):
                return [each.init_state(batch_size) for each in part]  # type: ignore[operator]
            return None if part is None else part.init_state(batch_size)

        names = [field.name for field in dataclasses.fields(cls) if field.name not in own]
        return cls(**{name: initial(getattr(parts, name)) for name in names}, **own)

    def to(self, device: torch.device | str) -> Self:
        """The same state on another device."""
        return self.map(lambda tensor: tensor.to(device))


class Streaming(nn.Module):
    """A module that can be run whole (``forward``) or chunk by chunk (``step`` and ``flush``) with equal results.

    Attributes:
        latency: look-ahead, in input frames: how many frames a stage may hold back.
        rate: output frames for each input frame.
        exact: whether the law holds to rounding; ``False`` means a bounded, declared error.
        time_in, time_out: the time dimension of the input and of the output.
    """

    latency: int = 0
    rate: Fraction = Fraction(1)
    exact: bool = True
    time_in: int = -1
    time_out: int = -1

    def init_state(self, batch_size: int = 1) -> State:
        """The state of a stream that has heard nothing yet."""
        raise NotImplementedError(f"{type(self).__name__} cannot be streamed")

    def step(self, x: Tensor, state: Any) -> Tensor:
        """Feed one chunk (of any length, also none); mutate ``state``; return what is ready, perhaps no frames."""
        raise NotImplementedError(f"{type(self).__name__} cannot be streamed")

    def flush(self, state: Any) -> Tensor:
        """End the stream: return the frames that look-ahead held back. The state is spent afterwards."""
        raise NotImplementedError(f"{type(self).__name__} cannot be streamed")


class Composite(Streaming):
    """A stage made of stages. It says in :meth:`run` what ``step`` and ``flush`` do alike.

    Attributes:
        in_channels: C of its input (B, C, T).
    """

    in_channels: int

    def run(self, x: Tensor, state: Any, last: bool) -> Tensor:
        """The next chunk through all parts; ``last``: they are flushed behind it."""
        raise NotImplementedError

    def step(self, x: Tensor, state: Any) -> Tensor:
        return self.run(x, state, last=False)

    def flush(self, state: Any) -> Tensor:
        like = _first_tensor(state)
        return self.run(like.new_zeros(like.shape[0], self.in_channels, 0), state, last=True)


def _first_tensor(state: Any) -> Tensor:
    while not isinstance(state, Tensor):
        state = state[0] if isinstance(state, list) else next(iter(vars(state).values()))
    return state


@dataclass
class ChainState(State):
    """The states of a chain's stages, in order."""

    stages: list[State]


class Chain(Streaming):
    """Stages in sequence, itself a stage."""

    def __init__(self, *stages: Streaming) -> None:
        super().__init__()
        self.stages = nn.ModuleList(stages)
        self.time_in, self.time_out = stages[0].time_in, stages[-1].time_out
        self.exact = all(stage.exact for stage in stages)
        rate, latency = Fraction(1), Fraction(0)
        for stage in stages:
            # A later stage's look-ahead of L frames is L / rate frames of this chain's input; a stage that only
            # emits whole groups of frames (rate < 1) can hold back a remainder, which its latency includes.
            latency += stage.latency / rate
            rate *= stage.rate
        self.rate = rate
        self.latency = -(-latency.numerator // latency.denominator)

    def forward(self, x: Tensor) -> Tensor:
        for stage in self.stages:
            x = stage(x)
        return x

    def init_state(self, batch_size: int = 1) -> ChainState:
        return ChainState(stages=[stage.init_state(batch_size) for stage in self.stages])  # type: ignore[operator]

    def step(self, x: Tensor, state: ChainState) -> Tensor:
        for stage, stage_state in zip(self.stages, state.stages, strict=True):
            x = stage.step(x, stage_state)  # type: ignore[operator]
        return x

    def flush(self, state: ChainState) -> Tensor:
        x: Tensor | None = None
        for stage, stage_state in zip(self.stages, state.stages, strict=True):
            tail = stage.flush(stage_state) if x is None else None  # type: ignore[operator]
            if tail is None:
                assert x is not None
                head = stage.step(x, stage_state)  # type: ignore[operator]
                tail = torch.cat([head, stage.flush(stage_state)], dim=stage.time_out)  # type: ignore[operator, arg-type]
            x = tail
        assert x is not None
        return x
