"""One question outside any conversation's clock, in a session slot of its own, between the frames of conversations.

Silence in a recording is not heard, and long speech is heard in parts (speech_segments.py); whatever its length, it is
worked through in pieces so short that nobody else waits.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
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
_BETWEEN_S = 0.5  # recordings that are heard as one
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

    async def hear(self, recordings: Sequence[bytes], about: str = "") -> int:
        """One question in one recording or several, whole, and what is asked in writing about them; returns their
        samples.

        Raises:
            DuologueError: one cannot be read, or nobody speaks and nothing is asked about it.
        """
        clips = [await decode(read_audio, recording, self._rate) for recording in recordings]
        if len(clips) > 1 and self._model.hears_sounds:
            await self._hear_each(clips, about.strip())
        else:  # as if all had been said in one
            pause = np.zeros(round(_BETWEEN_S * self._rate), np.float32)
            joined = [piece for clip in clips for piece in (pause, clip)][1:]
            await self.listen(np.concatenate(joined), about)
        return sum(map(len, clips))

    async def _hear_each(self, clips: list[np.ndarray], about: str) -> None:
        """Recordings (n,) one after the other in one turn."""
        await self.ask("begin")
        for number, clip in enumerate(clips):
            if number:
                await self.ask("another")
            for part in (await self.plan(segments.asked, clip, True)).parts:
                await self._hear_samples(part)
        if about:
            await self.ask("about", about)
        if not await self.ask("end"):
            raise DuologueError(segments.NO_WORDS)

    async def _hear_samples(self, pcm: np.ndarray) -> None:
        size = round(_CHUNK_S * self._rate)
        for start in range(0, len(pcm), size):
            await self.ask("hear", pcm[start : start + size])

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

    async def plan(self, how: Callable[..., segments.Recording], pcm: np.ndarray, *more: Any) -> segments.Recording:
        """What is to be heard of (n,) samples; ``how``: a function of speech_segments.py."""
        clip = await asyncio.to_thread(segments.framed, pcm)
        found = [await self.ask("detect", piece, not at) for at, piece in enumerate(segments.pieces(clip))]
        probabilities = np.concatenate([np.zeros(0, np.float32), *found])
        return await asyncio.to_thread(how, self._model, pcm, clip, probabilities, *more)

    async def hear_part(self, part: np.ndarray, *, apart: bool = False, about: str = "") -> bool:
        """Hear speech (n,); returns whether anything was said in it."""
        await self.ask("begin", apart)
        await self._hear_samples(part)
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
        async for step in self.steps(sampling, aloud=False):
            if delta := step.transcript if said else step.transcript.lstrip():
                yield delta
                said = True

    async def steps(self, sampling: Sampling, tokens: int = 4, aloud: bool = True) -> AsyncIterator[RequestStep]:
        """The answer as it is made, so many tokens at a time; without samples, if not ``aloud``."""
        ended = False
        while not ended:
            step: RequestStep = await self.ask("step", sampling, tokens, aloud)
            ended = step.ended
            yield step

    def leave(self) -> None:
        """Give the session slot back."""
        self._slot.leave()
