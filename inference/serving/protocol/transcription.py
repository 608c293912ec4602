"""What was heard of the user's turns, as it becomes known, for a client that wants to read it."""

from __future__ import annotations

from .items import Item
from .response import Send

_EVENT = "conversation.item.input_audio_transcription"


class Transcription:
    """One turn at a time is written down.

    Args:
        send: called with an event's type and its fields.
        able: whether the model writes down what it hears; one that does not says so, once a turn.
    """

    def __init__(self, send: Send, able: bool) -> None:
        self._send, self._able = send, able
        self.item: Item | None = None  # the turn
        self._pieces: list[str] = []  # of a turn that may not have its item yet

    def hear(self, text: str) -> None:
        """More words of it, with the space before them."""
        self._pieces.append(text)

    def drop(self) -> None:
        """What was heard was not the end of the turn, or nobody's."""
        self._pieces = []

    def tell(self, wanted: bool, complete: bool) -> None:
        """What is known by now; ``wanted``: the client is to read it; ``complete``: that is all."""
        item = self.item
        if item is None:
            return
        pieces, self._pieces = self._pieces, []
        if pieces:
            delta = "".join(pieces) if item.text else "".join(pieces).removeprefix(" ")
            item.text = (item.text or "") + delta
            if wanted:
                self._send(f"{_EVENT}.delta", item_id=item.id, content_index=0, delta=delta)
        if not complete:
            return
        self.item = None
        if wanted and not self._able:
            error = {"type": "invalid_request_error", "message": "this model does not write down what it hears"}
            self._send(f"{_EVENT}.failed", item_id=item.id, content_index=0, error=error)
        elif wanted:
            self._send(
                f"{_EVENT}.completed",
                item_id=item.id,
                content_index=0,
                transcript=item.text or "",
                usage={"type": "duration", "seconds": round(item.seconds, 2)},
            )
