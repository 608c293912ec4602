"""Usage counts: a word is a token of text, and 80 ms are a token of sound."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ...session.policy import FRAME_MS
from .items import Item


def words(text: str | None) -> int:
    """Tokens of a text."""
    return len((text or "").split())


def frames(samples: int, rate: int) -> int:
    """Tokens of a sound, the last of which may be part of one."""
    return -(-samples * 1000 // (rate * FRAME_MS))


def usage(before: int, asked: int, heard: int, said: int, spoken: int) -> dict[str, Any]:
    """The protocol's object.

    Args:
        before: tokens of what stood in the conversation before the question, which were read then.
        asked, heard: of the question's text and of its sound. said, spoken: of the answer's.
    """
    cached = {"text_tokens": before, "audio_tokens": 0, "image_tokens": 0}
    return {
        "total_tokens": before + asked + heard + said + spoken,
        "input_tokens": before + asked + heard,
        "output_tokens": said + spoken,
        "input_token_details": {
            "text_tokens": before + asked,
            "audio_tokens": heard,
            "image_tokens": 0,
            "cached_tokens": before,
            "cached_tokens_details": cached,
        },
        "output_token_details": {"text_tokens": said, "audio_tokens": spoken},
    }


def usage_of(items: Iterable[Item], asked: Item | None, answer: Item, made: tuple[int, int]) -> dict[str, Any]:
    """Of a response in a conversation: ``asked``: what it answers. made: tokens of its text and of its sound."""
    before = sum(words(item.text) for item in items if item not in (asked, answer))
    if asked is None:
        return usage(before, 0, 0, *made)
    if asked.spoken:
        return usage(before, 0, frames(sum(map(len, asked.sound)), asked.rate), *made)
    return usage(before, words(asked.text), 0, *made)
