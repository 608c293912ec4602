"""What the clients' scripts share: a user who speaks into a microphone, and what is noted of the answers.

    python CLIENT.py http://127.0.0.1:8000/v1 question.wav turns|functions

It knows no client and nothing of Duologue's, for each script runs in an environment of its own.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
import wave
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

TOOL: dict[str, Any] = {
    "name": "weather",
    "description": "The weather of a place.",
    "parameters": {"type": "object", "properties": {"place": {"type": "string"}}, "required": ["place"]},
}
RESULT, GREET = "rain", "Greet."
_BLOCK_S, _PAUSE_S, _OVER_S, _LONGEST_S = 0.02, 0.5, 0.4, 90.0


class Dialogue:
    """The user asks three times, the second time over the first answer ("turns"); or lets the assistant greet, and asks
    what it has to call a function for ("functions").

    A script sends what :meth:`blocks` yields, notes what it is told by the methods below, and prints :meth:`report`.
    """

    def __init__(self, rate: int = 24_000) -> None:
        self.url, recording, self.task = sys.argv[1:4]
        with wave.open(recording, "rb") as file:
            assert (file.getframerate(), file.getsampwidth(), file.getnchannels()) == (rate, 2, 1), rate
            self._question = file.readframes(file.getnframes())
        self.rate = rate
        self.heard: list[str] = []  # transcripts of the questions
        self.said: list[str] = [""]  # texts of the answers; the last one is under way
        self.audio_s: list[float] = [0.0]  # of their sound
        self.calls: list[list[str]] = []  # functions, each with its arguments
        self.errors: list[str] = []

    def hear(self, text: str) -> None:
        """What the user has said."""
        self.heard.append(text.strip())

    def say(self, text: str) -> None:
        """More of an answer's text."""
        self.said[-1] += text

    def sound(self, seconds: float) -> None:
        """More of its sound."""
        self.audio_s[-1] += seconds

    def call(self, name: str, arguments: str) -> str:
        """A function is called; returns its result."""
        self.calls.append([name, arguments])
        return RESULT

    def end(self) -> None:
        """An answer is over; one that only called a function is none."""
        if self.said[-1].strip() or self.audio_s[-1]:
            self.said.append("")
            self.audio_s.append(0.0)

    def fail(self, error: object) -> None:
        """What must not be."""
        self.errors.append(str(error))

    async def blocks(self) -> AsyncIterator[bytes]:
        """The microphone: 20 ms of 16-bit samples at a time, in real time, until the last answer is over."""
        for wait_s, block in self._microphone():
            await asyncio.sleep(wait_s)
            yield block

    def blocks_here(self) -> Iterator[bytes]:
        """The same for a thread."""
        for wait_s, block in self._microphone():
            time.sleep(wait_s)
            yield block

    def report(self) -> None:
        """For the test, one line of JSON."""
        seen = {name: getattr(self, name) for name in ("heard", "said", "audio_s", "calls", "errors")}
        print(json.dumps(seen), flush=True)

    def _microphone(self) -> Iterator[tuple[float, bytes]]:
        began = time.monotonic()
        for at, block in enumerate(self._blocks()):
            yield max(0.0, began + at * _BLOCK_S - time.monotonic()), block

    def _blocks(self) -> Iterator[bytes]:
        size, end = 2 * round(self.rate * _BLOCK_S), time.monotonic() + _LONGEST_S
        pause = [bytes(size)] * round(_PAUSE_S / _BLOCK_S)
        question = [self._question[i : i + size].ljust(size, b"\0") for i in range(0, len(self._question), size)]
        for ready, blocks in self._plan(pause, question):
            while not ready():
                if self.errors or time.monotonic() > end:
                    self.errors.append("the answer does not come") if not self.errors else None
                    return
                yield pause[0]
            yield from blocks

    def _plan(self, pause: list[bytes], question: list[bytes]) -> list[tuple[Callable[[], bool], list[bytes]]]:
        """What is to be spoken, and from when on."""

        def answered(times: int) -> Callable[[], bool]:
            return lambda: len(self.said) > times

        if self.task == "functions":
            return [(answered(1), pause + question), (answered(2), [])]
        under_way: Callable[[], bool] = lambda: self.audio_s[0] > _OVER_S  # noqa: E731
        return [
            (lambda: True, 2 * pause + question),
            (under_way, question),
            (answered(2), pause + question),
            (answered(3), []),
        ]
