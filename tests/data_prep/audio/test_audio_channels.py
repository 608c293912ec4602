"""Of several channels, those that carry sound are heard, at the level that they have."""

from __future__ import annotations

import numpy as np
import pytest
from sound_files import encoded, muxed

from duologue.data_prep.audio import read_audio, read_pieces, reading

RATE = 16_000
SPEECH, OTHER, NOISE = 0.1 * np.random.default_rng(0).standard_normal((3, 5 * RATE)).astype(np.float32)
ZERO = np.zeros_like(SPEECH)
CASES = {
    "one of eight": ([ZERO] * 3 + [SPEECH] + [ZERO] * 4, SPEECH),
    "one of eight, noise in the others": ([0.05 * NOISE] * 3 + [SPEECH] + [0.05 * OTHER] * 4, SPEECH),
    "left alone": ([SPEECH, ZERO], SPEECH),
    "right alone": ([ZERO, SPEECH], SPEECH),
    "a constant is no sound": ([ZERO + 0.5, SPEECH], SPEECH),
    "one side inverted": ([SPEECH, -SPEECH], SPEECH),
    "one side inverted and softer": ([0.7 * SPEECH, -SPEECH], -SPEECH),
    "one side inverted, noise": ([SPEECH + 0.03 * NOISE, -0.9 * SPEECH + 0.03 * OTHER], SPEECH + 0.03 * NOISE),
    "pairs inverted": ([SPEECH, -SPEECH, SPEECH, -SPEECH], SPEECH),
    "alike": ([SPEECH, SPEECH], SPEECH),
    "two speakers": ([SPEECH, OTHER], (SPEECH + OTHER) / 2),
    "two speakers of six channels": ([ZERO, SPEECH, ZERO, OTHER, ZERO, ZERO], (SPEECH + OTHER) / 2),
    "the second speaker is far away": ([SPEECH, 0.2 * OTHER], (SPEECH + 0.2 * OTHER) / 2),
    "silence": ([ZERO, ZERO], ZERO),
}


@pytest.mark.parametrize("case", CASES)
def test_what_is_heard(case: str) -> None:
    channels, heard = CASES[case]
    file = encoded(np.stack(channels, 1), RATE, "WAV", "FLOAT")
    np.testing.assert_allclose(read_audio(file), heard, atol=2e-4)
    np.testing.assert_allclose(read_audio((RATE, np.stack(channels))), heard, atol=2e-4)


def test_pieces_are_of_the_same_channels_throughout(monkeypatch: pytest.MonkeyPatch) -> None:
    """A channel in which somebody speaks late, in a recording that is decoded twice and in one that is kept."""
    late = np.where(np.arange(len(OTHER)) > 4 * RATE, OTHER, 0)
    file = encoded(np.stack([SPEECH, late, ZERO], 1), RATE, "WAV", "FLOAT")
    for kept in (2**24, 1):
        monkeypatch.setattr(reading, "KEPT_SAMPLES", kept)
        found = np.concatenate([piece for _, piece in read_pieces(file, RATE)])
        np.testing.assert_allclose(found, (SPEECH + late) / 2, atol=1e-6)
        np.testing.assert_array_equal(found, read_audio(file))


@pytest.mark.parametrize(("container", "codec"), [("webm", "libopus"), ("ipod", "aac")])
def test_channels_of_what_ffmpeg_decodes(container: str, codec: str) -> None:
    wave = 0.3 * np.sin(np.arange(96_000) * 2 * np.pi * 440 / 48_000).astype(np.float32)
    found = read_audio(muxed(np.stack([wave, -wave]), 48_000, container, codec))
    assert 0.18 < np.sqrt(np.mean(found[4_000:28_000] ** 2)) < 0.24
