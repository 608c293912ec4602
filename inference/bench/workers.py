"""What a frame of a conversation costs when several share a worker, and how late it is.

Each conversation hears noise for two seconds, button pressed, and is silent for two, over and over: somebody speaks all
the time, the user or the assistant. Time is simulated: the worker's clock runs by its processor time while it computes,
and jumps to the next frame when it has nothing to do. So other programs do not disturb it, nor does it take real time.
The same frames are worked through in one run one after the other, with steps shared, and so that all conversations'
frames come at the same moment, where there is most to share.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ...checkpoints.files import write_json
from ...model.streaming import Streaming
from ..assistant.assistant import Assistant
from ..serving.workers.dynamic_batching import MOST
from ..serving.workers.worker import FRAME_S, AllSpeech, Job, Worker
from ..session.policy import FRAME_MS
from ..session.state import SessionConfig

SPEECH = 25  # frames, and as many of silence
CONVERSATIONS = (1, 2, 4, 8, 12, 16)
FRAMES = 100  # of each
APART = 0.618034  # of a frame, from one conversation's to the next one's: they come spread over time
_WARM = 20  # frames of each that are not counted


@dataclass(frozen=True)
class WorkerLoad:
    """cost_ms: processor time a frame. late_ms: p50, p95, p99 of the frames. busy: fraction of time spent computing."""

    conversations: int
    shared: bool
    apart: float
    cost_ms: float
    late_ms: tuple[float, ...]
    busy: float


class _Clients:
    """Both ends of a worker: it is given frames when its clock says that they are due, and what comes back is noted."""

    def __init__(self, conversations: int, frames: int, frame: int, apart: float) -> None:
        noise = 0.05 * np.random.default_rng(0).standard_normal((frames, frame)).astype(np.float32)
        self.late: list[float] = []
        self.faults: list[Exception] = []
        self._began, self._skipped = time.thread_time(), 0.0
        self.jobs = [Job(i, 0, "", (SessionConfig(),), 0.0) for i in range(conversations)]
        for frame in range(frames):
            for i in range(conversations):
                at = (frame + i * apart % 1) * FRAME_S
                turn = frame + i * 2 * SPEECH // conversations
                if frame == 0 or turn % SPEECH == 0:
                    self.jobs.append(Job(i, 0, "press", (turn // SPEECH % 2 == 0,), at))
                self.jobs.append(Job(i, frame, "tick", (noise[frame],), at))
        self.jobs.sort(key=lambda job: -job.arrived)  # the next one is the last

    def clock(self) -> float:
        return time.thread_time() - self._began + self._skipped

    @property
    def computed(self) -> float:
        return self.clock() - self._skipped

    def poll(self, timeout: float | None) -> bool:
        if timeout is None:
            if not self.jobs:
                raise EOFError
            self._skipped += max(0.0, self.jobs[-1].arrived - self.clock())
        return bool(self.jobs) and self.jobs[-1].arrived <= self.clock()

    def recv(self) -> Job:
        return self.jobs.pop()

    def send(self, result: tuple[int, int, Any]) -> None:
        _, frame, done = result
        if isinstance(done.value, Exception):
            self.faults.append(done.value)
        if frame > _WARM:
            self.late.append(done.late_ms)


def measure(
    assistant: Assistant, vad: Streaming, conversations: int, frames: int, shared: bool, apart: float = APART
) -> WorkerLoad:
    """So many frames of each of so many conversations."""
    clients = _Clients(conversations, frames, assistant.input_rate * FRAME_MS // 1000, apart)
    link: Any = clients
    worker = Worker(assistant, AllSpeech(vad), link, link, most=MOST if shared else 0, clock=clients.clock)
    try:
        worker.serve()
    except EOFError:
        computed = clients.computed
    if clients.faults:
        raise clients.faults[0]
    late = tuple(float(each) for each in np.percentile(clients.late, (50, 95, 99)))
    cost, busy = 1e3 * computed / (conversations * frames), computed / clients.clock()
    return WorkerLoad(conversations, shared, apart, cost, late, busy)


def run(
    *, out: Path | None, say: Callable[[str], None], model: str = "nano", conversations: tuple[int, ...] = CONVERSATIONS
) -> list[WorkerLoad]:
    """Measure on one core, print a table, and write workers.json to ``out``.

    Raises:
        DuologueError: no such model, or one that cannot converse.
    """
    from ...checkpoints.importers.silero_vad import load_vad
    from ..assistant.assistant import load

    assistant, vad = load(model), load_vad()
    torch.set_num_threads(1)
    measure(assistant, vad, 1, 2 * _WARM, True)  # the first time, everything is slower
    say(f"{model}: processor time a frame of 80 ms, and how late frames are (p50/p95/p99), on one core")
    say(f"  {'conversations':>13}{'one by one':>29}{'steps shared':>29}{'and frames at once':>21}")
    loads = []
    for count in conversations:
        ways = ((False, APART), (True, APART), (True, 0.0))
        row = [measure(assistant, vad, count, FRAMES, shared, apart) for shared, apart in ways]
        costs = [f"{load.cost_ms:>10.2f} ms" for load in row]
        late = ["/".join(f"{each:.0f}" for each in load.late_ms) for load in row]
        say(f"  {count:>13}{costs[0]}{late[0]:>16}{costs[1]}{late[1]:>16}{costs[2]:>21}")
        loads += row
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        report = {"model": model, "frames": FRAMES, "loads": [asdict(load) for load in loads]}
        write_json(out / "workers.json", report)
    return loads
