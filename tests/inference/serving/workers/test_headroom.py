"""How many conversations a worker has time for: a simulated worker whose frames cost what we say."""

from __future__ import annotations

import asyncio
from itertools import count
from multiprocessing.connection import Pipe

import numpy as np
import pytest
import torch

pytest.importorskip("greenlet")
from duologue.inference.serving.workers.dynamic_batching import DynamicBatching
from duologue.inference.serving.workers.headroom import Headroom
from duologue.inference.serving.workers.pool import PoolFull, WorkerPool, WorkerPoolConfig, _WorkerLink
from duologue.inference.serving.workers.worker import Done
from duologue.inference.session.events import Tick
from duologue.inference.session.policy import Mode
from duologue.inference.session.state import SessionConfig

COST = 2.0  # ms: at a quarter of 80 ms, ten conversations in which somebody always speaks


class Simulated:
    """A worker and those inside: a frame costs so much while somebody speaks in it, otherwise a tenth."""

    def __init__(self, speaking: float = 1.0, cost_ms: float = COST) -> None:
        self.headroom, self.speaking, self.cost_ms = Headroom(COST, 0.25), speaking, cost_ms
        self.lines, self._numbers = list[int](), count()

    def fill(self) -> int:
        """Let in whoever finds room."""
        while len(self.lines) < self.headroom.room():
            self.lines.append(next(self._numbers))
            self.headroom.enter(self.lines[-1])
        return len(self.lines)

    def run(self, seconds: float) -> None:
        for frame in range(round(seconds / 0.08)):
            for line in self.lines:
                speaks = (frame + 37 * line) % 100 < 100 * self.speaking
                self.headroom.frame(line, self.cost_ms if speaks else self.cost_ms / 10)


def test_who_comes_in_counts_as_if_somebody_always_spoke() -> None:
    full = Simulated()
    assert full.fill() == 10 and full.headroom.load == pytest.approx(0.25)
    full.run(120)
    assert full.fill() == 10, "and somebody does"


def test_room_grows_where_people_listen() -> None:
    half = Simulated(speaking=0.5)
    assert half.fill() == 10
    half.run(5)
    some = half.fill()
    assert 10 < some < 15
    for _ in range(20):
        half.run(15)
        half.fill()
    assert 15 <= len(half.lines) <= 0.25 * 80 / (0.55 * COST), "as many as the quarter has time for"
    assert half.headroom.load == pytest.approx(0.25, abs=0.03)


def test_room_shrinks_where_frames_become_dearer() -> None:
    sim = Simulated()
    sim.fill()
    sim.cost_ms = 2 * COST
    sim.run(60)
    assert sim.headroom.room() < 10 and sim.headroom.load > 0.4
    for line in sim.lines[4:]:
        sim.headroom.leave(line)
    del sim.lines[4:]
    assert sim.fill() == 5, "one more at what those inside cost now"
    sim.cost_ms = COST
    sim.run(300)
    assert sim.fill() >= 9, "what was dear long ago is forgotten"


def test_who_sends_nothing_is_counted_in_full() -> None:
    silent = Simulated(speaking=0.0)
    assert silent.fill() == 10 and silent.fill() == 10
    before = silent.headroom.load
    for line in silent.lines:
        silent.headroom.leave(line)
    assert before == pytest.approx(0.25) and silent.headroom.load == 0
    silent.headroom.frame(0, 99.0)  # of somebody who has left
    assert silent.headroom.load == 0


def test_nobody_is_shut_out_for_ever_and_a_model_that_cannot_converse_has_room() -> None:
    assert Headroom(1000.0, 0.25).room() == 1 and Headroom(0.0, 0.25).room() == 64


def test_the_pool_lets_in_by_what_its_frames_cost() -> None:
    async def run() -> None:
        pool = WorkerPool(WorkerPoolConfig())
        link = _WorkerLink(*Pipe(), None, Headroom(COST, 0.25))
        pool._workers.append(link)
        slots = [pool.sit(SessionConfig()) for _ in range(10)]
        with pytest.raises(PoolFull):
            pool.sit(SessionConfig())
        assert pool.load == pytest.approx(0.25)
        done = Done(Tick(np.zeros(0, np.float32), []), Mode.IDLE, 0, False, 0.0, 0.5)
        for _ in range(500):
            for slot in slots:
                ticked = slot.tick(np.zeros(0, np.float32))
                (number,) = pool._waiting
                pool._finish(link, slot.line, number, done)
                assert ticked.done()
        assert pool.load < 0.1 and pool.room() > 15
        pool.sit(SessionConfig())
        slots[0].leave()
        assert pool.slots == 10

    asyncio.run(run())


def test_a_batch_is_charged_to_those_who_share_it() -> None:
    """Two jobs that each work for 1 s, and share a step of 4 s: each has taken 3 s."""
    now = 0.0

    def work(seconds: float) -> None:
        nonlocal now
        now += seconds

    class Stage:
        def step(self, x):
            work(4.0)
            return x

    batching = DynamicBatching(clock=lambda: 0.0, effort=lambda: now)
    stage, spent = batching.shared_stage(Stage(), "step"), list[float]()

    def job() -> None:
        work(0.25)
        stage.step(torch.zeros(1, 1, 2))
        work(0.75)
        spent.append(batching.spent_s())

    for _ in range(2):
        batching.begin(job, 0.0)
    while batching.busy:
        batching.advance()
    assert spent == pytest.approx([3.0, 3.0]) and batching.spent_s() == 0.0
