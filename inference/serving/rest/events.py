"""Server-sent events, as the API's clients read them (the HTML standard, section "Server-sent events")."""

from __future__ import annotations

import json
from typing import Any

from pydantic import BaseModel

from ....model.errors import DuologueError
from ..protocol.errors import RequestError


def line(event: BaseModel | dict[str, Any]) -> str:
    """One event."""
    text = json.dumps(event) if isinstance(event, dict) else event.model_dump_json(exclude_unset=True)
    return f"data: {text}\n\n"


def error_line(error: DuologueError) -> str:
    """What ends a stream that has begun."""
    known = error if isinstance(error, RequestError) else RequestError(str(error))
    return line({"error": known.body()})
