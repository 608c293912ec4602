"""A second independent client holds a spoken conversation: pipecat, from an environment of its own. To run it:

python3 -m venv .pipecat && .pipecat/bin/pip install "pipecat-ai[openai]==1.14.*"
PIPECAT_PYTHON=.pipecat/bin/python pytest -m slow tests/inference/test_pipecat.py
"""

from __future__ import annotations

import json
import os
import subprocess
import wave
from pathlib import Path

import pytest

pytest.importorskip("fastapi")
import soxr
from running_server import running, sound
from tiny_assistant import HEARD, SAID


@pytest.mark.slow
@pytest.mark.skipif("PIPECAT_PYTHON" not in os.environ, reason="PIPECAT_PYTHON names no Python that has pipecat")
def test_pipecat_asks_interrupts_and_asks_again(tmp_path: Path) -> None:
    """The first answer is spoken over; the second is heard whole."""
    path = tmp_path / "microphone.wav"
    heard = sound((1.0, False), (1.0, True), (1.6, False), (1.0, True), (1.0, False))
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, 24_000, 0, "NONE", ""))
        file.writeframes((soxr.resample(heard, 16_000, 24_000) * 32_767).astype("<i2").tobytes())
    script = Path(__file__).with_name("pipecat_client.py")
    with running(speed=1.0) as found:
        url = f"{found.url.replace('http', 'ws')}/v1/realtime"
        command = [os.environ["PIPECAT_PYTHON"], str(script), url, str(path), "2"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=800, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    seen = json.loads(done.stdout.splitlines()[-1])
    assert seen["errors"] == [] and seen["heard"] == [HEARD, HEARD], seen
    assert seen["said"][1].strip() == SAID and seen["audio_s"][1] > 1, seen
    assert 0 < seen["audio_s"][0] < seen["audio_s"][1], seen
