"""Replies that were spoken, for a while: a later request may name one by its id (``audio: {"id": …}``) instead of
sending its text. The text alone is kept, in memory, for the key that it was made for."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable

from ...protocol.errors import RequestError

SECONDS = 3600
_MOST = 4096  # the oldest go first


class KeptReplies:
    """By their ids.

    Args:
        clock: seconds since 1970.
    """

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._kept: OrderedDict[tuple[int, str], tuple[float, str]] = OrderedDict()

    def keep(self, key: int, id_: str, text: str) -> int:
        """Keep the text of a reply made for this key; returns until when, in seconds since 1970."""
        now = self._clock()
        self._kept[key, id_] = now + SECONDS, text
        while len(self._kept) > _MOST or next(iter(self._kept.values()))[0] <= now:
            self._kept.popitem(last=False)
        return int(now + SECONDS)

    def recall(self, key: int, id_: str, where: str) -> str:
        """The text of a reply.

        Raises:
            RequestError: it is not kept, or was made for another key.
        """
        until, text = self._kept.get((key, id_), (0.0, ""))
        if until <= self._clock():
            raise RequestError(
                f"{where}: no reply {id_[:80]!r} is kept (they are for {SECONDS // 60} minutes): give its text",
                "audio_not_found",
                where,
            )
        return text
