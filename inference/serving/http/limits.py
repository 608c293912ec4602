"""What one client may ask for, so that nothing it sends delays another."""

from __future__ import annotations

import time
from dataclasses import dataclass, fields
from typing import Any

from ....model.errors import DuologueError
from ..protocol.errors import RequestError

TOO_LONG = "string_above_max_length"


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Limits of one client.

    text_chars: characters of one text, and of all texts of one request or event together. (How many tokens is in
        :mod:`...assistant.text_stream`, and what the model's context holds.)
    past_chars: characters of a Realtime conversation that are remembered where it has to be read again.
    messages: of one request.
    marks: commas, colons and brackets of one JSON text, those in its texts too: what it costs to read it.
    values: in it.
    json_bytes: of one JSON text, the base64 of recordings left out.
    queue: requests that may wait for a session slot; with several API keys, at most half of them of one key.
    wait_s: that a request may wait there.
    idle_s: that a Realtime session may last without a message of its client, or an answer.
    burst_bytes, bytes_per_s: of one WebSocket: so many at once, and so many a second from then on; what comes faster is
        read later.
    calls: WebRTC calls at a time, those that are being set up included. sdp_bytes: of one offer.
    """

    text_chars: int = 16_000
    past_chars: int = 8_000
    messages: int = 256
    marks: int = 50_000
    values: int = 5_000
    json_bytes: int = 1 << 20
    queue: int = 64
    wait_s: float = 30.0
    idle_s: float = 300.0
    burst_bytes: int = 8 << 20
    bytes_per_s: int = 1 << 20
    calls: int = 64
    sdp_bytes: int = 32 << 10

    def __post_init__(self) -> None:
        for field in fields(self):
            if getattr(self, field.name) <= 0:
                raise DuologueError(f"{field.name} is {getattr(self, field.name)}; it must be above 0")


def check_texts(data: dict[str, Any], limits: Limits, audio: str | None = None) -> None:
    """All texts of what a client sent, each and together, whatever field they are in; only recordings are left out.

    Args:
        audio: the name of fields that hold recordings.

    Raises:
        RequestError: one text is too long, or all are together; or there are too many values.
    """
    most, together, values, level = limits.text_chars, 0, 0, [("", data)]
    while level:
        path, value = level.pop()
        values += 1
        if values > limits.values:
            raise RequestError(f"the JSON has more than {limits.values} values", "too_large", status=413)
        if isinstance(value, (str, memoryview)):
            if len(value) > most:
                raise RequestError(f"{path} has {len(value)} characters; a text has at most {most}", TOO_LONG, path)
            together += len(value)
        elif isinstance(value, dict):
            together += sum(map(len, value))
            level += ((f"{path}.{name}"[-200:].lstrip("."), inside) for name, inside in value.items() if name != audio)
        elif isinstance(value, list):
            level += ((f"{path}.{i}", inside) for i, inside in enumerate(value))
    if together > most:
        raise RequestError(f"the texts have {together} characters together; they may have {most}", TOO_LONG)


def check_marks(text: bytes | str, limits: Limits) -> None:
    """Raises RequestError where a JSON text has more in it than can be read at once, whatever that is."""
    if isinstance(text, bytes):
        found = sum(text.count(mark) for mark in (b",", b":", b"[", b"{"))
    else:
        found = sum(text.count(mark) for mark in ",:[{")
    if found > limits.marks:
        what = "commas, colons and brackets"
        raise RequestError(f"the JSON has {found} {what}; at most {limits.marks} are read", "too_large", status=413)


class Throttle:
    """How long a client that sends faster than it may is to wait.

    Args:
        burst: may come at once. per_s: comes back each second.
    """

    def __init__(self, burst: float, per_s: float) -> None:
        self._burst, self._per_s = burst, per_s
        self._left, self._when = burst, time.monotonic()

    def wait_s(self, amount: float) -> float:
        """Take so much; seconds until the next may come."""
        now = time.monotonic()
        self._left = min(self._burst, self._left + (now - self._when) * self._per_s) - amount
        self._when = now
        return max(0.0, -self._left / self._per_s)
