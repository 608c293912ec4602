"""One question and its answer in small steps, so that a lane can do them between the frames of live conversations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ...model.errors import DuologueError
from ...model.speech_lm import Sampling, SpeechLM, TokenKind
from .text_stream import TextStream, ids_of


@dataclass(frozen=True)
class Step:
    """What a few tokens brought: text of the answer, text of what was heard, speech (n,) float32.

    full: whether it ended because the answer had as many tokens as it may have.
    """

    text: str
    transcript: str
    pcm: np.ndarray
    ended: bool
    full: bool = False


class Asking:
    """A conversation without a clock: recall what was said before, hear or read a question, step until the end.

    vad: the voice activity detector.
    """

    def __init__(self, assistant: Any, vad: Any) -> None:
        self._model: SpeechLM = assistant.model
        self._tokenizer = assistant.tokenizer
        self._vad, self._detecting = vad, vad.init_state()
        self._state = self._asked = self._model.init_state()  # asked: in which the question is heard
        self._text, self._transcript = TextStream(self._tokenizer), TextStream(self._tokenizer)
        self._dictated: list[int] | None = None

    def recall(self, question: str, answer: str) -> None:
        """A turn that is past."""
        self._model.recall(self._words(question), self._words(answer), self._state)

    def read(self, text: str) -> list[str]:
        """A question in writing; returns the words in it that the model does not know.

        Raises:
            DuologueError: no words.
        """
        ids, unknown = ids_of(self._tokenizer, self._model.config.layout, text)
        self._asked = self._state
        self._model.read_text(ids, self._state)
        return unknown

    def dictate(self, text: str) -> None:
        """What is to be said, word by word.

        Raises:
            DuologueError: no words, or words that the model does not know.
        """
        ids, unknown = ids_of(self._tokenizer, self._model.config.layout, text)
        if unknown:
            raise DuologueError(f"this model's vocabulary is closed, and it has no {', '.join(map(repr, unknown))}")
        self._model.read_text(ids, self._state)
        self._dictated = [*ids, self._model.config.layout.eos]

    def detect(self, pcm: np.ndarray) -> np.ndarray:
        """Probabilities of speech in a recording's next (n,) samples, one a window of 512."""
        found: np.ndarray = self._vad.step(torch.from_numpy(pcm)[None], self._detecting)[0].cpu().numpy()
        return found

    def begin(self, apart: bool = False) -> None:
        """A spoken question begins; ``apart``: speech that is only written down, and not remembered."""
        self._asked = self._model.init_state() if apart else self._state
        self._transcript = TextStream(self._tokenizer)
        self._model.begin_turn(self._asked)

    def hear(self, pcm: np.ndarray) -> None:
        """More of it, (n,) float32 at the model's rate."""
        self._model.listen(torch.from_numpy(pcm)[None], self._asked)

    def about(self, text: str) -> None:
        """A written question about it.

        Raises:
            DuologueError: no words.
        """
        ids, _ = ids_of(self._tokenizer, self._model.config.layout, text)
        self._model.must_fit(len(ids), self._asked)
        self._model.ask_about(ids, self._asked)

    def end(self) -> None:
        """It is over: an answer may follow."""
        self._model.end_turn(self._asked)

    def step(self, sampling: Sampling, tokens: int = 4) -> Step:
        """So many tokens of the answer, or fewer at its end."""
        text, transcript, sound = "", "", [np.zeros(0, np.float32)]
        for _ in range(tokens):
            dictated = None if self._dictated is None else self._dictated.pop(0)
            step = self._model.reply_step(self._asked, sampling, forced=dictated)
            sound.append(_samples(step.pcm))
            if step.kind is TokenKind.REPLY:
                text += self._text.push(step.token)
            elif step.kind is TokenKind.TRANSCRIPT:
                transcript += self._transcript.push(step.token)
            elif step.kind is TokenKind.END:
                sound.append(_samples(self._model.reply_flush(self._asked)))
                text, transcript = text + self._text.end(), transcript + self._transcript.end()
                full = self._asked.generated >= sampling.max_tokens
                return Step(text, transcript, np.concatenate(sound), True, full)
        return Step(text, transcript, np.concatenate(sound), False)

    def _words(self, text: str) -> list[int]:
        layout = self._model.config.layout
        ids = ids_of(self._tokenizer, layout, text)[0] if text.strip() else []
        return [id_ for id_ in ids if layout.is_text(id_)]


def _samples(pcm: torch.Tensor) -> np.ndarray:
    return pcm.flatten().float().clamp(-1, 1).cpu().numpy()
