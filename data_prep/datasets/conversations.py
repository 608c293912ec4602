"""Conversations read from files: what was said, in writing or as a recording, and what is answered. All take one form:

    {"id", "system", "turns": [{"text", "audio", "instruction", "reply", "reply_audio", "slot", "respond", …}, …]}

`turns` alone is required, and of a turn `text` or `audio`; :class:`WrittenTurn` says what each is. Read are
    own          such objects, in a file or in the turns.jsonl of a folder
    Alpaca       {"instruction", "input", "output"}: one turn, the input put behind the instruction
    ShareGPT     {"conversations": [{"from": "human" | "gpt" | "system", "value"}, …]},
                 or {"messages": [{"role", "content"}, …]}
    preferences  {"prompt", "chosen", "rejected"}, each a text or a list of messages: the last answer is compared
    a table      a .tsv with the names of its columns in its first line: `text` is what is said (see tables.py)
    recordings   a lhotse manifest, LibriSpeech, AISHELL, Fleurs, a manifest.jsonl (see speech_sets.py): a turn each
A file of text holds one JSON array of objects or one object a line. In our own form an unknown key is an error; the
others come with keys of all kinds, which are ignored, and are called by their place in the file.

Sources: Taori et al., "Stanford Alpaca" (2023), its data release; the ShareGPT form as FastChat's training reads it.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ...checkpoints.files import expanded, lines, parsed, read_text
from ...model.errors import DuologueError
from .recordings import MANIFEST, Stretch
from .speech_sets import RecordedUtterance, find_utterances
from .tables import TABLE, read_table

TURNS_FILE = "turns.jsonl"
SPEAKERS = {
    "system": "system", "human": "user", "user": "user", "gpt": "assistant", "chatgpt": "assistant",
    "assistant": "assistant",
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class WrittenTurn:
    """What is said to the assistant once, and its answer; paths from the folder of the conversations (`folder_of`).

    text: what is said, the transcript of `audio` if there is one
    audio: the recording; of a longer one, the part from `start` to `end` seconds, of the channel `channel` alone
    instruction: a prompt in writing beside the speech ("Transcribe the speech."); the reply is the answer to both
    reply, reply_audio: the answer, and a recording of it
    slot: words that a right reply contains; several that each will do are separated by "|"; None: the whole reply
    rejected: answers that are worse than the reply, for `train dpo`
    respond: False: said to nobody here, and not to be answered
    fields: what else the source says of it ("label", "translation"); not written
    """

    text: str | None = None
    audio: str | None = None
    start: float | None = None
    end: float | None = None
    channel: int | None = None
    instruction: str | None = None
    reply: str | None = None
    reply_audio: str | None = None
    slot: str | None = None
    rejected: tuple[str, ...] = ()
    respond: bool = True
    fields: Mapping[str, str] = field(default_factory=dict)

    @property
    def stretch(self) -> Stretch:
        """The part of `audio` that is meant."""
        return Stretch(start=self.start or 0.0, end=self.end, channel=self.channel)


@dataclass(frozen=True, kw_only=True)
class WrittenConversation:
    """system: the system prompt that stands before it; None: none"""

    id: str
    turns: tuple[WrittenTurn, ...]
    system: str | None = None


_TURN_KEYS = tuple(WrittenTurn.__dataclass_fields__)[:-1]
_NUMBERS = {"start": (int, float), "end": (int, float), "channel": (int,)}


def read_conversations(source: str | Path) -> list[WrittenConversation]:
    """The conversations of a file or a folder in any of the forms of this module's docstring.

    Raises DuologueError that names the line or the entry with what is wrong, or the forms where it has none.
    """
    path = expanded(source)
    if path.is_dir() and not (path / TURNS_FILE).is_file():
        try:
            return _recorded(path)
        except DuologueError as error:
            if "no set that is known" not in str(error):
                raise
            raise DuologueError(f"{path} has no {TURNS_FILE} and {str(error).removeprefix(f'{path} ')}") from None
    file = path / TURNS_FILE if path.is_dir() else path
    if not file.is_file():
        raise DuologueError(f"no such file or folder: {path}")
    if file.suffix == ".gz" or file.name.endswith(MANIFEST):
        return _recorded(file)
    if file.suffix == TABLE:
        return _named_apart(file, [_of_row(row, f"{at:06d}") for at, row in enumerate(read_table(file))])
    entries = _entries(file)
    if str(entries[0][1].get("type", "")).endswith("Cut"):
        return _recorded(file)
    return _named_apart(file, [_conversation(entry, where, at) for at, (where, entry) in enumerate(entries)])


def folder_of(source: str | Path) -> Path:
    """The folder that a source's paths are counted from."""
    path = expanded(source)
    return path if path.is_dir() else path.parent


def entry_of(conversation: WrittenConversation) -> dict[str, Any]:
    """A conversation as an object of our own form, without what has its default."""
    usual = WrittenTurn()
    turns = [
        {key: value for key in _TURN_KEYS if (value := getattr(turn, key)) != getattr(usual, key)}
        for turn in conversation.turns
    ]
    return {"id": conversation.id} | ({"system": conversation.system} if conversation.system else {}) | {"turns": turns}


def _of_row(row: Mapping[str, str], name: str) -> WrittenConversation:
    """A row of a table as a conversation of one turn; all its columns are fields."""
    turn = WrittenTurn(text=row["text"], reply=row.get("reply") or None, slot=row.get("slot") or None, fields=row)
    return WrittenConversation(id=row.get("id") or name, turns=(turn,), system=row.get("system") or None)


def _recorded(source: Path) -> list[WrittenConversation]:
    """Each recording as a conversation of one turn."""
    folder = os.path.abspath(folder_of(source))
    return _named_apart(source, [_of_recording(one, folder) for one in find_utterances(source, wordless=True)])


def _of_recording(utterance: RecordedUtterance, folder: str) -> WrittenConversation:
    sound = utterance.sound
    if sound.problem:
        raise DuologueError(sound.problem)
    path, stretch = os.path.abspath(sound.path), sound.stretch
    audio = os.path.relpath(path, folder) if path.startswith(folder + os.sep) else path
    turn = WrittenTurn(
        text=utterance.text if utterance.text.strip() else None, audio=audio, start=stretch.start or None,
        end=stretch.end, channel=stretch.channel, fields={**utterance.fields, "text": utterance.text},
    )  # fmt: skip
    return WrittenConversation(id=utterance.id, turns=(turn,))


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


def _conversation(entry: dict[str, Any], where: str, at: int) -> WrittenConversation:
    form = next((form for key, form in _FORMS.items() if key in entry), None)
    if form is None:
        raise DuologueError(
            f"{where}: expected 'instruction' (Alpaca), 'conversations' or 'messages' (ShareGPT), 'chosen' or 'turns', "
            f"found {', '.join(map(repr, entry)) or 'nothing'}"
        )
    return form(entry, where, at)


def _own(entry: dict[str, Any], where: str, at: int) -> WrittenConversation:
    _only(entry, ("id", "system", "turns"), where)
    turns, system = entry.get("turns"), entry.get("system")
    if not isinstance(turns, list) or not turns:
        raise DuologueError(f"{where}: expected 'turns', a list of at least one")
    if system is not None and (not isinstance(system, str) or not system.strip()):
        raise DuologueError(f"{where}: 'system' is {system!r:.40}, expected text")
    made = tuple(_own_turn(turn, f"{where}, turn {number}") for number, turn in enumerate(turns, start=1))
    name = entry.get("id")
    return WrittenConversation(id=f"{at:06d}" if name in (None, "") else str(name), turns=made, system=system)


def _own_turn(turn: Any, place: str) -> WrittenTurn:
    if not isinstance(turn, dict):
        raise DuologueError(f"{place}: expected a JSON object, found {type(turn).__name__}")
    _only(turn, _TURN_KEYS, place)
    given = {key: value for key, value in turn.items() if value is not None}
    for key, value in given.items():
        if key == "respond":
            if not isinstance(value, bool):
                raise DuologueError(f"{place}: 'respond' is {value!r:.40}, expected true or false")
        elif key in _NUMBERS:
            if isinstance(value, bool) or not isinstance(value, _NUMBERS[key]) or not 0 <= value < float("inf"):
                raise DuologueError(f"{place}: {key!r} is {value!r:.40}, expected a number from 0")
        elif key == "rejected":
            given[key] = _texts(value, place)
        elif not isinstance(value, str) or not value.strip():
            raise DuologueError(f"{place}: {key!r} is {value!r}, expected text")
    if "text" not in given and "audio" not in given:
        raise DuologueError(f"{place}: expected 'text' or 'audio', what is asked")
    if "reply_audio" in given and "reply" not in given:
        raise DuologueError(f"{place}: 'reply_audio' without 'reply', the words of it")
    if "rejected" in given and "reply" not in given:
        raise DuologueError(f"{place}: 'rejected' without 'reply', the better answer")
    if given.get("reply") in given.get("rejected", ()):
        raise DuologueError(f"{place}: 'rejected' is the 'reply' itself, {given['reply']!r:.40}: expected another")
    if "reply" in given and not given.get("respond", True):
        raise DuologueError(f"{place}: it has a 'reply', and 'respond' says that nothing is answered")
    if set(_NUMBERS) & set(given) and "audio" not in given:
        raise DuologueError(f"{place}: {', '.join(sorted(set(_NUMBERS) & set(given)))} without 'audio'")
    made = WrittenTurn(**given)
    if made.end is not None and made.end <= (made.start or 0):
        raise DuologueError(f"{place}: 'end' is {made.end:g}, and 'start' {made.start or 0:g}: expected start < end")
    return made


def _texts(value: Any, place: str) -> tuple[str, ...]:
    """One text or a list of them."""
    found = (value,) if isinstance(value, str) else tuple(value) if isinstance(value, list) else ()
    if not found or not all(isinstance(text, str) and text.strip() for text in found):
        raise DuologueError(f"{place}: 'rejected' is {value!r:.40}, expected text or a list of texts")
    return found


def _alpaca(entry: dict[str, Any], where: str, at: int) -> WrittenConversation:
    instruction, more, output = (_text(entry, key, where) for key in ("instruction", "input", "output"))
    asked = "\n".join(text for text in (instruction, more) if text.strip())
    turn = WrittenTurn(text=asked, reply=output if output.strip() else None)
    return WrittenConversation(id=f"{at:06d}", turns=(turn,) if asked else ())


def _sharegpt(entry: dict[str, Any], where: str, at: int) -> WrittenConversation:
    """Each run of what the person says, with the first answer to it; tools and blanks are left out."""
    key, who, what = ("messages", "role", "content") if "messages" in entry else ("conversations", "from", "value")
    messages = entry[key]
    if not isinstance(messages, list):
        raise DuologueError(f"{where}: {key!r} is no list")
    turns: list[WrittenTurn] = []
    system = [_text(entry, "system", where)]
    asked: list[str] = []
    for number, message in enumerate(messages, start=1):
        place = f"{where}, message {number}"
        if not isinstance(message, dict) or who not in message:
            raise DuologueError(f"{place}: expected an object with {who!r} and {what!r}")
        text, speaker = _text(message, what, place), SPEAKERS.get(str(message[who]).lower())
        if not text.strip():
            continue
        if speaker == "system":
            system.append(text)
        elif speaker == "user":
            asked.append(text)
        elif speaker == "assistant" and asked:
            turns.append(WrittenTurn(text="\n".join(asked), reply=text))
            asked = []
    if asked:
        turns.append(WrittenTurn(text="\n".join(asked)))
    prompt = "\n".join(text for text in system if text.strip())
    return WrittenConversation(id=f"{at:06d}", turns=tuple(turns), system=prompt or None)


def _preference(entry: dict[str, Any], where: str, at: int) -> WrittenConversation:
    """The conversation that ends in the chosen answer, with the rejected one beside it."""

    def messages(key: str, speaker: str) -> list[Any]:
        value = entry.get(key)
        return value if isinstance(value, list) else [{"role": speaker, "content": _text(entry, key, where)}]

    chosen, rejected = (
        _sharegpt({"messages": [*messages("prompt", "user"), *messages(key, "assistant")]}, where, at)
        for key in ("chosen", "rejected")
    )
    last, worse = (one.turns[-1] if one.turns else WrittenTurn() for one in (chosen, rejected))
    if not last.reply or not worse.reply or last.text != worse.text:
        raise DuologueError(f"{where}: 'chosen' and 'rejected' must end in answers to the same question")
    different = (worse.reply,) if worse.reply != last.reply else ()
    return replace(chosen, turns=(*chosen.turns[:-1], replace(last, rejected=different)))


_FORMS: dict[str, Callable[[dict[str, Any], str, int], WrittenConversation]] = {
    "turns": _own, "chosen": _preference, "instruction": _alpaca, "conversations": _sharegpt, "messages": _sharegpt,
}  # fmt: skip


def _text(entry: dict[str, Any], key: str, where: str) -> str:
    value = entry.get(key)
    if value is not None and not isinstance(value, str):
        raise DuologueError(f"{where}: {key!r} is {value!r:.40}, expected text")
    return value or ""


def _only(entry: dict[str, Any], known: Iterable[str], where: str) -> None:
    unknown = [key for key in entry if key not in known]
    if unknown:
        raise DuologueError(f"{where}: unknown key {unknown[0]!r}: expected {', '.join(known)}")


def _named_apart(file: Path, conversations: list[WrittenConversation]) -> list[WrittenConversation]:
    repeated = [name for name, count in Counter(one.id for one in conversations).items() if count > 1]
    if repeated:
        raise DuologueError(f"{file} has the id {repeated[0]!r} more than once")
    return conversations
