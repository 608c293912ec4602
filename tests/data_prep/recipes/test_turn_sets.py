"""Somebody's own conversations as data sets that the stages train on, and what becomes of those that cannot be used."""

from __future__ import annotations

import json
import resource
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from duologue.data_prep.datasets.conversations import WrittenConversation, WrittenTurn
from duologue.data_prep.datasets.shards import ShardedDataset
from duologue.data_prep.prepare import main
from duologue.data_prep.recipes.turns import Config, plan
from duologue.data_prep.speech.engines.espeak import espeak_command
from duologue.data_prep.speech.synthesis import require
from duologue.data_prep.text.plain_text import spoken_words
from duologue.model.errors import DuologueError

soundfile = pytest.importorskip("soundfile")


def tone(seconds: float, rate: int = 16_000) -> np.ndarray:
    return 0.3 * np.sin(np.arange(int(seconds * rate)) / rate * 2 * np.pi * 300)


@pytest.fixture
def tts(tmp_path: Path) -> str:
    """A command that says a word in 0.2 s, as a tone."""
    path = tmp_path / "tts.py"
    path.write_text(
        "import sys, wave, array, math\n"
        "text, wav = sys.argv[1:]\n"
        "with wave.open(wav, 'wb') as file:\n"
        "    file.setparams((1, 2, 16000, 0, 'NONE', ''))\n"
        "    n = 3200 * len(text.split())\n"
        "    file.writeframes(array.array('h', [int(9000 * math.sin(i / 9)) for i in range(n)]).tobytes())\n"
    )
    return f"tts_command={shlex.quote(sys.executable)} {shlex.quote(str(path))} {{text}} {{wav}}"


def write_turns(folder: Path, *turns: dict[str, Any]) -> str:
    """A conversation a turn, the first of which has a second turn."""
    folder.mkdir(exist_ok=True)
    rows = [{"id": f"c{at}", "turns": [turn]} for at, turn in enumerate(turns)]
    (folder / "turns.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return f"source={folder}"


@pytest.fixture
def mine(tmp_path: Path) -> str:
    """Recordings of questions and replies, and turns in writing alone."""
    folder = tmp_path / "mine"
    folder.mkdir()
    soundfile.write(folder / "q.flac", np.stack([tone(1.0, 44_100)] * 2, 1), 44_100)
    soundfile.write(folder / "r.wav", tone(0.6), 16_000)  # no more frames than unit frames of its three words
    row = {
        "id": "x",
        "turns": [
            {
                "audio": "q.flac",
                "text": "What is 2 plus 2?",
                "reply": "It's four.",
                "reply_audio": "r.wav",
                "slot": "4",
            },
            {"text": "what is the capital of france", "reply": "the capital of france is paris"},
            {"text": "repeat the word apple"},
        ],
    }
    (folder / "turns.jsonl").write_text(json.dumps(row) + "\n")
    return f"source={folder}"


def failures(folder: Path) -> dict[str, str]:
    rows = [json.loads(line) for line in (folder / "failed.jsonl").read_text().splitlines()]
    return {row["id"]: row["reason"] for row in rows}


def test_questions(tmp_path: Path, mine: str, tts: str) -> None:
    counts = main("turns", [mine, f"out={tmp_path / 'out'}", tts, "workers=1"])
    assert (counts["clips"], counts["failed"]) == (3, 0) and "unknown_words" not in counts
    data = ShardedDataset(tmp_path / "out")
    first, second, third = data
    assert first.meta.items() >= {
        "id": "x-0", "conversation": "x", "turn": 0, "voice": "own:recording", "audio": "q.flac",
        "text": "What is 2 plus 2?", "spoken": "what is two plus two", "question": "What is 2 plus 2?",
        "answer": "It's four.", "slot": "4",
    }.items()  # fmt: skip
    assert "history" not in first.meta and "spoken" not in second.meta
    assert second.meta["history"] == [["What is 2 plus 2?", "It's four."]] and len(third.meta["history"]) == 2
    assert len(first.pcm) == pytest.approx(16_000, abs=10)
    level = 20 * np.log10(np.sqrt(np.square(first.pcm[2000:-2000] / 32768).mean()))
    assert level == pytest.approx(-23, abs=0.2)
    assert second.meta["slot"] == second.meta["answer"] == "the capital of france is paris"
    assert second.meta["voice"].startswith("command:") and len(second.pcm) == 6 * 3200
    assert "answer" not in third.meta  # a transcript is all that is known
    data.verify()


def test_replies(tmp_path: Path, mine: str, tts: str) -> None:
    assert main("turns", [mine, f"out={tmp_path / 'out'}", tts, "part=replies", "workers=1"])["clips"] == 2
    first, second = ShardedDataset(tmp_path / "out")
    assert (first.meta["text"], first.meta["question"]) == ("It's four.", "What is 2 plus 2?")
    assert first.meta["spoken"] == "it is four"
    assert second.meta["history"] == [["What is 2 plus 2?", "It's four."]]
    assert len(first.pcm) == 9_600 and len(second.pcm) == 6 * 3200


@pytest.mark.parametrize(
    ("language", "words", "spoken"), [("en", 5, "doctor smith paid five dollars"), ("de", 4, None)]
)
def test_english_replies_are_said_as_a_unit_decoder_spells_them(
    tmp_path: Path, tts: str, language: str, words: int, spoken: str | None
) -> None:
    """Their text stays as it was written; what is asked is said as it is."""
    source = write_turns(tmp_path / "mine", {"text": "How much is $5?", "reply": "Dr. Smith paid $5."})
    common = [source, tts, f"language={language}", "workers=1"]
    main("turns", [*common, f"out={tmp_path / 'replies'}", "part=replies"])
    (reply,) = ShardedDataset(tmp_path / "replies")
    assert reply.meta["text"] == "Dr. Smith paid $5." and reply.meta.get("spoken") == spoken
    assert len(reply.pcm) == words * 3200
    main("turns", [*common, f"out={tmp_path / 'questions'}"])
    assert len(ShardedDataset(tmp_path / "questions")[0].pcm) == 4 * 3200


@pytest.mark.parametrize("form", ["alpaca", "sharegpt"])
def test_written_instructions(tmp_path: Path, tts: str, form: str) -> None:
    entries = {
        "alpaca": {"instruction": "What is two plus two?", "input": "", "output": "Four."},
        "sharegpt": {"conversations": [{"from": "human", "value": "What is two plus two?"},
                                       {"from": "gpt", "value": "Four."}]},
    }  # fmt: skip
    (tmp_path / "f.json").write_text(json.dumps([entries[form]] * 3))
    source = f"source={tmp_path / 'f.json'}"
    for part, text in (("questions", "What is two plus two?"), ("replies", "Four.")):
        main("turns", [source, f"out={tmp_path / part}", f"part={part}", tts, "workers=1"])
        metas = ShardedDataset(tmp_path / part).metas
        assert [meta["text"] for meta in metas] == [text] * 3 and len({meta["id"] for meta in metas}) == 3


def test_the_stages_train_on_it(tmp_path: Path, mine: str, tts: str) -> None:
    """Every stage makes its batches of it, and speech_to_text measures itself by it."""
    from duologue.training.main import resolve

    common = [mine, tts, "workers=1"]
    questions, replies = tmp_path / "questions", tmp_path / "replies"
    main("turns", [*common, f"out={questions}"])
    main("turns", [*common, f"out={replies}", "part=replies"])
    main("units", [f"data={replies}", f"quantiser={tmp_path / 'q'}", "clusters=10", "judge=0"])
    settings = ["preset=tiny", f"out={tmp_path / 'run'}", "batch_size=2"]
    for stage, data in (
        ("asr_pretrain", questions), ("speech_to_text", questions), ("unit_decoder", replies), ("unit_vocoder", replies)
    ):  # fmt: skip
        task = resolve(stage, [*settings, f"data={data}"]).build()
        loss, _ = task(task.batch(0))
        assert loss.isfinite(), stage
    task = resolve("speech_to_text", [*settings, f"data={questions}", f"dev_data={questions}"]).build()
    assert task.evaluate()["right_questions"] == 0  # it has learnt nothing yet


TEXTS = {
    "en-us": "The capital of France is Paris. It's lovely!",
    "de": "Wie heißt die Hauptstadt von Österreich?",
    "cmn": "法国的首都是哪里？",
    "en-gb": "See https://example.org: 1. it costs $5 (12345) 😀",
}
WORDS = {"en-us": "the capital of france is paris it is lovely", "de": "wie heisst die hauptstadt von osterreich"}


@pytest.mark.parametrize("voice", TEXTS)
def test_labels_are_what_was_written(tmp_path: Path, voice: str) -> None:
    """To the byte, whoever says them; their words stand beside them where they can be told."""
    if espeak_command() is None:
        pytest.skip("espeak-ng and its library are not installed")
    text = TEXTS[voice]
    source = write_turns(tmp_path / "mine", {"text": text, "reply": f"{text}\n- {text}", "slot": text[:5]})
    main("turns", [source, f"out={tmp_path / 'out'}", f"voices=espeak:{voice}", "workers=1"])
    main("turns", [source, f"out={tmp_path / 'said'}", f"voices=espeak:{voice}", "workers=1", "part=replies"])
    (clip,), (reply,) = ShardedDataset(tmp_path / "out"), ShardedDataset(tmp_path / "said")
    assert (clip.meta["text"], clip.meta["answer"], clip.meta["slot"]) == (text, f"{text}\n- {text}", text[:5])
    assert (reply.meta["text"], reply.meta["question"]) == (f"{text}\n- {text}", text)
    assert clip.meta.get("spoken") == WORDS.get(voice) and len(clip.pcm) > 16_000 and len(reply.pcm) > len(clip.pcm)
    assert spoken_words(clip.meta) == WORDS.get(voice, text)


@pytest.mark.parametrize(
    ("voice", "reasons"),
    [
        ("espeak:en-us", {0: "nothing in '😀' can be said", 1: "espeak:en-us cannot say '法': it speaks the lang"}),
        ("flite:rms", {0: "nothing in '😀' can be said", 1: "flite:rms cannot say '法': it speaks a to z alone",
                       2: "flite:rms cannot say 'Ö'"}),
    ],
)  # fmt: skip
def test_what_a_voice_cannot_say_is_listed(tmp_path: Path, voice: str, reasons: dict[int, str]) -> None:
    try:
        require(voice.partition(":")[0])
    except DuologueError as error:
        pytest.skip(str(error))
    texts = ["😀", "法国", "Österreich", "What a day 😀!"]
    source = write_turns(tmp_path / "mine", *({"text": text, "reply": "Ja 😀"} for text in texts))
    main("turns", [source, f"out={tmp_path / 'out'}", f"voices={voice}", "workers=1"])
    found = failures(tmp_path / "out")
    assert {int(name[1]) for name in found} == set(reasons)
    assert all(found[f"c{at}-0"].startswith(reason) for at, reason in reasons.items())
    assert [meta["text"] for meta in ShardedDataset(tmp_path / "out").metas] == [
        text for at, text in enumerate(texts) if at not in reasons
    ]


def test_what_stands_around_a_clip(tmp_path: Path, tts: str) -> None:
    """System prompt, instruction, history of the turns that were answered, and statements that need no answer."""
    folder = tmp_path / "mine"
    folder.mkdir()
    soundfile.write(folder / "long.wav", np.concatenate([tone(1.0), 0 * tone(0.5), tone(0.25)]), 16_000)
    turns = [
        {"text": "Hello?", "reply": "Hi 😀"},
        {"text": "Nice weather.", "respond": False},
        {"audio": "long.wav", "start": 1.5, "instruction": "Transcribe the speech.", "reply": "beep"},
        {"audio": "long.wav", "end": 1.0, "text": "And then?", "reply": "法国"},
    ]
    row = {"id": "x", "system": "Be brief.", "turns": turns}
    (folder / "turns.jsonl").write_text(json.dumps(row))
    main("turns", [f"source={folder}", f"out={tmp_path / 'out'}", tts, "workers=1"])
    first, second, third, fourth = ShardedDataset(tmp_path / "out")
    assert all(clip.meta["system"] == "Be brief." for clip in (first, second, third, fourth))
    assert second.meta["verdict"] == "noise" and not {"answer", "slot"} & set(second.meta)
    assert second.meta["history"] == third.meta["history"] == [["Hello?", "Hi 😀"]]
    assert (third.meta["text"], third.meta["answer"]) == ("", "beep") and len(third.pcm) == 4_000
    assert third.meta["instruction"] == "Transcribe the speech." and "instruction" not in fourth.meta
    assert fourth.meta["history"] == [["Hello?", "Hi 😀"], ["", "beep"]] and len(fourth.pcm) == 16_000
    assert "verdict" not in fourth.meta
    main("turns", [f"source={folder}", f"out={tmp_path / 'said'}", tts, "workers=1", "part=replies"])
    metas = [(meta["text"], meta.get("question"), len(meta.get("history", [])), meta["system"], meta["turn"])
             for meta in ShardedDataset(tmp_path / "said").metas]  # fmt: skip
    assert metas == [("Hi 😀", "Hello?", 0, "Be brief.", 0), ("beep", None, 1, "Be brief.", 2),
                     ("法国", "And then?", 2, "Be brief.", 3)]  # fmt: skip


WRITTEN = st.text(min_size=1, max_size=20).filter(str.strip)
SAID_TURNS = st.builds(WrittenTurn, text=WRITTEN, reply=st.none() | WRITTEN, instruction=st.none() | WRITTEN)
HEARD_TURNS = st.builds(WrittenTurn, audio=st.just("a.wav"), text=st.none() | WRITTEN, reply=st.none() | WRITTEN)
OVERHEARD = st.builds(WrittenTurn, text=WRITTEN, respond=st.just(False))


@given(turns=st.lists(SAID_TURNS | HEARD_TURNS | OVERHEARD, max_size=5), system=st.none() | WRITTEN)
def test_whatever_is_written_stands_in_the_clips(turns: list[WrittenTurn], system: str | None) -> None:
    """To the byte: each text, reply, slot, instruction and system prompt, and of the turns before those answered."""
    conversation = WrittenConversation(id="x", turns=tuple(turns), system=system)
    items = plan([conversation], Config(source="s", out="o"))
    assert len(items) == len(turns)
    for item, turn in zip(items, turns, strict=True):
        fields = item.fields
        assert (item.text, fields.get("answer"), fields.get("slot")) == (turn.text or "", turn.reply, turn.reply)
        assert (fields.get("instruction"), fields.get("system")) == (turn.instruction, system)
        earlier = turns[: fields["turn"]]
        assert fields.get("history", ()) == tuple((one.text or "", one.reply) for one in earlier if one.reply)
        assert fields.get("verdict") == (None if turn.respond else "noise")
        assert bool(item.problem) == (not turn.text and not turn.reply)
    replies = plan([conversation], Config(source="s", out="o", part="replies"))
    assert [item.text for item in replies] == [turn.reply for turn in turns if turn.reply]


def test_a_set_of_recordings_needs_no_file_of_turns(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", tone(0.5), 16_000)
    (tmp_path / "manifest.jsonl").write_text(json.dumps({"audio": "a.wav", "set": "x", "text": "Grüß Gott!"}))
    main("turns", [f"source={tmp_path}", f"out={tmp_path / 'out'}", "workers=1"])
    (meta,) = ShardedDataset(tmp_path / "out").metas
    assert (meta["text"], meta["spoken"]) == ("Grüß Gott!", "gruss gott") and "answer" not in meta
    (tmp_path / "manifest.jsonl").write_text(json.dumps({"audio": "a.wav", "set": "x", "text": "Um 5!"}))
    for language, words in (("en", "um five"), ("de", None)):
        main("turns", [f"source={tmp_path}", f"out={tmp_path / language}", "workers=1", f"language={language}"])
        (meta,) = ShardedDataset(tmp_path / language).metas
        assert (meta["text"], meta.get("spoken")) == ("Um 5!", words)


def test_words_that_the_tokenizer_does_not_know(tmp_path: Path, tts: str) -> None:
    source = write_turns(
        tmp_path / "mine",
        {"text": "what is two plus two", "reply": "four"},
        {"text": "what is quantum foam", "reply": "quantum soup"},
        {"text": "what is seven", "reply": "bogosity"},
    )
    counts = main("turns", [source, f"out={tmp_path / 'skip'}", tts, "workers=1", "words=nano"])
    assert (counts["clips"], counts["failed"]) == (1, 2)
    assert counts["unknown_words"] == "4 in 2 of 3 turns, left out: bogosity (1), foam (1), quantum (1), soup (1)"
    assert failures(tmp_path / "skip") == {
        "c1-0": "nano's tokenizer does not know: quantum, foam, soup",
        "c2-0": "nano's tokenizer does not know: bogosity",
    }
    counts = main("turns", [source, f"out={tmp_path / 'keep'}", tts, "workers=1", "words=nano", "unknown=keep"])
    assert (counts["clips"], counts["failed"]) == (3, 0) and "2 of 3 turns, kept: " in counts["unknown_words"]
    source = write_turns(tmp_path / "none", {"text": "quantum foam"}, {"text": "more quantum"})
    with pytest.raises(DuologueError, match=r"none of the 2 questions .*: quantum, foam; 2 in 2.*unknown=keep"):
        main("turns", [source, f"out={tmp_path / 'x'}", tts, "words=nano"])
    assert not (tmp_path / "x").exists()


def test_turns_that_cannot_be_used(tmp_path: Path, tts: str) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    soundfile.write(folder / "noise.flac", np.random.default_rng(0).uniform(-1, 1, 32_000), 16_000)
    soundfile.write(folder / "noise.wav", np.random.default_rng(0).uniform(-1, 1, 32_000), 16_000)
    for name in ("noise.flac", "noise.wav"):
        (folder / f"cut.{name[6:]}").write_bytes((folder / name).read_bytes()[:9_000])
    (folder / "text.wav").write_text("no sound")
    (folder / "empty.wav").touch()
    soundfile.write(folder / "nan.wav", np.full(8000, np.nan), 16_000, subtype="FLOAT")
    soundfile.write(folder / "hour.flac", np.zeros(3600 * 1000, np.int16), 1000)
    names = ("cut.flac", "cut.wav", "text.wav", "empty.wav", "nan.wav", "hour.flac", "lost.wav")
    turns = [{"audio": name, "text": "what is two"} for name in names]
    turns += [{"audio": "noise.wav"}, {"text": "two " * 61}, {"text": "two " * 40}]
    turns += [{"audio": "noise.wav", "text": "what is two"}]
    source = write_turns(folder, *turns)
    counts = main("turns", [source, f"out={tmp_path / 'out'}", tts, "workers=1", "max_s=6"])
    assert (counts["clips"], counts["failed"]) == (1, len(turns) - 1)
    reasons = failures(tmp_path / "out")
    for at, reason in enumerate(
        (
            "cut.flac is cut short or damaged: ",
            "cut.wav is cut short: 8956 bytes of sound, its header announces 64000",
            "text.wav is not a recording", "empty.wav is empty", "nan.wav has a sample that is no number",
            "hour.flac lasts 3600 s: at most 6 s", "no such file: lost.wav", "the recording has no 'text'",
            "text: 61 words, more than max_words=60", "it lasts 8 s, more than max_s=6",
        )
    ):  # fmt: skip
        assert reasons[f"c{at}-0"].startswith(reason), reasons[f"c{at}-0"]


def test_when_nothing_can_be_used_each_kind_of_reason_is_told(tmp_path: Path) -> None:
    turns = [{"text": "quantum foam"}, {"text": "more quantum"}, {"text": "what is two"}]
    source, command = write_turns(tmp_path / "mine", *turns), "tts_command=false {text} {wav}"
    with pytest.raises(DuologueError, match=r"every clip failed.*not know: quantum, foam; tts_command: false ended"):
        main("turns", [source, f"out={tmp_path / 'out'}", command, "workers=1", "words=nano"])
    assert not (tmp_path / "out").exists()


def test_a_pipes_wav_is_whole(tmp_path: Path) -> None:
    """What comes out of a pipe announces a length that nobody knew, and is read all the same."""
    soundfile.write(tmp_path / "a.wav", tone(1.0), 16_000)
    data = bytearray((tmp_path / "a.wav").read_bytes())
    for length in (0xFFFFFFFF, 0x7FFFF000):
        data[40:44] = length.to_bytes(4, "little")
        (tmp_path / "a.wav").write_bytes(data)
        source = write_turns(tmp_path, {"audio": "a.wav", "text": "what is two"})
        assert main("turns", [source, f"out={tmp_path / str(length)}", "workers=1"])["clips"] == 1


def test_an_hour_is_refused_before_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    soundfile.write(tmp_path / "hour.flac", np.zeros(3600 * 1000, np.int16), 1000)
    monkeypatch.setattr(soundfile.SoundFile, "read", lambda *_, **__: pytest.fail("it was read"))
    source = write_turns(tmp_path, {"audio": "hour.flac", "text": "what is two"})
    with pytest.raises(DuologueError, match=r"every clip failed.*hour\.flac lasts 3600 s: at most 30 s"):
        main("turns", [source, f"out={tmp_path / 'out'}", "workers=1"])
    assert not (tmp_path / "out").exists()


def test_two_workers_make_the_same_and_go_on(tmp_path: Path, mine: str, tts: str) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    for out, workers in ((one, 1), (two, 2)):
        main("turns", [mine, f"out={out}", tts, "shard_size=2", f"workers={workers}"])
    made = {path.name: path.read_bytes() for path in one.iterdir()}
    assert made == {path.name: path.read_bytes() for path in two.iterdir()} and len(made) == 2 * 2 + 2
    (two / "shard-00001.jsonl").unlink()
    main("turns", [mine, f"out={two}", tts, "shard_size=2", "workers=1"])
    assert made == {path.name: path.read_bytes() for path in two.iterdir()}
    Path(mine[7:], "turns.jsonl").write_text('{"turns": [{"text": "what is two"}]}')
    with pytest.raises(DuologueError, match="choose another folder"):
        main("turns", [mine, f"out={two}", tts, "shard_size=2"])


@contextmanager
def small_disk() -> Iterator[None]:
    """No file grows beyond 20 kB: the write that would make it fails as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_leaves_whole_shards(tmp_path: Path, mine: str, tts: str) -> None:
    out, settings = tmp_path / "out", [mine, tts, "workers=1", "shard_size=1"]
    with small_disk(), pytest.raises(DuologueError, match=r"cannot write .*shard-00000\.npy: File too large"):
        main("turns", [*settings, f"out={out}"])
    assert [path.name for path in out.iterdir()] == ["dataset.json"] and len(ShardedDataset(out)) == 0
    assert main("turns", [*settings, f"out={out}"])["clips"] == 3  # there is room again


@pytest.mark.parametrize(
    ("overrides", "complaint"),
    [
        (["source=x"], "needs out"),
        (["source=x", "out=y", "voice=z"], "unknown key 'voice'"),
        (["source=x", "out=y", "part=answers"], "part=answers: expected questions or replies"),
        (["source=x", "out=y", "unknown=drop"], "unknown=drop: expected skip or keep"),
        (["source=x", "out=y", "max_s=0"], "max_s=0.0: expected more than 0"),
        (["source=x", "out=y", "max_words=0"], "max_words=0: expected at least 1"),
        (["source=x", "out=y", "voices=me"], "unknown voice 'me'"),
        (["source=x", "out=y", "tts_command=say {text}"], "no argument has {wav}"),
        (["source=x", "out=y"], "no such file or folder: x"),
    ],
)
def test_wrong_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, overrides: list[str], complaint: str) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DuologueError, match=complaint):
        main("turns", overrides)
    assert not list(tmp_path.iterdir())


def test_a_set_without_replies(tmp_path: Path) -> None:
    source = write_turns(tmp_path / "mine", {"text": "what is two"})
    with pytest.raises(DuologueError, match="has no replies"):
        main("turns", [source, f"out={tmp_path / 'out'}", "part=replies"])
    assert not (tmp_path / "out").exists()


def test_half_a_character_is_left_out_with_what_follows_it(tmp_path: Path) -> None:
    texts = ("\u2028 e\u0301 \u202e\u05e9 \u200d", "half \ud83d", "more")
    turns = tuple(WrittenTurn(text=text, reply="Yes.") for text in texts)
    items = plan([WrittenConversation(id="c", turns=turns)], Config(source="s", out="o", words=""))
    assert [bool(item.problem) for item in items] == [False, True, True]
    assert "half a surrogate pair" in items[1].problem and items[0].text == turns[0].text
