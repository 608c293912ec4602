"""Conversations from files: three forms give one list, and what is wrong is named by its place."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from duologue.data_prep.datasets.conversations import WrittenConversation, WrittenTurn, read_instructions, read_turns
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
    assert read_instructions(write(tmp_path / "a", ALPACA, lines)) == [
        WrittenConversation(id="000000", turns=(WrittenTurn(text="Name a colour.", reply="Blue."),)),
        WrittenConversation(id="000001", turns=(WrittenTurn(text="Add these: two and three", reply="Five."),)),
        WrittenConversation(id="000002", turns=(WrittenTurn(text="Sing"),)),
    ]


@pytest.mark.parametrize("lines", [False, True])
def test_sharegpt(tmp_path: Path, lines: bool) -> None:
    assert read_instructions(write(tmp_path / "s", SHAREGPT, lines)) == [
        WrittenConversation(
            id="000000", turns=(WrittenTurn(text="Hi. Who are you?", reply="A model."), WrittenTurn(text="Bye."))
        ),
        WrittenConversation(id="000001", turns=(WrittenTurn(text="Yes?", reply="No."),)),
    ]


def test_our_own_form(tmp_path: Path) -> None:
    turns = [{"audio": "a.wav", "text": "Hi", "reply": "Yes", "reply_audio": "b.wav", "slot": "yes"}, {"text": "Why?"}]
    write(tmp_path / "turns.jsonl", [{"id": 7, "turns": turns}, {"turns": [{"audio": "c.wav"}]}], lines=True)
    assert read_turns(tmp_path) == [
        WrittenConversation(id="7", turns=(WrittenTurn(**turns[0]), WrittenTurn(text="Why?"))),
        WrittenConversation(id="000001", turns=(WrittenTurn(audio="c.wav"),)),
    ]
    with pytest.raises(DuologueError, match="line 1: it has recordings"):
        read_instructions(tmp_path / "turns.jsonl")


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ('{"turns": [{"text": "a", "answer": "b"}]}', "line 2, turn 1: unknown key 'answer': expected text, audio,"),
        ('{"turns": [{"text": "a"}], "voice": 1}', "line 2: unknown key 'voice': expected id, turns"),
        ('{"turns": []}', "line 2: expected 'turns'"),
        ('{"id": "b"}', "line 2: expected 'turns'"),
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
        read_turns(tmp_path)
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
        read_instructions(tmp_path / "f")
    assert "\n" not in str(caught.value)


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(DuologueError, match=r"has no turns\.jsonl"):
        read_turns(tmp_path)
    with pytest.raises(DuologueError, match="no such file"):
        read_instructions(tmp_path / "x.json")
