"""What a model hears, in words: its transcript, greedily or by beam search; or its reply, if it is asked for one.

A model that writes down what it hears (``transcribes``) gives its transcript. Any other is asked in writing, behind the
speech, to transcribe it, and its reply is taken.

A model that hears words by CTC searches its posteriors (model/decoding/ctc_beam.py). In a beam over the transcripts
that a language model generates, each hypothesis is a state of its own; states share the cache of what they have in
common, so that one more costs only what it adds. Scores are sums of log-probabilities of the model's own distribution
(joint with CTC's, where it has one).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from ...data_prep.text.context import INSTRUCTION, with_context
from ...model.decoding.decoder import DecoderConfig
from ...model.decoding.joint_beam import JointConfig, joint_search
from ...model.decoding.reply import reply
from ...model.dialogue_model import DialogueModel
from ...model.dialogue_state import DialogueState, Sampling
from ...model.errors import DuologueError
from ...model.tokens import TokenKind
from ..front_end.speech_segments import detect, dictated, framed
from .assistant import Assistant
from .text_stream import TextStream, ids_of
from .turn import written_down

NO_CONTEXT = "this model writes its transcript without being asked, so that a context has no place: give hot words"
_MOST = Sampling()  # its max_tokens bounds a transcript


@dataclass
class _Hypothesis:
    score: float
    state: DialogueState
    words: list[int]


def takes_beam(model: DialogueModel) -> bool:
    """Whether a beam may search a model's transcripts: it hears them by CTC, or generates them, and they end with a
    token."""
    return model.takes_decoder or generates(model)


def generates(model: DialogueModel) -> bool:
    """Whether a model generates its transcripts, token by token."""
    return model.transcribes and model.layout.reply is not None


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
        instruction: what a model is asked that writes no transcript of its own.
        context: words that may be said, or a text, for such a model; joint: how it counts, None: as ``instruction``.

    Raises:
        DuologueError: beam is below 1, or above it for a model whose transcripts no beam can search; a context for a
            model that cannot be asked.
    """
    if context and assistant.model.transcribes:
        raise DuologueError(NO_CONTEXT)
    if beam < 1:
        raise DuologueError(f"beam={beam}: it must be at least 1")
    if beam > 1 and not takes_beam(assistant.model):
        raise DuologueError(f"beam={beam}: a beam searches transcripts, and this model generates none: give beam=1")
    if beam > 1 and assistant.model.takes_decoder:
        known = assistant.model.decoder or DecoderConfig()
        assistant, beam = assistant.with_decoder(replace(known, beam=replace(known.beam, width=beam))), 1
    model, asked = assistant.model, (instruction, with_context(instruction, context))
    clip = framed(waveform)
    heard = dictated(model, waveform, clip, detect(assistant.vad, clip))
    return " ".join(words for part in heard.parts if (words := _words(assistant, part, beam, asked, joint)))


def _words(
    assistant: Assistant, part: np.ndarray, beam: int, asked: tuple[str, str], joint: JointConfig | None
) -> str:
    """The words in one part (n,). asked: the instruction without the context, and with it."""
    model, tokenizer = assistant.model, assistant.tokenizer
    if not model.transcribes:
        return _asked(model.without_voice(), tokenizer, part, asked, joint)
    if beam == 1:
        return "".join(written_down(model, tokenizer, part)).strip()
    text = TextStream(tokenizer)
    return ("".join(map(text.push, _likeliest(model, part, beam))) + text.end()).strip()


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
        return state

    text, given = TextStream(tokenizer), heard(asked[1])
    if joint is None or asked[0] == asked[1]:
        steps = reply(model, given, _MOST, aloud=False)
        ids = [step.token for step in steps if step.kind is TokenKind.REPLY]
    else:
        ids = list(joint_search(model, heard(asked[0]), given, joint, _MOST.max_tokens)[0].tokens)
    return ("".join(map(text.push, ids)) + text.end()).strip()


@torch.inference_mode()
def _likeliest(model: DialogueModel, part: np.ndarray, beam: int) -> list[int]:
    """The ids of the words of the best transcript of speech (n,)."""
    layout, state = model.layout, model.init_state()
    model.begin_turn(state)
    model.listen(torch.from_numpy(part)[None], state)
    model.end_turn(state)
    ends = (layout.reply, layout.eos)
    live: list[_Hypothesis] = [_Hypothesis(0.0, state, [])]
    done: list[_Hypothesis] = []
    while live and state.generated < _MOST.max_tokens:
        grown: list[tuple[float, _Hypothesis, int]] = []
        for hypothesis in live:
            likely = model.next_logits(hypothesis.state).double().log_softmax(-1).topk(beam)
            pairs = zip(likely.values.tolist(), likely.indices.tolist(), strict=True)
            grown += [(hypothesis.score + score, hypothesis, token) for score, token in pairs]
        grown.sort(key=lambda each: -each[0])
        live = []
        for score, parent, token in grown[:beam]:
            state = parent.state.clone()
            step = model.reply_step(state, _MOST, forced=token)
            words = [*parent.words, step.token] if layout.is_text(step.token) else parent.words
            (done if step.token in ends else live).append(_Hypothesis(score, state, words))
        if done and (not live or max(each.score for each in done) >= max(each.score for each in live)):
            break  # scores only fall: no hypothesis under way can still win
    best = max(done or live, key=lambda each: each.score)
    return best.words
