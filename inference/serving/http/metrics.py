"""What is counted, for Prometheus."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_LATE_MS = (2.5, 5, 7.5, 10, 15, 20, 25, 30, 35, 40, 45, 50, 60, 70, 80, 100, 120, 160, 320, 640, 1280, 2560)
_LATE = tuple(ms / 1000 for ms in _LATE_MS)
_TOOK = (0.01, 0.03, 0.1, 0.2, 0.3, 0.5, 1.0, 2.0, 3.0, 5.0, 10.0, 30.0, 60.0, 300.0, 3600.0)
_QUEUED = (0.01, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0)
_WAIT = (0.16, 0.24, 0.32, 0.4, 0.48, 0.56, 0.64, 0.72, 0.8, 0.96, 1.2, 1.6, 2.4)


def _resident(process: int) -> float:
    """Bytes of memory that a process has in use; 0 where nobody can tell."""
    try:
        pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
    except OSError:
        return 0.0
    return float(pages * os.sysconf("SC_PAGE_SIZE"))


class CallMetrics:
    """Of WebRTC calls. sound: counts seconds of sound, see :meth:`Metrics.sound`."""

    def __init__(self, registry: CollectorRegistry, sound: Callable[..., None]) -> None:
        self._sound = sound
        self._open = Gauge("duologue_calls_open", "WebRTC calls now", registry=registry)
        self._ends = Counter("duologue_calls_total", "WebRTC calls by their end", ["reason"], registry=registry)
        connect = "From the answer to a call's offer until it was connected"
        self._connect = Histogram("duologue_call_connect_seconds", connect, buckets=_TOOK, registry=registry)

    def began(self) -> None:
        """A call's offer has been answered."""
        self._open.inc()

    def connected(self, seconds: float) -> None:
        """It has been connected, so long after that."""
        self._connect.observe(seconds)

    def ended(self, reason: str) -> None:
        """It is over."""
        self._open.dec()
        self._ends.labels(reason).inc()

    def sound(self, heard_s: float, lost_s: float) -> None:
        """Seconds that were heard, and that were lost on the way."""
        self._sound("/v1/realtime/calls", heard_s, lost_s=lost_s)


class Metrics:
    """The service's own registry, so that two in one process do not meet."""

    def __init__(
        self,
        sessions: Callable[[], float],
        room: Callable[[], float],
        processes: Callable[[], Iterable[int]],
        queue: Callable[[], float] = lambda: 0,
        load: Callable[[], float] = lambda: 0.0,
    ) -> None:
        self.registry = CollectorRegistry()
        gauge, counter = partial(Gauge, registry=self.registry), partial(Counter, registry=self.registry)
        histogram = partial(Histogram, registry=self.registry)
        memory = gauge("duologue_memory_bytes", "Resident, of the server and of its workers (Linux)")
        memory.set_function(lambda: sum(map(_resident, processes())))
        gauge("duologue_sessions", "Conversations now").set_function(sessions)
        gauge("duologue_room", "Conversations that fit").set_function(room)
        gauge("duologue_load", "Fraction of the workers' time that those inside take").set_function(load)
        gauge("duologue_queue", "Requests that wait for a session slot").set_function(queue)
        late = "From when a frame of 80 ms was due to when it was done"
        first = "From the end of the user's speech to the answer's first sample"
        self._late = histogram("duologue_tick_lateness_seconds", late, buckets=_LATE)
        self._first = histogram("duologue_first_audio_seconds", first, buckets=_WAIT)
        self._interruptions = counter("duologue_interruptions_total", "Answers that were spoken over")
        self._refusals = counter("duologue_refusals_total", "Requests refused", ["reason"])
        self._responses = counter("duologue_responses_total", "Answers by their end", ["status"])
        self._waits = histogram("duologue_queue_seconds", "That requests waited for a session slot", buckets=_QUEUED)
        self._left = counter("duologue_clients_left_total", "Requests whose client left before the answer")
        self._idle = counter("duologue_idle_sessions_total", "Sessions ended for idleness")
        self._errors = counter("duologue_errors_total", "Error events sent", ["code"])
        where = ["endpoint"]
        self._requests = counter("duologue_http_requests_total", "Requests and sessions", [*where, "status"])
        self._open = gauge("duologue_http_open", "Requests and sessions under way", where)
        self._took = histogram("duologue_http_seconds", "That they took", where, buckets=_TOOK)
        first_byte = "From a request to the first byte of its answer"
        self._first_byte = histogram("duologue_http_first_byte_seconds", first_byte, where, buckets=_TOOK)
        sound = "Of recordings and calls that were heard, of speech that was made, and lost on its way in calls"
        self._sound = counter("duologue_audio_seconds_total", sound, [*where, "direction"])
        self.calls = CallMetrics(self.registry, self.sound)

    def began(self, endpoint: str) -> None:
        """A request has come."""
        self._open.labels(endpoint).inc()

    def ended(self, endpoint: str, status: int, seconds: float, first_byte: float | None) -> None:
        """It is over, and its first byte was sent so many seconds after it had come (None: there was none)."""
        self._open.labels(endpoint).dec()
        self._requests.labels(endpoint, str(status)).inc()
        self._took.labels(endpoint).observe(seconds)
        if first_byte is not None:
            self._first_byte.labels(endpoint).observe(first_byte)

    def sound(self, endpoint: str, heard_s: float = 0.0, spoken_s: float = 0.0, lost_s: float = 0.0) -> None:
        """Seconds of sound, over HTTP and of calls."""
        self._sound.labels(endpoint, "heard").inc(heard_s)
        self._sound.labels(endpoint, "spoken").inc(spoken_s)
        if lost_s:
            self._sound.labels(endpoint, "lost").inc(lost_s)

    def frame(self, late_ms: float) -> None:
        """A frame was done."""
        self._late.observe(late_ms / 1000)

    def refused(self, reason: str) -> None:
        """Somebody was not let in."""
        self._refusals.labels(reason).inc()

    def waited(self, seconds: float) -> None:
        """A request has got its session slot."""
        self._waits.observe(seconds)

    def left(self) -> None:
        """A client left before its answer."""
        self._left.inc()

    def idle(self) -> None:
        """A session was ended because nothing came from its client."""
        self._idle.inc()

    def event(self, kind: str, fields: dict[str, Any]) -> None:
        """A session's event."""
        if kind == "first_audio":
            self._first.observe(fields["ms"] / 1000)
        elif kind == "response.done":
            response = fields["response"]
            self._responses.labels(response["status"]).inc()
            if (response["status_details"] or {}).get("reason") == "turn_detected":
                self._interruptions.inc()
        elif kind == "error":
            self._errors.labels(fields["error"]["code"]).inc()

    def text(self) -> bytes:
        """The exposition."""
        return generate_latest(self.registry)
