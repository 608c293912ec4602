"""An offline stage made a stream: run over windows with context on either side, of which only the middle is kept.

For a stage that sees everything at once (WavTokenizer's decoder) this cannot be exact: a frame near a window's middle
sees ``left`` and ``right`` frames of context instead of all. ``forward`` stays the whole run, so that the difference
can be measured.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import torch
from torch import Tensor

from ..errors import DuologueError
from ..streaming import State, Streaming


@dataclass
class WindowState(State):
    held: Tensor  # the last frames of input that windows to come still see
    before: int  # of them, frames whose output is out already


class Windowed(Streaming):
    """``block`` frames of output at a time, from ``left`` frames more before them and ``right`` after them.

    A window at the beginning or the end of the stream has no more context than there is, as in the whole run. The
    stage's rate must be a whole number of output frames for each input frame.
    """

    exact = False

    def __init__(self, stage: Streaming, like: Tensor, block: int, left: int, right: int) -> None:
        """``like``: no frames of a stream of batch size 1, for type and shape."""
        super().__init__()
        if block < 1 or min(left, right) < 0:
            raise DuologueError(f"a window needs a block of at least 1 frame and context of at least 0, got {block}")
        self.stage, self.block, self.left, self.right = stage, block, left, right
        self.like = like
        self.time_in, self.time_out, self.rate = stage.time_in, stage.time_out, stage.rate
        if self.rate.denominator != 1:
            raise DuologueError(f"a windowed stage must give whole frames for each frame, not {Fraction(self.rate)}")
        self.latency = block - 1 + right

    def forward(self, x: Tensor) -> Tensor:
        return self.stage(x)

    def init_state(self, batch_size: int = 1) -> WindowState:
        shape = [batch_size, *self.like.shape[1:]]
        return WindowState(held=self.like.new_zeros(shape), before=0)

    def step(self, x: Tensor, state: WindowState) -> Tensor:
        state.held = torch.cat([state.held, x], dim=self.time_in)
        outputs = []
        while state.held.shape[self.time_in] >= state.before + self.block + self.right:
            outputs.append(self._middle(state, self.block, self.right))
            done = state.before + self.block
            dropped = max(0, done - self.left)
            state.held = state.held.narrow(self.time_in, dropped, state.held.shape[self.time_in] - dropped).clone()
            state.before = done - dropped
        return torch.cat(outputs, dim=self.time_out) if outputs else self._none(state)

    def flush(self, state: WindowState) -> Tensor:
        rest = state.held.shape[self.time_in] - state.before
        return self._middle(state, rest, 0) if rest else self._none(state)

    def _none(self, state: WindowState) -> Tensor:
        return self.stage(state.held.narrow(self.time_in, 0, 0))

    def _middle(self, state: WindowState, frames: int, after: int) -> Tensor:
        """What the stage makes of the next frames, given what is held before them and so many after them."""
        window = state.held.narrow(self.time_in, 0, state.before + frames + after)
        rate = int(self.rate)
        return self.stage(window).narrow(self.time_out, state.before * rate, frames * rate)
