"""What a client may say of one response (``response.create``); what it does not say is as the session has it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

from .errors import RequestError
from .formats import AudioFormat
from .settings import Settings, output_tokens, refuse_what_has_no_use


@dataclass(frozen=True)
class ResponseParams:
    """How one response is to be made.

    modalities: ["audio"] or ["text"]. output: the format of its sound. tokens: at most so many; None: as the session.
    metadata: given back with it. outside: whether it is no part of the conversation.
    context: items that it is asked with instead of the conversation's, as the client wrote them.
    instructions: of a response outside the conversation, instead of the session's.
    """

    modalities: list[str]
    output: AudioFormat
    tokens: int | str | None = None
    metadata: dict[str, str] | None = None
    outside: bool = False
    context: list[dict[str, Any]] | None = None
    instructions: str | None = None

    @classmethod
    def usual(cls, settings: Settings) -> Self:
        """Of a response that the session begins by itself."""
        return cls(settings.session["output_modalities"], settings.output)

    @classmethod
    def checked(cls, given: dict[str, Any], settings: Settings) -> Self:
        """What was asked for.

        Raises:
            RequestError: something that cannot be, by name.
        """
        where, conversation = given.get("conversation"), given.get("input")
        if where not in (None, "auto", "none"):
            raise RequestError("conversation must be 'auto' or 'none'", "invalid_value", "response.conversation")
        if conversation is not None and where != "none":
            raise RequestError(
                "a response with an input of its own is served outside the conversation: conversation 'none'",
                "unsupported_value",
                "response.input",
            )
        refuse_what_has_no_use(given, "response")
        modalities = given.get("output_modalities") or settings.session["output_modalities"]
        if modalities not in (["audio"], ["text"]):
            raise RequestError(
                "output_modalities must be ['audio'] or ['text']", "invalid_value", "response.output_modalities"
            )
        format_ = ((given.get("audio") or {}).get("output") or {}).get("format") or {}
        return cls(
            modalities,
            AudioFormat(format_["type"]) if format_.get("type") else settings.output,
            output_tokens(given.get("max_output_tokens"), "response"),
            given.get("metadata"),
            where == "none",
            conversation,
            given.get("instructions"),
        )
