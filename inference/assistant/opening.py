"""A conversation that the assistant opens: it speaks although nobody has asked anything."""

from __future__ import annotations

from typing import Any

from ...model.dialogue_model import DialogueModel
from ...model.dialogue_state import DialogueState
from ...model.errors import DuologueError
from .text_stream import ids_of

_HELLO = "hello"  # is said to a model that follows no instructions


def speak_first(model: DialogueModel, tokenizer: Any, state: DialogueState) -> None:
    """Get ready for a reply to what was said so far, or to the system prompt alone.

    Where the chat template wants a message of the user's, it is an empty one. A model without a chat template is
    greeted.
    """
    if not model.follows_instructions:
        model.read_text(ids_of(tokenizer, model.layout, _HELLO)[0], state)
        return
    try:
        model.read_messages([], state)
    except DuologueError:
        model.read_messages([{"role": "user", "content": ""}], state)
