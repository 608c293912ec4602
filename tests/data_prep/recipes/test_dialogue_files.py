"""One form of conversations from any source, with a prompt for each clip; what is written can be prepared."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from duologue.data_prep.audio import write_wav
from duologue.data_prep.datasets.conversations import read_conversations
from duologue.data_prep.datasets.question_sets import question_set
from duologue.data_prep.datasets.shards import ShardedDataset
from duologue.data_prep.prepare import main
from duologue.model.errors import DuologueError


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.fixture
def recordings(tmp_path: Path) -> Path:
    """A folder with a manifest: two clips with words, one of a sound."""
    folder = tmp_path / "set"
    folder.mkdir()
    for name in ("a.wav", "b.wav", "c.wav"):
        write_wav(folder / name, 0.1 * np.random.default_rng(0).standard_normal(8_000), 16_000)
    entries = [
        {"audio": "a.wav", "set": "x", "text": "Guten Tag!", "translation": "Good day!"},
        {"audio": "b.wav", "set": "x", "text": "It's 5 o'clock."},
        {"audio": "c.wav", "set": "esc10", "label": "dog bark"},
    ]
    (folder / "manifest.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    return folder


def test_recordings_become_turns_that_can_be_prepared(tmp_path: Path, recordings: Path) -> None:
    out = tmp_path / "deep" / "er" / "asr.jsonl"
    prompts = "Transcribe the speech.|Write down what is said."
    counts = main("dialogues", [f"source={recordings}", f"out={out}", f"instruction={prompts}"])
    assert counts == {"conversations": 2, "turns": 2, "left_out": 1}
    found = [row["turns"][0] for row in rows(out)]
    assert [(turn["text"], turn["reply"]) for turn in found] == [("Guten Tag!",) * 2, ("It's 5 o'clock.",) * 2]
    assert all(turn["instruction"] in prompts.split("|") for turn in found)
    assert [turn["audio"] for turn in found] == ["../../set/a.wav", "../../set/b.wav"]
    main("turns", [f"source={out}", f"out={tmp_path / 'data'}", "workers=1"])
    first, second = ShardedDataset(tmp_path / "data").metas
    assert (first["text"], first["answer"], first["voice"]) == ("Guten Tag!", "Guten Tag!", "own:recording")
    assert second["instruction"] == found[1]["instruction"] and second["spoken"] == "it is five oclock"


@pytest.mark.parametrize(
    ("reply", "wanted"), [("label", [None, "dog bark"]), ("translation", ["Guten Tag!", "Good day!"])]
)
def test_another_field_is_the_answer(reply: str, wanted: list[str | None], tmp_path: Path, recordings: Path) -> None:
    out = tmp_path / "sounds.jsonl"
    main("dialogues", [f"source={recordings}", f"out={out}", "instruction=What do you hear?", f"reply={reply}"])
    (row,) = rows(out)
    (turn,) = row["turns"]
    assert [turn.get("text"), turn["reply"]] == wanted and turn["instruction"] == "What do you hear?"
    main("turns", [f"source={out}", f"out={tmp_path / 'data'}", "workers=1"])
    (meta,) = ShardedDataset(tmp_path / "data").metas
    assert meta["text"] == (wanted[0] or "") and meta["answer"] == wanted[1]


def test_replies_are_said_as_statements(tmp_path: Path) -> None:
    """Each by itself; a turn without one gives nothing."""
    source, out = tmp_path / "chat.jsonl", tmp_path / "said.jsonl"
    turns = [{"text": "Who wrote it?", "reply": "Jane Austen did."}, {"text": "And then?"}]
    source.write_text(json.dumps({"id": "c", "turns": turns}) + "\n")
    assert main("dialogues", [f"source={source}", f"out={out}", "said=reply"]) == {"conversations": 1, "turns": 1}
    (row,) = rows(out)
    assert row["id"] == "c-0" and row["turns"] == [{"text": "Jane Austen did.", "respond": False}]
    assert read_conversations(out)[0].turns[0].respond is False


def test_asides_of_a_question_set(tmp_path: Path) -> None:
    """Different ones, none of which is to be answered or obeyed, of the split that is asked for."""
    out = tmp_path / "asides.jsonl"
    assert main("dialogues", ["source=nano", "said=aside", "n=50", f"out={out}"])["conversations"] == 50
    turns = [row["turns"][0] for row in rows(out)]
    known = [question_set("nano").aside(0, index, "train") for index in range(100)]
    assert all((turn["text"], "noise") in known and turn["respond"] is False for turn in turns)
    assert len({turn["text"] for turn in turns}) == 50


def test_rare_words_take_the_places_of_common_ones(tmp_path: Path) -> None:
    """Of long words alone; the reply goes, and what has no long word is left out."""
    source, words = tmp_path / "chat.jsonl", tmp_path / "names.txt"
    texts = [*(["who is the king of spain today"] * 40), "who is he"]
    entries = [{"id": str(at), "turns": [{"text": text, "reply": "Felipe."}]} for at, text in enumerate(texts)]
    source.write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    words.write_text("umbrella\n\n  Ada Lovelace \n")
    outs = [tmp_path / name for name in ("a.jsonl", "b.jsonl", "c.jsonl")]
    for out, seed in zip(outs, (0, 0, 1), strict=True):
        found = main("dialogues", [f"source={source}", f"out={out}", f"swap={words}", f"seed={seed}"])
        assert found == {"conversations": 40, "turns": 40}
    assert rows(outs[0]) == rows(outs[1]) != rows(outs[2])
    said = [row["turns"] for row in rows(outs[0])]
    assert all(turns.keys() == {"text"} for (turns,) in said)
    pattern = "who is the (king|umbrella|Ada Lovelace) of (spain|umbrella|Ada Lovelace) (today|umbrella|Ada Lovelace)"
    swapped = [sum(kept not in turn["text"] for kept in ("king", "spain", "today")) for (turn,) in said]
    assert all(re.fullmatch(pattern, turn["text"]) for (turn,) in said) and set(swapped) == {1, 2, 3}


def test_a_lhotse_cut_stays_a_part_of_its_recording(tmp_path: Path, recordings: Path) -> None:
    lhotse = pytest.importorskip("lhotse")
    recording = lhotse.Recording.from_file(recordings / "a.wav")
    said = [lhotse.SupervisionSegment(id="s", recording_id=recording.id, start=0, duration=0.25, text="Tag!")]
    cut = lhotse.MonoCut(id="cut", start=0.1, duration=0.25, channel=0, recording=recording, supervisions=said)
    lhotse.CutSet.from_cuts([cut]).to_file(tmp_path / "cuts.jsonl.gz")
    source = f"source={tmp_path / 'cuts.jsonl.gz'}"
    main("dialogues", [source, f"out={tmp_path / 'x.jsonl'}", "instruction=Transcribe."])
    (row,) = rows(tmp_path / "x.jsonl")
    assert row["turns"] == [
        {"audio": "set/a.wav", "start": 0.1, "end": 0.35, "text": "Tag!", "reply": "Tag!", "instruction": "Transcribe."}
    ]
    main("turns", [f"source={tmp_path / 'x.jsonl'}", f"out={tmp_path / 'data'}", "workers=1"])
    (clip,) = ShardedDataset(tmp_path / "data")
    assert len(clip.pcm) == 4_000 and clip.meta["text"] == "Tag!"


def test_a_question_set_is_drawn_with_its_history(tmp_path: Path) -> None:
    main("dialogues", ["source=nano", "n=60", "seed=3", "split=dev", f"out={tmp_path / 'nano.jsonl'}"])
    for index, found in enumerate(read_conversations(tmp_path / "nano.jsonl")):
        dialogue = question_set("nano").dialogue(3, index, "dev")
        *earlier, last = found.turns
        assert (last.text, last.reply, last.slot) == (dialogue.question, dialogue.answer, dialogue.slot)
        assert tuple((turn.text, turn.reply) for turn in earlier) == dialogue.history
    assert any(len(row["turns"]) == 2 for row in rows(tmp_path / "nano.jsonl"))


def test_conversations_stay_whole(tmp_path: Path) -> None:
    """Unless each clip is asked about by itself; then a system prompt stays, and what was said before goes."""
    said = [("system", "Be kind."), ("human", "Hi 😀"), ("gpt", "Hello!\n- you"), ("human", "Bye?"), ("gpt", "Bye.")]
    entry = {"conversations": [{"from": who, "value": text} for who, text in said]}
    (tmp_path / "s.json").write_text(json.dumps([entry] * 3))
    out = tmp_path / "out.jsonl"
    turns = [{"text": "Hi 😀", "reply": "Hello!\n- you"}, {"text": "Bye?", "reply": "Bye."}]
    assert main("dialogues", [f"source={tmp_path / 's.json'}", f"out={out}", "n=1"]) == {"conversations": 1, "turns": 2}
    assert rows(out) == [{"id": "000000", "system": "Be kind.", "turns": turns}]
    main("dialogues", [f"source={tmp_path / 's.json'}", f"out={out}", "n=1", "instruction=Answer.", "reply=reply"])
    assert [turn["instruction"] for turn in rows(out)[0]["turns"]] == ["Answer."] * 2
    main("dialogues", [f"source={tmp_path / 's.json'}", f"out={out}", "n=1", "instruction=Repeat."])
    assert rows(out) == [
        {"id": f"000000-{at}", "system": "Be kind.", "turns": [{"text": text, "reply": text, "instruction": "Repeat."}]}
        for at, text in enumerate(("Hi 😀", "Bye?"))
    ]


MESSAGES = st.lists(st.tuples(st.sampled_from(["system", "human", "gpt", "tool"]), st.text(max_size=8)), max_size=6)
ALPACA = st.fixed_dictionaries({key: st.text(max_size=8) for key in ("instruction", "input", "output")})


@given(said=st.lists(MESSAGES, max_size=3), alpaca=st.lists(ALPACA, max_size=3))
def test_what_is_written_is_what_was_read(
    said: list[list[tuple[str, str]]], alpaca: list[dict[str, str]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.getbasetemp()
    entries = [{"conversations": [{"from": who, "value": text} for who, text in one]} for one in said]
    first = {"instruction": "\ud83d", "output": "b"}
    (folder / "source.json").write_text(json.dumps([first, *entries, *alpaca]))
    (folder / "made.jsonl").unlink(missing_ok=True)
    main("dialogues", [f"source={folder / 'source.json'}", f"out={folder / 'made.jsonl'}"])
    wanted = [one for one in read_conversations(folder / "source.json") if one.turns]
    assert read_conversations(folder / "made.jsonl") == wanted and wanted[0].turns[0].text == "\ud83d"


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        (["source=nano"], "source=nano: how many dialogues are to be drawn"),
        (["source=x"], "no such file or folder: x"),
        (["source=set", "instruction= |"], "expected a prompt, or several"),
        (["source=set", "split=dawn"], "split=dawn: expected one of train, dev, test"),
        (["source=set", "instruction=a", "reply=mood"], "set has no clip with the field 'mood'"),
        (["source=set", "n=-1"], "n=-1: expected at least 0"),
        (["source=set", "said=reply"], "set has no clip with the field 'reply'"),
        (["source=set", "said=label"], "said=label: expected text, reply or aside"),
        (["source=set", "said=aside"], "said=aside is for question sets, and set is none"),
        (["source=set", "said=reply", "reply=text"], "statements, which have no answer"),
        (["source=set", "swap=none.txt"], "swap=none.txt cannot be read as UTF-8 text"),
        (["source=set", "swap=set/manifest.jsonl", "reply=label"], "swap= changes what is said, which no reply fits"),
    ],
)
def test_wrong_settings(
    settings: list[str], complaint: str, tmp_path: Path, recordings: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DuologueError, match=complaint):
        main("dialogues", [*settings, "out=y.jsonl"])
    assert not (tmp_path / "y.jsonl").exists()


QUESTIONS = """set\tsplit\tintent\ttext
a\ttrain\tx\tWhat is "it"?
a\ttest\tx\twhat  IS red

b\ttrain\ty\tWhat is red
b\tval\ty\tWhere is it?
c\ttrain\ty\tWhat is blue
"""


@pytest.mark.parametrize(
    ("settings", "wanted"),
    [
        ([], ['What is "it"?', "what  IS red", "What is red", "Where is it?", "What is blue"]),
        (["where=split=train"], ['What is "it"?', "What is red", "What is blue"]),
        (["where=split=train set=b,c", "without=split=test,val"], ["What is blue"]),
        (["where=set=a,b", "n=2"], ['What is "it"?', "what  IS red"]),
    ],
)
def test_rows_of_a_table(settings: list[str], wanted: list[str], tmp_path: Path) -> None:
    (tmp_path / "q.tsv").write_text(QUESTIONS)
    main("dialogues", [f"source={tmp_path / 'q.tsv'}", f"out={tmp_path / 'out.jsonl'}", *settings])
    assert [row["turns"] for row in rows(tmp_path / "out.jsonl")] == [[{"text": text}] for text in wanted]
    main("dialogues", [f"source={tmp_path / 'q.tsv'}", f"out={tmp_path / 'more.jsonl'}", *settings, "shuffle=1"])
    shuffled = [row["turns"][0]["text"] for row in rows(tmp_path / "more.jsonl")]
    assert len(shuffled) == len(wanted) and (set(shuffled) == set(wanted) or settings[-1] == "n=2")


def test_columns_with_a_meaning(tmp_path: Path) -> None:
    table = "id\treply\tslot\tsystem\ttext\nq7\tParis.\tParis|Rome\tBe kind.\tCapital?\nq8\t\t\t\tHello\n"
    (tmp_path / "q.tsv").write_text(table)
    main("dialogues", [f"source={tmp_path / 'q.tsv'}", f"out={tmp_path / 'out.jsonl'}"])
    assert rows(tmp_path / "out.jsonl") == [
        {"id": "q7", "system": "Be kind.", "turns": [{"text": "Capital?", "reply": "Paris.", "slot": "Paris|Rome"}]},
        {"id": "q8", "turns": [{"text": "Hello"}]},
    ]


def test_a_set_of_recordings_by_its_columns(tmp_path: Path, recordings: Path) -> None:
    main("dialogues", [f"source={recordings}", f"out={tmp_path / 'out.jsonl'}", "where=set=esc10", "reply=label"])
    assert [row["turns"][0]["reply"] for row in rows(tmp_path / "out.jsonl")] == ["dog bark"]


@pytest.mark.parametrize(
    ("table", "settings", "complaint"),
    [
        ("set\tsaid\na\tb\n", [], r"line 1: expected names of columns, 'text' among them"),
        ("text\ttext\na\tb\n", [], "each once"),
        ("", [], "line 1: expected names of columns"),
        ("text\tset\nHello\n", [], "line 2 has 1 cells, and the first line 2 columns"),
        ("text\tset\n\tb\n", [], "has no row with a text"),
        ("text\tset\nHello\tb\n", ["where=set=c"], "has nothing where set=c"),
        ("text\tset\nHello\tb\n", ["where=set"], r"where=set: expected COLUMN=VALUE\[,VALUE\]"),
    ],
)
def test_a_table_that_is_none(table: str, settings: list[str], complaint: str, tmp_path: Path) -> None:
    (tmp_path / "q.tsv").write_text(table)
    with pytest.raises(DuologueError, match=complaint):
        main("dialogues", [f"source={tmp_path / 'q.tsv'}", f"out={tmp_path / 'out.jsonl'}", *settings])
    assert not (tmp_path / "out.jsonl").exists()
    with pytest.raises(DuologueError, match="where and without are for tables"):
        main("dialogues", ["source=nano", "n=1", f"out={tmp_path / 'out.jsonl'}", "where=split=train"])
