"""Pairs of recordings: each is measured, what has no partner is named, codebooks are counted."""

from __future__ import annotations

import base64
import io
import json
import math
import re
from pathlib import Path

import numpy as np
import pytest
import soundfile

from duologue.data_prep.audio import read_audio, write_wav
from duologue.inference.evaluation.metrics import quality
from duologue.inference.evaluation.suites import codec as codec_suite
from duologue.inference.evaluation.suites.codec import codebook_use, read_codes
from duologue.model.errors import DuologueError


class Hears:
    """A recogniser that misses the last word of what is loud."""

    def __call__(self, wave: np.ndarray) -> str:
        return "who has seen them" if np.abs(wave.mean()) < 0.05 else "who has seen"


def test_codebooks() -> None:
    even = [[[0, 1, 2, 3]], [[0, 1, 2, 3]]]
    (use,) = codebook_use(even, 8)
    assert use == {"codebook": 0, "tokens": 8, "used": 4, "perplexity": pytest.approx(4.0), "utilisation": 0.5}
    (use,) = codebook_use([[[5, 5, 5, 7]]], None)
    entropy = -(0.75 * math.log2(0.75) + 0.25 * math.log2(0.25))
    assert use["perplexity"] == pytest.approx(2**entropy) and use["utilisation"] is None
    assert len(codebook_use([[[1], [2]]], 4)) == 2 and codebook_use([], 4) == []


def test_a_set_of_pairs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quality, "unreferenced", lambda wave: {"dnsmos": [3.0, 1.0]})
    error = lambda decoded, reference: {"mel_distance": [float(np.abs(decoded - reference).mean()), 1.0]}  # noqa: E731
    monkeypatch.setattr(quality, "referenced", error)
    monkeypatch.setattr(quality, "speaker_encoder", lambda: None)
    rng = np.random.default_rng(0)
    data = tmp_path / "data"
    for side in ("reference", "decoded", "codes"):
        (data / side / "a").mkdir(parents=True)
    for name, noise in (("a/1", 0.0), ("a/2", 0.1)):
        wave = 0.1 * rng.standard_normal(16_000)
        write_wav(data / "reference" / f"{name}.wav", wave, 16_000)
        write_wav(data / "decoded" / f"{name}.wav", wave + noise, 16_000)
        (data / "codes" / f"{name}.json").write_text(json.dumps([[1] * 50, list(range(50))]))
    write_wav(data / "reference/a/3.wav", rng.standard_normal(16_000), 16_000)
    (data / "codec.json").write_text(json.dumps({"codebook_size": 1024, "times": {"a/1": 0.25}}))
    monkeypatch.setattr(codec_suite, "find_recogniser", lambda name, language: Hears())
    report = codec_suite.run(data=data, out=tmp_path / "out", recogniser="whisper", quiet=True)
    found = {entry["id"]: entry["value"] for entry in report["metrics"]}
    assert found["mel_distance"] == pytest.approx(0.05, abs=0.01)
    assert found["tokens_a_second"] == 100 and found["bits_a_second"] == 1_000 and found["real_time_factor"] == 0.25
    assert [book["used"] for book in report["figures"]["codebooks"]] == [1, 50]
    assert found["wer"] == 1 / 8
    page = (tmp_path / "out/report.html").read_text()
    for side, name in (("reference", "original"), ("decoded", "copy")):  # of each example both can be heard
        players = re.findall(f'{name}:</span> <audio[^>]*base64,([^"]*)"', page)
        heard, _ = soundfile.read(io.BytesIO(base64.b64decode(players[0])))  # the worst: a/2
        assert np.corrcoef(heard, read_audio(data / side / "a/2.wav", 16_000))[0, 1] > 0.8, name
        assert len(players) == 8
    (broken,) = report["broken"]
    assert broken["id"] == "a/3" and "each recording needs both sides" in broken["reason"]
    with pytest.raises(DuologueError, match="no set of pairs"):
        codec_suite.run(data=tmp_path, out=tmp_path / "x", quiet=True)
    (data / "codes/a/1.json").write_text('{"no": "codes"}')
    with pytest.raises(DuologueError, match="holds no codes"):
        read_codes(data / "codes/a/1.json")
