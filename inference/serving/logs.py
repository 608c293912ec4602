"""Logs of a service: for people, as Python writes them; or as JSON, a line each, for programs.

A JSON line has what happened and to whom, and nothing of what was said: no text, no sound, no key, no query. Of an
exception it has the type and where it was raised, for its message may quote what somebody said.
"""

from __future__ import annotations

import json
import logging
import sys
import time
import traceback
from typing import Any

from ...model.errors import DuologueError

KINDS = ("text", "json")
REQUESTS = "duologue.requests"  # the logger of requests and sessions, a line each
_FRAMES = 8  # of a stack, the innermost


class JsonFormatter(logging.Formatter):
    """time, level, logger, event; the fields of a request; error and stack of an exception."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            # What a library puts into a message may be anybody's words: without them it is still known what was said.
            "event": record.getMessage() if record.name.startswith("duologue") else record.msg,
            **getattr(record, "fields", {}),
        }
        if record.exc_info and (error := record.exc_info[1]) is not None:
            frames = traceback.extract_tb(error.__traceback__)[-_FRAMES:]
            line["error"] = type(error).__name__
            line["stack"] = [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames]
        return json.dumps(line, default=str)


def set_up(kind: str) -> None:
    """Of this process, on stderr.

    Raises:
        DuologueError: there is no such kind.
    """
    if kind not in KINDS:
        raise DuologueError(f"logs are {kind!r}; they must be {' or '.join(KINDS)}")
    if kind == "text":
        return
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter())
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
    logging.getLogger(REQUESTS).setLevel(logging.INFO)
