"""Duologue: speech-interaction models, audio in and audio out; trained in stages, run as streams, measured.

    import duologue

    assistant = duologue.load("nano")
    reply = assistant.ask("question.wav")

Importing the package is cheap: torch and transformers are loaded with the first name that needs them.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .inference.assistant.assistant import Assistant, Reply
    from .inference.assistant.loading import load
    from .inference.session.session import Session
    from .model.errors import DuologueError

__version__ = "0.1.0"
__all__ = ["Assistant", "DuologueError", "Reply", "Session", "__version__", "load"]

_HOMES = {
    "Assistant": ".inference.assistant.assistant",
    "DuologueError": ".model.errors",
    "Reply": ".inference.assistant.assistant",
    "Session": ".inference.session.session",
    "load": ".inference.assistant.loading",
}


def __getattr__(name: str) -> Any:
    """Public names are imported from their modules when first asked for."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name], __name__), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
