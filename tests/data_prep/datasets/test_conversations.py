"""Conversations from files: all forms give one list, and what is wrong is named by its place."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from duologue.checkpoints.files import write_json_lines
from duologue.data_prep.audio import write_wav
from duologue.data_prep.datasets.conversations import (
    WrittenConversation,
    WrittenTurn,
    entry_of,
    read_conversations,
)
from duologue.model.errors import DuologueError

ALPACA = [
    {"instruction": "Name a colour.", "input": "", "output": "Blue.", "text": "### Instruction: …"},
    {"instruction": "Add these:", "input": "two\nand three", "output": "Five."},
    {"instruction": "Sing", "output": ""},
]
SHAREGPT = [
    {
        "id": "a",
        "conversations": [
            {"from": "system", "value": "Be kind."},
            {"from": "gpt", "value": "Hello!"},
            {"from": "human", "value": "Hi."},
            {"from": "human", "value": "Who are you?"},
            {"from": "gpt", "value": "A model."},
            {"from": "gpt", "value": "Indeed."},
            {"from": "human", "value": "Bye."},
        ],
    },
    {"messages": [{"role": "user", "content": "Yes?"}, {"role": "assistant", "content": "No."}]},
]


def write(path: Path, objects: list[Any], lines: bool) -> Path:
    path.write_text("\n".join(map(json.dumps, objects)) if lines else json.dumps(objects, indent=1))
    return path


@pytest.mark.parametrize("lines", [False, True])
def test_alpaca(tmp_path: Path, lines: bool) -> None:
    assert read_conversations(write(tmp_path / "a", ALPACA, lines)) == [
        WrittenConversation(id="000000", turns=(WrittenTurn(text="Name a colour.", reply="Blue."),)),
        WrittenConversation(id="000001", turns=(WrittenTurn(text="Add these:\ntwo\nand three", reply="Five."),)),
        WrittenConversation(id="000002", turns=(WrittenTurn(text="Sing"),)),
    ]


@pytest.mark.parametrize("lines", [False, True])
def test_sharegpt(tmp_path: Path, lines: bool) -> None:
    assert read_conversations(write(tmp_path / "s", SHAREGPT, lines)) == [
        WrittenConversation(
            id="000000",
            system="Be kind.",
            turns=(WrittenTurn(text="Hi.\nWho are you?", reply="A model."), WrittenTurn(text="Bye.")),
        ),
        WrittenConversation(id="000001", turns=(WrittenTurn(text="Yes?", reply="No."),)),
    ]


def test_our_own_form(tmp_path: Path) -> None:
    turns = [{"audio": "a.wav", "text": "Hi", "reply": "Yes", "reply_audio": "b.wav", "slot": "yes"}, {"text": "Why?"}]
    write(tmp_path / "turns.jsonl", [{"id": 7, "turns": turns}, {"turns": [{"audio": "c.wav"}]}], lines=True)
    assert read_conversations(tmp_path) == [
        WrittenConversation(id="7", turns=(WrittenTurn(**turns[0]), WrittenTurn(text="Why?"))),
        WrittenConversation(id="000001", turns=(WrittenTurn(audio="c.wav"),)),
    ]
    assert read_conversations(tmp_path / "turns.jsonl") == read_conversations(tmp_path)


def test_what_a_model_called_tools_for_is_no_answer(tmp_path: Path) -> None:
    said = [("system", "Be brief."), ("user", "Rain?"), ("assistant", None), ("tool", "no"), ("assistant", "No.")]
    rows = [{"messages": [{"role": who, "content": text} for who, text in said]}]
    (found,) = read_conversations(write(tmp_path / "t", rows, lines=True))
    assert (found.system, found.turns) == ("Be brief.", (WrittenTurn(text="Rain?", reply="No."),))


TEXTS = st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=20).filter(str.strip)
TURNS = st.builds(
    WrittenTurn, text=TEXTS, audio=st.none() | TEXTS, instruction=st.none() | TEXTS, reply=st.none() | TEXTS
) | st.builds(
    WrittenTurn, audio=TEXTS, start=st.none() | st.floats(0, 9), end=st.floats(10, 99), channel=st.none() | st.just(1),
    respond=st.just(False),
)  # fmt: skip


@given(turns=st.lists(TURNS, min_size=1, max_size=3), system=st.none() | TEXTS)
def test_what_is_written_is_read(turns: list[WrittenTurn], system: str | None, tmp_path_factory: Any) -> None:
    file = tmp_path_factory.getbasetemp() / "written.jsonl"
    conversation = WrittenConversation(id="a", turns=tuple(turns), system=system)
    write_json_lines(file, [entry_of(conversation)])
    assert read_conversations(file) == [conversation]


def test_recordings(tmp_path: Path) -> None:
    """A manifest's entries are turns, whatever else it says of them; a lhotse cut is a part of its recording."""
    lhotse = pytest.importorskip("lhotse")
    for name in ("a.wav", "b.wav"):
        write_wav(tmp_path / name, 0.1 * np.random.default_rng(0).standard_normal(32_000), 16_000)
    entries = [{"audio": "a.wav", "text": "Wie heißt du?", "set": "x", "translation": "What's your name?"},
               {"audio": "b.wav", "set": "x", "label": "dog"}]  # fmt: skip
    (tmp_path / "manifest.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    (first,), (second,) = (one.turns for one in read_conversations(tmp_path))
    assert (first.text, first.audio, first.fields["translation"]) == ("Wie heißt du?", "a.wav", "What's your name?")
    assert (second.text, second.audio, second.fields["label"]) == (None, "b.wav", "dog")
    (tmp_path / "sets").mkdir()
    recordings = [lhotse.Recording.from_file(tmp_path / name) for name in ("a.wav", "b.wav")]
    segments = [("a", 0.0, 0.5, "One."), ("a", 0.5, 1.5, "Two."), ("b", 0.0, 2.0, "Drei.")]
    supervisions = [
        lhotse.SupervisionSegment(
            id=f"s{at}", recording_id=of, start=start, duration=length, text=text, custom={"mood": "glad"}
        )
        for at, (of, start, length, text) in enumerate(segments)
    ]
    lhotse.RecordingSet.from_recordings(recordings).to_file(tmp_path / "sets/x_recordings_dev.jsonl.gz")
    lhotse.SupervisionSet.from_segments(supervisions).to_file(tmp_path / "sets/x_supervisions_dev.jsonl.gz")
    turns = [one.turns[0] for one in read_conversations(tmp_path / "sets")]
    assert [turn.text for turn in turns] == ["One.", "Two.", "Drei."]
    assert [(turn.start, turn.end) for turn in turns] == [(None, 0.5), (0.5, 2.0), (None, None)]
    assert [turn.audio for turn in turns] == [str(tmp_path / name) for name in ("a.wav", "a.wav", "b.wav")]
    assert turns[0].fields["mood"] == "glad"


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ('{"turns": [{"text": "a", "answer": "b"}]}', "line 2, turn 1: unknown key 'answer': expected text, audio,"),
        ('{"turns": [{"text": "a"}], "voice": 1}', "line 2: unknown key 'voice': expected id, system, turns"),
        ('{"turns": []}', "line 2: expected 'turns'"),
        ('{"id": "b"}', "line 2: expected 'instruction'.*or 'turns', found 'id'"),
        ('{"turns": [{"text": "a"}], "system": 3}', "line 2: 'system' is 3, expected text"),
        ('{"turns": [{"text": "a", "respond": "no"}]}', "line 2, turn 1: 'respond' is 'no', expected true or false"),
        ('{"turns": [{"text": "a", "respond": false, "reply": "b"}]}', "it has a 'reply', and 'respond' says"),
        ('{"turns": [{"text": "a", "start": 1}]}', "line 2, turn 1: start without 'audio'"),
        ('{"turns": [{"audio": "a", "end": -1}]}', "line 2, turn 1: 'end' is -1, expected a number from 0"),
        ('{"turns": [{"audio": "a", "channel": 0.5}]}', "line 2, turn 1: 'channel' is 0.5, expected a number"),
        ('{"turns": [{"audio": "a", "start": 2, "end": 2}]}', "'end' is 2, and 'start' 2: expected start < end"),
        ('{"turns": [{"text": "a", "instruction": ""}]}', "line 2, turn 1: 'instruction' is ''"),
        ('{"turns": ["a"]}', "line 2, turn 1: expected a JSON object, found str"),
        ('{"turns": [{"reply": "a"}]}', "line 2, turn 1: expected 'text' or 'audio'"),
        ('{"turns": [{"text": 3}]}', "line 2, turn 1: 'text' is 3, expected text"),
        ('{"turns": [{"text": " "}]}', "line 2, turn 1: 'text' is ' '"),
        ('{"turns": [{"text": "a", "reply_audio": "b.wav"}]}', "line 2, turn 1: 'reply_audio' without 'reply'"),
        ('{"id": "a", "turns": [{"text": "a"}]}', "the id 'a' more than once"),
        ("[1]", "line 2: expected a JSON object, found list"),
        ("{", "line 2 is not JSON"),
    ],
)
def test_a_wrong_line_is_named(tmp_path: Path, line: str, complaint: str) -> None:
    (tmp_path / "turns.jsonl").write_text('{"id": "a", "turns": [{"text": "hello"}]}\n' + line + "\n")
    with pytest.raises(DuologueError, match=complaint) as caught:
        read_conversations(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "is empty"),
        ("[]", "is empty"),
        ('[{"instruction": "a"},\n{"instruction" "b"}]', "line 2 is not JSON"),
        ('[{"question": "a"}]', "entry 1: expected 'instruction' .Alpaca.*found 'question'"),
        ('[{"instruction": ["a"]}]', "entry 1: 'instruction' is"),
        ('{"conversations": {}}', "line 1: 'conversations' is no list"),
        ('{"conversations": [{"role": "user"}]}', "line 1, message 1: expected an object with 'from' and 'value'"),
        ('{"messages": [{"role": "user", "content": []}]}', "message 1: 'content' is"),
        (b'{"instruction": "\xff"}', "is not UTF-8: byte 17"),
    ],
)
def test_a_wrong_file_is_named(tmp_path: Path, text: str | bytes, complaint: str) -> None:
    (tmp_path / "f").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(DuologueError, match=complaint) as caught:
        read_conversations(tmp_path / "f")
    assert "\n" not in str(caught.value)


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(DuologueError, match=r"has no turns\.jsonl and is no set that is known: a lhotse manifest"):
        read_conversations(tmp_path)
    with pytest.raises(DuologueError, match="no such file or folder"):
        read_conversations(tmp_path / "x.json")


HISTORY = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hi."},
           {"role": "assistant", "content": "Hello!"}, {"role": "user", "content": "Who are you?"}]  # fmt: skip


@pytest.mark.parametrize("whole", [False, True])
def test_preferences(tmp_path: Path, whole: bool) -> None:
    """Of texts, of messages behind a prompt, and of whole conversations."""
    sides = {key: [{"role": "assistant", "content": text}] for key, text in (("chosen", "Me."), ("rejected", "You."))}
    long = {key: HISTORY + side for key, side in sides.items()} if whole else {"prompt": HISTORY, **sides}
    rows = [long, {"prompt": "One?", "chosen": "1", "rejected": "2", "score": 4}]
    rows.append({"prompt": "a", "chosen": "b", "rejected": "b"})
    assert read_conversations(write(tmp_path / "p", rows, True)) == [
        WrittenConversation(id="000000", system="Be kind.", turns=(
            WrittenTurn(text="Hi.", reply="Hello!"), WrittenTurn(text="Who are you?", reply="Me.", rejected=("You.",)),
        )),
        WrittenConversation(id="000001", turns=(WrittenTurn(text="One?", reply="1", rejected=("2",)),)),
        WrittenConversation(id="000002", turns=(WrittenTurn(text="a", reply="b"),)),
    ]  # fmt: skip
    with pytest.raises(DuologueError, match="line 1: 'chosen' and 'rejected' must end in answers to the same question"):
        read_conversations(write(tmp_path / "q", [{"prompt": "One?", "chosen": "1"}], True))
    with pytest.raises(DuologueError, match="'rejected' is 7, expected text"):
        read_conversations(write(tmp_path / "q", [{"prompt": "One?", "chosen": "1", "rejected": 7}], True))
