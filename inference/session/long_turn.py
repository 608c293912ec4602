"""A turn of push-to-talk too long to be heard at once: written down part by part while it is said, then read.

    frames (n,) of the turn -> parts between pauses (speech_segments.py) -> words

What waits to be written down is at most 16 s of speech, however long the turn is.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ...model.dialogue_model import DialogueModel
from ...model.streaming import Streaming
from ..assistant.assistant import Assistant
from ..assistant.turn import written_down
from ..front_end import speech_segments as segments


def begins(model: DialogueModel, turn: list[Tensor], speaking: bool) -> bool:
    """Whether a turn, samples (n,) each, becomes too long for a model that can write it down: somebody speaks on.

    A model that cannot hears all of it as one turn.
    """
    if not model.transcribes:
        return False
    longest = segments.longest_s(model) + segments.MARGIN_MS / 1000
    return _seconds(model, turn) > (longest if speaking else model.longest_s)


def write_some(assistant: Assistant, vad: Streaming, written: str, turn: list[Tensor]) -> tuple[str, list[Tensor]]:
    """Write down the parts that are complete, if enough waits; what is written then, and what waits.

    Args:
        written: what is written down already. turn: samples (n,) each, which wait to be.
    """
    model = assistant.model
    if _seconds(model, turn) <= 2 * segments.longest_s(model):
        return written, turn
    clip = torch.cat(turn).numpy()
    parts, rest = segments.complete(model, clip, segments.detect(vad, clip))
    return _with(assistant, written, parts), [torch.from_numpy(clip[rest:].copy())]


def write_rest(assistant: Assistant, vad: Streaming, written: str, turn: list[Tensor]) -> tuple[str, list[Tensor]]:
    """The same where the turn is over: all of it."""
    clip = torch.cat([*turn, torch.zeros(0)]).numpy()
    heard = segments.dictated(assistant.model, clip, clip, segments.detect(vad, clip))
    return _with(assistant, written, heard.parts), []


def _with(assistant: Assistant, written: str, parts: list[np.ndarray]) -> str:
    words = ("".join(written_down(assistant.model, assistant.tokenizer, part)).strip() for part in parts)
    return " ".join(filter(None, [written, *words]))


def _seconds(model: DialogueModel, turn: list[Tensor]) -> float:
    return sum(map(len, turn)) / model.input_rate
