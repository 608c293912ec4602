"""In what manner the user speaks: a small head on the audio encoder's frames (B, T, D) at 50 Hz, and on features of the
sound itself (:mod:`.voice_features`), for an encoder that was trained for words loses voice and pitch.

Each of the two is projected frame by frame, weighed, and goes into a running mean and deviation of the turn. Of both,
the classes of the config are told: calm, agitated, whisper, shout, or others that it was trained with; how somebody
speaks, and nothing of who they are. It streams: at any time it has an opinion of all that was said so far.

Source: attentive statistics pooling, Okabe et al. (arXiv 1803.10963), sections 3.1 and 3.2; scores are bounded, so that
the sums can run on without a maximum.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import DuologueError
from ..streaming import State, Streaming
from .voice_features import FEATURES, VoiceFeatures, VoiceState

NO_HEAD = (
    "this model has no head for the manner of speaking: duologue train manner makes one, and manner=RUN of duologue "
    "assemble joins it"
)
_SCORE = 4.0  # the largest score of a frame: weights are from e^-4 to e^4
_LEAST = 1e-3  # variance, below which two turns are not told apart


@dataclass(frozen=True, kw_only=True)
class MannerConfig:
    """Sizes of the head, and what it tells apart."""

    in_dim: int  # D, the encoder's width
    classes: tuple[str, ...]  # C names, in the order of the logits
    hidden_dim: int = 64  # H
    sound: bool = True  # it hears the sound beside the encoder's frames
    dropout: float = 0.2  # in training

    def __post_init__(self) -> None:
        if min(self.in_dim, self.hidden_dim) < 1:
            raise DuologueError(f"manner widths are {self.in_dim} and {self.hidden_dim}; they must be at least 1")
        if len(self.classes) < 2 or len(set(self.classes)) < len(self.classes) or not all(self.classes):
            raise DuologueError(f"manner classes are {','.join(self.classes)!r}; expected different names, two or more")
        if not 0 <= self.dropout < 1:
            raise DuologueError(f"manner dropout is {self.dropout}; it must be 0 to below 1")


@dataclass
class PoolState(State):
    """Sums over the frames so far, each times its weight."""

    weight: Tensor  # (B, 1)
    total: Tensor  # (B, H)
    squares: Tensor  # (B, H)


class Pooling(Streaming):
    """(B, T, D) -> (B, T, 2 H): the weighed mean and deviation of all frames up to each."""

    time_in, time_out = 1, 1

    def __init__(self, in_dim: int, hidden_dim: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(in_dim)
        self.project = nn.Linear(in_dim, hidden_dim)
        self.score = nn.Linear(hidden_dim, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.step(x, self.init_state(x.shape[0]))

    def init_state(self, batch_size: int = 1) -> PoolState:
        sizes, device = (1, self.score.in_features, self.score.in_features), self.score.weight.device
        return PoolState(*(torch.zeros(batch_size, size, device=device) for size in sizes))  # float32 always

    def step(self, x: Tensor, state: PoolState) -> Tensor:
        hidden = F.relu(self.project(self.norm(x.to(self.project.weight.dtype))))  # (B, T, H)
        weight = (_SCORE * self.score(hidden).float().tanh()).exp()  # (B, T, 1)
        hidden = hidden.float()
        before = (state.weight, state.total, state.squares)
        sums = [
            old[:, None] + new.cumsum(dim=1)
            for old, new in zip(before, (weight, weight * hidden, weight * hidden.square()), strict=True)
        ]
        if x.shape[1]:
            state.weight, state.total, state.squares = (each[:, -1] for each in sums)
        return _pooled(*sums)

    def flush(self, state: PoolState) -> Tensor:
        return state.total.new_zeros(len(state.total), 0, 2 * state.total.shape[1])


def _pooled(weight: Tensor, total: Tensor, squares: Tensor) -> Tensor:
    mean = total / weight
    deviation = (squares / weight - mean.square()).clamp(min=_LEAST).sqrt()
    return torch.cat([mean, deviation], dim=-1)


@dataclass
class SoundState(State):
    """Of the features of the sound, and of what is gathered of them."""

    voice: VoiceState
    pool: PoolState


@dataclass
class MannerState(State):
    """What was gathered of the encoder's frames and of the sound."""

    frames: PoolState
    sound: SoundState | None


class MannerHead(nn.Module):
    """Frames (B, T, D) and samples (B, n) -> logits (B, T, C), each of all that was heard up to its frame."""

    def __init__(self, config: MannerConfig) -> None:
        super().__init__()
        self.config = config
        self.frames = Pooling(config.in_dim, config.hidden_dim)
        self.voice = VoiceFeatures() if config.sound else None
        self.sound = Pooling(FEATURES, config.hidden_dim) if config.sound else None
        self.classify = nn.Linear((4 if config.sound else 2) * config.hidden_dim, len(config.classes))

    def forward(self, frames: Tensor, features: Tensor | None) -> Tensor:
        """features: (B, T, F) of the sound (:meth:`features`), with an entry for each frame; ``None``: without."""
        pooled = [self.frames(frames)]
        if self.sound is not None and features is not None:
            pooled.append(self.sound(features))
        return self._classified(torch.cat(pooled, dim=-1))

    def features(self, samples: Tensor, frames: int) -> Tensor | None:
        """(B, n) -> (B, frames, F), the last of them again where the encoder has more frames; None: without sound."""
        if self.voice is None:
            return None
        found: Tensor = self.voice(samples)
        if not found.shape[1]:
            return found.new_zeros(len(found), frames, FEATURES)
        return found[:, torch.arange(frames).clamp(max=found.shape[1] - 1)]

    def init_sound(self, batch_size: int = 1) -> SoundState | None:
        """Of a stream whose sound is to be heard; None: the head does not hear it."""
        if self.voice is None or self.sound is None:
            return None
        return SoundState(self.voice.init_state(batch_size), self.sound.init_state(batch_size))

    def hear(self, samples: Tensor, state: SoundState) -> None:
        """More samples (B, n) of a stream."""
        if self.voice is not None and self.sound is not None:
            self.sound.step(self.voice.step(samples, state.voice), state.pool)

    def probabilities(self, state: MannerState) -> Tensor | None:
        """(B, C) of all that was heard; None: nothing was."""
        pools = [state.frames, *([] if state.sound is None else [state.sound.pool])]
        if not all(pool.weight.all() for pool in pools):
            return None
        pooled = torch.cat([_pooled(pool.weight, pool.total, pool.squares) for pool in pools], dim=-1)
        return self._classified(pooled).float().softmax(dim=-1)

    def _classified(self, pooled: Tensor) -> Tensor:
        pooled = F.dropout(pooled, self.config.dropout, self.training)
        return self.classify(pooled.to(self.classify.weight.dtype))


class Tap(Streaming):
    """Frames (B, T, D) unchanged, on their way to the adaptor; they are pooled as they pass, in the tap's state."""

    time_in, time_out = 1, 1

    def __init__(self, pooling: Pooling) -> None:
        super().__init__()
        self.pooling = pooling

    def forward(self, x: Tensor) -> Tensor:
        return x

    def init_state(self, batch_size: int = 1) -> PoolState:
        return self.pooling.init_state(batch_size)

    def step(self, x: Tensor, state: PoolState) -> Tensor:
        self.pooling.step(x, state)
        return x

    def flush(self, state: PoolState) -> Tensor:
        return state.total.new_zeros(len(state.total), 0, self.pooling.project.in_features)
