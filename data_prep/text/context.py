"""A context behind an instruction: words that may be said, or what was said before. One wording to train and to use."""

from __future__ import annotations

from collections.abc import Sequence

INSTRUCTION = "Transcribe the speech."


def with_context(instruction: str, context: str | Sequence[str]) -> str:
    """An instruction with a context behind it, a text or a list of words; without one, the instruction alone."""
    text = context.strip() if isinstance(context, str) else ", ".join(context)
    return f"{instruction} Context: {text}" if text else instruction
