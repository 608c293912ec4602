"""No letter is lost in silence: every reader of texts gives back what was written, or one line that names the place."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from duologue.checkpoints.files import texts_by_id
from duologue.data_prep.datasets.conversations import read_conversations
from duologue.data_prep.datasets.recordings import Part, describe, read_manifest
from duologue.data_prep.datasets.shards import Clip, ShardedDataset, ShardWriter
from duologue.data_prep.datasets.speech_sets import find_utterances
from duologue.data_prep.recipes.recordings import Config as RecordingsConfig
from duologue.data_prep.recipes.recordings import run as prepare
from duologue.data_prep.text.journal import Journal
from duologue.data_prep.text.plain_text import heard, plain
from duologue.data_prep.text.spoken import ALPHABET, normalise
from duologue.inference.assistant.text_stream import ids_of
from duologue.inference.evaluation.inputs import foreign
from duologue.inference.evaluation.inputs.hypotheses import texts_in
from duologue.inference.evaluation.metrics.words import word_errors
from duologue.inference.evaluation.report import run_folder
from duologue.inference.evaluation.suites import audio_analysis as audio_analysis_suite
from duologue.inference.evaluation.suites import voicebench as voicebench_suite
from duologue.model.errors import DuologueError
from duologue.model.tokens import TokenLayout
from duologue.training.data.characters import labels_of

# A reader: what stands in its file for a text, the file's name, and how the text is got back. Texts have no line ends.
Reader = tuple[str, Callable[[str], str], Callable[[Path], str | None]]


def line(**fields: object) -> Callable[[str], str]:
    """A JSON line in which the field that is Ellipsis is the text; a blank line before it, and one behind."""
    return lambda text: (
        "\n" + json.dumps({k: text if v is ... else v for k, v in fields.items()}, ensure_ascii=False) + "\n\n"
    )


def utterance(folder: Path) -> str | None:
    return next((found.text for found in find_utterances(folder)), None)


def of_turns(folder: Path) -> str | None:
    return read_conversations(folder)[0].turns[0].text


def of_instructions(folder: Path) -> str | None:
    return read_conversations(folder / "f.json")[0].turns[0].reply


READERS: dict[str, Reader] = {
    "recordings": ("manifest.jsonl", line(audio="a.wav", set="s", text=...), lambda f: read_manifest(f)[0]["text"]),
    "turns": ("turns.jsonl", lambda text: json.dumps({"turns": [{"text": text}]}, ensure_ascii=False), of_turns),
    "alpaca, lines": ("f.json", line(instruction="a", output=...), of_instructions),
    "alpaca, an array": ("f.json", lambda text: f"[{line(instruction='a', output=...)(text)}]", of_instructions),
    "sharegpt": ("f.json", lambda text: json.dumps({"messages": [{"role": "user", "content": "a"}, {"role": "assistant",
                 "content": text}]}, ensure_ascii=False), of_instructions),
    "our sets": ("manifest.jsonl", line(audio="a.wav", text=...), utterance),
    "librispeech": ("a/b/c.trans.txt", lambda text: f"x-1 {text}\nx-2 next\n", utterance),
    "fleurs": ("test.tsv", lambda text: f"1\ta.wav\traw\t{text}\tmore\n", utterance),
    "hypotheses": ("hypotheses.jsonl", line(id="a", text=...), lambda f: texts_in(f)("a")),
    "hypothesis": ("a.wav.txt", lambda text: text + "\n", lambda f: texts_in(f)("a.wav")),
    "replies": ("manifest.jsonl", line(id="a", reply=...), lambda f: foreign.read_entries(f)[0]["reply"]),
    "reply": ("a.txt", lambda text: text, lambda f: foreign.read_entries(f)[0]["reply"]),
    "responses": ("r.jsonl", line(id=7, response=...), lambda f: texts_by_id(f / "r.jsonl", "response")["7"]),
    "labels": ("manifest.jsonl", line(audio="a", label=...),
               lambda f: audio_analysis_suite.read_entries(f)[1][0]["answer"]),
}  # fmt: skip
TEXT = st.text(st.characters(exclude_characters="\n\r\0\t", exclude_categories=("Cs",)), min_size=1, max_size=20)
LONG_LIVED = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def written(folder: Path, name: str, text: str, encoding: str = "utf-8") -> Callable[[Path], str | None]:
    file, content, read = READERS[name]
    (folder / file).parent.mkdir(parents=True, exist_ok=True)
    (folder / file).write_bytes(content(text).encode(encoding))
    (folder / "a.wav").touch()
    return read


def same(a: str | None, b: str) -> bool:
    """Spaces aside: they are no letters, and some forms join what stands apart."""
    return (a or "").split() == b.split()


@pytest.mark.parametrize("name", READERS)
@LONG_LIVED
@given(text=TEXT.filter(lambda text: text.strip() and text.strip("\ufeff") == text))
def test_what_is_written_is_read(name: str, text: str, tmp_path: Path) -> None:
    assert same(written(tmp_path, name, text)(tmp_path), text)


@pytest.mark.parametrize("name", READERS)
def test_lines_end_at_a_line_feed_alone_and_marks_are_taken(name: str, tmp_path: Path) -> None:
    text = "Café\u2028naïve\u2029x\x85y\x0bz\x0c😀"
    for encoding in ("utf-8", "utf-8-sig", "utf-16"):
        assert same(written(tmp_path, name, text, encoding)(tmp_path), text), encoding
    read = written(tmp_path, name, text)
    file = tmp_path / READERS[name][0]
    file.write_bytes(file.read_bytes().replace(b"\n", b"\r\n"))
    assert same(read(tmp_path), text)


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize("encoding", ["latin-1", "utf-16-le"])
def test_another_encoding_is_one_line_that_names_the_file(name: str, encoding: str, tmp_path: Path) -> None:
    read = written(tmp_path, name, "café", encoding)
    with pytest.raises(DuologueError, match=rf"^{tmp_path}/{READERS[name][0]} is no[^\n]*byte \d+ is [^\n]+$"):
        read(tmp_path)


@pytest.mark.parametrize("name", [name for name, (file, *_) in READERS.items() if file.endswith((".jsonl", ".json"))])
@pytest.mark.parametrize("value", [7, 1.5, True, ["a"], {"a": "b"}])
def test_a_number_for_a_text_is_one_line_that_names_the_place(name: str, value: object, tmp_path: Path) -> None:
    file, content, read = READERS[name]
    (tmp_path / file).write_text(content("HERE").replace('"HERE"', json.dumps(value)), encoding="utf-8")
    with pytest.raises(
        DuologueError, match=rf"^{tmp_path}/{file}, (line|entry) \d[^\n]*(text|reply|output|response|answer|content)"
    ):
        read(tmp_path)


@pytest.mark.parametrize("name", ["recordings", "our sets", "hypotheses", "responses"])
def test_null_for_a_text_is_one_line_that_names_the_place(name: str, tmp_path: Path) -> None:
    file, content, read = READERS[name]
    (tmp_path / file).write_text(content("HERE").replace('"HERE"', "null"), encoding="utf-8")
    with pytest.raises(DuologueError, match=rf"^{tmp_path}/{file}, line 2: the field '\w+' is None, and must be text$"):
        read(tmp_path)


def test_shards_keep_every_character(tmp_path: Path) -> None:
    texts = ["a\u2028b\x85c", "Café 你好", "half \ud83d", "\ufeffmark"]
    writer = ShardWriter(tmp_path, name="x", sample_rate=8000, seed=0, parameters={})
    pcm = np.zeros(8, np.int16)
    writer.write(0, [Clip(pcm, {"id": str(at), "text": text, "voice": "v"}) for at, text in enumerate(texts)])
    assert [meta["text"] for meta in ShardedDataset(tmp_path).metas] == texts


def test_answers_of_an_endpoint_keep_every_character(tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    for at, text in enumerate(texts := ["a\u2028b", "half \ud83d", "你好"]):
        Journal(journal).add({str(at): text})
    journal.write_bytes(b"\xef\xbb\xbf" + journal.read_bytes() + b"\n" + b'{"key": "9", "answer": "caf')
    assert [Journal(journal)[str(at)] for at in range(len(texts))] == texts


def test_a_run_that_broke_off_within_a_letter_goes_on(tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_bytes('{"id": "0", "text": "é\u2028"}\n{"id": "1", "text": "é'.encode()[:-1])
    found = run_folder.resume_rows(rows, "t", "ab", lambda at, _: {"id": str(at), "text": "\ud83d"}, True)
    assert [row["text"] for row in found] == ["é\u2028", "\ud83d"]
    assert run_folder.resume_rows(rows, "t", "ab", lambda *_: pytest.fail("again"), True) == found


# Labels


def recordings(folder: Path, texts: list[str]) -> Path:
    import soundfile

    wave = np.random.default_rng(0).normal(0, 0.1, 4000)
    for at in range(len(texts)):
        soundfile.write(folder / f"{at}.wav", wave, 8000)
    rows = [json.dumps({"audio": f"{at}.wav", "set": "mine", "text": text}) for at, text in enumerate(texts)]
    (folder / "manifest.jsonl").write_text("\n".join(rows), encoding="utf-8")
    return folder


def test_a_label_is_what_was_written_or_the_clip_is_listed(tmp_path: Path) -> None:
    texts = [
        "Café naïve",
        "Привет",
        "你好",
        "it costs $5",
        "½ cup",
        "5 − 3",
        "don't",
        "half \ud83d",
        "12345",
        "x-ray",
        "…",
    ]
    (tmp_path / "source").mkdir()
    counts = prepare(RecordingsConfig(source=str(recordings(tmp_path / "source", texts)), out=str(tmp_path / "out")))
    metas = ShardedDataset(tmp_path / "out").metas
    assert all(meta["text"] == texts[int(meta["id"].partition(".")[0])] for meta in metas)
    found = {meta["id"]: meta["spoken"] for meta in metas}
    assert found == {"0.wav": "cafe naive", "5.wav": "five minus three", "6.wav": "dont", "9.wav": "x ray"}
    failed = [json.loads(one) for one in (tmp_path / "out" / "failed.jsonl").read_text().split("\n")[:-1]]
    assert counts["failed"] == len(failed) == 7 and all(row["reason"].startswith("text '") for row in failed)
    assert "'п', which is not said" in next(row["reason"] for row in failed if row["id"] == "1.wav")


def test_a_codec_asks_for_no_words_and_keeps_them() -> None:
    assert describe({"audio": "a", "set": "s", "text": "Привет"}, Part.SPEECH)["text"] == "Привет"
    assert "spoken" not in describe({"audio": "a", "set": "s", "text": "Привет"}, Part.SPEECH)
    assert describe({"audio": "a", "set": "s", "text": "Café"}, Part.SPEECH)["spoken"] == "cafe"
    assert describe({"audio": "a", "set": "s", "text": "a", "speaker": 7}, Part.SPEECH)["voice"] == "s:7"


@given(text=st.text(max_size=30))
def test_letters_become_words_or_an_error(text: str) -> None:
    """As many letters and digits as there were, at least; what is no letter of ours stays for a scorer to see."""
    kept = normalise(text)
    strange = [letter for letter in text if letter.isalpha() and not letter.isascii()]
    for say in (heard, plain):
        try:
            assert set(say(text)) <= ALPHABET
        except DuologueError as error:
            assert "\n" not in str(error)
    letters = [letter for letter in text.lower() if letter.isascii() and letter.isalpha()]
    rest = iter(kept)
    assert all(letter in rest for letter in letters), "a letter is lost, or moved"
    assert not strange or kept, "letters of another script vanish"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Café naïve", "cafe naive"), ("STRASSE straße", "strasse strasse"),
        ("Ærø, Łódź, İstanbul", "aero lodz istanbul"),
        ("e\u0301te\u0301", "ete"), ("ﬁne Ｗｉｄｅ 𝐇i", "fine wide hi"), ("co\u00adop\u200bs", "coops"),
        ("Привет, мой", "привет мой"), ("你好。", "你好"), ("12345 and 5²", "12345 and five ²"),
        ("50% & 2=2", "fifty percent and two equals two"),
        ("a\u2028b\x85c", "a b c"),
    ],
)  # fmt: skip
def test_normalise_folds_or_keeps(text: str, words: str) -> None:
    assert normalise(text) == words


def test_both_sides_of_a_score_go_through_the_same() -> None:
    assert word_errors(["cafe naive"], ["Café naïve"]).errors == 0
    assert word_errors([""], ["你好"]).errors == 1 and word_errors(["привет"], ["Привет!"]).errors == 0


def test_what_is_no_label_ends_the_run_instead_of_being_left_out() -> None:
    assert labels_of(["ab", "it's"])[1].tolist() == [2, 4]
    with pytest.raises(DuologueError, match="the text 'Café' has 'C'"):
        labels_of(["Café"])


def test_a_typed_text_of_half_a_pair_is_refused() -> None:
    layout = TokenLayout(bos=0, eos=1, pad=2, text=(3, 10), units=0)
    with pytest.raises(DuologueError, match="half a surrogate pair"):
        ids_of(None, layout, "what is \ud83d")
    with pytest.raises(DuologueError, match="a text is a str, not bytes"):
        ids_of(None, layout, b"what is two")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("subset", "fields"),
    [
        ("openbookqa", {"reference": None}), ("bbh", {"reference": ""}), ("sd-qa", {"reference": ""}),
        ("ifeval", {"instruction_id_list": ["punctuation:no_comma"], "kwargs": None}),
        ("ifeval", {"instruction_id_list": ["punctuation:no_comma"], "kwargs": []}),
        ("ifeval", {"instruction_id_list": [3], "kwargs": [{}]}),
        ("ifeval", {"instruction_id_list": ["length_constraints:number_words"], "kwargs": ["x"]}),
        ("ifeval", {"instruction_id_list": ["length_constraints:number_words"], "kwargs": [{"num_words": "x"}]}),
        ("ifeval", {"instruction_id_list": ["keywords:existence"], "kwargs": [{}]}),
    ],
)  # fmt: skip
def test_an_entry_that_cannot_be_scored_is_a_broken_one(subset: str, fields: dict, tmp_path: Path) -> None:
    """And neither a wrong answer nor the end of the run."""
    good = {"id": 1, "prompt": "p", "response": "A.", "reference": "A", "instruction_id_list": [], "kwargs": []}
    (tmp_path / "data").mkdir()
    entries = [good, good | {"id": 2} | fields]
    (tmp_path / f"data/x-{subset}.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    report = voicebench_suite.run(data=tmp_path / "data", out=tmp_path / "out", quiet=True)
    assert [bool(row["failed"]) for row in report["rows"]] == [False, True]


@pytest.mark.parametrize("choices", [None, "dog", 3])
def test_choices_that_are_none(choices: object, tmp_path: Path) -> None:
    entry = {"audio_id": "a", "question": "q", "choices": choices, "answer": "dog"}
    (tmp_path / "f.json").write_text(json.dumps([entry]))
    with pytest.raises(DuologueError, match=r"f\.json, entry 1: its choices are .* must be a list"):
        audio_analysis_suite.read_entries(tmp_path / "f.json")
    (tmp_path / "f.json").write_text(json.dumps([entry | {"choices": [1, 2], "model_output": "dog"}]))
    report = audio_analysis_suite.run(data=tmp_path / "f.json", out=tmp_path / "out", quiet=True)
    assert report["metrics"][0]["value"] == 1.0


def test_a_benchmarks_file_with_a_line_separator_is_scored(tmp_path: Path) -> None:
    rows = [{"prompt": "a\u2028b", "response": "The answer is B.", "reference": "B"}]
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "x-openbookqa-test-audio.jsonl").write_text(
        "\n".join(json.dumps(r, ensure_ascii=False) for r in rows)
    )
    report = voicebench_suite.run(data=tmp_path / "data", out=tmp_path / "out", quiet=True)
    assert report["rows"][0]["measures"]["choice"] == [True, 1] and report["rows"][0]["prompt"] == "a\u2028b"
