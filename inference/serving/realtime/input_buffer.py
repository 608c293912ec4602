"""What a client has appended and the session has not heard yet.

Without turn detection it is a turn of the client's making, until it commits it; what is appended while an answer is
under way waits until that is over.
"""

from __future__ import annotations

import numpy as np

from ..protocol.errors import RequestError
from ..protocol.formats import AudioFormat, Framer, in_seconds
from ..protocol.items import LONGEST_S, Item
from ..workers.pool import FRAME_S

_BACKLOG_S = 120  # of sound that may wait to be heard; more is refused
_SHORTEST_MS = 100  # of sound that can be committed, as in the API


class InputBuffer:
    """The buffer.

    Args:
        format_: of the client's sound. rate, frame: of the session: Hz, and samples in 80 ms.
    """

    def __init__(self, format_: AudioFormat, rate: int, frame: int) -> None:
        self._rate, self._frame = rate, frame
        self._framer = Framer(format_, rate, frame)
        self.waiting: list[np.ndarray | Item] = []  # frames not heard yet, and turns that end there
        self._turn: Item | None = None  # without turn detection: what is not committed yet
        self._uncommitted_ms = 0.0
        self.cut = False  # some of the turn's sound was refused

    def listen_to(self, format_: AudioFormat) -> None:
        """Another format from now on."""
        if format_ is not self._framer.format:
            self._framer = Framer(format_, self._rate, self._frame)

    def check(self, sound: bytes, manual: bool, under_way: int) -> None:
        """Raises RequestError where there is no room for more; ``under_way``: frames on their way to the session."""
        sound_s = len(sound) / self._bytes_a_second
        waiting_s = (len(self.waiting) + (0 if manual else under_way)) * FRAME_S + sound_s
        why = f"{waiting_s:.0f} s of audio wait to be heard" if waiting_s > _BACKLOG_S else ""
        if manual and self._uncommitted_ms / 1000 + sound_s > LONGEST_S:
            why = f"a turn has at most {LONGEST_S} s of audio"
        if why:
            self.cut = manual
            rest = "; nothing more is taken until the buffer is committed or cleared" if manual else ""
            raise RequestError(f"{why}{rest}", "input_audio_buffer_full", "audio")

    def pieces(self, sound: bytes) -> list[bytes]:
        """A second each."""
        return in_seconds(sound, self._framer.format)

    def frames(self, piece: bytes) -> list[np.ndarray]:
        """The frames (frame,) that these bytes complete."""
        return self._framer.push(piece)

    def keep(self, piece: bytes) -> None:
        """More of a turn of the client's making."""
        self._uncommitted_ms += len(piece) * 1000 / self._bytes_a_second
        self._hold(self._framer.push(piece))

    def commit(self) -> Item:
        """The turn is over: it waits to be heard.

        Raises:
            RequestError: too short a turn.
        """
        if self._uncommitted_ms < _SHORTEST_MS:
            raise RequestError(
                f"the buffer holds {self._uncommitted_ms} ms of audio; at least {_SHORTEST_MS} can be committed",
                "input_audio_buffer_commit_empty",
            )
        self._hold(self._framer.flush())
        item = self._turn
        assert item is not None
        self.waiting.append(item)
        self._reset()
        return item

    def clear(self, manual: bool) -> None:
        """Drop what is not committed."""
        self._framer.clear()
        if manual:
            del self.waiting[self._committed :]
            self._reset()
        else:
            self.waiting = []

    def take(self, all_of_it: bool) -> list[np.ndarray | Item]:
        """What waits, or only the turns that are whole."""
        count = len(self.waiting) if all_of_it else self._committed
        taken, self.waiting = self.waiting[:count], self.waiting[count:]
        return taken

    def rewind(self) -> None:
        """Without turn detection: let what is not committed wait to be heard, from its beginning."""
        if self._turn is not None:
            self.waiting = [piece.astype(np.float32) / 32_768 for piece in self._turn.sound]

    def begin_turns(self) -> None:
        """From now on the client says where turns end."""
        self._uncommitted_ms, self.cut = 0.0, False

    @property
    def _committed(self) -> int:
        return max((i + 1 for i, what in enumerate(self.waiting) if isinstance(what, Item)), default=0)

    @property
    def _bytes_a_second(self) -> int:
        return self._framer.format.rate * (2 if self._framer.format is AudioFormat.PCM else 1)

    def _hold(self, frames: list[np.ndarray]) -> None:
        self._turn = self._turn or Item("user", None, spoken=True, rate=self._rate)
        for frame in frames:
            self._turn.hear(frame)
        self.waiting += frames

    def _reset(self) -> None:
        self._turn, self._uncommitted_ms, self.cut = None, 0.0, False
