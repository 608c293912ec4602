"""What a model hears, in words: its transcript, greedily or by beam search; or its reply, if it is asked for one.

A model that writes down what it hears (``transcribes``) gives its transcript. Any other is asked in writing, behind the
speech, to transcribe it, and its reply is taken; so is one that hears words by CTC, where there is a context.

With a beam a model's transcript is searched for: CTC's posteriors, where it hears words by CTC
(model/decoding/ctc_beam.py), or what its language model writes (model/decoding/token_beam.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from ...data_prep.text.context import INSTRUCTION, with_context
from ...model.decoding.decoder import DecoderConfig
from ...model.decoding.joint_beam import JointConfig, joint_search
from ...model.decoding.reply import reply, transcript
from ...model.dialogue_model import DialogueModel
from ...model.dialogue_state import DialogueState, Sampling
from ...model.errors import DuologueError
from ...model.tokens import TokenKind
from ..front_end.speech_segments import detect, dictated, framed
from .assistant import Assistant
from .text_stream import TextStream, ids_of
from .turn import written_down

_NO_CONTEXT = "this model writes its transcript without being asked, so that a context has no place: give hot words"
_MOST = Sampling()  # its max_tokens bounds a transcript


def generates(model: DialogueModel) -> bool:
    """Whether a model generates its transcripts, token by token."""
    return model.transcribes and model.layout.reply is not None


def require_asked(model: DialogueModel) -> None:
    """Raises DuologueError: the model cannot be asked to transcribe, so that a context has no place."""
    if generates(model):
        raise DuologueError(_NO_CONTEXT)


def transcribe(
    assistant: Assistant,
    waveform: np.ndarray,
    beam: int = 1,
    instruction: str = INSTRUCTION,
    context: str | Sequence[str] = "",
    joint: JointConfig | None = None,
) -> str:
    """The words in (n,) samples at the model's rate: "" where nobody speaks. Long speech is cut at its pauses, and each
    part is heard by itself.

    Args:
        beam: how many hypotheses of a transcript are followed; 1: the likeliest token each time.
        instruction: what a model is asked that writes no transcript of its own, or that is given a context.
        context: words that may be said, or a text; joint: how it counts, None: as ``instruction``.

    Raises:
        DuologueError: beam is below 1, or above it for a model whose transcripts no beam can search; a context for a
            model that cannot be asked.
    """
    if context:
        require_asked(assistant.model)
    if beam < 1:
        raise DuologueError(f"beam={beam}: it must be at least 1")
    if beam > 1 and not assistant.model.takes_decoder:
        raise DuologueError(f"beam={beam}: a beam searches transcripts, and this model generates none: give beam=1")
    if beam > 1:
        known = assistant.model.decoder or DecoderConfig()
        assistant = assistant.with_decoder(replace(known, beam=replace(known.beam, width=beam)))
    model, asked = assistant.model, (instruction, with_context(instruction, context))
    clip = framed(waveform)
    heard = dictated(model, waveform, clip, detect(assistant.vad, clip))
    return " ".join(words for part in heard.parts if (words := _words(assistant, part, asked, joint)))


def _words(assistant: Assistant, part: np.ndarray, asked: tuple[str, str], joint: JointConfig | None) -> str:
    """The words in one part (n,). asked: the instruction without the context, and with it."""
    model, tokenizer = assistant.model, assistant.tokenizer
    if not model.transcribes or asked[0] != asked[1]:
        return _asked(model.without_voice(), tokenizer, part, asked, joint)
    return "".join(written_down(model, tokenizer, part)).strip()


@torch.inference_mode()
def _asked(
    model: DialogueModel, tokenizer: Any, part: np.ndarray, asked: tuple[str, str], joint: JointConfig | None
) -> str:
    """What is replied to the instruction behind the speech (n,), which has the context; or to both, jointly."""

    def heard(instruction: str) -> DialogueState:
        state = model.init_state()
        model.begin_turn(state)
        model.listen(torch.from_numpy(part)[None], state)
        model.ask_about(ids_of(tokenizer, model.layout, instruction)[0], state)
        model.end_turn(state)
        if model.transcribes:  # what it has heard by itself comes before its reply
            list(transcript(model, state, _MOST))
        return state

    text, given = TextStream(tokenizer), heard(asked[1])
    if joint is None or asked[0] == asked[1]:
        steps = reply(model, given, _MOST, aloud=False)
        ids = [step.token for step in steps if step.kind is TokenKind.REPLY]
    else:
        ids = list(joint_search(model, heard(asked[0]), given, joint, _MOST.max_tokens)[0].tokens)
    return ("".join(map(text.push, ids)) + text.end()).strip()
