"""What a model hears, in words: its transcript, greedily or by beam search; or its reply, if it is asked for one.

A model that writes down what it hears (``transcribes``) gives its transcript. Any other is asked in writing, behind the
speech, to transcribe it, and its reply is taken.

A model that hears words by CTC searches its posteriors (model/decoding/ctc_beam.py). In a beam over the transcripts
that a language model generates, each hypothesis is a state of its own; states share the cache of what they have in
common, so that one more costs only what it adds. Scores are sums of log-probabilities of the model's own distribution
(joint with CTC's, where it has one).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from ...model.decoding.decoder import DecoderConfig
from ...model.decoding.reply import reply
from ...model.dialogue_model import DialogueModel
from ...model.dialogue_state import DialogueState, Sampling
from ...model.errors import DuologueError
from ...model.tokens import TokenKind
from ..front_end.speech_segments import detect, dictated, framed
from .assistant import Assistant
from .text_stream import TextStream, ids_of
from .turn import written_down

INSTRUCTION = "Transcribe the speech."
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


def transcribe(assistant: Assistant, waveform: np.ndarray, beam: int = 1, instruction: str = INSTRUCTION) -> str:
    """The words in (n,) samples at the model's rate: "" where nobody speaks. Long speech is cut at its pauses, and each
    part is heard by itself.

    Args:
        beam: how many hypotheses of a transcript are followed; 1: the likeliest token each time.
        instruction: what a model is asked that writes no transcript of its own.

    Raises:
        DuologueError: beam is below 1, or above it for a model whose transcripts no beam can search.
    """
    if beam < 1:
        raise DuologueError(f"beam={beam}: it must be at least 1")
    if beam > 1 and not takes_beam(assistant.model):
        raise DuologueError(f"beam={beam}: a beam searches transcripts, and this model generates none: give beam=1")
    if beam > 1 and assistant.model.takes_decoder:
        known = assistant.model.decoder or DecoderConfig()
        assistant, beam = assistant.with_decoder(replace(known, beam=replace(known.beam, width=beam))), 1
    model = assistant.model
    clip = framed(waveform)
    heard = dictated(model, waveform, clip, detect(assistant.vad, clip))
    return " ".join(words for part in heard.parts if (words := _words(assistant, part, beam, instruction)))


def _words(assistant: Assistant, part: np.ndarray, beam: int, instruction: str) -> str:
    """The words in one part (n,)."""
    model, tokenizer = assistant.model, assistant.tokenizer
    if not model.transcribes:
        return _asked(model.without_voice(), tokenizer, part, instruction)
    if beam == 1:
        return "".join(written_down(model, tokenizer, part)).strip()
    text = TextStream(tokenizer)
    return ("".join(map(text.push, _likeliest(model, part, beam))) + text.end()).strip()


@torch.inference_mode()
def _asked(model: DialogueModel, tokenizer: Any, part: np.ndarray, instruction: str) -> str:
    """What is replied to ``instruction`` behind the speech (n,)."""
    state, text = model.init_state(), TextStream(tokenizer)
    model.begin_turn(state)
    model.listen(torch.from_numpy(part)[None], state)
    model.ask_about(ids_of(tokenizer, model.layout, instruction)[0], state)
    model.end_turn(state)
    steps = reply(model, state, _MOST, aloud=False)
    said = "".join(text.push(step.token) for step in steps if step.kind is TokenKind.REPLY)
    return (said + text.end()).strip()


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
