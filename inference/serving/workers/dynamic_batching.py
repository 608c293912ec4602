"""Jobs that run side by side on one model: where several of them want the same stage's step, one batch serves them all.

A job is plain code, a session's ``tick`` say, in a greenlet: it runs until it calls a stage, is put aside with what it
gave the stage, and goes on when the result is there. All of it happens in one thread and in inference mode, which is
the thread's: a job that changed it would change it for the others.

Who was due first comes first, and whoever wants the same step meanwhile shares it. A job that takes much more work than
a frame, a long text say, is due later and later: as if each WORK positions of it were a frame of its own. Nobody is
made to wait so that a batch may grow: when there is time, a job is alone and done soonest; the less there is, the more
of them are waiting, and the larger are the batches. (Holding frames back for 10 or 20 ms, or letting later ones catch
up with earlier ones, made larger batches, and later frames.)
"""

from __future__ import annotations

import copy
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from greenlet import getcurrent, greenlet
from torch import Tensor

from ....model.layers.batching import kind_of, together
from ...assistant.assistant import Assistant
from ...session.policy import FRAME_MS

MOST = 16  # steps in one batch: beyond, a conversation's share gets hardly smaller, and everyone waits longer
WORK = 32  # positions of a language model: in one batch, and that a job may take for one frame's time
_PIECE = {"cpu": 16}  # positions fed in one step (nano: 4 to 10 ms), by kind of device
_PIECE_ELSEWHERE = 128
_FRAME_S = FRAME_MS / 1000
_POSITION = 640  # samples that count as much
_log = logging.getLogger(__name__)


class _Job(greenlet):
    """Work under way; ``due``: when; ``done``: positions fed since that was last put off.

    spent: processor time (s) that it has taken, but for what it has since it went on last, at ``since``.
    """

    due: float
    done: int = 0
    spent: float = 0.0
    since: float = 0.0

    def count(self, positions: int) -> None:
        """It takes so much more work."""
        self.done += positions
        if self.done >= WORK:
            self.due, self.done = self.due + _FRAME_S, 0


@dataclass(eq=False)
class _Call:
    """A job that waits: for a step of a stage, or (``step`` None) to begin. Calls of equal kind can be one batch."""

    job: _Job
    step: Callable[..., Any] | None = None
    args: tuple[Any, ...] = ()
    kind: Any = None

    @property
    def due(self) -> float:
        return self.job.due


class DynamicBatching:
    """Jobs under way, and the stages that they share.

    Args:
        most: steps in one batch; 0: jobs share nothing and are done one after the other.
        clock: by which jobs are due. effort: by which they are measured; both in seconds.
    """

    def __init__(
        self,
        most: int = MOST,
        clock: Callable[[], float] = time.monotonic,
        effort: Callable[[], float] = time.thread_time,
    ) -> None:
        self._most, self._clock, self._effort = most, clock, effort
        self._calls: list[_Call] = []

    @property
    def busy(self) -> bool:
        """Whether there is anything to do."""
        return bool(self._calls)

    def begin(self, work: Callable[[], object], due: float) -> greenlet:
        """A job: ``work`` must not raise."""
        job = _Job(work)
        job.due = due
        self._calls.append(_Call(job))
        return job

    def cancel(self, job: greenlet) -> None:
        """Give up a job where it is; not from within a job."""
        for call in [call for call in self._calls if call.job is job]:
            self._calls.remove(call)
            job.throw()

    def advance(self) -> None:
        """Take all that is due to its first step; then make one batch of steps, and take those who waited for them to
        their next."""
        now = self._clock()
        if self._most:
            for call in [call for call in self._calls if call.step is None and call.due <= now]:
                self._resume(call)
        if not self._calls:
            return
        first = min(self._calls, key=lambda call: call.due)
        if first.step is None:
            self._resume(first)
            return
        began = self._effort()
        alike = sorted((call for call in self._calls if call.kind == first.kind), key=lambda call: call.due)
        computed = _computed(alike[: min(self._most, max(1, int(WORK / max(1.0, _size(first.args)))))])
        each = (self._effort() - began) / len(computed)
        for call, outcome in computed:
            call.job.spent += each
            self._resume(call, outcome)

    def end(self) -> None:
        """Give up all jobs under way, here and now: what they would undo when they are collected, modes of torch among
        it, would be undone in the middle of something else."""
        calls, self._calls = self._calls, []
        for call in calls:
            call.job.throw()

    def _resume(self, call: _Call, outcome: Any = None) -> None:
        self._calls.remove(call)
        call.job.since = self._effort()
        if isinstance(outcome, Exception):
            call.job.throw(outcome)
        else:
            call.job.switch(*(() if call.step is None else (outcome,)))
        call.job.spent += self._effort() - call.job.since

    def spent_s(self) -> float:
        """From within a job: the processor time that it has taken so far, its part of batches included; 0 elsewhere."""
        job = getcurrent()
        return job.spent + self._effort() - job.since if isinstance(job, _Job) else 0.0

    def shared_stage(self, stage: Any, method: str) -> Any:
        """The stage as jobs are to see it: calls of this method are gathered; all else is the stage's own."""
        if not self._most:
            return stage
        step = getattr(stage, method)

        def gathered(*args: Any) -> Any:
            job = getcurrent()
            if not isinstance(job, _Job):  # not in a job: there is nobody to share with
                return step(*args)
            assert job.parent is not None
            if isinstance(args[0], Tensor):
                job.count(int(_size(args)))
            self._calls.append(_Call(job, step, args, (step, kind_of(args))))
            return job.parent.switch()

        view = copy.copy(stage)
        setattr(view, method, gathered)
        return view

    def assistant(self, assistant: Assistant) -> Assistant:
        """The assistant with its model's stages shared: a view of the same weights."""
        view = copy.copy(assistant)
        piece = _PIECE.get(assistant.model.device.type, _PIECE_ELSEWHERE)
        view.model = assistant.model.with_shared_steps(self.shared_stage, piece)
        return view


def _size(args: tuple[Any, ...]) -> float:
    """Positions of a language model that a step counts as: what it is given is (B, t, D), or samples (B, n)."""
    given = args[0]
    if not isinstance(given, Tensor):
        return 1.0
    return float(given.shape[1]) if given.ndim == 3 else given.shape[1] / _POSITION


def _computed(calls: list[_Call]) -> list[tuple[_Call, Any]]:
    """Each call and its result, or the exception that its own step raised."""
    step = calls[0].step
    assert step is not None
    if len(calls) > 1:
        try:
            return list(zip(calls, together(step, [call.args for call in calls]), strict=True))
        except Exception:  # whose fault it is shows when each is alone
            _log.exception("a batch of %d steps failed", len(calls))
    return [(call, _outcome(step, call.args)) for call in calls]


def _outcome(step: Callable[..., Any], args: tuple[Any, ...]) -> Any:
    try:
        return step(*args)
    except Exception as error:
        return error
