"""Errors as the API gives them: an object on the socket, a status and an object over HTTP."""

from __future__ import annotations

from typing import Any

from pydantic import ValidationError

from ....model.errors import DuologueError


class RequestError(DuologueError):
    """A request that cannot be met.

    code, param: as in the API's error objects. status: of an HTTP answer. retry_s: when to ask again, if that is known.
    """

    retry_s: int | None = None

    def __init__(self, message: str, code: str = "invalid_value", param: str | None = None, status: int = 400) -> None:
        super().__init__(message)
        self.code, self.param, self.status = code, param, status

    def body(self) -> dict[str, Any]:
        """The error object."""
        kind = "server_error" if self.status >= 500 else "invalid_request_error"
        return {"type": kind, "code": self.code, "message": str(self), "param": self.param}


def field_error(error: ValidationError, where: str = "") -> RequestError:
    """The first thing that is wrong with a request, named by its path."""
    # Of the alternatives of a union, the one that came furthest is what was meant.
    worst = max(error.errors(include_url=False, include_input=False), key=lambda each: len(each["loc"]))
    path = [str(part) for part in worst["loc"] if isinstance(part, int) or str(part)[:1].islower()]
    param = ".".join([where, *path] if where else path)
    code = "missing_required_parameter" if worst["type"] == "missing" else "invalid_value"
    return RequestError(f"{param or 'the request'}: {worst['msg']}"[:300], code, param or None)
