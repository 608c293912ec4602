"""Responses outside the conversation: ``response.create`` with ``conversation: "none"``.

They answer the conversation as it stands, or an ``input`` of their own, and leave nothing behind in it. Each takes a
session slot of the pool for as long as it lasts, and is made as fast as the frames of conversations leave time for.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ..protocol.items import Item, Items, newest
from ..protocol.response import Response
from ..protocol.settings import Settings
from ..protocol.usage import frames, usage, words
from .questioner import Questioner


@dataclass(frozen=True)
class Question:
    """past: questions and answers before it. text: its words. sound: (n,) float32 of what nobody has written down.

    system: what the client says as the system. results: of functions that were called to answer it, with the calls, as
        messages of a chat template.
    """

    past: list[tuple[str, str]]
    text: str
    sound: np.ndarray
    system: str = ""
    results: list[dict[str, Any]] = field(default_factory=list)

    @classmethod
    def of(cls, items: Iterable[Item]) -> Question:
        """The last question of a conversation: all of the user's since the last answer; and what was said before."""
        past: list[tuple[str, str]] = []
        texts: list[str] = []
        sounds: list[np.ndarray] = []
        results: list[Item] = []
        all_ = Items()
        for item in items:
            if not any(item is other for other in all_):
                all_.add(item)
            if item.role == "result":
                results.append(item)
            elif item.role == "assistant":
                past += [(" ".join(texts), item.text or "")] if texts or sounds else []
                texts, sounds, results = [], [], []
            elif item.role == "user":
                sounds += [item.waveform()] if item.spoken and item.text is None else []
                texts += [text for text in (item.about if item.text is None else item.text,) if text]
        called, told = all_.calls_of(results)
        return cls(
            past, " ".join(texts), np.concatenate([np.zeros(0, np.float32), *sounds]), all_.system(),
            [called, *told] if told else [],
        )  # fmt: skip

    def recent(self, characters: int) -> Question:
        """The same with no more of the past than so many characters: the newest."""
        return replace(self, past=newest(self.past, characters))


class OutOfBand:
    """One of them.

    Args:
        asker: does the work. rate: of its input, Hz.
        begin: tells the client of the response; called once the question has been read.
        fail: tells the client what is wrong with the question. settings: how it is to be answered.
    """

    def __init__(
        self,
        asker: Questioner,
        rate: int,
        question: Question,
        settings: Settings,
        begin: Callable[[], Response],
        fail: Callable[[Exception], None],
    ) -> None:
        self._asker, self._rate, self._question, self._settings = asker, rate, question, settings
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
        settings = self._settings.instructed(question.system)
        ssml = settings.config().ssml
        if settings.session["instructions"] or settings.tools or ssml:
            await self._asker.ask("instruct", settings.session["instructions"], settings.tools, ssml)
        await self._asker.ask("speak_in", settings.session["audio"]["output"]["voice"])
        for asked, answer in question.past:
            await self._asker.ask("recall", asked, answer)
        if question.results:
            message = [{"role": "user", "content": question.text}] if question.text else []
            await self._asker.ask("messages", [*message, *question.results])
        elif len(question.sound):
            await self._asker.listen(question.sound, question.text)
        elif not question.text:
            await self._asker.ask("speak_first")
        else:
            await self._asker.ask("read", question.text)

    async def _answer(self, response: Response) -> None:
        made, full = 0, False
        async for step in self._asker.steps(self._settings.sampling()):
            response.say(step.text)
            response.call(step.call)
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
