"""A worker: a thread or a process with the weights, and the conversations that live in it.

What a conversation is asked to do is a job in its line; of one line, one job is under way at a time. Jobs of different
lines share the stages' steps (:mod:`.dynamic_batching`). A frame of a microphone is due when it arrives, but never
sooner than 80 ms after the one before it: whoever sends a whole recording at once is served from time that nobody else
needs (Zhang, VirtualClock, ACM Trans. Computer Systems 9(2) (1991), section 2). Anything else is due when its patience
ends.
"""

from __future__ import annotations

import contextlib
import gc
import logging
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
import torch
from greenlet import greenlet
from torch import nn

from ....model.errors import DuologueError
from ....model.layers.packed import pack
from ....model.speech_decoder.voices import Speaker
from ....model.streaming import State, Streaming
from ...assistant.assistant import Assistant
from ...assistant.one_shot import OneShotRequest
from ...session.policy import FRAME_MS, Mode
from ...session.session import Session
from ...session.state import SessionConfig
from ..logs import set_up
from .dynamic_batching import MOST, DynamicBatching

FRAME_S = FRAME_MS / 1000
PING = -1
_CALIBRATION = 50  # frames, half of them heard and half answered
_CALIBRATIONS = 4
_TOGETHER = 2  # conversations that are calibrated with: when a worker is full, batches are no larger
_TAKEN = 64  # jobs that are taken in before the next step: a client may send a thousand at once
_log = logging.getLogger(__name__)


class WorkerFault(RuntimeError):
    """A job failed for no fault of the caller's."""


@dataclass(frozen=True)
class Done:
    """A job that is done: what it returned, where the session stands, and how late it was.

    played: samples of the answer under way that have been played, or that had been when it ended.
    full: whether that answer ended because it had as many tokens as it may have.
    late_ms: from when it was due to when it was done; 0 in a long turn of push-to-talk: nobody waits.
    cost_ms: that the worker computed for it, its part of what was shared among it.
    """

    value: Any
    mode: Mode
    played: int
    full: bool
    late_ms: float
    cost_ms: float = 0.0


@dataclass(frozen=True)
class Job:
    """method "": the line begins (args: what is to sit in it) or ends (no args). line PING: the worker is to say
    that it goes on, by sending the number back."""

    line: int
    number: int
    method: str
    args: tuple[Any, ...]
    arrived: float
    patience: float = 0.0  # s after its arrival that it is due


@dataclass
class _Line:
    """One conversation in a worker."""

    who: Session | OneShotRequest
    jobs: deque[Job] = field(default_factory=deque)  # not begun
    under_way: greenlet | None = None
    last_due: float = -1e9
    played: int = 0
    full: bool = False

    def due(self, job: Job) -> float:
        """When it is due, by time.monotonic()."""
        if job.method != "tick":
            return job.arrived + job.patience
        self.last_due = max(job.arrived, self.last_due + FRAME_S)
        return self.last_due


class AllSpeech(Streaming):
    """A voice activity detector, at its cost, to whom everything is speech: for measuring with noise."""

    def __init__(self, vad: Streaming) -> None:
        super().__init__()
        self._vad = vad

    def init_state(self, batch_size: int = 1) -> State:
        return self._vad.init_state(batch_size)

    def step(self, x: torch.Tensor, state: State) -> torch.Tensor:
        return torch.ones_like(self._vad.step(x, state))


class Worker:
    """Runs conversations side by side.

    Args:
        assistant: whose weights are used.
        vad: what its sessions hear speech with; None: silero.
        work, results: where jobs come from and go to.
        most, clock: see :class:`~.dynamic_batching.DynamicBatching`.
    """

    def __init__(
        self,
        assistant: Assistant,
        vad: Streaming | None,
        work: Connection,
        results: Connection,
        *,
        most: int = MOST,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if vad is None:
            from ....checkpoints.importers.silero_vad import load_vad

            vad = load_vad()
        for module in (assistant.model, vad):
            if isinstance(module, nn.Module):
                pack(module)
        self._batching = DynamicBatching(most, clock)
        self._assistant = self._batching.assistant(assistant)  # of one-shot requests, which hear whole clips
        speaking = assistant.while_speaking()
        self._conversing = self._assistant if speaking is assistant else self._batching.assistant(speaking)
        self._vad = self._batching.shared_stage(vad, "step")
        self._work, self._results, self._clock = work, results, clock
        self._lines: dict[int, _Line] = {}

    def run(self) -> None:
        """Say what a frame costs; then work until there is none to come, or nobody takes results."""
        with contextlib.suppress(EOFError, OSError), torch.inference_mode():
            cost = self.calibrate()
            gc.collect()
            gc.freeze()  # to look through all that was imported takes 0.2 s, and every conversation would wait
            self._results.send((0, 0, cost))
            self.serve()

    @torch.inference_mode()
    def serve(self) -> None:
        """Work.

        Raises:
            EOFError, OSError: there is none to come, or nobody takes results.
        """
        try:
            while True:
                taken = 0
                while taken < _TAKEN and self._work.poll(0 if self._batching.busy else None):
                    self._take(self._work.recv())
                    taken += self._batching.busy
                self._batching.advance()
        finally:
            self._batching.end()

    def _take(self, job: Job) -> None:
        if job.line == PING:
            self._results.send((PING, job.number, None))
        elif job.method:
            if (line := self._lines.get(job.line)) is not None:
                line.jobs.append(job)
                self._begin(line)
        elif job.args:
            config: SessionConfig | None = job.args[0]
            if config is None:
                self._lines[job.line] = _Line(OneShotRequest(self._assistant, self._vad))
            else:
                self._lines[job.line] = _Line(Session(self._conversing, config, self._vad))
        elif (line := self._lines.pop(job.line, None)) is not None and line.under_way is not None:
            self._batching.cancel(line.under_way)

    def _begin(self, line: _Line) -> None:
        """The line's first job, unless one is under way."""
        if line.jobs and line.under_way is None:
            job = line.jobs.popleft()
            due = line.due(job)
            line.under_way = self._batching.begin(lambda: self._do(line, job, due), due)

    def _do(self, line: _Line, job: Job, due: float) -> None:
        value: Any
        try:
            value = getattr(line.who, job.method)(*job.args)
        except DuologueError as error:
            value = error
        except Exception as error:  # a fault of ours must end one conversation, not all
            _log.exception("%s failed", job.method)
            value = WorkerFault(f"{type(error).__name__} in {job.method}")
        mode, late = Mode.IDLE, 1e3 * max(0.0, self._clock() - due)
        if isinstance(line.who, Session):
            now = line.who.standing
            mode, late = now.mode, 0.0 if now.writing else late
            if now.played is not None:
                line.played, line.full = now.played, now.full
        done = Done(value, mode, line.played, line.full, late, 1e3 * self._batching.spent_s())
        self._results.send((job.line, job.number, done))
        line.under_way = None
        self._begin(line)

    @torch.inference_mode()
    def calibrate(self) -> float:
        """Milliseconds that a frame costs on average while somebody speaks, be it the user or the assistant.

        The least of several measurements: the first time everything is slower, and whatever else the machine does only
        adds.
        """
        try:
            return min(self._cost() for _ in range(_CALIBRATIONS))
        except DuologueError:  # a model that cannot converse serves the other endpoints
            return 0.0

    def _cost(self) -> float:
        vad = AllSpeech(self._vad)
        sessions = [Session(self._conversing, SessionConfig(), vad) for _ in range(_TOGETHER)]
        noise = np.random.default_rng(0).standard_normal((_CALIBRATION, sessions[0].frame)).astype(np.float32)
        began = time.thread_time()
        for i, frame in enumerate(noise):
            for j, session in enumerate(sessions):
                session.press((i + j * len(noise) // len(sessions)) % len(noise) < len(noise) // 2)
                self._batching.begin(partial(session.tick, 0.05 * frame), self._clock())
            while self._batching.busy:
                self._batching.advance()
        return 1e3 * (time.thread_time() - began) / (len(noise) * len(sessions))


def worker_process(
    model: str, work: Connection, results: Connection, logs: str = "text", voices: Mapping[str, Speaker] | None = None
) -> None:
    """The whole life of a worker that is a process. logs: see ``..logs``; voices: :meth:`.pool.WorkerPool.start`."""
    import signal

    from ...assistant.loading import load
    from ...assistant.quiet import quieten

    quieten()
    set_up(logs)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the server, which lets replies finish
    torch.set_num_threads(1)
    assistant = load(model)
    if voices is not None:
        assistant = assistant.speaking_in(voices)
    Worker(assistant, None, work, results).run()
