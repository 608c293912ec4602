"""The service with a tiny model, running in a thread on a free port; and clients that talk to it as users' do."""

from __future__ import annotations

import base64
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import soxr
from openai import OpenAI
from tiny_assistant import Loudness, tiny_assistant

from duologue.inference.serving.app import ServeConfig, Service, create_app
from duologue.inference.serving.realtime import pacing
from duologue.inference.serving.run import prepare
from duologue.inference.serving.workers import worker
from duologue.inference.serving.workers.pool import WorkerPoolConfig

PATIENCE = 60.0  # s, for a busy machine
# Everyone is let in: how late a busy test machine is says nothing.
ENGINE = WorkerPoolConfig(sessions=64, late_ms=1e9)


@dataclass
class Running:
    """A server that can be reached."""

    url: str
    service: Service
    server: Any

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    def client(self, key: str = "no-key-is-needed") -> OpenAI:
        return OpenAI(api_key=key, base_url=f"{self.url}/v1", max_retries=0, timeout=PATIENCE)


@contextmanager
def running(
    config: ServeConfig | None = None, assistant: Any = None, app: Any = None, speed: float = 8.0
) -> Iterator[Running]:
    """speed: how much faster than real time answers are sent where no microphone sets the pace."""
    config = config or ServeConfig(model="tiny", pool=ENGINE)
    if app is None:
        app = create_app(config, assistant or tiny_assistant(), Loudness())
    server, listening = prepare(config, "127.0.0.1", 0, app=app)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    with pytest.MonkeyPatch.context() as patch:  # what a frame costs decides nothing where ENGINE lets everyone in
        patch.setattr(worker, "_CALIBRATION", 4)
        patch.setattr(worker, "_CALIBRATIONS", 1)
        thread.start()
        wait(lambda: server.started)
    pace, pacing.FRAME_S = pacing.FRAME_S, pacing.FRAME_S / speed
    try:
        yield Running(f"http://127.0.0.1:{listening.getsockname()[1]}", app.state.service, server)
    finally:
        pacing.FRAME_S = pace
        server.should_exit = True
        thread.join(PATIENCE)
    assert not thread.is_alive()


def wait(until: Callable[[], Any], seconds: float = PATIENCE) -> None:
    """Until something holds."""
    end = time.monotonic() + seconds
    while not until():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)


def sound(*spans: tuple[float, bool], seed: int = 0) -> np.ndarray:
    """Seconds of noise or of silence, one after the other, at 16 kHz."""
    rng = np.random.default_rng(seed)
    return np.concatenate(
        [
            (0.1 if loud else 0.0) * rng.standard_normal(round(16_000 * seconds)).astype(np.float32)
            for seconds, loud in spans
        ]
    )


def pcm16(wave: np.ndarray, rate: int = 16_000) -> str:
    """A sound as a client appends it: base64 of 16-bit samples at 24 kHz."""
    samples = soxr.resample(wave, rate, 24_000) if rate != 24_000 else wave
    return base64.b64encode((np.clip(samples, -1, 1) * 32_767).astype("<i2").tobytes()).decode()


def samples(delta: str) -> np.ndarray:
    return np.frombuffer(base64.b64decode(delta), "<i2").astype(np.float32) / 32_768


def collect(connection: Any, last: str, times: int = 1) -> list[Any]:
    """Events up to the one of a type (its so manieth)."""
    events: list[Any] = []
    end = time.monotonic() + PATIENCE
    while sum(event.type == last for event in events) < times:
        assert time.monotonic() < end
        event = connection.parse_event(connection._connection.recv(timeout=PATIENCE))
        assert event.type != "error" or last == "error", event
        events.append(event)
    return events


def types(events: list[Any], *without: str) -> list[str]:
    """Types in their order; repeated ones once."""
    seen = [event.type for event in events if event.type not in without]
    return [kind for i, kind in enumerate(seen) if i == 0 or seen[i - 1] != kind]
