"""One question outside any conversation's clock, at work in a seat of its own, between the frames of conversations."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import numpy as np

from ...data_prep.audio import read_audio
from ...model.speech_lm import Sampling
from ..asking import Step
from ..engine import Seat

_CHUNK_S = 0.16  # of a recording are heard in one job
_PATIENCE_S = 1.0  # that a job may wait for the frames of conversations


class Questioner:
    """One question, heard or read, and its answer.

    Args:
        seat: the session slot that it takes. rate: of the model's ear, Hz.
    """

    def __init__(self, seat: Seat, rate: int) -> None:
        self._rate, self._seat = rate, seat

    async def ask(self, method: str, *args: Any) -> Any:
        """One job."""
        return (await self._seat.call(method, *args, patience=_PATIENCE_S)).value

    async def hear(self, recording: bytes, about: str = "") -> float:
        """A recording, whole, and what is asked in writing about it; returns its seconds."""
        pcm = await asyncio.to_thread(read_audio, recording, self._rate)
        await self.listen(pcm, about)
        return len(pcm) / self._rate

    async def listen(self, pcm: np.ndarray, about: str = "") -> None:
        """A spoken question, (n,) float32 at the model's rate, and what is asked in writing about it."""
        await self.ask("begin")
        size = round(_CHUNK_S * self._rate)
        for start in range(0, len(pcm), size):
            await self.ask("hear", pcm[start : start + size])
        if about.strip():
            await self.ask("about", about)
        await self.ask("end")

    async def steps(self, sampling: Sampling) -> AsyncIterator[Step]:
        """The answer as it is made."""
        ended = False
        while not ended:
            step: Step = await self.ask("step", sampling)
            ended = step.ended
            yield step

    def leave(self) -> None:
        """Give the seat back."""
        self._seat.leave()
