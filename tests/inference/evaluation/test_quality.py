"""Measures of quality on known degradations: more noise is worse, by each package as by the package itself."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file

from duologue.checkpoints.importers import utmos22_strong
from duologue.inference.evaluation.judges import speech as speech_judge
from duologue.inference.evaluation.metrics import quality
from duologue.inference.evaluation.metrics.quality import (
    f0_correlation,
    hertz,
    mel_distance,
    pesq,
    referenced,
    stoi,
    unreferenced,
)
from duologue.model.errors import DuologueError

Say = Callable[[str, str], np.ndarray]


@pytest.fixture(scope="module")
def sentence(speech: Say) -> np.ndarray:
    return speech("the capital of france is paris and it lies on a river", "en-us").astype(np.float32) / 32_768


def noisy(speech: np.ndarray, snr_db: float) -> np.ndarray:
    noise = np.random.default_rng(0).standard_normal(len(speech)).astype(np.float32)
    level = np.sqrt(np.mean(speech**2)) * 10 ** (-snr_db / 20)
    return np.clip(speech + level * noise, -1, 1)


SNRS = (40.0, 20.0, 5.0)


def falls(values: list[float]) -> bool:
    return all(a > b for a, b in itertools.pairwise(values))


def test_unreferenced_falls_with_the_noise(sentence: np.ndarray) -> None:
    found = [unreferenced(noisy(sentence, snr)) for snr in SNRS]
    for key in ("dnsmos", "dnsmos_background", "dnsmos_p808"):
        assert falls([measure[key][0] for measure in found]), key
    from speechmos import dnsmos

    assert found[0]["dnsmos"][0] == pytest.approx(dnsmos.run(noisy(sentence, SNRS[0]), sr=16_000)["ovrl_mos"])


def test_plcmos_is_the_same_twice_and_draws_from_nobody(sentence: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    class Quiet:
        @staticmethod
        def run(waveform: np.ndarray, sr: int) -> dict[str, float]:
            return dict.fromkeys(("ovrl_mos", "sig_mos", "bak_mos", "p808_mos"), 1.0)

    monkeypatch.setattr(quality, "_speechmos", lambda original=quality._speechmos(): (Quiet, original[1]))
    np.random.seed(7)
    before = np.random.get_state()[1].copy()
    first, second = unreferenced(sentence), unreferenced(sentence)
    assert first == second and 1 < first["plcmos"][0] < 5
    # It judges lost packets, and is no measure of steady noise: every so many packets of 20 ms, one is lost.
    packets = np.arange(len(sentence)) // 320
    lossy = [unreferenced(np.where(packets % every == 0, 0, sentence).astype(np.float32)) for every in (8, 3)]
    assert falls([measure["plcmos"][0] for measure in (first, *lossy)])
    assert (np.random.get_state()[1] == before).all()


def test_stoi_and_mel_distance_follow_the_noise(sentence: np.ndarray) -> None:
    assert falls([stoi(noisy(sentence, snr), sentence) or 0 for snr in SNRS])
    assert falls([-mel_distance(noisy(sentence, snr), sentence) for snr in SNRS])
    from pystoi import stoi as theirs

    assert stoi(noisy(sentence, 5), sentence) == pytest.approx(theirs(sentence, noisy(sentence, 5), 16_000))
    assert mel_distance(sentence, sentence) == 0.0
    assert mel_distance(sentence / 10, sentence) == pytest.approx(1.0, abs=0.2), "ten times fainter: 1 in log10"
    assert stoi(sentence[:1_000], sentence[:1_000]) is None, "too little speech"


def test_pesq_is_the_packages_and_falls_with_the_noise(sentence: np.ndarray) -> None:
    package = pytest.importorskip("pesq", reason="pesq is not installed: it needs a C compiler (duologue[quality])")
    values = [pesq(noisy(sentence, snr), sentence) for snr in SNRS]
    assert falls(values)
    assert values[1] == pytest.approx(package.pesq(16_000, sentence, noisy(sentence, 20), "wb"))
    assert pesq(sentence, sentence) == pytest.approx(4.64, abs=0.02), "the scale's end"
    assert pesq(np.zeros(16_000, np.float32), sentence[:16_000]) is None
    assert pesq(sentence[:2_000], sentence[:2_000]) is None


def test_voicing(sentence: np.ndarray) -> None:
    t = np.arange(16_000) / 16_000
    tone = sum(np.sin(2 * np.pi * 120 * k * t) / k for k in range(1, 8)).astype(np.float32) / 4
    wave = np.concatenate([tone, 0.01 * np.random.default_rng(0).standard_normal(16_000).astype(np.float32)])
    flags = hertz(wave) > 0
    assert flags[5:95].mean() > 0.95 and flags[105:195].mean() < 0.1
    assert quality._f1(flags, flags) == [2.0 * flags.sum(), 2.0 * flags.sum()]
    assert quality._f1(np.array([True, True, False]), np.array([True, False, True])) == [2.0, 4.0]


def test_f0_correlation_sees_whether_one_pitch_follows_the_other() -> None:
    """Over frames voiced in both, whatever the octave; 0 for a copy without pitch, none for an original without."""
    glide = 120 * 2 ** np.linspace(0, 0.5, 60)
    rng = np.random.default_rng(0)
    off = glide * np.exp(0.1 * rng.standard_normal(60))
    assert f0_correlation(2 * glide, glide) == pytest.approx(1) and f0_correlation(glide[::-1], glide) == -1
    assert 0.5 < (f0_correlation(off, glide) or 0) < 0.95
    gaps = np.where(np.arange(60) % 2 == 0, 0.0, off)
    assert f0_correlation(gaps, glide) == pytest.approx(np.corrcoef(np.log(off[1::2]), np.log(glide[1::2]))[0, 1])
    flat = np.full(60, 120.0)
    assert f0_correlation(flat, glide) == f0_correlation(flat * 0, glide) == 0
    assert f0_correlation(glide, flat) is None and f0_correlation(glide, flat * 0) is None


def test_a_pair(sentence: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quality, "pesq", lambda decoded, reference: 3.0)
    found = referenced(sentence[:-400], sentence)
    assert found["voicing_f1"][0] / found["voicing_f1"][1] > 0.97 and found["pesq"] == [3.0, 1.0]
    assert found["f0_correlation"][0] > 0.97
    with pytest.raises(DuologueError, match=r"lasts .* its reference .*: they must be as long"):
        referenced(sentence[:16_000], sentence)
    with pytest.raises(DuologueError, match="the reference is silent"):
        referenced(sentence, np.zeros_like(sentence))
    with pytest.raises(DuologueError, match="is silent"):
        unreferenced(np.zeros(16_000, np.float32))


def test_speakers_are_told_apart(sentence: np.ndarray, speech: Say) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pytest.importorskip("resemblyzer", reason="Resemblyzer is not installed (duologue[quality])")
    who = quality.SpeakerEncoder()
    said = [speech("my sister has a new red car", name) for name in ("en-us", "en-us+f3")]
    same, other = (pcm.astype(np.float32) / 32_768 for pcm in said)
    voice = who(sentence)
    assert np.linalg.norm(voice) == pytest.approx(1.0, abs=1e-5)
    assert voice @ who(same) > voice @ who(other) + 0.1
    assert who(sentence / 50) @ voice > 0.95, "whatever the level"


def test_utmos_by_its_folder_is_the_golden_score(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As ``--utmos FOLDER`` is used: imported, from disk, among the figures of a reply (SpeechMOS's own numbers)."""
    golden = Path(__file__).parents[2] / "golden" / "utmos22_strong"
    expected = load_file(golden / "expected.safetensors")
    folder = utmos22_strong.run(golden / "model.safetensors", tmp_path / "utmos", utmos22_strong.Config(heads=4))
    monkeypatch.setattr(speech_judge, "unreferenced", lambda wave: {})
    recogniser = type("Deaf", (), {"name": "deaf", "__call__": lambda self, wave: ""})()
    judge = speech_judge.SpeechJudge(recogniser, str(folder), None)
    for wave, score in zip(expected["waveform"], expected["score"], strict=True):
        (found, weight) = judge({"reply": None}, wave.numpy())["measures"]["utmos"]
        assert weight == 1 and found - 3 == pytest.approx(float(score) - 3, rel=1e-4)
    with pytest.raises(DuologueError, match=r"is not a folder of an imported utmos"):
        speech_judge.SpeechJudge(recogniser, str(tmp_path), None)
