"""What a client may say of one response (``response.create``); what it does not say is as the session has it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Self

from .errors import RequestError
from .formats import AudioFormat
from .session_update import update
from .settings import Settings
from .tools import choice

_OWN = ("conversation", "input", "metadata")


@dataclass(frozen=True)
class ResponseParams:
    """How one response is to be made.

    settings: the session's, with what is asked of this response alone.
    metadata: given back with it. outside: whether it is no part of the conversation.
    context: items that it is asked with instead of the conversation's, as the client wrote them.
    own_instructions: whether it has instructions of its own.
    warnings: what is asked of it and has no effect.
    """

    settings: Settings
    metadata: dict[str, str] | None = None
    outside: bool = False
    context: list[dict[str, Any]] | None = None
    own_instructions: bool = False
    warnings: list[str] = field(default_factory=list)

    @classmethod
    def checked(cls, given: dict[str, Any], settings: Settings) -> Self:
        """What was asked for.

        Raises:
            RequestError: something that cannot be, by name.
        """
        if settings.transcription_only:
            raise RequestError("a transcription session has no responses", "unsupported_value", "type")
        where = given.get("conversation")
        if where not in (None, "auto", "none"):
            raise RequestError("conversation must be 'auto' or 'none'", "invalid_value", "response.conversation")
        change = {name: value for name, value in given.items() if name not in _OWN and value is not None}
        done = update(settings, change)
        for error in done.errors:
            param = (error.param or "").replace("session.", "response.", 1)
            raise RequestError(str(error), error.code, param, error.status)
        session = done.settings.session
        if done.settings.abilities.calls and "tool_choice" in change:
            choice(session["tool_choice"], session["tools"])
        warnings = [warning.replace("session.", "response.", 1) for warning in done.warnings]
        own = bool(given.get("instructions"))
        return cls(done.settings, given.get("metadata"), where == "none", given.get("input"), own, warnings)

    @property
    def modalities(self) -> list[str]:
        """["audio"] or ["text"]."""
        modalities: list[str] = self.settings.session["output_modalities"]
        return modalities

    @property
    def output(self) -> AudioFormat:
        """The format of its sound."""
        return self.settings.output

    @property
    def instructions(self) -> str:
        """Its system prompt."""
        return self.settings.session["instructions"] or ""
