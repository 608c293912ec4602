"""How many conversations a worker has time for, from what those inside cost: the measured compute of each frame.

A conversation that has just come counts as if somebody always spoke in it; frame by frame, what it has cost takes the
place of that, and what it cost long ago is forgotten. So room grows where people listen as much as they speak, and
shrinks where frames become dearer: long conversations, a machine that has other things to do.

The estimate of one conversation is the mean of its last frames and of some that are only assumed: a Bayesian estimate
of a mean whose prior is worth so many observations (Bühlmann, "Experience rating and credibility", ASTIN Bulletin 4(3)
(1967)).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from ...session.policy import FRAME_MS

_ASSUMED = 10_000 // FRAME_MS  # frames (10 s) that what is assumed is worth
_REMEMBERED = 30_000 // FRAME_MS  # frames (30 s) that are remembered
_ANY = 64  # conversations of a model that costs nothing, for it cannot converse


@dataclass
class _Conversation:
    """cost_ms: of a frame, by estimate. frames: that were seen, as far as they are remembered."""

    cost_ms: float
    frames: int = 0


class Headroom:
    """Of one worker.

    Args:
        cost_ms: of a frame while somebody speaks, measured before anybody is inside; 0: nothing is known.
        fraction: of the worker's time that conversations may take together.
    """

    def __init__(self, cost_ms: float, fraction: float) -> None:
        self._cost_ms, self._fraction = cost_ms, fraction
        self._inside: dict[int, _Conversation] = {}

    def enter(self, line: int) -> None:
        """Somebody comes in."""
        self._inside[line] = _Conversation(self._newcomer_ms)

    def leave(self, line: int) -> None:
        """Somebody has left."""
        self._inside.pop(line, None)

    def frame(self, line: int, cost_ms: float) -> None:
        """A frame of somebody inside was done, with so much work."""
        if (one := self._inside.get(line)) is not None:
            one.frames = min(one.frames + 1, _REMEMBERED)
            one.cost_ms += (cost_ms - one.cost_ms) / (_ASSUMED + one.frames)

    @property
    def load(self) -> float:
        """The fraction of the worker's time that those inside take, by estimate."""
        return sum(one.cost_ms for one in self._inside.values()) / FRAME_MS

    @property
    def _newcomer_ms(self) -> float:
        """A frame of who comes in now: as measured before, or as those inside cost on average, if that is more."""
        costs = [one.cost_ms for one in self._inside.values()]
        return max(self._cost_ms, sum(costs) / max(1, len(costs)))

    def room(self) -> int:
        """Conversations in all that there is time for; one at least."""
        if not self._cost_ms:
            return _ANY
        left = (self._fraction - self.load) * FRAME_MS / self._newcomer_ms
        return max(1, len(self._inside) + math.floor(left + 1e-9))
