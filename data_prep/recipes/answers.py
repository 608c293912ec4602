"""A language model writes what conversations lack: answers, other wordings, follow-up questions, statements.

    prepare answers source=q.jsonl out=chat.jsonl llm=llm "system=Answer in one short sentence." sentences=1
    prepare answers source=q.jsonl out=other.jsonl llm=llm "ask=Say this in other words: {text}" into=text sentences=1

Greedy, in batches of like length. `OUT.answers.jsonl` keeps what it wrote, so that a run that is broken off goes on
where it stopped, and one with a larger `n` asks for what is new alone. The result is a file of conversations for the
recipe `turns`, and for another run of this one: follow-up questions first, then the answers to them.
"""

from __future__ import annotations

import functools
import itertools
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ...checkpoints.files import expanded, write_json_lines
from ...checkpoints.outputs import keep_apart
from ...checkpoints.parts import load_llm
from ...checkpoints.store import device_of, dtype_of
from ...model.errors import DuologueError
from ...model.language_model.causal_lm import LLM
from ...model.language_model.chat_template import ChatTemplate
from ...model.language_model.greedy import continue_all
from ..datasets.conversations import WrittenConversation, WrittenTurn, entry_of, read_conversations
from ..datasets.shard_runs import require_at_least
from ..datasets.splits import stable_fraction
from ..text.journal import Journal, key_of
from ..text.sentences import first_sentences, is_closed

INTO = ("reply", "text", "follow_up", "statement")
PLACES = ("{text}", "{reply}")
BLOCK = 16  # batches that are sorted by length together; a run that is broken off has whole blocks
Messages = list[dict[str, str]]


@dataclass(frozen=True, kw_only=True)
class Config:
    """
    source: conversations in writing (see datasets/conversations.py)
    out: the file of conversations
    llm: an imported language model, a run that trained one, or a model
    ask: what it is asked about a turn, with {text} and {reply} in their places; several with | between: each
        conversation gets one of them
    into: what becomes of its words: reply, of each turn that has none; text, a new question of one turn; follow_up, a
        turn behind the last; statement, one of one turn that needs no answer
    system: the system prompt that it is asked under; empty: the conversation's own
    sentences: keep the first so many, and stop there; 0: all of what it says
    max_tokens: what is not said in so many is left out
    n: the first n conversations; 0: all
    batch_size: prompts at a time
    device, dtype: of the model; float32, bfloat16, float16, or auto: bfloat16 where the machine has it
    """

    source: str
    out: str
    llm: str
    ask: str = "{text}"
    into: str = "reply"
    system: str = ""
    sentences: int = 0
    max_tokens: int = 64
    n: int = 0
    batch_size: int = 64
    device: str = "cpu"
    dtype: str = "auto"

    def __post_init__(self) -> None:
        if self.into not in INTO:
            raise DuologueError(f"into={self.into}: expected {', '.join(INTO)}")
        if not all(any(place in wording for place in PLACES) for wording in self.wordings()):
            raise DuologueError(f"ask={self.ask}: expected {' or '.join(PLACES)} in it, in each where | stands between")
        require_at_least(self, {"sentences": 0, "max_tokens": 1, "n": 0, "batch_size": 1})

    def wordings(self) -> list[str]:
        return self.ask.split("|")


def run(config: Config, *, progress: bool = True) -> dict[str, Any]:
    """Write the file; returns its counts, how many answers were written now, and how many were there.

    OUT.failed.jsonl says what was left out. Raises DuologueError when the source is wrong or has nothing to ask, the
    model cannot be read, or nothing is left.
    """
    out = expanded(config.out)
    journal, failed = (out.with_name(f"{out.name}.{what}.jsonl") for what in ("answers", "failed"))
    keep_apart({"out=": out, "the journal": journal, "the list of failures": failed}, {"source=": config.source})
    conversations = read_conversations(config.source)[: config.n or None]
    out.parent.mkdir(parents=True, exist_ok=True)
    writer = Writer(config, Journal(journal), progress)
    make = _with_replies if config.into == "reply" else _continued
    rows, failures = make(conversations, config, writer)
    if not writer.asked:
        raise DuologueError(f"{config.source} has nothing to ask about: {_wanted(config)}")
    if not rows:
        raise DuologueError(f"nothing of what the model said can be used, the first because: {failures[0]['reason']}")
    write_json_lines(failed, failures)
    write_json_lines(out, (entry_of(row) for row in rows))
    turns = sum(len(row.turns) for row in rows)
    counts = {"conversations": len(rows), "turns": turns, "failed": len(failures)}
    return counts | {"written": writer.written, "remembered": writer.asked - writer.written}


def _wanted(config: Config) -> str:
    if config.into == "reply":
        return "expected turns with a text and without a reply"
    return f"expected conversations whose last turn has {' and '.join(p for p in PLACES if p in config.ask)}"


Made = tuple[list[WrittenConversation], list[dict[str, Any]]]  # and what was left out


def _with_replies(conversations: Sequence[WrittenConversation], config: Config, writer: Writer) -> Made:
    """Each conversation with its replies, up to the first that is missing; all their first ones are asked at once."""
    made, failures = list(conversations), []
    while open_turns := [(at, turn) for at, one in enumerate(made) if (turn := _unanswered(one)) is not None]:
        asked = [_messages(made[at], turn, config) for at, turn in open_turns]
        for (at, turn), said in zip(open_turns, writer.ask(asked), strict=True):
            turns = made[at].turns
            if said:
                answered = (*turns[:turn], replace(turns[turn], reply=said), *turns[turn + 1 :])
                made[at] = replace(made[at], turns=answered)
            else:
                failures.append({"id": made[at].id, "turn": turn, "reason": writer.reason})
                made[at] = replace(made[at], turns=turns[:turn])
    return [one for one in made if one.turns], failures


def _unanswered(conversation: WrittenConversation) -> int | None:
    """The first turn that is to be answered and is not."""
    open_turns = (at for at, turn in enumerate(conversation.turns) if turn.respond and turn.text and not turn.reply)
    return next(open_turns, None)


def _continued(conversations: Sequence[WrittenConversation], config: Config, writer: Writer) -> Made:
    """What is made of the last turn of each conversation that has what `ask` names."""
    needs = [place[1:-1] for place in PLACES if place in config.ask]
    given = [one for one in conversations if one.turns and all(vars(one.turns[-1])[name] for name in needs)]
    asked = [_messages(replace(one, turns=one.turns[-1:]), 0, config) for one in given]
    made, failures = [], []
    known = {(one.turns[-1].text or "").strip().casefold() for one in given}
    for one, said in zip(given, writer.ask(asked), strict=True):
        text = _unquoted(said)
        if text and text.casefold() not in known:
            known.add(text.casefold())
            made.append(_put(one, text, config.into))
        else:
            reason = f"there is such a text already: {text}" if text else writer.reason
            failures.append({"id": one.id, "turn": len(one.turns) - 1, "reason": reason})
    return made, failures


def _put(conversation: WrittenConversation, text: str, into: str) -> WrittenConversation:
    turn = WrittenTurn(text=text, respond=into != "statement")
    if into == "follow_up":
        return replace(conversation, turns=(*conversation.turns, turn))
    return WrittenConversation(id=f"{conversation.id}-{into}", turns=(turn,), system=conversation.system)


def _unquoted(text: str) -> str:
    text = text.strip()
    return text[1:-1].strip() if len(text) > 2 and text[0] + text[-1] in ('""', "''", "“”", "‘’") else text


def _messages(conversation: WrittenConversation, at: int, config: Config) -> Messages:
    """The prompt about a turn, behind the turns before it."""
    system = config.system or conversation.system
    messages = [{"role": "system", "content": system}] if system else []
    for turn in conversation.turns[:at]:
        if turn.text and turn.reply:
            messages += [{"role": "user", "content": _typed(turn)}, {"role": "assistant", "content": turn.reply}]
    turn = conversation.turns[at]
    wordings = config.wordings()
    wording = wordings[int(stable_fraction(f"ask {conversation.id}") * len(wordings))]
    asked = wording.replace("{reply}", turn.reply or "").replace("{text}", _typed(turn))
    return [*messages, {"role": "user", "content": asked}]


def _typed(turn: WrittenTurn) -> str:
    return f"{turn.text}\n{turn.instruction}" if turn.instruction else str(turn.text)


class Writer:
    """The language model, which is loaded when something is asked that the journal does not know."""

    def __init__(self, config: Config, journal: Journal, progress: bool) -> None:
        self.config, self.journal, self.progress = config, journal, progress
        self.asked = self.written = 0
        self.reason = f"the model wrote no whole answer within max_tokens={config.max_tokens}"

    def ask(self, asked: Sequence[Messages]) -> list[str]:
        """What it says to each; "" where that was not finished."""
        keys = [self._key(messages) for messages in asked]
        missing = {key: messages for key, messages in zip(keys, asked, strict=True) if key not in self.journal}
        self.asked += len(set(keys))
        if missing:
            self._write(missing)
        return [self.journal[key] for key in keys]

    def _key(self, messages: Messages) -> str:
        config = self.config
        return key_of({"llm": config.llm, "dtype": config.dtype, "messages": messages,
                       "sentences": config.sentences, "max_tokens": config.max_tokens})  # fmt: skip

    def _write(self, missing: dict[str, Messages]) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (TextColumn("answers"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[rate]}"),
                   TimeRemainingColumn())  # fmt: skip
        prompts = {key: self._model[1].write(messages).ids for key, messages in missing.items()}
        began = time.monotonic()
        with Progress(*columns, disable=not self.progress) as bar:
            task = bar.add_task("", total=len(missing), rate="")
            done = 0
            for keys in _batches(prompts, self.config.batch_size):
                self.journal.add(dict(zip(keys, self._said([prompts[key] for key in keys]), strict=True)))
                done += len(keys)
                bar.update(task, completed=done, rate=f"{done / (time.monotonic() - began):.2f}/s")
        self.written += len(missing)

    def _said(self, prompts: list[list[int]]) -> list[str]:
        config, (llm, template) = self.config, self._model

        def enough(ids: list[int]) -> bool:
            return bool(config.sentences) and first_sentences(template.decode(ids), config.sentences) is not None

        room = config.max_tokens
        if llm.context is not None:
            room = max(1, min(room, llm.context - max(map(len, prompts))))
        said = []
        for ids, ended in continue_all(llm, prompts, template.ends, room, enough):
            text = template.decode(ids).strip()
            if config.sentences:
                text = first_sentences(text, config.sentences) or text
                ended = ended and is_closed(text)
            said.append(text if ended else "")
        return said

    @functools.cached_property
    def _model(self) -> tuple[LLM, ChatTemplate]:
        llm, tokenizer = load_llm(self.config.llm, device_of(self.config.device), dtype_of(self.config.dtype))
        return llm, ChatTemplate(tokenizer)


def _batches(prompts: dict[str, list[int]], size: int) -> Iterator[list[str]]:
    """The keys of like lengths together, block by block in their order."""
    for block in _cut(prompts, BLOCK * size):
        yield from _cut(sorted(block, key=lambda key: len(prompts[key])), size)


def _cut(keys: Iterable[str], size: int) -> Iterator[list[str]]:
    left = iter(keys)
    while piece := list(itertools.islice(left, size)):
        yield piece
