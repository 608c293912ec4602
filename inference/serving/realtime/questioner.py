"""One question outside any conversation's clock, in a session slot of its own, between the frames of conversations.

Silence in a recording is not heard, and long speech is heard in parts (speech_segments.py); whatever its length, it is
worked through in pieces so short that nobody else waits.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import numpy as np

from ....data_prep.audio import read_audio
from ....model.dialogue_model import DialogueModel
from ....model.dialogue_state import Sampling
from ....model.errors import DuologueError
from ...assistant.one_shot import RequestStep
from ...front_end import speech_segments as segments
from ..workers.pool import SessionSlot
from .decoding import decode

_CHUNK_S = 0.16  # of a recording are heard in one job
_LIKELIEST = Sampling()
_PATIENCE_S = 1.0  # that a job may wait for the frames of conversations


class Questioner:
    """One question, heard or read, and its answer.

    Args:
        slot: the session slot that it takes. model: what it hears with.
    """

    def __init__(self, slot: SessionSlot, model: DialogueModel) -> None:
        self._model, self._rate = model, model.input_rate  # Hz
        self._slot = slot

    async def ask(self, method: str, *args: Any) -> Any:
        """One job."""
        return (await self._slot.call(method, *args, patience=_PATIENCE_S)).value

    async def hear(self, recording: bytes, about: str = "") -> float:
        """A recording, whole, and what is asked in writing about it; returns its seconds.

        Raises:
            DuologueError: it cannot be read, or nobody speaks in it and nothing is asked about it.
        """
        pcm = await decode(read_audio, recording, self._rate)
        await self.listen(pcm, about)
        return len(pcm) / self._rate

    async def listen(self, pcm: np.ndarray, about: str = "") -> None:
        """A spoken question, (n,) float32 at the model's rate, and what is asked in writing about it.

        Raises:
            DuologueError: there is nothing to answer.
        """
        about = about.strip()
        heard = await self.plan(segments.asked, pcm, bool(about))
        if not heard.parts and not about:
            raise DuologueError(heard.warnings[0])
        if len(heard.parts) == 1:
            if not await self.hear_part(heard.parts[0], about=about):
                raise DuologueError(segments.NO_WORDS)
        else:
            words = "".join([delta async for delta in self._write_down(heard.parts)])
            await self.ask("read", f"{words} {about}".strip())

    async def plan(
        self, how: Callable[..., segments.Recording], pcm: np.ndarray, *more: Any
    ) -> segments.Recording:
        """What is to be heard of (n,) samples; ``how``: a function of speech_segments.py."""
        clip = await asyncio.to_thread(segments.framed, pcm)
        found = [await self.ask("detect", piece) for piece in segments.pieces(clip)]
        probabilities = np.concatenate([np.zeros(0, np.float32), *found])
        return await asyncio.to_thread(how, self._model, pcm, clip, probabilities, *more)

    async def hear_part(self, part: np.ndarray, *, apart: bool = False, about: str = "") -> bool:
        """Hear speech (n,); returns whether anything was said in it."""
        await self.ask("begin", apart)
        size = round(_CHUNK_S * self._rate)
        for start in range(0, len(part), size):
            await self.ask("hear", part[start : start + size])
        if about:
            await self.ask("about", about)
        return bool(await self.ask("end"))

    async def _write_down(self, parts: list[np.ndarray]) -> AsyncIterator[str]:
        """The words in parts of speech (n,), each heard by itself."""
        said = False
        for part in parts:
            before = " " if said else ""
            async for delta in self.write_part(part):
                yield before + delta
                before, said = "", True

    async def write_part(self, part: np.ndarray, sampling: Sampling = _LIKELIEST) -> AsyncIterator[str]:
        """The words in speech (n,), which is heard by itself and not remembered, as they are written."""
        await self.hear_part(part, apart=True)
        said = False
        async for step in self.steps(sampling):
            if delta := step.transcript if said else step.transcript.lstrip():
                yield delta
                said = True
            if step.text:
                break

    async def steps(self, sampling: Sampling) -> AsyncIterator[RequestStep]:
        """The answer as it is made."""
        ended = False
        while not ended:
            step: RequestStep = await self.ask("step", sampling)
            ended = step.ended
            yield step

    def leave(self) -> None:
        """Give the session slot back."""
        self._slot.leave()
