"""Responses outside the conversation: ``response.create`` with ``conversation: "none"``.

They answer the conversation as it stands, or an ``input`` of their own, and leave nothing behind in it. Each takes a
session slot of the pool for as long as it lasts, and is made as fast as the frames of conversations leave time for.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from ....model.speech_lm import Sampling
from ..protocol.errors import RequestError
from ..protocol.items import Item, newest
from ..protocol.response import Response
from ..protocol.usage import frames, usage, words
from .questioner import Questioner


@dataclass(frozen=True)
class Question:
    """past: questions and answers before it. text: its words. sound: (n,) float32 of what nobody has written down."""

    past: list[tuple[str, str]]
    text: str
    sound: np.ndarray

    @classmethod
    def of(cls, items: Iterable[Item]) -> Question:
        """The last question of a conversation: all of the user's since the last answer; and what was said before.

        Raises:
            RequestError: there is none.
        """
        past: list[tuple[str, str]] = []
        texts: list[str] = []
        sounds: list[np.ndarray] = []
        for item in items:
            if item.role == "assistant":
                past += [(" ".join(texts), item.text or "")] if texts or sounds else []
                texts, sounds = [], []
            elif item.role == "user":
                sounds += [item.waveform()] if item.spoken and item.text is None else []
                texts += [text for text in (item.about if item.text is None else item.text,) if text]
        if not texts and not sounds:
            raise RequestError("there is nothing to answer: no item of the user", "nothing_to_answer")
        return cls(past, " ".join(texts), np.concatenate([np.zeros(0, np.float32), *sounds]))

    def recent(self, characters: int) -> Question:
        """The same with no more of the past than so many characters: the newest."""
        return Question(newest(self.past, characters), self.text, self.sound)


class OutOfBand:
    """One of them.

    Args:
        asker: does the work. rate: of its input, Hz.
        begin: tells the client of the response; called once the question has been read.
        fail: tells the client what is wrong with the question. instructions: the system prompt.
    """

    def __init__(
        self,
        asker: Questioner,
        rate: int,
        question: Question,
        sampling: Sampling,
        begin: Callable[[], Response],
        fail: Callable[[Exception], None],
        instructions: str = "",
    ) -> None:
        self._instructions = instructions
        self._asker, self._rate, self._question, self._sampling = asker, rate, question, sampling
        self._begin, self._fail = begin, fail
        self.response: Response | None = None
        self.task = asyncio.create_task(self._run())
        self.task.add_done_callback(lambda _: asker.leave())  # even if it is cancelled before it has begun

    async def _run(self) -> None:
        try:
            await self._ask()
            self.response = self._begin()
            await self._answer(self.response)
        except asyncio.CancelledError:
            self._end("cancelled", "client_cancelled")
            raise
        except Exception as error:
            if self.response is not None:
                self._end("failed", None)
            self._fail(error)

    async def _ask(self) -> None:
        question = self._question
        if self._instructions:
            await self._asker.ask("instruct", self._instructions)
        for asked, answer in question.past:
            await self._asker.ask("recall", asked, answer)
        if len(question.sound):
            await self._asker.listen(question.sound, question.text)
        else:
            await self._asker.ask("read", question.text)

    async def _answer(self, response: Response) -> None:
        made, full = 0, False
        async for step in self._asker.steps(self._sampling):
            response.say(step.text)
            made, full = made + len(step.pcm), step.full
            response.sound(step.pcm, made)
        self._end(*(("incomplete", "max_output_tokens") if full else ("completed", None)))

    def _end(self, status: str, reason: str | None) -> None:
        if self.response is None:
            return
        question = self._question
        before = sum(words(asked) + words(answer) for asked, answer in question.past)
        heard = frames(len(question.sound), self._rate)
        self.response.end(status, reason, usage(before, words(question.text), heard, *self.response.made()))
