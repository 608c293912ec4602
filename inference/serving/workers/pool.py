"""Many conversations on one model: who is let in at all, and who runs where.

A conversation stays in the worker that it began in (:mod:`.worker`), where its frames share the stages' steps with
others' that are due meanwhile (:mod:`.dynamic_batching`). Several cores are used by several workers.

What one frame costs is measured when a worker starts, and of each conversation while it lasts (:mod:`.headroom`). No
more conversations are let in than fit into ``fraction`` of the workers' time, and none while those inside are served
late: one more would make all others late.

Frames that come spread over time leave little to share until there is no time left; then sharing is what keeps a worker
from falling behind (measured: nano's card). Admission control therefore counts on what a frame costs in small batches;
bursts are absorbed by larger ones.

    pool = await WorkerPool.start(lambda: load("nano"))
    slot = pool.sit()                                     raises PoolFull
    done = await slot.tick(pcm)                             done.value.pcm, done.value.events
    await slot.call("type", "what is three plus four")      any method of the session
    slot.leave()
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from multiprocessing import get_context
from multiprocessing.connection import Connection, Pipe
from queue import SimpleQueue
from typing import Any, Self

import numpy as np

from ....model.errors import DuologueError
from ....model.speech_decoder.voices import Speaker
from ....model.streaming import Streaming
from ...assistant.assistant import Assistant
from ...session.events import Tick
from ...session.state import SessionConfig
from .headroom import Headroom
from .worker import FRAME_S, PING, Done, Job, Worker, WorkerFault, worker_process

__all__ = ["FRAME_S", "PoolFull", "SessionSlot", "WorkerFault", "WorkerPool", "WorkerPoolConfig"]


_PING_S = 1.0  # from one question whether a worker goes on to the next
_STUCK_S = 3.0  # without an answer to it


class PoolFull(DuologueError):
    """There is no room for another conversation now; ``retry_s`` says when to ask again."""

    def __init__(self, message: str, retry_s: int = 5) -> None:
        super().__init__(message)
        self.retry_s = retry_s


@dataclass(frozen=True, kw_only=True)
class WorkerPoolConfig:
    """Who is let in.

    workers: processes that compute, each with its own copy of the model; 0: one thread of this process.
    sessions: at most so many; None: as many as fit.
    fraction: of a worker's time that conversations may take together, by what they have cost so far; who comes in is
        counted as if somebody always spoke. The rest is slack, for lateness and for what others do on the machine.
    late_ms: nobody is let in while one of a hundred frames is later than this.
    logs: of workers that are processes, see ``..logs``.
    """

    workers: int = 0
    sessions: int | None = None
    fraction: float = 0.25
    late_ms: float = 40.0
    logs: str = "text"

    def __post_init__(self) -> None:
        if self.workers < 0 or (self.sessions is not None and self.sessions < 1):
            raise DuologueError(f"worker pool: workers {self.workers}, sessions {self.sessions}; 0 or more, 1 or more")
        if not 0 < self.fraction <= 1 or self.late_ms <= 0:
            raise DuologueError(
                f"worker pool: fraction {self.fraction}, late_ms {self.late_ms}; above 0, and fraction at most 1"
            )


class SessionSlot:
    """One conversation's place in a worker. Its jobs are done in the order in which they are given."""

    def __init__(self, pool: WorkerPool, worker: _WorkerLink, line: int) -> None:
        self._pool, self._worker, self.line = pool, worker, line
        self.left = False

    def tick(self, pcm: np.ndarray, arrived: float | None = None) -> asyncio.Future[Done]:
        """One frame of microphone, (frame,) float32; ``arrived``: when, by time.monotonic(), if not now."""
        return self._give("tick", (pcm,), arrived)

    def call(self, method: str, *args: Any, patience: float = 0.0) -> asyncio.Future[Done]:
        """Any method of the session. What can wait so many seconds gives way to frames."""
        return self._give(method, args, None, patience)

    def _give(
        self, method: str, args: tuple[Any, ...], arrived: float | None, patience: float = 0.0
    ) -> asyncio.Future[Done]:
        future = self._pool._give(self._worker, self.line, method, args, arrived, patience)
        if self.left:
            self._pool._drop(self.line)
        return future

    def leave(self) -> None:
        """The conversation is over: all it remembered is dropped."""
        if not self.left:
            self.left = True
            self._pool._leave(self._worker, self)


@dataclass
class _WorkerLink:
    """The pool's end of a worker.

    jobs: on their way to it; None: there will be no more. (A pipe may be full, and the event loop must not wait.)
    asked: since when it has not said that it goes on, by time.monotonic(); None: nobody asks.
    """

    work: Connection
    results: Connection
    runner: Any  # a thread or a process
    headroom: Headroom
    jobs: SimpleQueue[Job | None] = field(default_factory=SimpleQueue)
    slots: int = 0
    alive: bool = True
    asked: float | None = None

    @property
    def stuck(self) -> bool:
        """Whether it runs, and does not come back from what it does."""
        asked = self.asked
        return self.alive and asked is not None and time.monotonic() - asked > _STUCK_S


class WorkerPool:
    """All workers, and admission control."""

    def __init__(self, config: WorkerPoolConfig) -> None:
        self.config = config
        self.late_ms: deque[tuple[float, float]] = deque(maxlen=4096)  # when, and how late, the last frames
        self.on_frame: Callable[[Done], None] = lambda done: None
        self.on_leave: Callable[[SessionSlot], None] = lambda slot: None  # there may be room for another conversation
        self._pinging: asyncio.Task[None] | None = None
        self._workers: list[_WorkerLink] = []
        self._numbers = itertools.count(1)
        self._waiting: dict[int, tuple[_WorkerLink, int, asyncio.Future[Done]]] = {}
        self._loop = asyncio.get_running_loop()

    @classmethod
    async def start(
        cls,
        load: Callable[[], Assistant],
        config: WorkerPoolConfig | None = None,
        vad: Streaming | None = None,
        *,
        model: str | None = None,
        voices: Mapping[str, Speaker] | None = None,
    ) -> Self:
        """A pool whose workers are ready.

        Args:
            load: gives the assistant; called in the one thread.
            model: its name, which processes load it by. voices: that it then speaks in; None: its own.
            vad: what sessions hear speech with; None: silero. Only for a thread.
        """
        pool = cls(config or WorkerPoolConfig())
        for _ in range(max(1, pool.config.workers)):
            (work, theirs), (results, theirs_too) = Pipe(), Pipe()
            if pool.config.workers:
                assert model is not None
                runner: Any = get_context("spawn").Process(
                    target=worker_process, args=(model, theirs, theirs_too, pool.config.logs, voices),
                    daemon=True,
                )
            else:
                worker = Worker(load(), vad, theirs, theirs_too)
                runner = threading.Thread(target=worker.run, daemon=True, name="worker")
            link = _WorkerLink(work, results, runner, Headroom(0.0, pool.config.fraction))
            pool._workers.append(link)
            runner.start()
            if pool.config.workers:  # so that one side notices when the other is gone
                theirs.close()
                theirs_too.close()
        for link in pool._workers:
            first = await asyncio.to_thread(_receive, link.results)
            if first is None:
                raise DuologueError("a worker did not start; see the message above")
            link.headroom = Headroom(first[2], pool.config.fraction)
            threading.Thread(target=pool._listen, args=(link,), daemon=True, name="results").start()
            threading.Thread(target=pool._pass_on, args=(link,), daemon=True, name="jobs").start()
        pool._pinging = asyncio.create_task(pool._ping())
        return pool

    @property
    def slots(self) -> int:
        """Conversations inside."""
        return sum(worker.slots for worker in self._workers)

    @property
    def processes(self) -> list[int]:
        """Ids of the workers that are processes."""
        return [worker.runner.pid for worker in self._workers] if self.config.workers else []

    @property
    def alive(self) -> bool:
        """Whether every worker runs."""
        return all(worker.alive for worker in self._workers)

    @property
    def stuck(self) -> bool:
        """Whether a worker runs, and has not come back from what it does for some seconds."""
        return any(worker.stuck for worker in self._workers)

    def room(self, worker: _WorkerLink | None = None) -> int:
        """How many conversations fit in all, or in one worker."""
        if worker is None:
            rooms = sum(self.room(each) for each in self._workers)
            return rooms if self.config.sessions is None else min(rooms, self.config.sessions)
        if not worker.alive or worker.stuck:
            return 0
        return worker.headroom.room() if self.config.sessions is None else self.config.sessions

    @property
    def load(self) -> float:
        """The fraction of the workers' time that those inside take, by estimate."""
        return sum(worker.headroom.load for worker in self._workers) / max(1, len(self._workers))

    def p99_late_ms(self, window_s: float = 10.0) -> float:
        """How late one in a hundred of the last seconds' frames was."""
        now = time.monotonic()
        late = [late for when, late in self.late_ms if now - when <= window_s]
        return float(np.percentile(late, 99)) if len(late) >= 100 else 0.0

    def sit(self, config: SessionConfig | None = None) -> SessionSlot:
        """A place for a session, or for an :class:`~...assistant.one_shot.OneShotRequest` if there is no config.

        Raises:
            PoolFull: there is none.
        """
        if self.stuck and not self.room():
            raise PoolFull("the server does not come back from what it does: try again later")
        workers = [worker for worker in self._workers if worker.slots < self.room(worker)]
        if not workers or self.slots >= self.room():
            raise PoolFull(f"all {self.room()} conversations that this server has time for are taken: try again later")
        if (late := self.p99_late_ms()) > self.config.late_ms:
            raise PoolFull(f"the server is {late:.0f} ms late with the conversations it has: try again later")
        worker, line = min(workers, key=lambda worker: worker.slots), next(self._numbers)
        worker.slots += 1
        worker.headroom.enter(line)
        self._send(worker, Job(line, 0, "", (config,), 0.0))
        return SessionSlot(self, worker, line)

    async def stop(self) -> None:
        """End all workers."""
        if self._pinging is not None:
            self._pinging.cancel()
        for worker in self._workers:
            worker.jobs.put(None)
        for worker in self._workers:
            await asyncio.to_thread(worker.runner.join, 5)

    def _give(
        self,
        worker: _WorkerLink,
        line: int,
        method: str,
        args: tuple[Any, ...],
        arrived: float | None,
        patience: float = 0.0,
    ) -> asyncio.Future[Done]:
        number, future = next(self._numbers), self._loop.create_future()
        self._waiting[number] = (worker, line, future)
        if worker.alive:
            self._send(worker, Job(line, number, method, args, arrived or time.monotonic(), patience))
        else:
            self._finish(worker, line, number, WorkerFault("the service has stopped"))
        return future

    def _send(self, worker: _WorkerLink, job: Job) -> None:
        worker.jobs.put(job)

    def _pass_on(self, worker: _WorkerLink) -> None:
        """In a thread of its own: jobs, handed to a worker."""
        with contextlib.suppress(OSError):  # it is gone: its results end too
            while (job := worker.jobs.get()) is not None:
                worker.work.send(job)
        worker.work.close()

    async def _ping(self) -> None:
        while True:
            for worker in self._workers:
                if worker.asked is None:
                    worker.asked = time.monotonic()
                    self._send(worker, Job(PING, next(self._numbers), "", (), 0.0))
            await asyncio.sleep(_PING_S)

    def _leave(self, worker: _WorkerLink, slot: SessionSlot) -> None:
        worker.slots -= 1
        worker.headroom.leave(slot.line)
        if not self.slots:
            self.late_ms.clear()  # where nobody is, nobody is late any more
        self._send(worker, Job(slot.line, 0, "", (), 0.0))
        self._drop(slot.line)
        self.on_leave(slot)

    def _drop(self, line: int) -> None:
        """Nobody waits for what this line is asked to do."""
        for number, (_, its, future) in list(self._waiting.items()):
            if its == line:
                del self._waiting[number]
                future.cancel()

    def _listen(self, worker: _WorkerLink) -> None:
        """In a thread of its own: results of a worker, handed to the loop."""
        while (result := _receive(worker.results)) is not None:
            if result[0] == PING:
                worker.asked = None
            elif not self._call(self._finish, worker, *result):
                return
        self._call(self._lost, worker)

    def _call(self, what: Callable[..., None], *args: Any) -> bool:
        try:
            self._loop.call_soon_threadsafe(what, *args)
        except RuntimeError:  # the loop is closed
            return False
        return True

    def _finish(self, worker: _WorkerLink, line: int, number: int, done: Any) -> None:
        entry = self._waiting.pop(number, None)
        if entry is None or entry[2].done():
            return
        future = entry[2]
        if isinstance(done, Exception):
            future.set_exception(done)
            return
        if isinstance(done.value, Tick):
            self.late_ms.append((time.monotonic(), done.late_ms))
            worker.headroom.frame(line, done.cost_ms)
            self.on_frame(done)
        if isinstance(done.value, Exception):
            future.set_exception(done.value)
        else:
            future.set_result(done)

    def _lost(self, worker: _WorkerLink) -> None:
        """A worker has ended by itself: so have its conversations."""
        worker.alive = False
        for number, (its, line, _) in list(self._waiting.items()):
            if its is worker:
                self._finish(worker, line, number, WorkerFault("the service has stopped"))


def _receive(results: Connection) -> Any:
    try:
        return results.recv()
    except (EOFError, OSError):
        return None
