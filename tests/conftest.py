"""What every test shares: few threads, no network."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hypothesis
import numpy as np
import pytest

ROOT = Path(__file__).resolve().parent.parent

# Set before torch is imported: models in tests are so small that threads spend their time waiting for one another.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Tests download nothing: libraries that would try fail at once instead of waiting for a network.
os.environ["HF_HUB_OFFLINE"] = "1"

# A machine may be busy with other things: no test fails for being slow, and each run tries the same examples.
hypothesis.settings.register_profile(
    "duologue", deadline=None, derandomize=True, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("duologue")


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository root, which is the package ``duologue``."""
    return ROOT


@pytest.fixture(scope="session")
def speech() -> Callable[..., np.ndarray]:
    """``speech("what is two plus two", "en-gb")``: (n,) int16 at 16 kHz, by the library of espeak-ng that pip brings.

    The same samples on every machine. Read-only, for each sentence is made once.
    """
    from duologue.data_prep.speech import synthesis
    from duologue.data_prep.speech.engine import Prosody, Voice
    from duologue.data_prep.speech.engines import espeak

    @functools.cache
    def say(text: str, voice: str = "en-us", prosody: Prosody | None = None) -> np.ndarray:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(espeak, "espeak_command", espeak.library_command)
            pcm = synthesis.synthesise(text, Voice(engine="espeak", name=voice), prosody)
        pcm.flags.writeable = False
        return pcm

    return say


CHARACTER = 960  # samples a character: 60 ms


def beeped(text: str) -> np.ndarray:
    """A chord a character, so that the sound says what is written: int16 samples."""
    t = np.arange(CHARACTER) / 16000
    pitches = [(300 + 90 * (ord(c) % 6), 1400 + 300 * (ord(c) // 6 % 7)) for c in text]
    sound = np.concatenate([np.sin(2 * np.pi * low * t) + np.sin(2 * np.pi * high * t) for low, high in pitches])
    return (6000 * sound).astype(np.int16)


@pytest.fixture(scope="session")
def questions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set of eight questions that needed no synthesiser."""
    from duologue.data_prep.datasets.shards import Clip, ShardWriter
    from duologue.data_prep.nano.dialogues import generate

    folder = tmp_path_factory.mktemp("questions")
    clips = []
    for i in range(8):
        d = generate(0, i, "train")
        meta = {"id": str(i), "text": d.question, "voice": "beeps", "answer": d.answer, "slot": d.slot}
        clips.append(Clip(beeped(d.question), meta))
    writer = ShardWriter(folder, name="questions", sample_rate=16000, seed=0, parameters={})
    writer.write(0, clips)
    writer.finish()
    return folder


@pytest.fixture(scope="session")
def speech_encoder(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The folder of an untrained encoder of three blocks: a part, as a teacher of losses is named by."""
    import torch

    from duologue.checkpoints.cards.facts import Card
    from duologue.checkpoints.parts import EncoderPart, save_part
    from duologue.model.audio_encoder.mel import LogMelConfig
    from duologue.model.audio_encoder.whisper import WhisperEncoderConfig

    sizes = WhisperEncoderConfig(
        n_mels=80, n_audio_ctx=100, n_audio_state=16, n_audio_head=2, n_audio_layer=3, chunk=None, left_context=100,
        causal_conv=False,
    )  # fmt: skip
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("encoder")
    save_part(folder, "encoder", sizes.build(), EncoderPart(mel=LogMelConfig(norm="whisper"), encoder=sizes), Card())
    return str(folder)


@pytest.fixture(scope="module")
def nano(root: Path) -> Any:
    """The bundled assistant."""
    from duologue.inference.assistant.assistant import load

    if not (root / "checkpoints" / "nano" / "config.json").is_file():
        pytest.skip("nano is not in this copy")
    return load("nano")
