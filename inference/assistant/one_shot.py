"""One question and its answer in small steps, so that a worker can do them between the frames of live conversations."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch

from ...checkpoints.recognisers.recogniser import TimedWord
from ...model.decoding.reply import reply
from ...model.decoding.token_times import TokenTimes
from ...model.dialogue_state import DialogueState, ReplyStep, Sampling
from ...model.language_model.messages import Message, Tool, schemas
from ...model.streaming import Streaming
from ...model.tokens import TokenKind
from .assistant import Assistant
from .opening import speak_first
from .text_stream import ReplyText, dictation, ids_of, samples_of, timed_words, words_of


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
    tokens: those of the transcript and of what is said. said: how many were written behind the transcript, calls too.
    """

    text: str
    transcript: str
    pcm: np.ndarray
    ended: bool
    full: bool = False
    call: str = ""
    tokens: list[int] = field(default_factory=list)
    said: int = 0


class OneShotRequest:
    """A conversation without a clock: recall what was said before, hear or read a question, step until the end.

    vad: the voice activity detector.
    """

    def __init__(self, assistant: Assistant, vad: Streaming) -> None:
        self._assistant, self._model, self._tokenizer = assistant, assistant.model, assistant.tokenizer
        self._vad, self._detecting = vad, vad.init_state()
        self._state = self._asked = self._model.init_state()  # asked: in which the question is heard
        self._kept: DialogueState | None = None
        self._times: TokenTimes | None = None
        self._transcript: list[int] = []
        self._read = 0
        self._begin_answer()

    def _begin_answer(self, tokens: list[int] | None = None) -> None:
        """``tokens``: that it is made of, with the last; None: those that the model picks."""
        self._text, self._dictated = ReplyText(self._tokenizer, self._asked.ssml), tokens
        self._apart, self._hears = False, self._model  # apart: only written down, by a model that does no more
        self._heard = 0  # tokens of this turn before the reply

    def instruct(self, instructions: str, tools: Sequence[Tool] = (), ssml: bool = False) -> tuple[str, ...]:
        """The system prompt and the functions that may be called, before all else; returns what is to be said where
        they have no effect. ``ssml``: answers are in SSML."""
        self._state = self._asked = self._model.init_state(0, instructions, tools)
        self._state.ssml = ssml
        self._read += self._count(instructions) if self._model.follows_instructions else 0
        self._read += sum(self._count(json.dumps(tool)) for tool in schemas(tools)) if self._model.takes_tools else 0
        return self._assistant.not_followed(instructions, tools)

    def speak_first(self) -> None:
        """No question: the assistant speaks although nobody has asked anything."""
        self._asked = self._state
        self._begin_answer()
        speak_first(self._model, self._tokenizer, self._state)

    def messages(self, messages: Sequence[Message]) -> None:
        """Messages as a chat template takes them, instead of a question: results of functions, say.

        Raises:
            DuologueError: the model has no chat template, or they do not fit.
        """
        self._asked = self._state
        self._begin_answer()
        self._model.read_messages(messages, self._state)
        self._read += sum(self._count(str(each.get("content") or "")) for each in messages)

    def _count(self, text: str) -> int:
        return len(self._tokenizer.encode(text, add_special_tokens=False))

    def recall(self, question: str, answer: str) -> None:
        """A turn that is past."""
        asked, said = (words_of(self._tokenizer, self._model.layout, text) for text in (question, answer))
        self._model.recall(asked, said, self._state)
        self._read += len(asked) + len(said)

    def read(self, text: str) -> list[str]:
        """A question in writing; returns the words in it that the model does not know.

        Raises:
            DuologueError: no words.
        """
        ids, unknown = ids_of(self._tokenizer, self._model.layout, text)
        self._asked = self._state
        self._begin_answer()
        self._model.read_text(ids, self._state)
        self._read += len(ids)
        return unknown

    def sayable(self, text: str, ssml: bool = False) -> int:
        """The tokens of a text that is to be said word by word.

        Raises:
            DuologueError: no words, words that the model does not know, or SSML that is not rendered.
        """
        return len(dictation(self._tokenizer, self._model.layout, text, ssml).ids)

    def speak_in(self, voice: str | None) -> None:
        """From the next answer on; one of the speech decoder's ``voices``, None: the first."""
        self._state.voice = self._asked.voice = voice

    def dictate(self, text: str, speed: float = 1.0, voice: str | None = None, ssml: bool = False) -> None:
        """What is to be said word by word, by itself.

        speed: within the speech decoder's ``speeds``. voice: one of its ``voices``; None: the first. ssml: of a model
            with ``renders_ssml``.

        Raises:
            DuologueError: as :meth:`sayable`.
        """
        said = dictation(self._tokenizer, self._model.layout, text, ssml)
        self._asked = self._model.init_state()
        self._asked.speed, self._asked.voice, self._asked.ssml = speed, voice, ssml
        self._model.read_text(said.ids, self._asked)
        self._asked.tags = said.tags
        self._begin_answer([*said.ids, self._model.layout.eos])

    def detect(self, pcm: np.ndarray, first: bool = True) -> np.ndarray:
        """Probabilities of speech in a recording's ``first`` or next (n,) samples, one a window of 512."""
        if first:
            self._detecting = self._vad.init_state()
        found: np.ndarray = self._vad.step(torch.from_numpy(pcm)[None], self._detecting)[0].cpu().numpy()
        return found

    def expect(self, phrases: Sequence[str]) -> None:
        """Phrases that are likely in what is heard from now on; none: none are.

        Raises:
            DuologueError: the model cannot look for words, or cannot spell one.
        """
        self._hears = self._model = self._assistant.expecting(phrases).model

    def begin(self, apart: bool = False) -> None:
        """A spoken question begins; ``apart``: speech that is only written down, and not remembered."""
        self._asked = self._model.init_state() if apart else self._state
        self._begin_answer()
        self._apart, self._hears = apart, self._model.without_replies() if apart else self._model
        self._hears.begin_turn(self._asked)

    def hear(self, pcm: np.ndarray) -> None:
        """More of it, (n,) float32 at the model's rate."""
        self._hears.listen(torch.from_numpy(pcm)[None], self._asked)

    def another(self) -> None:
        """Another recording begins, in the same turn.

        Raises:
            DuologueError: the model hears one recording a turn.
        """
        self._model.another_recording(self._asked)

    def about(self, text: str) -> None:
        """A text question about it.

        Raises:
            DuologueError: no words.
        """
        ids, _ = ids_of(self._tokenizer, self._model.layout, text)
        self._model.must_fit(len(ids), self._asked)
        self._model.ask_about(ids, self._asked)
        self._read += len(ids)

    def end(self) -> bool:
        """It is over: an answer may follow, if anything was said in it."""
        self._hears.end_turn(self._asked)
        self._times, self._transcript = self._hears.token_times(self._asked), []
        return not self._asked.empty

    def step(self, sampling: Sampling, tokens: int = 4, aloud: bool = True) -> RequestStep:
        """So many tokens of the answer, or fewer at its end. ``sampling.max_tokens`` is of the reply, without what was
        heard. ``aloud``: otherwise it brings no samples."""
        dictated, steps = self._dictated, list[ReplyStep]()
        choose = None if dictated is None else lambda: dictated.pop(0)
        while len(steps) < tokens and not (steps and (steps[-1].kind is TokenKind.END or self._written)):
            heard, before = not self._asked.speaking, self._asked.generated
            most = replace(sampling, max_tokens=sampling.max_tokens + self._heard)
            steps.append(next(reply(self._hears, self._asked, most, aloud=aloud, choose=choose)))
            self._heard += self._asked.generated - before if heard else 0
        called = len(self._text.calls.text)
        texts = [self._text.push(step) for step in steps]
        self._transcript += [step.token for step in steps if step.kind is TokenKind.TRANSCRIPT]
        ended = steps[-1].kind is TokenKind.END or self._written
        return RequestStep(
            text="".join(text for text, _ in texts),
            transcript="".join(heard for _, heard in texts) + (self._text.transcript.end() if self._written else ""),
            pcm=np.concatenate([samples_of(step.pcm) for step in steps]),
            ended=ended,
            full=ended and self._asked.generated >= sampling.max_tokens + self._heard,
            tokens=[step.token for step in steps if step.kind not in (TokenKind.CALL, TokenKind.END)],
            said=sum(step.kind in (TokenKind.REPLY, TokenKind.CALL) for step in steps),
            call=self._text.calls.text[called:],
        )

    @property
    def _written(self) -> bool:
        """Whether all is written down that was to be."""
        return self._apart and self._asked.speaking

    def seed(self, seed: int) -> None:
        """Of what is sampled."""
        self._asked.rng.manual_seed(seed)

    def keep(self) -> None:
        """Before the answer: there may be another one (:meth:`again`)."""
        self._kept = self._asked.clone()

    def again(self, tokens: Sequence[int] = ()) -> None:
        """Another answer to the same question; of these tokens, if there are any."""
        assert self._kept is not None
        self._asked = self._kept.clone()
        self._begin_answer([*tokens, self._model.layout.eos] if tokens else None)

    def read_so_far(self) -> int:
        """Tokens of all texts that were read, those of instructions and of past turns among them."""
        return self._read

    def written_down(self) -> WrittenDown:
        """Of the speech that was heard last: its transcript so far."""
        if self._times is None:
            return WrittenDown(self._transcript)
        heard = self._times(self._transcript)
        sure = [math.log(max(token.confidence, 1e-9)) for token in heard]
        confidence = sum(sure) / len(sure) if sure else None
        return WrittenDown(self._transcript, confidence, timed_words(self._tokenizer, heard))
