"""What a model hears, in words, without a reply: greedily, or by beam search over its transcript.

Each hypothesis is a state of its own; states share the cache of what they have in common, so that one more costs only
what it adds. Scores are sums of log-probabilities of the model's own distribution (joint with CTC's, where it has one).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from ...model.dialogue_state import DialogueState, Sampling
from ...model.errors import DuologueError
from ..front_end.speech_segments import detect, dictated, framed
from .assistant import Assistant
from .text_stream import TextStream

_MOST = Sampling()  # its max_tokens bounds a transcript


@dataclass
class _Hypothesis:
    score: float
    state: DialogueState
    words: list[int]


def transcribe(assistant: Assistant, waveform: np.ndarray, beam: int = 1) -> str:
    """The words that ``assistant`` writes down for (n,) samples at its rate: "" where nobody speaks. Long speech is cut
    at its pauses, and each part is heard by itself.

    Args:
        beam: how many hypotheses are followed; 1: the likeliest token each time.

    Raises:
        DuologueError: the model writes no transcript, or beam is below 1.
    """
    if beam < 1:
        raise DuologueError(f"beam={beam}: it must be at least 1")
    if not assistant.model.transcribes:
        raise DuologueError("this model writes no transcript of what it hears; only its replies can be measured")
    clip = framed(waveform)
    heard = dictated(assistant.model, waveform, clip, detect(assistant.vad, clip))
    return " ".join(words for part in heard.parts if (words := _words(assistant, part, beam)))


@torch.inference_mode()
def _words(assistant: Assistant, waveform: np.ndarray, beam: int) -> str:
    """The words in one part (n,)."""
    model, layout = assistant.model, assistant.model.layout
    state = model.init_state()
    model.begin_turn(state)
    model.listen(torch.from_numpy(waveform)[None], state)
    model.end_turn(state)
    if state.speaking or layout.reply is None:
        raise DuologueError("this model writes no transcript of what it hears; only its replies can be measured")
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
            state = parent.state.clone() if beam > 1 else parent.state
            step = model.reply_step(state, _MOST, forced=token)
            words = [*parent.words, step.token] if layout.is_text(step.token) else parent.words
            (done if step.token in ends else live).append(_Hypothesis(score, state, words))
        if done and (not live or max(each.score for each in done) >= max(each.score for each in live)):
            break  # scores only fall: no hypothesis under way can still win
    best = max(done or live, key=lambda each: each.score)
    text = TextStream(assistant.tokenizer)
    return ("".join(map(text.push, best.words)) + text.end()).strip()
