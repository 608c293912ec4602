"""What the parts of one Realtime conversation have in common: what holds, what was said, whose turn it is, and the ways
to the session and to the client."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from ....model.language_model.tool_calls import CallFormat
from ...session.policy import FRAME_MS
from ...session.state import SessionConfig
from ..protocol.items import Items, new_id
from ..protocol.response import Response, Send
from ..protocol.settings import Settings
from .output_buffer import OutputBuffer
from .pacing import Pacer
from .port import SessionPort
from .turns import Do, Turns


@dataclass(frozen=True, kw_only=True)
class Model:
    """What a conversation is to know of the model. input_rate, output_rate: of its session, Hz. calls: how it writes
    calls of functions; None: it calls none."""

    input_rate: int
    output_rate: int
    calls: CallFormat | None = None

    @property
    def frame(self) -> int:
        """Samples in 80 ms of input."""
        return FRAME_MS * self.input_rate // 1000


@dataclass(kw_only=True)
class Common:
    """Of one conversation.

    settings: that hold. send: called with an event's type and its fields, tells the client. do: does what the turns ask
    for. count: is told of what is counted, by its name and its fields. output: plays the sound of responses; None: it
    is sent to the client in events. response: the one under way. said: pieces of an answer that came before its
    response began.
    """

    model: Model
    settings: Settings
    port: SessionPort
    pacer: Pacer
    send: Send
    do: Callable[[list[Do]], None]
    count: Callable[[str, dict[str, Any]], None]
    output: OutputBuffer | None = None
    items: Items = field(default_factory=Items)
    turns: Turns = field(default_factory=Turns)
    response: Response | None = None
    said: list[str] = field(default_factory=list)
    id: str = field(default_factory=lambda: new_id("conv"))

    def config(self, settings: Settings) -> SessionConfig:
        """How the session is to behave. What the client says as the system is part of the instructions."""
        told = self.items.system() if settings.abilities.instructions else ""
        return settings.instructed(told).config()
