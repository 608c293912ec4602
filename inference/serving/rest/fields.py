"""Fields of a request: what is served, what changes nothing here, and what is refused by its name."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NoReturn

from ..protocol.errors import RequestError


def unsupported(message: str, param: str) -> NoReturn:
    """Raises RequestError: the API has it, this model or service has not."""
    raise RequestError(message, "unsupported_value", param)


@dataclass(frozen=True, kw_only=True)
class Fields:
    """The fields of one of the API's requests.

    served: those that are read. neutral: those that say nothing about the answer (who asks, where it is billed).
    refused: those that would change it and cannot be met, unless they have one of these values, which ask for nothing.
    """

    served: frozenset[str]
    neutral: frozenset[str] = frozenset()
    refused: dict[str, tuple[Any, ...]]

    def check(self, given: Iterable[tuple[str, Any]]) -> None:
        """Raises RequestError, which names the field, where one would be ignored."""
        for name, value in given:
            if name in self.served or name in self.neutral:
                continue
            if name not in self.refused:
                raise RequestError(f"there is no field {name[:80]!r}", "unknown_parameter", name[:80])
            if value not in (None, *self.refused[name]):
                unsupported(f"{name} is not served here: leave it out", name)


def number(body: dict[str, Any], name: str, usual: float, least: float, most: float) -> float:
    """A number, or ``usual`` where none is given.

    Raises:
        RequestError: something else, or out of range.
    """
    value = body.get(name)
    if value is None:
        return usual
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise RequestError(f"{name} must be a number", "invalid_type", name)
    if not least <= value <= most:
        raise RequestError(f"{name} is {value}; it must be {least:g} to {most:g}", "invalid_value", name)
    return value
