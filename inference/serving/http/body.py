"""The body of a JSON request, read so that no size of it holds up the event loop.

``json.loads`` gives nobody else a turn until it is done, and with recordings in it that may take long. So these are cut
out before the rest is parsed; the rest has a limit of its own, and so has the number of its values.
"""

from __future__ import annotations

import asyncio
import binascii
import secrets
from typing import Any

from ....model.errors import DuologueError
from ..protocol.errors import RequestError
from ..protocol.events import read_object
from .limits import Limits, check_marks

_LONG = 1 << 16  # bytes: a string of so many is cut out
_AT_ONCE = 1 << 20  # characters of base64 that are decoded in one go: 1 ms


async def read_body(body: bytes, limits: Limits) -> dict[str, Any]:
    """The object in it. Long strings, which can only be recordings, are memoryviews of their base64.

    Raises:
        RequestError: no JSON object, or too large a one.
    """
    rest, cut = body, dict[str, memoryview]()
    if len(body) > _LONG:
        rest, cut = await asyncio.to_thread(_cut, body, limits)
    if len(rest) > limits.json_bytes:
        raise RequestError(
            f"the JSON has {len(rest)} bytes besides recordings; at most {limits.json_bytes} are read",
            "too_large",
            status=413,
        )
    check_marks(rest, limits)
    data = read_object(rest, "the request")
    return _filled(data, cut) if cut else data


async def decoded(audio: str | memoryview) -> bytes:
    """A recording that stands in a request as base64.

    Raises:
        DuologueError: it is none.
    """
    return await asyncio.to_thread(_decoded, audio)


def _decoded(audio: str | memoryview) -> bytes:
    try:
        parts = [audio[i : i + _AT_ONCE] for i in range(0, len(audio), _AT_ONCE)]
        return b"".join(binascii.a2b_base64(part, strict_mode=True) for part in parts)
    except (binascii.Error, ValueError):
        raise DuologueError("the audio is not base64") from None


def _cut(body: bytes, limits: Limits) -> tuple[bytes, dict[str, memoryview]]:
    """The body with short names in the place of long strings, and what they stand for."""
    parts, cut = list[bytes | memoryview](), dict[str, memoryview]()
    view, name, done, at, quotes = memoryview(body), secrets.token_hex(16), 0, 0, 0
    while (start := body.find(b'"', at)) >= 0:
        quotes += 1
        if quotes > limits.marks:
            raise RequestError(f"the JSON has more than {limits.marks} strings", "too_large", status=413)
        end = _end(body, start + 1, limits.json_bytes)
        if end < 0:
            break
        if end - start > _LONG and body.find(b"\\", start, end) < 0:
            parts += [view[done : start + 1], f"{name}{len(cut)}".encode()]
            cut[f"{name}{len(cut)}"] = view[start + 1 : end]
            done = end
        at = end + 1
    return b"".join([*parts, view[done:]]), cut


def _end(body: bytes, at: int, most: int) -> int:
    """Where the string that begins there ends; -1: nowhere. One with a backslash is no recording: it has a length."""
    start = at
    while (end := body.find(b'"', at)) >= 0:
        if end > start + most and body.find(b"\\", start, end) >= 0:
            raise RequestError(f"the JSON has a text of more than {most} bytes", "too_large", status=413)
        before = end
        while before > at and body[before - 1] == 0x5C:  # a backslash
            before -= 1
        if (end - before) % 2 == 0:
            return end
        at = end + 1
    return -1


def _filled(value: Any, cut: dict[str, memoryview]) -> Any:
    if isinstance(value, str):
        return cut.get(value, value)
    if isinstance(value, dict):
        return {name: _filled(inside, cut) for name, inside in value.items()}
    if isinstance(value, list):
        return [_filled(inside, cut) for inside in value]
    return value
