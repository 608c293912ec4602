"""This machine's microphone and loudspeaker, for the terminal: one stream of PortAudio's, 16-bit samples at 24 kHz.

PortAudio calls back in a thread of its own, 25 times a second: it hands over what was heard and takes what is to be
played. What is played next waits in a :class:`Loudspeaker`, which can fall silent within one such block.
"""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Callable
from typing import Any, Self

from ..model.errors import DuologueError

RATE = 24_000  # Hz
BLOCK = RATE // 25  # samples of a callback
_RESERVE = 2 * RATE // 10  # bytes that wait before an answer begins, against a network that stumbles: 100 ms


class Loudspeaker:
    """Sound on its way out: one thread puts, the device's takes. It knows how much of each answer was played."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pieces: deque[tuple[str, bytes]] = deque()
        self._waiting = 0  # bytes
        self._running = False
        self._played: Counter[str] = Counter()  # bytes of each answer

    def put(self, item: str, sound: bytes) -> None:
        """More of an answer."""
        with self._lock:
            self._pieces.append((item, sound))
            self._waiting += len(sound)
            self._running = self._running or self._waiting >= _RESERVE

    def end(self) -> None:
        """No more of it will come: play what there is."""
        with self._lock:
            self._running = self._waiting > 0

    def clear(self) -> None:
        """Silence."""
        with self._lock:
            self._pieces.clear()
            self._waiting, self._running = 0, False

    def take(self, size: int) -> bytes:
        """The next so many bytes, with silence where there is nothing to play."""
        taken = bytearray()
        with self._lock:
            while self._running and self._pieces and len(taken) < size:
                item, sound = self._pieces.popleft()
                now, rest = sound[: size - len(taken)], sound[size - len(taken) :]
                if rest:
                    self._pieces.appendleft((item, rest))
                taken += now
                self._played[item] += len(now)
                self._waiting -= len(now)
            self._running = self._running and self._waiting > 0
        return bytes(taken) + bytes(size - len(taken))

    def played_ms(self, item: str) -> int:
        """How much of an answer has been played."""
        with self._lock:
            return self._played[item] * 1000 // (2 * RATE)


class SoundDevice:
    """The system's microphone and loudspeaker, open while the context lasts.

    Args:
        heard: is given what the microphone heard, BLOCK samples at a time, in the device's thread.
        loudspeaker: what is played.

    Raises:
        DuologueError: there is no PortAudio, or it knows no microphone or no loudspeaker.
    """

    def __init__(self, heard: Callable[[bytes], None], loudspeaker: Loudspeaker) -> None:
        try:
            import sounddevice
        except OSError:
            raise DuologueError("the library PortAudio is not installed (Debian package libportaudio2)") from None

        def call(heard_now: Any, played_now: Any, frames: int, when: Any, status: Any) -> None:
            heard(bytes(heard_now))
            played_now[:] = loudspeaker.take(len(played_now))

        try:
            self._stream = sounddevice.RawStream(
                samplerate=RATE, blocksize=BLOCK, channels=1, dtype="int16", latency="low", callback=call
            )
        except (sounddevice.PortAudioError, ValueError) as error:
            raise DuologueError(f"no microphone and loudspeaker can be opened here: {error}") from None

    def __enter__(self) -> Self:
        self._stream.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stream.close()
