"""A worker: conversations that share the stages' steps say what each says alone, and none of them can harm another."""

import dataclasses
import itertools
import logging

import numpy as np
import pytest
import torch
from tiny_assistant import Loudness, tiny_assistant

from duologue.inference.bench.workers import measure
from duologue.inference.serving.workers import dynamic_batching as batching
from duologue.inference.serving.workers.worker import Job, Worker, WorkerFault
from duologue.inference.session.events import EventKind
from duologue.inference.session.policy import DuplexConfig
from duologue.inference.session.session import Session
from duologue.inference.session.state import SessionConfig
from duologue.model.errors import DuologueError
from duologue.model.speech_lm import Sampling

FRAME = 1280
# Many tokens a frame, so that conversations have steps in common.
CONFIG = SessionConfig(
    duplex=DuplexConfig(endpoint_ms=400, speculate_ms=160, interrupt_ms=320, resume_ms=240), tokens_a_frame=6
)
POISON = 50.0


@pytest.fixture(scope="module")
def assistant():
    return tiny_assistant()


class Link:
    """Both ends of a worker: jobs go in when they arrive by its clock, which goes by a millisecond at each reading."""

    def __init__(self, jobs, now=0.0):
        self.jobs, self.now, self.results = sorted(jobs, key=lambda job: job.arrived), now, []

    def clock(self):
        self.now += 0.001
        return self.now

    def poll(self, timeout):
        if timeout is None:
            if not self.jobs:
                raise EOFError
            self.now = max(self.now, self.jobs[0].arrived)
        return bool(self.jobs) and self.jobs[0].arrived <= self.now

    def recv(self):
        return self.jobs.pop(0)

    def send(self, result):
        self.results.append(result)


def serve(assistant, jobs, vad=None, **how):
    """What a worker makes of the jobs: for each line, its results in order; and all (line, number) in order."""
    link = Link(jobs)
    with pytest.raises(EOFError):
        Worker(assistant, vad or Loudness(), link, link, clock=link.clock, **how).serve()
    lines: dict = {}
    for line, number, done in link.results:
        lines.setdefault(line, {})[number] = done
    return lines, [(line, number) for line, number, _ in link.results]


def begins(line, config=CONFIG):
    return Job(line, 0, "", (config,), 0.0)


def script(i) -> list:
    """Calls of one conversation, a frame of 80 ms each: speech, a pause it goes on after, an answer, an interruption,
    a turn in writing, a cut."""
    rng = np.random.default_rng(i)
    spans = [(3 + i % 3, 0), (12 + i, 1), (2, 0), (4, 1), (20 + 2 * i, 0), (6 + i % 2, 1), (14, 0), (1, 1), (30, 0)]
    loud = [flag for frames, flag in spans for _ in range(frames)]
    calls = [("tick", (0.1 * flag * rng.standard_normal(FRAME).astype(np.float32),)) for flag in loud]
    calls.insert(50 + i, ("truncate", (900 * i,)))
    calls.insert(64 + 2 * i, ("type", ("what is two plus two",)))
    return calls


def alone(assistant, calls, vad=None, config=CONFIG):
    session = Session(assistant, config, vad or Loudness())
    return [getattr(session, method)(*args) for method, args in calls]


def same(found, wanted):
    for one, other in zip(found, wanted, strict=True):
        if isinstance(other, str) or other is None:
            assert one == other
        else:
            assert one.events == other.events
            assert np.abs(one.pcm - other.pcm).max() <= 1e-4


@pytest.fixture
def batches(monkeypatch):
    """Sizes of the batches, by stage."""
    sizes: dict = {}
    together = batching.together

    def counted(step, calls):
        sizes.setdefault(type(step.__self__).__name__, []).append(len(calls))
        return together(step, calls)

    monkeypatch.setattr(batching, "together", counted)
    return sizes


@pytest.mark.parametrize("sampling", [Sampling(), Sampling(temperature=0.7)], ids=["greedy", "sampled"])
def test_a_conversation_in_company_is_as_alone(assistant, batches, sampling) -> None:
    config = dataclasses.replace(CONFIG, sampling=sampling)
    jobs = []
    for line in range(4):
        jobs.append(begins(line, config))
        for number, (method, args) in enumerate(script(line)):
            jobs.append(Job(line, number, method, args, 0.08 * number))
    lines, _ = serve(assistant, jobs)
    kinds = set()
    for line in range(4):
        wanted = alone(assistant, script(line), config=config)
        same([lines[line][number].value for number in range(len(wanted))], wanted)
        kinds |= {event.kind for tick in wanted if hasattr(tick, "events") for event in tick.events}
    assert {EventKind.INTERRUPTED, EventKind.DUCKED, EventKind.RESUMED, EventKind.ANSWER_TEXT} <= kinds
    assert set(batches) == {"Loudness", "Hearing", "LLM", "UnitDecoder"} and all(max(b) >= 2 for b in batches.values())
    assert max(batches["LLM"]) >= 3 and max(batches["Hearing"]) >= 3
    assert torch.is_inference_mode_enabled() is False and torch.is_grad_enabled()


class Allergic(Loudness):
    """Fails whenever it hears poison, whoever's it is."""

    def step(self, x, state):
        pcm = super().step(x, state)
        if x.abs().max() >= POISON:
            raise ValueError("poison")
        return pcm


def test_who_fails_harms_no_other(assistant, batches, caplog) -> None:
    caplog.set_level(logging.CRITICAL)
    scripts = {line: script(line)[:40] for line in range(4)}
    scripts[1][10] = scripts[1][20] = ("tick", (np.full(FRAME, POISON, np.float32),))
    scripts[2][15] = ("type", ("",))
    jobs = [begins(line) for line in scripts]
    jobs += [Job(i, n, *call, arrived=0.08 * n) for i, calls in scripts.items() for n, call in enumerate(calls)]
    lines, _ = serve(assistant, jobs, Allergic())
    assert max(batches["Allergic"]) >= 3
    for number in (10, 20):
        assert isinstance(lines[1][number].value, WorkerFault) and str(lines[1][number].value) == "ValueError in tick"
    assert all(not isinstance(lines[1][number].value, Exception) for number in (9, 11, 19, 21))
    assert isinstance(lines[2][15].value, DuologueError) and isinstance(lines[2][16].value.pcm, np.ndarray)
    for line in (0, 3):
        same([lines[line][n].value for n in range(40)], alone(assistant, scripts[line], Allergic()))
    after = [call for n, call in enumerate(scripts[2]) if n != 15]
    same([lines[2][n].value for n in range(40) if n != 15], alone(assistant, after, Allergic()))


def test_who_is_due_first_comes_first(assistant) -> None:
    """Whoever sends a recording at once is served from time that nobody else needs, and what has patience waits."""
    frame = np.zeros(FRAME, np.float32)
    jobs = [begins(0), begins(1, None), *(begins(line) for line in (2, 3, 4))]
    jobs += [Job(1, 0, "read", ("what is two plus two",), 0.0, 1.0)]  # patient
    jobs += [Job(0, n, "tick", (frame,), 0.0) for n in range(10)]  # hasty: its last frame is due at 0.72 s
    jobs += [Job(line, n, "tick", (frame,), 0.001 * line + 0.08 * n) for line in (2, 3, 4) for n in range(12)]
    lines, order = serve(assistant, jobs)
    assert all(lines[line][n].late_ms < 30 for line in (2, 3, 4) for n in range(12))
    assert order.index((0, 1)) > max(order.index((line, 0)) for line in (2, 3, 4))
    assert order.index((1, 0)) > order.index((0, 9)), "what has patience comes last"
    assert [number for line, number in order if line == 0] == list(range(10))


def test_a_conversation_may_end_at_any_time(assistant) -> None:
    """Its jobs that have not begun are dropped, and nobody else's."""
    for end in np.arange(0.0, 0.1, 0.0035):
        jobs = [begins(0), begins(1), Job(0, 0, "", (), end)]
        jobs += [Job(i, n + 1, *call, arrived=0.01 * n) for i in (0, 1) for n, call in enumerate(script(i)[3:9])]
        lines, _ = serve(assistant, jobs)
        assert len(lines[1]) == 6 and len(lines.get(0, ())) <= 6
    at_once = [begins(0), Job(0, 1, *script(0)[0], arrived=0.0), Job(0, 0, "", (), 0.0)]
    assert serve(assistant, at_once) == ({}, [])


def test_no_more_steps_than_allowed_are_one_batch(assistant, batches) -> None:
    jobs = [begins(line) for line in range(6)]
    jobs += [Job(i, n, *call, arrived=0.0) for i in range(6) for n, call in enumerate(script(0)[:8])]
    serve(assistant, jobs, most=4)
    assert {size for size in itertools.chain(*batches.values())} <= {2, 3, 4}
    batches.clear()
    serve(assistant, jobs, most=0)
    assert not batches


def test_what_a_frame_costs(assistant, batches) -> None:
    """The bench works through the same frames in each way; the calibration gives the door a number."""
    for shared, apart in ((False, 0.5), (True, 0.5), (True, 0.0)):
        load = measure(assistant, Loudness(), 3, 40, shared, apart)
        assert load.shared is shared and load.cost_ms > 0 and 0 < load.busy <= 1
        assert list(load.late_ms) == sorted(load.late_ms)
        assert shared or not batches
    assert min(len(sizes) for sizes in batches.values()) > 1
    link = Link([])
    assert 0 < Worker(assistant, Loudness(), link, link).calibrate() < 1e3
    assert torch.is_grad_enabled()  # whatever the frames did to the modes of this thread


def test_what_disturbs_a_measurement_does_not_count(assistant, monkeypatch) -> None:
    """A frame costs what it does when the machine is quiet; the door must not hang on one measurement."""
    found = iter([9.0, 5.2, 4.1, 7.0])
    monkeypatch.setattr(Worker, "_cost", lambda self: next(found))
    link = Link([])
    assert Worker(assistant, Loudness(), link, link).calibrate() == 4.1
