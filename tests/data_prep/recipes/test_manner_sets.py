"""Sets of manners: each in turn, people's recordings marked for what they are, levels that tell nothing."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from duologue.data_prep.datasets.shards import Clip, ShardedDataset, ShardWriter
from duologue.data_prep.recipes.manner import Config, run
from duologue.data_prep.speech.engines import espeak
from duologue.data_prep.speech.manners import MANNERS
from duologue.model.errors import DuologueError

RATE = 16_000


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Two readers' recordings, and one that is too short."""
    writer = ShardWriter(tmp_path_factory.mktemp("people"), name="p", sample_rate=RATE, seed=0, parameters={})
    made = []
    for at, seconds in enumerate((5.0, 1.5, 0.5)):
        t = np.arange(round(seconds * RATE)) / RATE
        pcm = (8000 * np.sign(np.sin(2 * np.pi * 120 * t)) * (np.sin(2 * np.pi * 3 * t) > -0.5)).astype(np.int16)
        made.append(Clip(pcm, {"id": f"{at}.flac", "text": "hello", "voice": f"read:{at}", "licence": "CC0"}))
    writer.write(0, made)
    writer.finish()
    return str(writer.folder)


def test_a_set_and_what_its_clips_say(people: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(espeak, "espeak_command", espeak.library_command)
    config = Config(out=str(tmp_path / "set"), n=32, voices="dev", split="dev", source=people, workers=1)
    assert run(config, progress=False)["clips"] == 32
    made = ShardedDataset(config.out)
    assert Counter(meta["manner"] for meta in made.metas) == dict.fromkeys(MANNERS, 8)
    kinds = {meta["kind"] for meta in made.metas}
    assert kinds == {"synthetic", "recording", "simulated"}
    for clip in made:
        meta = clip.meta
        assert -31 < 20 * np.log10(np.abs(clip.pcm.astype(float)).max() / 32768) < -0.5
        if meta["kind"] == "synthetic":
            assert meta["text"] and meta["voice"].startswith("espeak:") and meta["prosody"]["rate"] > 0
        else:
            assert meta["licence"] == "CC0" and meta["voice"] in ("read:0", "read:1")  # not the short one
            assert meta["text"] == ("hello" if meta["voice"] == "read:1" else "")  # a part of a recording has no text
        if meta["kind"] == "recording":
            assert meta["manner"] == "calm" and len(clip.pcm) <= 4 * RATE
    peaks = {manner: [np.abs(clip.pcm).max() for clip in made if clip.meta["manner"] == manner] for manner in MANNERS}
    assert all(max(each) > 3 * min(each) for each in peaks.values())
    first = [clip.pcm.tobytes() for clip in made]
    again = Config(out=str(tmp_path / "again"), n=32, voices="dev", split="dev", source=people, workers=1)
    run(again, progress=False)
    assert [clip.pcm.tobytes() for clip in ShardedDataset(again.out)] == first


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"manners": ("calm", "sung")}, "manners has 'sung'; expected some of calm, agitated, whisper, shout"),
        ({"manners": ()}, "manners has nothing"),
        ({"people": 1.5}, "people=1.5: expected a fraction from 0 to 1"),
        ({"shortest_s": 5.0}, "shortest_s=5, longest_s=4: expected 0.1 or more, and no less"),
        ({"split": "all"}, "split=all: expected one of"),
        ({"voices": "nobody"}, "unknown voice 'nobody'"),
    ],
)
def test_settings_that_cannot_be(change: dict[str, object], reason: str) -> None:
    with pytest.raises(DuologueError, match=re.escape(reason)):
        Config(out="x", **change)  # type: ignore[arg-type]


def test_a_source_without_long_recordings(people: str, tmp_path: Path) -> None:
    with pytest.raises(DuologueError, match=r"expected recordings at 16000 Hz of at least shortest_s=9 s"):
        run(Config(out=str(tmp_path / "set"), source=people, shortest_s=9, longest_s=9), progress=False)
