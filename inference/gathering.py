"""Jobs that run side by side on one model: where several of them want the same stage's step, one batch serves them all.

A job is plain code, a session's ``tick`` say, in a greenlet: it runs until it calls a stage, is put aside with what it
gave the stage, and goes on when the result is there. Everything happens in one thread, so no job is ever interrupted
elsewhere. All jobs run in inference mode, which is the thread's: a job that changed it would change it for the others.

Whose step is next: of those that are due, the one at the earliest stage, for whoever is behind is to catch up and share
the batches to come; but who is ``LATE_S`` late already comes first. What is not due yet waits for all that is.
"""

from __future__ import annotations

import copy
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from greenlet import getcurrent, greenlet

from ..model.batching import kind_of, together

MOST = 16  # steps in one batch: beyond, a conversation's share gets hardly smaller, and everyone waits longer
LATE_S = 0.02
_log = logging.getLogger(__name__)


class _Job(greenlet):
    """Work under way; ``due``: when by time.monotonic()."""

    due: float


@dataclass(eq=False)
class _Call:
    """A job that waits: for a step of a stage, or (``step`` None) to begin."""

    job: _Job
    stage: int
    step: Callable[..., Any] | None = None
    args: tuple[Any, ...] = ()
    kind: Any = None

    def order(self, now: float) -> tuple[bool, int, float]:
        """The least is next."""
        due = self.job.due
        return due > now, -1 if now - due > LATE_S else self.stage, due


class Gathering:
    """Jobs under way, and the stages that they share."""

    def __init__(self) -> None:
        self._calls: list[_Call] = []

    @property
    def busy(self) -> bool:
        """Whether there is anything to do."""
        return bool(self._calls)

    def begin(self, work: Callable[[], None], due: float) -> None:
        """A job: ``work`` must not raise."""
        job = _Job(work)
        job.due = due
        self._calls.append(_Call(job, -1))

    def advance(self) -> None:
        """Begin one job, or make one batch of steps and let those who waited for them go on to their next step."""
        now = time.monotonic()
        first = min(self._calls, key=lambda call: call.order(now))
        if first.step is None:
            self._calls.remove(first)
            first.job.switch()
            return
        alike = sorted((call for call in self._calls if call.kind == first.kind), key=lambda call: call.order(now))
        chosen = alike[:MOST]
        self._calls = [call for call in self._calls if call not in chosen]
        for call, resume in zip(chosen, _computed(chosen), strict=True):
            resume(call.job)

    def share(self, stage: Any, method: str, number: int) -> Any:
        """The stage as jobs are to see it: calls of this method are gathered; all else is the stage's own.

        number: of the stage in the order in which sound passes.
        """
        step = getattr(stage, method)

        def gathered(*args: Any) -> Any:
            job = getcurrent()
            if not isinstance(job, _Job):  # not in a job: there is nobody to wait for
                return step(*args)
            assert job.parent is not None
            self._calls.append(_Call(job, number, step, args, (step, kind_of(args))))
            return job.parent.switch()

        return _Shared(stage, method, gathered)

    def assistant(self, assistant: Any) -> Any:
        """The assistant with its model's stages shared: a view of the same weights."""
        view = copy.copy(assistant)
        view.model = assistant.model.staged(self.share)
        return view


class _Shared:
    """A stage, but for one method."""

    def __init__(self, stage: Any, method: str, gathered: Callable[..., Any]) -> None:
        self._stage = stage
        setattr(self, method, gathered)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stage, name)


def _computed(calls: list[_Call]) -> list[Callable[[_Job], Any]]:
    """How each job goes on: with its result, or with what its own step raised."""
    step = calls[0].step
    assert step is not None
    if len(calls) > 1:
        try:
            return [_with(result) for result in together(step, [call.args for call in calls])]
        except Exception:  # whose fault it is shows when each is alone
            _log.exception("a batch of %d steps failed", len(calls))
    outcomes = []
    for call in calls:
        try:
            outcomes.append(_with(step(*call.args)))
        except Exception as error:
            outcomes.append(_raising(error))
    return outcomes


def _with(result: Any) -> Callable[[_Job], Any]:
    return lambda job: job.switch(result)


def _raising(error: Exception) -> Callable[[_Job], Any]:
    return lambda job: job.throw(error)
