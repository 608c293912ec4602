"""What a conversation with a model has to do without, for whoever starts one: a line each."""

from __future__ import annotations

from ...model.dialogue_model import DialogueModel


def notes(model: DialogueModel) -> list[str]:
    """A sentence for everything that a full-duplex session with this model lacks."""
    found = []
    if not model.streams:
        through = model.while_speaking()
        found.append(
            "its encoder was made for whole clips: it hears through a window while the user speaks"
            if through.streams
            else "it hears whole clips: a turn is heard once it is over"
        )
    if not model.judges_turns:
        found.append("it has no monitor: voice activity alone decides when a turn has ended")
    if not model.speaks:
        found.append("it has no voice: it answers in text alone")
    return found
