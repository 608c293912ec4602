"""Hearing as one stage: samples (B, n) in, embeddings (B, T, D) of the language model out.

    samples -> mel -> audio encoder -> adaptor -> embeddings

Speech is encoded while it comes in if the encoder can be streamed, or is run through a window (:mod:`.windowed`).
Otherwise the samples are kept, and ``flush`` encodes the whole clip. A head for the manner of speaking (:mod:`.manner`)
hears the encoder's frames on their way.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor

from ..adaptor.adaptor import Adaptor, HeardText, HeardToken
from ..streaming import Chain, ChainState, State, Streaming
from .encoder import Encoder
from .manner import MannerHead, MannerState, PoolState, SoundState, Tap
from .mel import LogMel
from .windowed import WindowConfig, WindowedEncoder


@dataclass
class HearingState(State):
    """Of an encoder that streams its state; of another the clip so far, samples (B, n) each, and once it has been heard
    the adaptor's state. Of the head for the manner: what it hears of the sound, and of such a clip's frames."""

    batch: int
    stage: ChainState | None
    clip: list[Tensor]
    adaptor: State | None = None
    sound: SoundState | None = None
    frames: PoolState | None = None

    def clone(self) -> Self:
        """The samples are shared: they no longer change."""
        return replace(self, stage=None if self.stage is None else self.stage.clone(), clip=list(self.clip))


class Hearing(Streaming):
    """Samples (B, n) -> embeddings (B, T, D).

    Args:
        streams: whether the encoder was made to be streamed.
        window: stream one that was not; its numbers then come near the offline ones (``exact = False``).
        clip_s: pad or cut a whole clip to so many seconds; ``None``: the clip itself. Not where speech is streamed: the
            language model then hears as many embeddings as were spoken.
        tail_s: seconds of silence heard behind every clip.
        manner: what tells the manner of speaking; ``None``: nothing does.
    """

    time_in, time_out = 1, 1

    def __init__(
        self,
        mel: LogMel,
        encoder: Encoder,
        adaptor: Adaptor,
        *,
        streams: bool,
        window: WindowConfig | None = None,
        clip_s: float | None = None,
        tail_s: float = 0.0,
        manner: MannerHead | None = None,
    ) -> None:
        super().__init__()
        frames = (mel, encoder) if window is None else (WindowedEncoder(mel, encoder, window),)
        self.manner = manner
        tap = () if manner is None else (Tap(manner.frames),)
        self.frames, self.stage, self.adaptor = Chain(*frames), Chain(*frames, *tap, adaptor), adaptor
        self.streams = streams or window is not None
        self.sample_rate = mel.config.sample_rate  # Hz
        self.clip_s = None if self.streams else clip_s
        self.tail = round(tail_s * self.sample_rate)
        self.positions = Fraction(encoder.config.positions) / (mel.rate * encoder.rate)
        self.rate, self.latency, self.exact = self.stage.rate, self.stage.latency, self.stage.exact

    def with_adaptor(self, adaptor: Adaptor) -> Hearing:
        """A view of the same weights with another view of its adaptor."""
        view = copy.copy(self)
        view._modules = dict(self._modules)
        view.stage, view.adaptor = Chain(*self.stage.stages[:-1], adaptor), adaptor
        return view

    @property
    def longest_s(self) -> float:
        """Seconds that are heard at once: those that a clip is padded to, or that the encoder has positions for."""
        return float(self.positions / self.sample_rate) if self.clip_s is None else self.clip_s

    def embeddings_of(self, samples: int) -> int:
        """How many embeddings so many samples become, at most."""
        heard = samples if self.clip_s is None else round(self.clip_s * self.sample_rate)
        return int(heard * self.frames.rate * self.adaptor.most) + 1

    def tokens_of(self, state: HearingState) -> list[HeardToken]:
        """The tokens that the adaptor has heard so far, if it hears any by itself; their times in seconds."""
        adaptor = state.adaptor if state.stage is None else state.stage.stages[-1]
        return self._timed([] if adaptor is None else self.adaptor.tokens_of(adaptor))

    def manner_of(self, state: HearingState) -> MannerState | None:
        """What the head for the manner has gathered so far; None: there is no head, or nothing was heard."""
        if self.manner is None:
            return None
        frames: Any = state.frames if state.stage is None else state.stage.stages[-2]
        return None if frames is None else MannerState(frames, state.sound)

    def n_best(self, pcm: Tensor) -> list[HeardText]:
        """The texts that the adaptor's decoder finds in a whole clip (1, n), the best first; times in seconds."""
        texts = self.adaptor.n_best(self.frames(self._whole(pcm)))
        return [replace(text, tokens=self._timed(text.tokens)) for text in texts]

    def _timed(self, tokens: list[HeardToken]) -> list[HeardToken]:
        """With times in seconds, not frames."""
        frame_s = float(1 / (self.frames.rate * self.sample_rate))
        return [replace(token, start=token.start * frame_s, end=token.end * frame_s) for token in tokens]

    def forward(self, pcm: Tensor) -> Tensor:
        return self.stage(self._whole(pcm))

    def _whole(self, pcm: Tensor) -> Tensor:
        """A whole clip as the encoder is given it."""
        pcm = F.pad(pcm, (0, self.tail))
        if self.clip_s is not None:
            pcm = F.pad(pcm, (0, round(self.clip_s * self.sample_rate) - pcm.shape[1]))  # negative: cut
        return pcm

    def init_state(self, batch_size: int = 1) -> HearingState:
        stage = self.stage.init_state(batch_size) if self.streams else None
        sound = None if self.manner is None else self.manner.init_sound(batch_size)
        return HearingState(batch_size, stage, [], sound=sound)

    def step(self, pcm: Tensor, state: HearingState) -> Tensor:
        if self.manner is not None and state.sound is not None:
            self.manner.hear(pcm, state.sound)
        if state.stage is not None:
            return self.stage.step(pcm, state.stage)
        state.clip.append(pcm)
        return next(self.adaptor.parameters()).new_zeros(state.batch, 0, self.adaptor.config.out_dim)

    def flush(self, state: HearingState) -> Tensor:
        silence = torch.zeros(state.batch, self.tail, device=next(self.adaptor.parameters()).device)
        if state.stage is None:
            clip = torch.cat([*state.clip, silence[:, :0]], dim=1)
            frames = self.frames(self._whole(clip))
            if self.manner is not None:  # what the clip is padded with was not said
                state.frames = self.manner.frames.init_state(state.batch)
                self.manner.frames.step(frames[:, : -(-clip.shape[1] * self.frames.rate // 1)], state.frames)
            state.adaptor = self.adaptor.init_state(state.batch)
            return torch.cat([self.adaptor.step(frames, state.adaptor), self.adaptor.flush(state.adaptor)], dim=1)
        heard = [self.stage.step(silence, state.stage)] if self.tail else []
        return torch.cat([*heard, self.stage.flush(state.stage)], dim=1)
