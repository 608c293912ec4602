"""Many conversations on one model: whose frame is computed next, and who is let in at all.

A lane is a thread or a process with the weights; a conversation stays in the lane that it began in. What a conversation
is asked to do is a job in its line. The lane takes the job that is due first. A frame of a microphone is due when it
arrives, but never sooner than 80 ms after the one before it: whoever sends a whole recording at once is served from
time that nobody else needs (Zhang, VirtualClock, ACM Trans. Computer Systems 9(2) (1991), section 2).

What one frame costs is measured when a lane starts. No more conversations are let in than fit into ``share`` of the
lanes' time, and none while those inside are served late: a session that could not be served would make all others late.

Frames of several conversations are not computed in one batch. It would pay: of nano, in one run on one CPU core
(medians of 25 steps, processor time), a conversation's share of the ear is 3.0 ms alone and 0.9 ms in a batch of eight,
of the language model's step 3.3 and 0.6 ms, of the unit decoder's 3.4 and 1.9 ms, of the voice detector's 0.6 and
0.2 ms; a whole frame of listening is 8.0 ms. But a session would have to hand its stages' inputs to the engine in the
middle of a frame, and caches of different lengths would need padding and masks in every layer: neither is simple, and
a session as a pure function of its sound is worth more here. Several cores are used by several lanes.

    engine = await Engine.start(lambda: load("nano"))
    seat = engine.sit()                                     raises EngineFull
    done = await seat.tick(pcm)                             done.value.pcm, done.value.events
    await seat.call("type", "what is three plus four")      any method of the session
    seat.leave()
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing import get_context
from multiprocessing.connection import Connection, Pipe
from typing import Any, Self

import numpy as np
import torch

from ..model.errors import DuologueError
from .asking import Asking
from .duplex import FRAME_MS, Mode
from .events import Tick
from .session import Session, SessionConfig

FRAME_S = FRAME_MS / 1000
_CALIBRATION = 50  # frames, half of them heard and half answered
_log = logging.getLogger(__name__)


class EngineFull(DuologueError):
    """There is no room for another conversation now; ``retry_s`` says when to ask again."""

    retry_s = 5


class EngineFault(RuntimeError):
    """A job failed for no fault of the caller's."""


@dataclass(frozen=True, kw_only=True)
class EngineConfig:
    """Who is let in.

    lanes: processes that compute, each with its own copy of the model; 0: one thread of this process.
    sessions: at most so many; None: as many as fit.
    share: of a lane's time that conversations may take together, each counted as if somebody spoke all the time.
    late_ms: nobody is let in while one of a hundred frames is later than this.
    """

    lanes: int = 0
    sessions: int | None = None
    share: float = 0.7
    late_ms: float = 40.0

    def __post_init__(self) -> None:
        if self.lanes < 0 or (self.sessions is not None and self.sessions < 1):
            raise DuologueError(f"engine: lanes {self.lanes}, sessions {self.sessions}; 0 or more, 1 or more")
        if not 0 < self.share <= 1 or self.late_ms <= 0:
            raise DuologueError(f"engine: share {self.share}, late_ms {self.late_ms}; above 0, and share at most 1")


@dataclass(frozen=True)
class Done:
    """A job that is done: what it returned, where the session stands, and how late it was.

    played: samples of the answer under way that have been played, or that had been when it ended.
    full: whether that answer ended because it had as many tokens as it may have.
    late_ms: from when it was due to when it was done; cost_ms: of it, spent on it.
    """

    value: Any
    mode: Mode
    played: int
    full: bool
    late_ms: float
    cost_ms: float


@dataclass(frozen=True)
class _Job:
    """method "": the line begins (args: what is to sit in it) or ends (no args)."""

    line: int
    number: int
    method: str
    args: tuple[Any, ...]
    arrived: float
    patience: float = 0.0  # s after its arrival that it is due


@dataclass
class _Line:
    """One conversation in a lane."""

    who: Session | Asking
    jobs: deque[_Job] = field(default_factory=deque)
    last_due: float = -1e9
    played: int = 0
    full: bool = False

    def due(self) -> float:
        """When its first job is due."""
        job = self.jobs[0]
        return max(job.arrived, self.last_due + FRAME_S) if job.method == "tick" else job.arrived + job.patience


class Lane:
    """Runs conversations one job after another, in the order in which they are due.

    Args:
        assistant: whose weights are used.
        vad: what its sessions hear speech with; None: silero.
        work, results: where jobs come from and go to.
    """

    def __init__(self, assistant: Any, vad: Any, work: Connection, results: Connection) -> None:
        self._assistant, self._vad, self._work, self._results = assistant, vad, work, results
        self._lines: dict[int, _Line] = {}

    def run(self) -> None:
        """Until there is no more work to come."""
        with torch.inference_mode():
            self._results.send((0, 0, self._calibrate()))
            waiting: list[_Line] = []
            while True:
                try:
                    while self._work.poll(0 if waiting else None):
                        self._take(self._work.recv())
                        waiting = [line for line in self._lines.values() if line.jobs]
                except (EOFError, OSError):
                    return
                self._do(min(waiting, key=_Line.due))
                waiting = [line for line in waiting if line.jobs]

    def _take(self, job: _Job) -> None:
        if job.method:
            if job.line in self._lines:
                self._lines[job.line].jobs.append(job)
        elif job.args:
            config: SessionConfig | None = job.args[0]
            who = Asking(self._assistant) if config is None else Session(self._assistant, config, self._vad)
            self._lines[job.line] = _Line(who)
        else:
            self._lines.pop(job.line, None)

    def _do(self, line: _Line) -> None:
        due, began = line.due(), time.monotonic()
        job = line.jobs.popleft()
        if job.method == "tick":
            line.last_due = due
        value: Any
        try:
            value = getattr(line.who, job.method)(*job.args)
        except DuologueError as error:
            value = error
        except Exception as error:  # a fault of ours must end one conversation, not all
            _log.exception("%s failed", job.method)
            value = EngineFault(f"{type(error).__name__} in {job.method}")
        mode = Mode.IDLE
        if isinstance(line.who, Session):
            state = line.who.state
            mode = state.policy.mode
            if state.answer is not None:
                tokens = state.answer.dialogue.generated
                line.played, line.full = state.answer.played, tokens >= line.who.config.sampling.max_tokens
        ended = time.monotonic()
        done = Done(value, mode, line.played, line.full, 1e3 * max(0.0, ended - due), 1e3 * (ended - began))
        self._results.send((job.line, job.number, done))

    def _calibrate(self) -> float:
        """Milliseconds that a frame costs on average while somebody speaks, be it the user or the assistant."""
        noise = np.random.default_rng(0).standard_normal((_CALIBRATION, FRAME_MS * 16)).astype(np.float32)
        for _ in range(2):  # the first time, everything is slower
            try:
                session = Session(self._assistant, SessionConfig(), self._vad)
            except DuologueError:  # a model that cannot converse serves the other endpoints
                return 0.0
            session.press()
            began = time.thread_time()
            for i, frame in enumerate(noise):
                if i == len(noise) // 2:
                    session.press(False)
                session.tick(np.resize(0.05 * frame, session.frame))
            cost = 1e3 * (time.thread_time() - began) / len(noise)
        return cost


class Seat:
    """One conversation's place in a lane. Its jobs are done in the order in which they are given."""

    def __init__(self, engine: Engine, lane: _LaneLink, line: int) -> None:
        self._engine, self._lane, self.line = engine, lane, line
        self.left = False

    def tick(self, pcm: np.ndarray, arrived: float | None = None) -> asyncio.Future[Done]:
        """One frame of microphone, (frame,) float32; ``arrived``: when, by time.monotonic(), if not now."""
        return self._engine._give(self._lane, self.line, "tick", (pcm,), arrived)

    def call(self, method: str, *args: Any, patience: float = 0.0) -> asyncio.Future[Done]:
        """Any method of the session. What can wait so many seconds gives way to frames."""
        return self._engine._give(self._lane, self.line, method, args, None, patience)

    def leave(self) -> None:
        """The conversation is over: all it remembered is dropped."""
        if not self.left:
            self.left = True
            self._engine._leave(self._lane, self.line)


@dataclass
class _LaneLink:
    """The engine's end of a lane."""

    work: Connection
    results: Connection
    runner: Any  # a thread or a process
    cost_ms: float = 0.0
    seats: int = 0
    alive: bool = True


class Engine:
    """All lanes, and the door."""

    def __init__(self, config: EngineConfig) -> None:
        self.config = config
        self.late_ms: deque[tuple[float, float]] = deque(maxlen=4096)  # when, and how late, the last frames
        self.on_frame: Callable[[Done], None] = lambda done: None
        self._lanes: list[_LaneLink] = []
        self._numbers = itertools.count(1)
        self._waiting: dict[int, tuple[_LaneLink, int, asyncio.Future[Done]]] = {}
        self._loop = asyncio.get_running_loop()

    @classmethod
    async def start(
        cls, load: Callable[[], Any], config: EngineConfig | None = None, vad: Any = None, *, model: str | None = None
    ) -> Self:
        """An engine whose lanes are ready.

        Args:
            load: gives the assistant; called in the one thread.
            model: its name, which processes load it by.
            vad: what sessions hear speech with; None: silero. Only for a thread.
        """
        engine = cls(config or EngineConfig())
        for _ in range(max(1, engine.config.lanes)):
            (work, theirs), (results, theirs_too) = Pipe(), Pipe()
            if engine.config.lanes:
                assert model is not None
                runner: Any = get_context("spawn").Process(
                    target=_lane_process, args=(model, theirs, theirs_too), daemon=True
                )
            else:
                lane = Lane(load(), vad, theirs, theirs_too)
                runner = threading.Thread(target=lane.run, daemon=True, name="lane")
            link = _LaneLink(work, results, runner)
            engine._lanes.append(link)
            runner.start()
            if engine.config.lanes:  # so that one side notices when the other is gone
                theirs.close()
                theirs_too.close()
        for link in engine._lanes:
            first = await asyncio.to_thread(_receive, link.results)
            if first is None:
                raise DuologueError("a lane of the engine did not start; see the message above")
            link.cost_ms = first[2]
            threading.Thread(target=engine._listen, args=(link,), daemon=True, name="results").start()
        return engine

    @property
    def seats(self) -> int:
        """Conversations inside."""
        return sum(lane.seats for lane in self._lanes)

    @property
    def processes(self) -> list[int]:
        """Ids of the lanes that are processes."""
        return [lane.runner.pid for lane in self._lanes] if self.config.lanes else []

    @property
    def alive(self) -> bool:
        """Whether every lane runs."""
        return all(lane.alive for lane in self._lanes)

    def room(self, lane: _LaneLink | None = None) -> int:
        """How many conversations fit in all, or in one lane."""
        if lane is None:
            rooms = sum(self.room(each) for each in self._lanes)
            return rooms if self.config.sessions is None else min(rooms, self.config.sessions)
        if not lane.alive:
            return 0
        fit = int(self.config.share * FRAME_MS / lane.cost_ms) if lane.cost_ms else 64
        return max(1, fit) if self.config.sessions is None else self.config.sessions

    def p99_late_ms(self, window_s: float = 10.0) -> float:
        """How late one in a hundred of the last seconds' frames was."""
        now = time.monotonic()
        late = [late for when, late in self.late_ms if now - when <= window_s]
        return float(np.percentile(late, 99)) if len(late) >= 100 else 0.0

    def sit(self, config: SessionConfig | None = None) -> Seat:
        """A place for a session, or for an :class:`~.asking.Asking` if there is no config.

        Raises:
            EngineFull: there is none.
        """
        lanes = [lane for lane in self._lanes if lane.seats < self.room(lane)]
        late = self.p99_late_ms()
        if not lanes or self.seats >= self.room():
            raise EngineFull(
                f"all {self.room()} conversations that this server has time for are taken: try again later"
            )
        if late > self.config.late_ms:
            raise EngineFull(f"the server is {late:.0f} ms late with the conversations it has: try again later")
        lane, line = min(lanes, key=lambda lane: lane.seats), next(self._numbers)
        lane.seats += 1
        self._send(lane, _Job(line, 0, "", (config,), 0.0))
        return Seat(self, lane, line)

    async def stop(self) -> None:
        """End all lanes."""
        for lane in self._lanes:
            lane.work.close()
            await asyncio.to_thread(lane.runner.join, 5)

    def _give(
        self,
        lane: _LaneLink,
        line: int,
        method: str,
        args: tuple[Any, ...],
        arrived: float | None,
        patience: float = 0.0,
    ) -> asyncio.Future[Done]:
        number, future = next(self._numbers), self._loop.create_future()
        self._waiting[number] = (lane, line, future)
        if lane.alive:
            self._send(lane, _Job(line, number, method, args, arrived or time.monotonic(), patience))
        else:
            self._finish(lane, line, number, EngineFault("the engine has stopped"))
        return future

    def _send(self, lane: _LaneLink, job: _Job) -> None:
        try:
            lane.work.send(job)
        except OSError:
            self._lost(lane)

    def _leave(self, lane: _LaneLink, line: int) -> None:
        lane.seats -= 1
        self._send(lane, _Job(line, 0, "", (), 0.0))
        for number, (_, its, future) in list(self._waiting.items()):
            if its == line:
                del self._waiting[number]
                future.cancel()

    def _listen(self, lane: _LaneLink) -> None:
        """In a thread of its own: results of a lane, handed to the loop."""
        while (result := _receive(lane.results)) is not None:
            if not self._call(self._finish, lane, *result):
                return
        self._call(self._lost, lane)

    def _call(self, what: Callable[..., None], *args: Any) -> bool:
        try:
            self._loop.call_soon_threadsafe(what, *args)
        except RuntimeError:  # the loop is closed
            return False
        return True

    def _finish(self, lane: _LaneLink, line: int, number: int, done: Any) -> None:
        entry = self._waiting.pop(number, None)
        if entry is None or entry[2].done():
            return
        future = entry[2]
        if isinstance(done, Exception):
            future.set_exception(done)
            return
        if isinstance(done.value, Tick):
            self.late_ms.append((time.monotonic(), done.late_ms))
            self.on_frame(done)
        if isinstance(done.value, Exception):
            future.set_exception(done.value)
        else:
            future.set_result(done)

    def _lost(self, lane: _LaneLink) -> None:
        """A lane has ended by itself: so have its conversations."""
        lane.alive = False
        for number, (its, line, _) in list(self._waiting.items()):
            if its is lane:
                self._finish(lane, line, number, EngineFault("the engine has stopped"))


def _receive(results: Connection) -> Any:
    try:
        return results.recv()
    except (EOFError, OSError):
        return None


def _lane_process(model: str, work: Connection, results: Connection) -> None:
    """The whole life of a lane that is a process."""
    import signal

    from .assistant import load

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the server, which lets replies finish
    torch.set_num_threads(1)
    Lane(load(model), None, work, results).run()
