"""The independent ear: understands a synthesiser, hears nothing in silence, and does not remember."""

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from duologue.inference.audio import read_audio
from duologue.inference.evaluation.recognise import Recogniser

pytest.importorskip("pocketsphinx")


@pytest.fixture(scope="module")
def ear() -> Recogniser:
    return Recogniser()


def spoken(text: str, folder: Path) -> np.ndarray:
    if shutil.which("flite") is None:
        pytest.skip("flite is not installed (Debian package flite)")
    path = folder / "spoken.wav"
    subprocess.run(["flite", "-voice", "rms", "-t", text, "-o", str(path)], check=True)
    return read_audio(path)


def test_silence_and_scraps(ear: Recogniser) -> None:
    assert ear(np.zeros(16_000, np.float32), 16_000) == ""
    assert ear(np.zeros(0, np.float32), 16_000) == ear(np.zeros(10, np.float32), 16_000) == ""


def test_understands_and_does_not_remember(ear: Recogniser, tmp_path: Path) -> None:
    text = "forty seven plus twelve is fifty nine"
    waveform = spoken(text, tmp_path)
    assert ear(waveform, 16_000) == text
    before = ear(0.02 * waveform[::-1], 16_000)
    ear(np.random.default_rng(0).standard_normal(32_000).astype(np.float32), 16_000)  # loud noise
    assert ear(0.02 * waveform[::-1], 16_000) == before
    assert ear(np.repeat(waveform, 2), 32_000) == text
