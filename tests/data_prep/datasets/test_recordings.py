"""A folder of recordings with a manifest becomes data sets whose parts share no speaker and no sound."""

import json
from pathlib import Path

import numpy as np
import pytest

from duologue.checkpoints.cards.collect import data_facts
from duologue.data_prep.datasets.recordings import (
    Part,
    part_of,
    read_manifest,
    select,
    set_loudness,
    speech_part_of,
    words_of,
)
from duologue.data_prep.datasets.shards import ShardedDataset
from duologue.data_prep.recipes.recordings import Config
from duologue.data_prep.recipes.recordings import run as prepare
from duologue.data_prep.text.plain_text import spoken_words
from duologue.model.errors import DuologueError

soundfile = pytest.importorskip("soundfile")


def voice(seconds: float, amplitude: float, rate: int = 16000) -> np.ndarray:
    time = np.arange(int(seconds * rate)) / rate
    return amplitude * np.sin(2 * np.pi * 220 * time) * (np.sin(2 * np.pi * 2 * time) > -0.5)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    source = tmp_path / "source"
    (source / "fsdd").mkdir(parents=True)
    entries = []

    def add(name: str, samples: np.ndarray, rate: int = 16000, **fields: object) -> None:
        soundfile.write(source / name, samples, rate)
        entries.append({"audio": name, "licence": "CC0", "source_repo": "here", **fields})

    for digit in range(10):
        for speaker in ("george", "lucas", "yweweler", "jackson"):
            add(f"fsdd/{digit}_{speaker}.flac", voice(0.3, 0.02), set="fsdd", digit=digit, speaker=speaker)
    add("speech.wav", voice(1.0, 0.9), set="ljspeech", text='The "forty-two line" Bible, of 1455.', speaker="LJ")
    add("eight.wav", voice(1.0, 0.1, 8000), 8000, set="small_speech", text="two thirty p m")
    add("stereo.wav", np.stack([voice(1.0, 0.1)] * 2, 1), set="small_speech", text="book a room", speaker="x")
    add("order.wav", voice(1.0, 0.1), set="coffee_commands", label={"intent": "orderDrink"})
    add("silent.wav", np.zeros(16000), set="ljspeech", text="nothing", speaker="LJ")
    for number in range(30):
        add(f"noise{number}.wav", voice(0.5, 0.1), set="noise", label="rain")
    add("rir.wav", voice(0.5, 0.1), set="noise", label="room impulse response")
    add("4-1-A.wav", voice(0.5, 0.1), set="esc10", label="dog bark")
    entries.append({"audio": "lost.wav", "set": "ljspeech", "text": "not there"})
    (source / "text.wav").write_text("this is not sound")
    entries.append({"audio": "text.wav", "set": "ljspeech", "text": "not sound"})
    (source / "manifest.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    return source


def config(folder: Path, **changes: object) -> Config:
    part = str(changes.get("part", "train"))
    return Config(source=str(folder), out=str(folder.parent / f"out-{part}"), **changes)


def test_the_words_of_people_who_are_not_set_aside(folder):
    counts = prepare(config(folder, shard_clips=7))
    data = ShardedDataset(folder.parent / "out-train")
    assert counts["clips"] == len(data) == 20 + 3 and counts["failed"] == 3
    entries = {entry["audio"]: entry for entry in map(json.loads, (folder / "manifest.jsonl").read_text().splitlines())}
    assert all(meta["text"] == entries[meta["id"]].get("text", meta["text"]) for meta in data.metas)
    texts = {meta["id"]: spoken_words(meta) for meta in data.metas}
    assert texts["speech.wav"] == "the forty two line bible of one thousand four hundred fifty five"
    assert texts["fsdd/7_george.flac"] == "seven"
    assert {meta["voice"] for meta in data.metas} == {
        "fsdd:george", "fsdd:jackson", "ljspeech:LJ", "small_speech:unknown", "small_speech:x"
    }  # fmt: skip
    assert all(set(text) <= set("abcdefghijklmnopqrstuvwxyz ") for text in texts.values())
    failed = (folder.parent / "out-train" / "failed.jsonl").read_text()
    reasons = ("silent.wav is silent", "no such file: lost.wav", "text.wav is not a recording")
    assert all(reason in failed for reason in reasons)


def test_every_clip_has_the_rate_and_the_level_asked_for(folder):
    prepare(config(folder))
    for clip in ShardedDataset(folder.parent / "out-train"):
        wav = clip.pcm / 32768
        seconds = 0.3 if clip.meta["set"] == "fsdd" else 1.0
        assert len(wav) == pytest.approx(seconds * 16000, abs=20)
        power = np.square(wav[: len(wav) // 320 * 320]).reshape(-1, 320).mean(1)
        loud = power[power > power.max() / 1000].mean()
        assert 10 * np.log10(loud) == pytest.approx(-23, abs=0.2)


def test_parts_share_no_speaker_and_no_sound(folder):
    texts = {}
    for part in Part:
        prepare(config(folder, part=part))
        texts[part] = ShardedDataset(folder.parent / f"out-{part}").metas
    assert {meta["voice"] for meta in texts[Part.DEV]} == {"fsdd:lucas"} and len(texts[Part.DEV]) == 10
    assert {meta["voice"] for meta in texts[Part.ACCEPTANCE]} == {"fsdd:yweweler"}
    divided = [texts.pop(Part.SPEECH), texts.pop(Part.SPEECH_HELD_OUT)]  # another division, by speakers
    voices = [{meta["voice"] for meta in metas if not meta["voice"].endswith("unknown")} for metas in divided]
    assert voices[0] and not voices[0] & voices[1] and "fsdd:yweweler" not in voices[0] | voices[1]
    ids = [meta["id"] for metas in texts.values() for meta in metas]
    assert len(set(ids)) == len(ids)
    noises, kept = texts[Part.NOISES], texts[Part.NOISES_DEV]
    assert len(noises) + len(kept) == 31 and 2 <= len(kept) <= 8 and all(meta["text"] == "" for meta in noises + kept)
    assert "4-1-A.wav" in {meta["id"] for meta in kept} and "rir.wav" not in ids and "order.wav" not in ids


def test_running_again_adds_nothing_and_another_setting_is_refused(folder):
    first = prepare(config(folder, part="dev", shard_clips=3))
    before = {path.name: path.stat().st_mtime_ns for path in (folder.parent / "out-dev").glob("shard-*")}
    (folder.parent / "out-dev" / "shard-00002.jsonl").unlink()  # as if it had been stopped
    assert prepare(config(folder, part="dev", shard_clips=3)) == first
    after = {path.name: path.stat().st_mtime_ns for path in (folder.parent / "out-dev").glob("shard-*")}
    assert {name for name in before if before[name] != after[name]} == {"shard-00002.jsonl", "shard-00002.npy"}
    ShardedDataset(folder.parent / "out-dev").verify()
    with pytest.raises(DuologueError, match="choose another folder"):
        prepare(config(folder, part="dev", shard_clips=3, level_dbfs=-30.0))


def test_sets_can_be_chosen(folder):
    assert prepare(config(folder, sets="small_speech"))["clips"] == 2
    with pytest.raises(DuologueError, match="no recordings of the part train in the sets wakewords"):
        prepare(Config(source=str(folder), out=str(folder / "x"), sets="wakewords"))
    assert not (folder / "x").exists()


def test_credits_count_by_set_and_licence(folder):
    prepare(config(folder))
    rows = {(row.set, row.licence): row for row in data_facts(folder.parent / "out-train")[0].credits}
    assert rows["fsdd", "CC0"].clips == 20 and rows["fsdd", "CC0"].minutes == pytest.approx(0.1)
    assert rows["ljspeech", "CC0"].sources == ("here",)


@pytest.mark.parametrize(
    ("manifest", "message"),
    [
        (None, "has no manifest.jsonl"),
        ("{", r"line 1 is not JSON"),
        ('{"audio": "a.wav"}\n', "line 1: the field 'set' is missing"),
        ("[1]\n", "line 1: expected a JSON object"),
        ('{"audio": "a.wav", "set": "x", "digit": "3"}\n', "line 1: the field 'digit' is '3', and must be 0 to 9"),
        ('{"audio": "a.wav", "set": "x", "digit": 12}\n', "line 1: the field 'digit' is 12"),
        ('{"audio": "a.wav", "set": "x"}\n' * 2, "lists a.wav more than once"),
    ],
)
def test_a_wrong_manifest_is_named(tmp_path, manifest, message):
    if manifest is not None:
        (tmp_path / "manifest.jsonl").write_text(manifest)
    with pytest.raises(DuologueError, match=message):
        read_manifest(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"part": "test"}, "part=test: expected one of train, dev"),
        ({"level_dbfs": 3.0}, "level_dbfs"),
        ({"shard_clips": 0}, "too small"),
    ],
)
def test_wrong_settings_are_refused(change, message):
    with pytest.raises(DuologueError, match=message):
        Config(source="a", out="b", **change)


def test_loudness_ignores_pauses_and_respects_the_peak():
    speech = voice(1.0, 0.01)
    padded = np.concatenate([speech, np.zeros(32000)]).astype(np.float32)
    assert np.allclose(set_loudness(padded, 16000, -23, -1)[:16000], set_loudness(speech, 16000, -23, -1), atol=1e-3)
    click = (0.001 * voice(1.0, 1.0)).astype(np.float32)
    click[100] = 0.5
    assert np.abs(set_loudness(click, 16000, -3, -6)).max() == pytest.approx(10 ** (-6 / 20), rel=1e-4)


def test_words_and_parts_of_odd_entries():
    assert words_of({"digit": 0}) == "zero" and words_of({"text": "x-ray"}) == "x ray" and words_of({"digit": 12}) == ""
    assert part_of({"set": "new", "audio": "a", "text": "hi", "speaker": "lucas"}) == Part.TRAIN  # another Lucas
    assert part_of({"set": "new", "audio": "a"}) is None
    for name in ("caf\udce9.wav", "\ud83d"):  # names that are no UTF-8, as Python has them
        assert part_of({"set": "noise", "audio": name}) and speech_part_of({"set": "new", "audio": name})


def test_the_command_line_reaches_it(folder):
    from duologue.data_prep.prepare import main

    counts = main("recordings", [f"source={folder}", f"out={folder.parent / 'cli'}", "part=dev"])
    assert counts["clips"] == 10
    with pytest.raises(DuologueError, match="unknown key 'level'"):
        main("recordings", ["level=3"])


def test_a_codec_hears_all_speech_divided_by_speakers(folder):
    """With words or without; the acceptance speaker is in neither part, no speaker in both."""
    people = {
        part: {entry.get("speaker") or entry["audio"] for entry in select(read_manifest(folder), part)}
        for part in (Part.SPEECH, Part.SPEECH_HELD_OUT)
    }
    assert not people[Part.SPEECH] & people[Part.SPEECH_HELD_OUT]
    everyone = people[Part.SPEECH] | people[Part.SPEECH_HELD_OUT]
    assert {"george", "jackson", "lucas", "LJ", "order.wav"} <= everyone and "yweweler" not in everyone
    assert "lucas" in people[Part.SPEECH_HELD_OUT] and not any("noise" in name for name in everyone)
    crowd = [{"set": "new", "audio": f"{i}-{j}", "speaker": f"person {i}"} for i in range(300) for j in range(2)]
    parts = [speech_part_of(entry) for entry in crowd]
    assert parts[::2] == parts[1::2] and 0.06 < parts.count(Part.SPEECH_HELD_OUT) / len(parts) < 0.14
