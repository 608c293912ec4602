"""How loud is who is speaking, beside how loud the user usually is: somebody across the room is not talking to us.

What a language model hears has no level any more, and a far talker's question is a question. So the level decides: what
stays ``far_db`` under the user's usual level while it is said is somebody else's. The usual level follows the turns
that are answered; whoever was taken for far and speaks again as faintly is the user after all, at a faint microphone.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ...model.errors import DuologueError
from ...model.streaming import State
from .speech_segments import SOUND_DB

_FOLLOW = 0.3  # of the way to a turn's level that the usual one goes
_ALIKE_DB = 6.0  # two faint turns that differ by no more are by one person


@dataclass(frozen=True, kw_only=True)
class LoudnessConfig:
    """usual_dbfs: where a user's level is thought to be at first (root mean square while speaking); far_db: how far
    under it somebody else's is; 0: nobody is far."""

    usual_dbfs: float = -26.0
    far_db: float = 9.0

    def __post_init__(self) -> None:
        if not -80 <= self.usual_dbfs <= 0:
            raise DuologueError(f"loudness: usual_dbfs is {self.usual_dbfs}; it must lie between -80 and 0")
        if self.far_db < 0:
            raise DuologueError(f"loudness: far_db is {self.far_db}; it must be 0 or more")


@dataclass
class Loudness(State):
    """The level of the turn that is being heard, and the user's.

    energy, samples: of the turn's frames of speech. faint_dbfs: of the last turn that was taken for far.
    """

    config: LoudnessConfig
    usual_dbfs: float
    energy: float = 0.0
    samples: int = 0
    faint_dbfs: float | None = None

    @classmethod
    def begin(cls, config: LoudnessConfig) -> Loudness:
        return cls(config, config.usual_dbfs)

    def new_turn(self) -> None:
        self.energy, self.samples = 0.0, 0

    def hear(self, pcm: Tensor) -> None:
        """A frame (n,) of speech."""
        self.energy += float(pcm.double().square().sum())
        self.samples += len(pcm)

    @property
    def level_dbfs(self) -> float:
        """Of the turn so far; silence is -inf."""
        if not self.energy:
            return float("-inf")
        return float(10 * torch.tensor(self.energy / self.samples, dtype=torch.float64).log10())

    @property
    def far(self) -> bool:
        """Whether who speaks is too faint to be the user."""
        level = self.level_dbfs
        if not self.config.far_db or not self.samples or level >= self.usual_dbfs - self.config.far_db:
            return False
        return self.faint_dbfs is None or abs(level - self.faint_dbfs) > _ALIKE_DB

    def sounds(self, pcm: Tensor) -> bool:
        """Whether samples (n,) are about as loud as the user."""
        level = 10 * torch.log10(pcm.double().square().mean() + 1e-12)
        return float(level) > self.usual_dbfs - SOUND_DB

    def answered(self) -> None:
        """The turn was the user's."""
        if self.samples:
            faint = self.faint_dbfs is not None and self.level_dbfs < self.usual_dbfs - self.config.far_db
            self.usual_dbfs += (1.0 if faint else _FOLLOW) * (self.level_dbfs - self.usual_dbfs)
        self.faint_dbfs = None

    def ignored(self) -> None:
        """The turn was somebody else's, or nobody's."""
        if self.far:
            self.faint_dbfs = self.level_dbfs
