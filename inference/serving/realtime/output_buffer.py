"""The sound of responses where the server plays it, on the track of a call: what has been played is known.

Sound comes in frames of 80 ms, some later than they ought to, and is taken 20 ms at a time by the track's clock. So it
begins a little later than it could; where it runs out, it begins later the next time.
"""

from __future__ import annotations

from collections import deque

import numpy as np

from ..protocol.formats import Resampler
from ..protocol.response import Send

RATE = 48_000  # Hz, of what is taken
_DELAY_S, _MOST_DELAY_S = 0.04, 0.08  # from the first sound of an answer until it begins: at first, and at most
_MORE_S, _LESS_S = 0.02, 0.01  # later where it has run out, sooner where an answer was whole
_PAUSE_S = 0.3  # without sound, after which the assistant has paused; before, it has come too late


class OutputBuffer:
    """What is to be played.

    Args:
        send: called with an event's type and its fields. rate: of the sound, Hz.
    """

    def __init__(self, send: Send, rate: int) -> None:
        self._send, self._rate = send, rate
        self._waiting: deque[tuple[str, np.ndarray]] = deque()  # of which response, and its samples
        self._resampler = Resampler(rate, RATE)
        self._newest = ""  # the response that sound came for last
        self._complete: set[str] = set()  # responses that are over, with sound left
        self._playing: str | None = None  # whose sound is heard
        self._played = 0  # samples of it
        self._delay_s = _DELAY_S
        self._runs = False  # samples flow
        self._held = self._dry = 0  # silent samples since there was sound to play, and since it ran out

    def play(self, response: str, pcm: np.ndarray) -> None:
        """More of a response's sound, (n,) float32."""
        if response != self._newest:
            self._newest, self._resampler = response, Resampler(self._rate, RATE)
        self._put(response, self._resampler.push(pcm))

    def finish(self, response: str) -> None:
        """The response is over: no more will come."""
        if response == self._newest:
            self._put(response, self._resampler.push(np.zeros(0, np.float32), last=True))
        if response == self._playing or any(response == its for its, _ in self._waiting):
            self._complete.add(response)

    def clear(self) -> None:
        """Nothing of what waits is to be played."""
        playing, self._playing, self._newest, self._runs = self._playing, None, "", False
        self._held = self._dry = 0
        self._waiting.clear()
        self._complete.clear()
        if playing is not None:
            self._send("output_audio_buffer.cleared", response_id=playing)

    def played(self, response: str) -> int:
        """Samples of it that have been played, at the rate of the sound."""
        return self._played * self._rate // RATE if response == self._playing else 0

    def take(self, count: int) -> np.ndarray:
        """The next samples (count,) float32 at RATE; silence where there is nothing to play."""
        out, at = np.zeros(count, np.float32), 0
        self._start(count)
        while at < count and self._runs and self._waiting:
            response, pcm = self._waiting.popleft()
            if response != self._playing:
                self._stop()
                self._playing, self._played = response, 0
                self._send("output_audio_buffer.started", response_id=response)
            piece = pcm[: count - at]
            out[at : at + len(piece)] = piece
            at, self._played = at + len(piece), self._played + len(piece)
            if len(piece) < len(pcm):
                self._waiting.appendleft((response, pcm[len(piece) :]))
        if not self._waiting:
            if self._playing in self._complete:
                self._delay_s = max(self._delay_s - _LESS_S, _DELAY_S)
                self._stop()
                self._playing, self._runs = None, False
            elif self._playing is not None and at < count:  # it has run out
                self._runs, self._dry = False, self._dry + count - at
        return out

    def _put(self, response: str, pcm: np.ndarray) -> None:
        if len(pcm):
            self._waiting.append((response, pcm))

    def _start(self, count: int) -> None:
        """Let samples flow, if they are to by now."""
        if self._runs or not self._waiting:
            return
        if self._playing is not None and 0 < self._dry < _PAUSE_S * RATE:
            self._delay_s = min(self._delay_s + _MORE_S, _MOST_DELAY_S)
        self._dry = 0
        complete = self._waiting[-1][0] in self._complete
        self._runs = complete or self._held + count >= self._delay_s * RATE
        self._held = 0 if self._runs else self._held + count

    def _stop(self) -> None:
        if self._playing is not None:
            self._complete.discard(self._playing)
            self._send("output_audio_buffer.stopped", response_id=self._playing)
