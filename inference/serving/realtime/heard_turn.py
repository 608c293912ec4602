"""The user's turn as the session hears it: what the client is told of its beginning and its end, and its sound.

Times of the session count frames that were made up; what the client is told counts what it has appended.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ...session.policy import FRAME_MS
from ..protocol.items import Item

_RECENT = 300 // FRAME_MS + 1  # frames that a turn may turn out to have begun in


class HeardTurn:
    """The turn that is being heard, or was and is not committed yet.

    Args:
        send: called with an event's type and its fields. rate: of the sound, Hz.
    """

    def __init__(self, send: Callable[..., None], rate: int) -> None:
        self._send, self._rate = send, rate
        self.item: Item | None = None
        self.now_ms = 0  # of the session
        self._made_up_ms = 0
        self._recent: list[np.ndarray] = []
        self._onset_ms: int | None = None  # of speech, before it is known to be a turn
        self._end_ms = self._decided_ms = 0

    def frame(self, frame: np.ndarray, made_up: bool) -> None:
        """One more frame (frame,) has been heard."""
        self.now_ms += FRAME_MS
        self._made_up_ms += FRAME_MS * made_up
        self._recent = [*self._recent[-_RECENT:], frame]
        if self.item is not None:
            self.item.hear(frame)

    def speech_started(self, at_ms: int) -> None:
        """Somebody speaks."""
        self._onset_ms = at_ms

    def speech_stopped(self, at_ms: int) -> None:
        """Nobody does."""
        self._end_ms = at_ms

    def decided(self, at_ms: int) -> None:
        """The turn is over."""
        self._decided_ms = at_ms

    def begin(self, padding_ms: int) -> None:
        """A turn has begun, so much before speech was noticed."""
        onset_ms = self.now_ms if self._onset_ms is None else self._onset_ms
        self._onset_ms, self.item = None, Item("user", None, spoken=True, rate=self._rate)
        for frame in self._recent:
            self.item.hear(frame)
        start = self.client_ms(onset_ms - padding_ms)
        self._send("input_audio_buffer.speech_started", audio_start_ms=start, item_id=self.item.id)

    def stop(self) -> None:
        """It is over."""
        if self.item is not None:
            end = self.client_ms(self._end_ms)
            self._send("input_audio_buffer.speech_stopped", audio_end_ms=end, item_id=self.item.id)

    def take(self) -> Item | None:
        """The turn, which is no longer heard."""
        item, self.item = self.item, None
        return item

    def forget(self) -> None:
        """All that was heard."""
        self.item, self._recent = None, []

    def timings(self, late_ms: float) -> dict[str, float]:
        """What the user waited for until now, ms."""
        endpoint, compute = self._decided_ms - self._end_ms, self.now_ms - self._decided_ms + late_ms
        return {"endpoint_ms": endpoint, "compute_ms": compute, "first_ms": endpoint + compute}

    def client_ms(self, at_ms: int) -> int:
        """Of the session's time -> of what the client has appended."""
        return max(0, at_ms - self._made_up_ms)


