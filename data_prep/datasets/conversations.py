"""Somebody's own conversations, read from files: what was asked, in writing or as a recording, and what is answered.

Three forms of text become the same list:
    own        {"id", "turns": [{"audio", "text", "reply", "reply_audio", "slot"}, …]}, all but `turns` optional
    Alpaca     {"instruction", "input", "output"}: one turn, the input put behind the instruction
    ShareGPT   {"conversations": [{"from": "human" | "gpt", "value"}, …]}, or {"messages": [{"role", "content"}]}
A file holds one JSON array of such objects or one object a line. In our own form an unknown key is an error; the other
two come with keys of all kinds, which are ignored, and are called by their place in the file.

Sources: Taori et al., "Stanford Alpaca" (2023), its data release; the ShareGPT form as FastChat's training reads it.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...checkpoints.files import expanded, lines, parsed, read_text
from ...model.errors import DuologueError

TURNS_FILE = "turns.jsonl"
SPEAKERS = {"human": "user", "user": "user", "gpt": "assistant", "chatgpt": "assistant", "assistant": "assistant"}


@dataclass(frozen=True, kw_only=True)
class WrittenTurn:
    """One question and its answer; paths from the folder of the conversations."""

    text: str | None = None  # what is asked, the transcript of `audio` if there is one
    audio: str | None = None
    reply: str | None = None
    reply_audio: str | None = None
    slot: str | None = None  # words that a right reply contains; None: the whole reply


@dataclass(frozen=True, kw_only=True)
class WrittenConversation:
    id: str
    turns: tuple[WrittenTurn, ...]


def read_turns(folder: str | Path) -> list[WrittenConversation]:
    """The conversations of a folder's turns.jsonl. Raises DuologueError that names the line with what is wrong."""
    file = expanded(folder) / TURNS_FILE
    if not file.is_file():
        raise DuologueError(f"{folder} has no {TURNS_FILE}: give a folder of recordings with one")
    return _named_apart(file, [_own(entry, where, at) for at, (where, entry) in enumerate(_entries(file))])


def read_instructions(file: str | Path) -> list[WrittenConversation]:
    """The conversations of a file in any of the three forms, without recordings.

    Raises DuologueError that names the line or the entry with what is wrong.
    """
    file = expanded(file)
    if not file.is_file():
        raise DuologueError(f"no such file: {file}")
    conversations = []
    for at, (where, entry) in enumerate(_entries(file)):
        if "turns" in entry:
            conversation = _own(entry, where, at)
            if any(turn.audio or turn.reply_audio for turn in conversation.turns):
                raise DuologueError(f"{where}: it has recordings: prepare the folder with the recipe turns")
            conversations.append(conversation)
        elif "instruction" in entry:
            conversations.append(_alpaca(entry, where, at))
        elif "conversations" in entry or "messages" in entry:
            conversations.append(_sharegpt(entry, where, at))
        else:
            raise DuologueError(
                f"{where}: expected 'instruction' (Alpaca), 'conversations' or 'messages' (ShareGPT), or 'turns', "
                f"found {', '.join(map(repr, entry)) or 'nothing'}"
            )
    return _named_apart(file, conversations)


def _entries(file: Path) -> list[tuple[str, dict[str, Any]]]:
    """(where it stands, object) of each entry of an array or of each line."""
    text = read_text(file)
    if text.lstrip().startswith("["):
        values = enumerate(parsed(text, str(file)), start=1)
        entries = [(f"{file}, entry {number}", value) for number, value in values]
    else:
        entries = [
            (where, parsed(line, where))
            for number, line in enumerate(lines(text), start=1)
            if line.strip() and (where := f"{file}, line {number}")
        ]
    for where, value in entries:
        if not isinstance(value, dict):
            raise DuologueError(f"{where}: expected a JSON object, found {type(value).__name__}")
    if not entries:
        raise DuologueError(f"{file} is empty: expected conversations")
    return entries


def _own(entry: dict[str, Any], where: str, at: int) -> WrittenConversation:
    _only(entry, ("id", "turns"), where)
    turns = entry.get("turns")
    if not isinstance(turns, list) or not turns:
        raise DuologueError(f"{where}: expected 'turns', a list of at least one")
    made = []
    for number, turn in enumerate(turns, start=1):
        place = f"{where}, turn {number}"
        if not isinstance(turn, dict):
            raise DuologueError(f"{place}: expected a JSON object, found {type(turn).__name__}")
        _only(turn, tuple(WrittenTurn.__dataclass_fields__), place)
        for key, value in turn.items():
            if value is not None and (not isinstance(value, str) or not value.strip()):
                raise DuologueError(f"{place}: {key!r} is {value!r}, expected text")
        if not turn.get("text") and not turn.get("audio"):
            raise DuologueError(f"{place}: expected 'text' or 'audio', what is asked")
        if turn.get("reply_audio") and not turn.get("reply"):
            raise DuologueError(f"{place}: 'reply_audio' without 'reply', the words of it")
        made.append(WrittenTurn(**turn))
    name = entry.get("id")
    return WrittenConversation(id=f"{at:06d}" if name in (None, "") else str(name), turns=tuple(made))


def _alpaca(entry: dict[str, Any], where: str, at: int) -> WrittenConversation:
    instruction, more, output = (_text(entry, key, where) for key in ("instruction", "input", "output"))
    return WrittenConversation(
        id=f"{at:06d}", turns=(WrittenTurn(text=" ".join(f"{instruction} {more}".split()), reply=output or None),)
    )


def _sharegpt(entry: dict[str, Any], where: str, at: int) -> WrittenConversation:
    """Each run of what the person says, with the first answer to it; system prompts and tools are left out."""
    key, who, what = ("messages", "role", "content") if "messages" in entry else ("conversations", "from", "value")
    messages = entry[key]
    if not isinstance(messages, list):
        raise DuologueError(f"{where}: {key!r} is no list")
    turns: list[WrittenTurn] = []
    asked: list[str] = []
    for number, message in enumerate(messages, start=1):
        place = f"{where}, message {number}"
        if not isinstance(message, dict) or who not in message:
            raise DuologueError(f"{place}: expected an object with {who!r} and {what!r}")
        text, speaker = _text(message, what, place), SPEAKERS.get(str(message[who]).lower())
        if speaker == "user":
            asked.append(text)
        elif speaker == "assistant" and asked:
            turns.append(WrittenTurn(text=" ".join(asked), reply=text or None))
            asked = []
    if asked:
        turns.append(WrittenTurn(text=" ".join(asked)))
    return WrittenConversation(id=f"{at:06d}", turns=tuple(turns))


def _text(entry: dict[str, Any], key: str, where: str) -> str:
    value = entry.get(key)
    if value is not None and not isinstance(value, str):
        raise DuologueError(f"{where}: {key!r} is {value!r:.40}, expected text")
    return value or ""


def _only(entry: dict[str, Any], known: tuple[str, ...], where: str) -> None:
    unknown = [key for key in entry if key not in known]
    if unknown:
        raise DuologueError(f"{where}: unknown key {unknown[0]!r}: expected {', '.join(known)}")


def _named_apart(file: Path, conversations: list[WrittenConversation]) -> list[WrittenConversation]:
    repeated = [name for name, count in Counter(one.id for one in conversations).items() if count > 1]
    if repeated:
        raise DuologueError(f"{file} has the id {repeated[0]!r} more than once")
    return conversations
