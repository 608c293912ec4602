"""One question and its answer in small steps, so that a worker can do them between the frames of live conversations."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice

import numpy as np
import torch

from ...checkpoints.recognisers.recogniser import TimedWord
from ...model.decoding.reply import reply
from ...model.decoding.token_times import TokenTimes
from ...model.dialogue_state import ReplyStep, Sampling
from ...model.language_model.messages import Message, Tool
from ...model.streaming import Streaming
from ...model.tokens import TokenKind
from .assistant import Assistant
from .opening import speak_first
from .text_stream import ReplyText, ids_of, said_ids, samples_of, timed_words, words_of


@dataclass(frozen=True)
class WrittenDown:
    """A transcript's tokens, and what is known of them by a model that times its words.

    confidence: mean of the tokens' log-probabilities. words: with the times of each, in seconds from the beginning.
    """

    tokens: list[int]
    confidence: float | None = None
    words: list[TimedWord] = field(default_factory=list)


@dataclass(frozen=True)
class RequestStep:
    """What a few tokens brought: text of the answer, text of what was heard, speech (n,) float32.

    full: whether it ended because the answer had as many tokens as it may have.
    call: more of the functions that it calls, as the model writes them (see model/language_model/tool_calls.py).
    """

    text: str
    transcript: str
    pcm: np.ndarray
    ended: bool
    full: bool = False
    call: str = ""


class OneShotRequest:
    """A conversation without a clock: recall what was said before, hear or read a question, step until the end.

    vad: the voice activity detector.
    """

    def __init__(self, assistant: Assistant, vad: Streaming) -> None:
        self._assistant, self._model, self._tokenizer = assistant, assistant.model, assistant.tokenizer
        self._vad, self._detecting = vad, vad.init_state()
        self._state = self._asked = self._model.init_state()  # asked: in which the question is heard
        self._text = ReplyText(self._tokenizer)
        self._dictated: list[int] | None = None
        self._steps: Iterator[ReplyStep] | None = None
        self._times: TokenTimes | None = None
        self._transcript: list[int] = []

    def instruct(self, instructions: str, tools: Sequence[Tool] = ()) -> tuple[str, ...]:
        """The system prompt and the functions that may be called, before all else; returns what is to be said where
        they have no effect."""
        self._state = self._asked = self._model.init_state(0, instructions, tools)
        return self._assistant.not_followed(instructions, tools)

    def speak_first(self) -> None:
        """No question: the assistant speaks although nobody has asked anything."""
        self._asked = self._state
        self._text, self._steps = ReplyText(self._tokenizer), None
        speak_first(self._model, self._tokenizer, self._state)

    def messages(self, messages: Sequence[Message]) -> None:
        """Messages as a chat template takes them, instead of a question: results of functions, say.

        Raises:
            DuologueError: the model has no chat template, or they do not fit.
        """
        self._asked = self._state
        self._text, self._steps = ReplyText(self._tokenizer), None
        self._model.read_messages(messages, self._state)

    def recall(self, question: str, answer: str) -> None:
        """A turn that is past."""
        asked, said = (words_of(self._tokenizer, self._model.layout, text) for text in (question, answer))
        self._model.recall(asked, said, self._state)

    def read(self, text: str) -> list[str]:
        """A question in writing; returns the words in it that the model does not know.

        Raises:
            DuologueError: no words.
        """
        ids, unknown = ids_of(self._tokenizer, self._model.layout, text)
        self._asked = self._state
        self._text, self._steps = ReplyText(self._tokenizer), None
        self._model.read_text(ids, self._state)
        return unknown

    def sayable(self, text: str) -> int:
        """The tokens of a text that is to be said word by word.

        Raises:
            DuologueError: no words, or words that the model does not know.
        """
        return len(said_ids(self._tokenizer, self._model.layout, text))

    def dictate(self, text: str, speed: float = 1.0) -> None:
        """What is to be said word by word, by itself.

        speed: within the speech decoder's ``speeds``.

        Raises:
            DuologueError: as :meth:`sayable`.
        """
        ids = said_ids(self._tokenizer, self._model.layout, text)
        self._asked, self._text, self._steps = self._model.init_state(), ReplyText(self._tokenizer), None
        self._asked.speed = speed
        self._model.read_text(ids, self._asked)
        self._dictated = [*ids, self._model.layout.eos]

    def detect(self, pcm: np.ndarray) -> np.ndarray:
        """Probabilities of speech in a recording's next (n,) samples, one a window of 512."""
        found: np.ndarray = self._vad.step(torch.from_numpy(pcm)[None], self._detecting)[0].cpu().numpy()
        return found

    def begin(self, apart: bool = False) -> None:
        """A spoken question begins; ``apart``: speech that is only written down, and not remembered."""
        self._asked = self._model.init_state() if apart else self._state
        self._text, self._steps = ReplyText(self._tokenizer), None
        self._model.begin_turn(self._asked)

    def hear(self, pcm: np.ndarray) -> None:
        """More of it, (n,) float32 at the model's rate."""
        self._model.listen(torch.from_numpy(pcm)[None], self._asked)

    def about(self, text: str) -> None:
        """A text question about it.

        Raises:
            DuologueError: no words.
        """
        ids, _ = ids_of(self._tokenizer, self._model.layout, text)
        self._model.must_fit(len(ids), self._asked)
        self._model.ask_about(ids, self._asked)

    def end(self) -> bool:
        """It is over: an answer may follow, if anything was said in it."""
        self._model.end_turn(self._asked)
        self._times, self._transcript = self._model.token_times(self._asked), []
        return not self._asked.empty

    def step(self, sampling: Sampling, tokens: int = 4) -> RequestStep:
        """So many tokens of the answer, or fewer at its end."""
        if self._steps is None:
            dictated = self._dictated
            choose = None if dictated is None else lambda: dictated.pop(0)
            self._steps = reply(self._model, self._asked, sampling, choose=choose)
        steps = list(islice(self._steps, tokens))
        called = len(self._text.calls.text)
        texts = [self._text.push(step) for step in steps]
        self._transcript += [step.token for step in steps if step.kind is TokenKind.TRANSCRIPT]
        ended = steps[-1].kind is TokenKind.END
        return RequestStep(
            text="".join(text for text, _ in texts),
            transcript="".join(transcript for _, transcript in texts),
            pcm=np.concatenate([samples_of(step.pcm) for step in steps]),
            ended=ended,
            full=ended and self._asked.generated >= sampling.max_tokens,
            call=self._text.calls.text[called:],
        )

    def written_down(self) -> WrittenDown:
        """Of the speech that was heard last: its transcript so far."""
        if self._times is None:
            return WrittenDown(self._transcript)
        heard = self._times(self._transcript)
        sure = [math.log(max(token.confidence, 1e-9)) for token in heard]
        confidence = sum(sure) / len(sure) if sure else None
        return WrittenDown(self._transcript, confidence, timed_words(self._tokenizer, heard))
