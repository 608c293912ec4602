"""Each request and each WebSocket, in figures and as a line in the log: where to, how it ended, how long it took.

In front of everything else, so that those who are refused are counted too. Nothing of what is sent is looked at.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from typing import Any

from starlette.routing import BaseRoute, Match

from ..logs import REQUESTS
from .metrics import Metrics

_OURS = ("/v1/", "/health", "/metrics")
OTHER = "other"  # the page and what belongs to it, and paths that there are not
_log = logging.getLogger(REQUESTS)


class Observing:
    """ASGI middleware.

    Args:
        routes: of the application, by whose paths requests are counted. root: the folder that a proxy puts it in.
    """

    def __init__(
        self,
        app: Any,
        metrics: Metrics,
        routes: Iterable[BaseRoute],
        root: str = "",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._app, self._metrics, self._routes, self._root, self._clock = app, metrics, routes, root, clock

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        endpoint, began, status, out = self._endpoint(scope), self._clock(), 0, 0
        first: float | None = None  # when the first byte of an answer was sent

        async def sent(message: Any) -> None:
            nonlocal status, out, first
            kind = message["type"]
            if kind in ("http.response.start", "websocket.http.response.start"):
                status = message["status"]
            elif kind == "websocket.accept":
                status = 101
            elif kind == "websocket.close":
                status = status or 403
            if body := message.get("body", b""):
                first, out = first or self._clock(), out + len(body)
            await send(message)

        self._metrics.began(endpoint)
        try:
            await self._app(scope, receive, sent)
        except BaseException:
            status = status or 500
            raise
        finally:
            seconds = self._clock() - began
            upgraded = scope["type"] == "websocket"
            self._metrics.ended(endpoint, status, seconds, None if upgraded or first is None else first - began)
            fields = {"endpoint": endpoint, "status": status, "ms": round(1e3 * seconds), "bytes_out": out}
            fields |= {"session": True} if upgraded else {"method": scope["method"]}
            _log.info("request", extra={"fields": fields})

    def _endpoint(self, scope: Any) -> str:
        """The path as the application declares it: so many, whatever clients ask for."""
        path = scope["path"]
        path = path.removeprefix(self._root) if self._root and path.startswith(f"{self._root}/") else path
        if not path.startswith(_OURS):
            return OTHER
        for route in self._routes:
            found, _ = route.matches({**scope, "path": path, "root_path": "", "method": "GET"})
            if found is not Match.NONE and isinstance(declared := getattr(route, "path", None), str):
                return declared
        return OTHER
