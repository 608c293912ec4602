"""Recognition of sets in the forms that the field keeps them in; another system's words; a beam that finds more."""

from __future__ import annotations

import gzip
import json
import math
import re
from pathlib import Path

import numpy as np
import pytest
from tiny_assistant import HEARD, tiny_assistant
from tiny_chat import brief, chat_assistant

from duologue.data_prep.audio import read_audio, write_wav
from duologue.data_prep.datasets.question_sets import question_set
from duologue.data_prep.datasets.speech_sets import Utterance, find_utterances
from duologue.inference.assistant.transcribe import transcribe
from duologue.inference.evaluation.inputs.generated import generated, recorded_turns
from duologue.inference.evaluation.inputs.questions import BUNDLED, is_question_file
from duologue.inference.evaluation.suites import asr as asr_suite
from duologue.model.decoding.joint_beam import JointConfig
from duologue.model.dialogue_state import DialogueState
from duologue.model.errors import DuologueError
from duologue.model.speech_lm import SpeechLM


def sound(path: Path, seconds: float = 0.5) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    wave = 0.1 * np.random.default_rng(0).standard_normal(round(seconds * 16_000))
    if path.suffix == ".wav":
        write_wav(path, wave, 16_000)
    else:
        import soundfile

        soundfile.write(path, wave, 16_000)


def librispeech(root: Path) -> None:
    folder = root / "test-clean/61/70968"
    for at in range(2):
        sound(folder / f"61-70968-000{at}.flac")
    (folder / "61-70968.trans.txt").write_text("61-70968-0000 HE BEGAN\n61-70968-0001 A CONFUSED COMPLAINT\n")


def aishell(root: Path) -> None:
    sound(root / "wav/test/S0764/BAC009S0764W0121.wav")
    (root / "transcript").mkdir()
    lines = "BAC009S0764W0121 甚至 出现 交易\nBAC009S0002W0122 而 对 楼市\n"
    (root / "transcript/aishell_transcript_v0.8.txt").write_text(lines)


def fleurs(root: Path) -> None:
    sound(root / "audio/test/123.wav")
    (root / "test.tsv").write_text("7\t123.wav\tHello, there.\thello there\th e\t8000\tFEMALE\n")


def ours(root: Path) -> None:
    sound(root / "a/b.wav")
    entries = [{"audio": "a/b.wav", "set": "mine", "text": "hello"}, {"audio": "a/c.wav", "set": "x", "label": "dog"}]
    (root / "manifest.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in entries))


def lhotse(root: Path) -> None:
    from lhotse import CutSet, MonoCut, Recording, SupervisionSegment

    sound(root / "one.wav", 2.0)
    recording = Recording.from_file(root / "one.wav")
    parts = [SupervisionSegment(id="s", recording_id=recording.id, start=0, duration=0.5, text="hello there")]
    cut = MonoCut(id="cut", start=0.5, duration=0.5, channel=0, recording=recording, supervisions=parts)
    CutSet.from_cuts([cut]).to_file(root / "cuts.jsonl.gz")


@pytest.mark.parametrize(
    ("write", "wanted"),
    [
        (librispeech, [("61-70968-0000", "HE BEGAN"), ("61-70968-0001", "A CONFUSED COMPLAINT")]),
        (aishell, [("BAC009S0764W0121", "甚至出现交易")]),
        (fleurs, [("123", "hello there")]),
        (ours, [("a/b.wav", "hello")]),
        (lhotse, [("cut", "hello there")]),
    ],
)
def test_sets_on_disk(write: object, wanted: list[tuple[str, str]], tmp_path: Path) -> None:
    root = tmp_path / "set"
    root.mkdir()
    write(root)  # type: ignore[operator]
    found = list(find_utterances(root))
    assert [(utterance.id, utterance.text) for utterance in found] == wanted
    assert all(len(read_audio(utterance.sound())) == 8_000 for utterance in found), "of a cut, its part alone"


def test_what_a_lhotse_manifest_may_lead_to(tmp_path: Path) -> None:
    """One channel of a recording in a file; no command is run, no address opened, no playlist followed."""
    import wave

    from lhotse import CutSet, MonoCut, Recording
    from lhotse.audio.source import AudioSource

    with wave.open(str(tmp_path / "two.wav"), "wb") as file:
        file.setparams((2, 2, 16_000, 0, "NONE", ""))
        file.writeframes(np.repeat(np.array([[1_000, -3_000]], "<i2"), 16_000, 0).tobytes())
    (tmp_path / "list.wav").write_text(f"#EXTM3U\n#EXTINF:1,\n{tmp_path}/two.wav\n")
    sources = [
        AudioSource("file", [0, 1], str(tmp_path / "two.wav")), AudioSource("command", [0, 1], f"touch {tmp_path}/ran"),
        AudioSource("url", [0, 1], "http://127.0.0.1:1/q.wav"), AudioSource("file", [0, 1], str(tmp_path / "list.wav")),
    ]  # fmt: skip
    cuts = [
        MonoCut(str(at), 0.25, 0.5, 1, recording=Recording(str(at), [source], 16_000, 16_000, 1.0, [0, 1]))
        for at, source in enumerate(sources)
    ]
    CutSet.from_cuts(cuts).to_file(tmp_path / "cuts.jsonl")
    good, *bad = find_utterances(tmp_path / "cuts.jsonl")
    heard = read_audio(good.sound())
    assert len(heard) == 8_000 and np.allclose(heard, -3_000 / 32_768, atol=1e-4)
    for utterance, told in zip(bad, ("in one file are read", "in one file are read", "not a recording"), strict=True):
        with pytest.raises(DuologueError, match=told):
            utterance.sound()
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("field", ['"text": 5', '"text": ["a"]', '"sampling_rate": 0'])
def test_a_lhotse_manifest_that_is_wrong(field: str, tmp_path: Path) -> None:
    lhotse(tmp_path)
    manifest = gzip.decompress((tmp_path / "cuts.jsonl.gz").read_bytes()).decode()
    name = field.split(":")[0]
    (tmp_path / "cuts.jsonl").write_text(re.sub(rf'{name}: ("[^"]*"|\d+)', field, manifest))
    with pytest.raises(DuologueError, match="must be text" if "text" in field else "it says 0 Hz"):
        for utterance in find_utterances(tmp_path / "cuts.jsonl"):
            utterance.sound()


@pytest.mark.parametrize("end", ["\r", "\r\n", "\n\n"])
def test_lines_of_tables_end_in_any_way(end: str, tmp_path: Path) -> None:
    for write, file in ((librispeech, "test-clean/61/70968/61-70968.trans.txt"), (fleurs, "test.tsv")):
        root = tmp_path / write.__name__
        root.mkdir()
        write(root)
        before = [utterance.text for utterance in find_utterances(root)]
        (root / file).write_text((root / file).read_text().replace("\n", end), newline="")
        assert [utterance.text for utterance in find_utterances(root)] == before


def test_sets_that_are_none(tmp_path: Path) -> None:
    for path, reason in ((tmp_path / "no", "there is no"), (tmp_path, "no set that is known")):
        with pytest.raises(DuologueError, match=reason):
            list(find_utterances(path))


def test_another_systems_words(tmp_path: Path) -> None:
    librispeech(tmp_path / "set")
    sound(tmp_path / "set/dev/1/2/1-2-0000.flac")
    (tmp_path / "set/dev/1/2/1-2.trans.txt").write_text("1-2-0000 THE END\n")
    (tmp_path / "words").mkdir()
    said = {"61-70968-0000": "He began.", "61-70968-0001": "the confused complaint"}
    lines = (json.dumps({"id": name, "text": text}) + "\n" for name, text in said.items())
    (tmp_path / "words/hypotheses.jsonl").write_text("".join(lines))
    report = asr_suite.run(outputs=tmp_path / "words", data=tmp_path / "set", out=tmp_path / "out", quiet=True)
    found = {entry["id"]: entry for entry in report["metrics"]}
    assert found["wer"]["value"] == pytest.approx(3 / 7), "one wrong word, and two that were not understood at all"
    parts = {name: part[0]["value"] for name, part in report["parts"].items()}
    assert parts == {"dev": 1.0, "test-clean": pytest.approx(1 / 5)}
    page = (tmp_path / "out/report.html").read_text()
    assert "<del>a</del>" in page and "<ins>the</ins>" in page and page.count("<audio") >= 2
    with pytest.raises(DuologueError, match="and not both"):
        asr_suite.run(out=tmp_path / "x", model="nano", outputs=tmp_path)


def test_words_are_measured_where_a_recording_cannot_be_read(tmp_path: Path) -> None:
    """The page has no player for it. A name that comes twice is refused: which words would count?"""
    librispeech(tmp_path / "set")
    (tmp_path / "set/test-clean/61/70968/61-70968-0001.flac").write_text("no recording")
    (tmp_path / "set/test-clean/61/70968/61-70968-0000.flac").unlink()
    (tmp_path / "words").mkdir()
    file = tmp_path / "words/hypotheses.jsonl"
    file.write_text(
        '{"id": "61-70968-0000", "text": "he began"}\n{"id": "61-70968-0001", "text": "a\u200b complaint"}\n'
    )
    report = asr_suite.run(outputs=tmp_path / "words", data=tmp_path / "set", out=tmp_path / "out", quiet=True)
    assert report["metrics"][0]["value"] == pytest.approx(1 / 5)
    file.write_text(2 * '{"id": "61-70968-0000", "text": "he began"}\n')
    with pytest.raises(DuologueError, match=r"line 2: the id '61-70968-0000' is there more than once"):
        asr_suite.run(outputs=tmp_path / "words", data=tmp_path / "set", out=tmp_path / "again", quiet=True)


def test_ours_and_a_broken_recording(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    librispeech(tmp_path / "set")
    (tmp_path / "set/test-clean/61/70968/61-70968-0001.flac").write_text("no recording")
    report = asr_suite.run(model=tiny_assistant(), data=tmp_path / "set", out=tmp_path / "out", beam=2, quiet=True)
    (row,) = [row for row in report["rows"] if not row["failed"]]
    assert row["greedy"] == HEARD and {entry["id"] for entry in report["metrics"]} == {
        "wer",
        "cer",
        "beam_wer",
        "beam_cer",
    }
    (broken,) = report["broken"]
    assert broken["id"] == "61-70968-0001" and "is not a recording" in broken["reason"]
    assert report["metrics"][0]["count"] == 1


def test_a_model_without_transcripts_is_asked_for_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Behind the speech, in writing; its reply is what it understood. No beam."""
    joined = brief(chat_assistant(speech=False))
    asked: list[str] = []
    original = SpeechLM.ask_about

    def ask_about(model: SpeechLM, ids: list[int], state: DialogueState) -> None:
        asked.append(joined.tokenizer.decode(ids))
        original(model, ids, state)

    monkeypatch.setattr(SpeechLM, "ask_about", ask_about)
    ours(tmp_path / "set")
    wanted = "Schreib auf, was du hörst."
    report = asr_suite.run(
        model=joined, data=tmp_path / "set", out=tmp_path / "out", instruction=wanted, language="de", quiet=True
    )
    assert asked == [wanted] and report["settings"]["instruction"] == wanted
    (row,) = report["rows"]
    wave = read_audio(tmp_path / "set/a/b.wav")
    assert row["greedy"] and row["greedy"] == transcribe(joined, wave, instruction=wanted)
    assert row["greedy"] != transcribe(joined, wave, instruction="What?"), "it is read"
    assert {metric["id"] for metric in report["metrics"]} == {"wer", "cer"}
    assert report["settings"]["normaliser"] == "basic"
    with pytest.raises(DuologueError, match="this model generates none: give beam=1"):
        transcribe(joined, wave, beam=2)


def test_a_context_is_weighed_against_none(tmp_path: Path) -> None:
    joined = brief(chat_assistant(speech=False))
    ours(tmp_path / "set")
    wave = read_audio(tmp_path / "set/a/b.wav")
    told = {"context": ["Paris", "the capital"], "joint": JointConfig(width=2, margin=math.inf)}
    report = asr_suite.run(model=joined, data=tmp_path / "set", out=tmp_path / "out", context="Paris, the capital",
                           beam=2, margin=math.inf, quiet=True)  # fmt: skip
    (row,) = report["rows"]
    assert row["greedy"] == transcribe(joined, wave) and row["beam"] == transcribe(joined, wave, **told)
    assert report["settings"]["context"] == "Paris, the capital" and "beam_wer" in str(report["metrics"])
    free = [transcribe(joined, wave, **told | {"context": text, "joint": JointConfig(width=1, alpha=0.0)})
            for text in ("Paris", "the assistant is late")]  # fmt: skip
    assert free == [transcribe(joined, wave)] * 2, "alpha=0: nothing was said"
    read = "Transcribe the speech. Context: Paris"
    assert transcribe(joined, wave, context="Paris") == transcribe(joined, wave, instruction=read) != row["greedy"]
    with pytest.raises(DuologueError, match="a context has no place: give hot words"):
        asr_suite.run(model=tiny_assistant(), data=tmp_path / "set", out=tmp_path / "no", context="Paris", quiet=True)


def test_a_language_without_spaces_is_measured_by_its_characters(tmp_path: Path) -> None:
    aishell(tmp_path / "set")
    (tmp_path / "words").mkdir()
    (tmp_path / "words/BAC009S0764W0121.txt").write_text("甚至 出线，交易。")
    report = asr_suite.run(
        outputs=tmp_path / "words", data=tmp_path / "set", out=tmp_path / "out", language="zh", quiet=True
    )
    assert [(metric["id"], metric["value"]) for metric in report["metrics"]] == [("cer", pytest.approx(1 / 6))]
    assert "<del>现</del>" in (tmp_path / "out/report.html").read_text()


def test_the_questions_of_a_file_are_said(tmp_path: Path) -> None:
    """All of them, whatever the split; and of the bundled set those of the test."""
    entries = [{"turns": [{"text": f"what is {word}", "reply": "no idea"}]} for word in ("this", "that", "it", "love")]
    (tmp_path / "mine.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    found = list(generated("espeak:en-us", 10, 0, None, str(tmp_path / "mine.jsonl")))
    assert [each.text for each in found] == ["what is this", "what is that", "what is it", "what is love"]
    assert [each.text for each in generated("espeak:en-us", 2, 0, None, str(tmp_path / "mine.jsonl"))] != found[:2]
    assert [each.text for each in generated("espeak:en-us", 3, 0, None, BUNDLED)] == [
        dialogue.question for dialogue in question_set(BUNDLED).distinct(0, 3, "test")
    ]
    assert is_question_file(tmp_path / "mine.jsonl")
    lhotse(tmp_path)
    assert not is_question_file(tmp_path / "cuts.jsonl.gz") and not is_question_file(tmp_path)


def test_recordings_of_ones_own_conversations(tmp_path: Path) -> None:
    """Those turns whose words are known, or a stretch of a longer recording."""
    sound(tmp_path / "talk.wav", 2.0)
    cut = {"audio": "talk.wav", "text": "Hello?", "start": 0.5, "end": 1.25}
    turns = [cut, {"text": "and you"}, {"audio": "talk.wav"}]
    (tmp_path / "turns.jsonl").write_text(json.dumps({"id": "c", "turns": turns}) + "\n")
    report = asr_suite.run(model=tiny_assistant(), data=tmp_path, out=tmp_path / "out", beam=1, quiet=True)
    assert [(row["id"], row["text"]) for row in report["rows"]] == [("c-0", "Hello?")] and not report["broken"]
    (utterance,) = recorded_turns(tmp_path)
    assert len(read_audio(utterance.sound())) == 12_000


def test_an_utterance_is_plain() -> None:
    assert Utterance(id="a", text="b", set="c", sound=lambda: "d").sound() == "d"
