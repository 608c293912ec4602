"""Conversations of any source in one form, with an instruction for each clip: the source of `prepare turns`.

    prepare dialogues source=nano n=5000 out=nano.jsonl                              a question set's, drawn
    prepare dialogues source=sharegpt.json out=chat.jsonl                            Alpaca, ShareGPT, a folder of turns
    prepare dialogues source=questions.tsv out=train.jsonl where=split=train without=split=val,test
    prepare dialogues source=cuts.jsonl.gz out=asr.jsonl instruction="Transcribe the speech."
    prepare dialogues source=train.jsonl out=names.jsonl swap=names.txt              with rare words in common questions
    prepare dialogues source=sounds out=sounds.jsonl instruction="What do you hear?|Name the sound." reply=label

So transcription, translation, sounds and chat are told apart by prompts in natural language, and mix in one file or in
one training. Paths of recordings are counted from the folder of the file that is written.

Source: Chu et al., "Qwen2-Audio Technical Report" (arXiv 2407.10759), section 2, multi-task pre-training.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ...checkpoints.files import expanded, write_json_lines
from ...model.errors import DuologueError
from ..datasets.conversations import (
    WrittenConversation,
    WrittenTurn,
    entry_of,
    folder_of,
    read_conversations,
)
from ..datasets.question_sets import QuestionSet, bundled_set
from ..datasets.shard_runs import require_at_least
from ..datasets.splits import Split
from ..datasets.tables import RowFilter


@dataclass(frozen=True, kw_only=True)
class Config:
    """
    source: a question set by its name, or conversations or recordings (see datasets/conversations.py)
    out: the file of conversations, one a line
    n: dialogues that are drawn of a question set; of another source the first n conversations, 0: all
    where: of a table or a set of recordings: take what has these values in these columns, "split=train set=a,b"
    without: leave out what is said, word for word, where these columns have these values: "split=val,test"
    shuffle: in an order drawn by the seed, before the first n are taken
    seed: another seed draws other dialogues and instructions
    split: which dialogues of a question set: train, dev or test
    instruction: what stands in writing beside each clip; several with | between: one of them is drawn for each
    reply: the field that is the answer then: text, or a field of the source such as label or translation; "": text
        where an instruction is given, else the conversations' own replies
    said: "text"; "reply": each reply is said by itself, as a statement that needs no answer; "aside": n statements of a
        question set that need none
    swap: a file of words or names, one a line: about a third of the words of four letters or more in each text, at
        least one, give their places to some of them, drawn; the replies, which no longer fit, are left out
    """

    source: str
    out: str
    n: int = 0
    where: str = ""
    without: str = ""
    shuffle: bool = False
    seed: int = 0
    split: str = "train"
    instruction: str = ""
    reply: str = ""
    said: str = "text"
    swap: str = ""

    def __post_init__(self) -> None:
        if self.said not in ("text", "reply", "aside"):
            raise DuologueError(f"said={self.said}: expected text, reply or aside")
        if self.said != "text" and (self.instruction or self.reply):
            raise DuologueError(f"said={self.said} makes statements, which have no answer: leave instruction and reply "
                                "out")  # fmt: skip
        if self.swap and (self.said != "text" or self.reply not in ("", "text")):
            raise DuologueError("swap= changes what is said, which no reply fits: leave said and reply out")
        require_at_least(self, {"n": 0, "seed": 0})
        if self.split not in list(Split):
            raise DuologueError(f"split={self.split}: expected one of {', '.join(Split)}")
        for name in ("where", "without"):
            RowFilter.read(getattr(self, name), name)
        if self.instruction and not self.wordings():
            raise DuologueError(f"instruction={self.instruction}: expected a prompt, or several with | between")

    def wordings(self) -> tuple[str, ...]:
        return tuple(wording.strip() for wording in self.instruction.split("|") if wording.strip())

    def answer(self) -> str:
        """The field that is the answer; "reply": each turn's own."""
        return self.reply or ("text" if self.instruction else "reply")


def run(config: Config) -> dict[str, Any]:
    """Write the file; returns how many conversations and turns it has, and how many clips lack what is to be answered.

    Raises DuologueError when the source is wrong, or nothing is left.
    """
    found, folder = _conversations(config)
    if config.swap:
        found = _swapped(found, config)
    rng = np.random.default_rng([config.seed, 23])
    out = expanded(config.out)
    made, left_out = [], 0
    for conversation in found:
        if not conversation.turns:
            continue
        if config.said == "aside":
            kept = [conversation]
        elif config.said == "reply":
            kept = list(_statements(conversation))
        elif config.answer() == "reply":
            kept = [_with_instruction(conversation, config, rng)]
        else:
            kept = list(_clips(conversation, config, rng))
            left_out += len(conversation.turns) - len(kept)
        made += [entry_of(moved(one, folder, out.parent)) for one in kept]
    if not made:
        field = "reply" if config.said == "reply" else config.answer()
        raise DuologueError(f"{config.source} has no clip with the field {field!r}: nothing was written")
    out.parent.mkdir(parents=True, exist_ok=True)
    write_json_lines(out, made)
    counts = {"conversations": len(made), "turns": sum(len(row["turns"]) for row in made)}
    return counts | ({"left_out": left_out} if left_out else {})


def _conversations(config: Config) -> tuple[list[WrittenConversation], Path]:
    """Those of the source, and the folder that its paths are counted from."""
    questions = bundled_set(config.source)
    if questions is None and config.said == "aside":
        raise DuologueError(f"said=aside is for question sets, and {config.source} is none: try said=reply")
    if questions is None:
        return _chosen(read_conversations(config.source), config)[: config.n or None], folder_of(config.source)
    if config.where or config.without:
        raise DuologueError(f"source={config.source}: where and without are for tables and sets of recordings")
    if not config.n:
        raise DuologueError(f"source={config.source}: how many dialogues are to be drawn? Give n=")
    drawn = []
    if config.said == "aside":
        return _asides(questions, config), Path()
    for index in range(config.n):
        dialogue = questions.dialogue(config.seed, index, config.split)
        turns = [WrittenTurn(text=question, reply=answer) for question, answer in dialogue.history]
        turns.append(WrittenTurn(text=dialogue.question, reply=dialogue.answer, slot=dialogue.slot or None))
        name = f"{config.seed}-{index:07d}"
        drawn.append(WrittenConversation(id=name, turns=tuple(turns), system=dialogue.system))
    return drawn, Path()


def _asides(questions: QuestionSet, config: Config) -> list[WrittenConversation]:
    """Different ones, at most n; what is to be obeyed is left out."""
    said = dict.fromkeys(questions.aside(config.seed, index, config.split) for index in range(2 * config.n))
    texts = [text for text, turn_state in said if turn_state == "noise"][: config.n]
    return [WrittenConversation(id=f"{config.seed}-aside-{at:07d}", turns=(WrittenTurn(text=text, respond=False),))
            for at, text in enumerate(texts)]  # fmt: skip


def _chosen(found: list[WrittenConversation], config: Config) -> list[WrittenConversation]:
    """Those that ``where`` and ``without`` take. Raises DuologueError where there are none."""
    where, without = RowFilter.read(config.where, "where"), RowFilter.read(config.without, "without")
    chosen = [one for one in found if all(where.takes(turn.fields) for turn in one.turns)]
    if without:
        said = {_words(turn) for one in found for turn in one.turns if without.takes(turn.fields)}
        chosen = [one for one in chosen if not said.intersection(map(_words, one.turns))]
    if found and not chosen:
        raise DuologueError(f"{config.source} has nothing where {config.where or 'any'}, without {config.without!r}")
    if config.shuffle:
        chosen = [chosen[at] for at in np.random.default_rng([config.seed, 29]).permutation(len(chosen))]
    return chosen


def _swapped(found: list[WrittenConversation], config: Config) -> list[WrittenConversation]:
    """Those that have a word to swap, with others in their places."""
    path = expanded(config.swap)
    try:
        names = [line.strip() for line in path.read_text("utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise DuologueError(f"swap={config.swap} cannot be read as UTF-8 text: {error}") from None
    if not names:
        raise DuologueError(f"swap={config.swap} has no word; it must have words or names, one a line")
    rng = np.random.default_rng([config.seed, 31])
    made = []
    for conversation in found:
        turns = []
        for turn in conversation.turns:
            words = (turn.text or "").split()
            long = [at for at, word in enumerate(words) if len(word) >= 4]
            if not long:
                break
            some = [at for at in long if rng.random() < 1 / 3] or [long[int(rng.integers(len(long)))]]
            for at in some:
                words[at] = names[int(rng.integers(len(names)))]
            turns.append(WrittenTurn(text=" ".join(words), instruction=turn.instruction, respond=turn.respond))
        else:
            made.append(replace(conversation, turns=tuple(turns)))
    if not made:
        raise DuologueError(f"{config.source} has no text with a word of four letters, which swap= needs")
    return made


def _words(turn: WrittenTurn) -> str:
    return " ".join((turn.text or "").casefold().split())


def _draw(config: Config, rng: np.random.Generator) -> str | None:
    wordings = config.wordings()
    return wordings[int(rng.integers(len(wordings)))] if wordings else None


def _with_instruction(
    conversation: WrittenConversation, config: Config, rng: np.random.Generator
) -> WrittenConversation:
    """The conversation with an instruction at each turn that is answered."""
    turns = tuple(
        replace(turn, instruction=_draw(config, rng) or turn.instruction) if turn.respond else turn
        for turn in conversation.turns
    )
    return replace(conversation, turns=turns)


def _clips(
    conversation: WrittenConversation, config: Config, rng: np.random.Generator
) -> Iterator[WrittenConversation]:
    """Each turn that has the answer's field as a conversation by itself: what was said before is not asked about."""
    for number, turn in enumerate(conversation.turns):
        own = {"text": turn.text, "slot": turn.slot}
        answer = own[config.answer()] if config.answer() in own else turn.fields.get(config.answer())
        if not answer or not answer.strip():
            continue
        made = replace(
            turn, instruction=_draw(config, rng) or turn.instruction, reply=answer, reply_audio=None, slot=None,
            rejected=(), respond=True,
        )  # fmt: skip
        name = conversation.id if len(conversation.turns) == 1 else f"{conversation.id}-{number}"
        yield WrittenConversation(id=name, turns=(made,), system=conversation.system)


def _statements(conversation: WrittenConversation) -> Iterator[WrittenConversation]:
    """Each turn's reply as a conversation by itself."""
    for number, turn in enumerate(conversation.turns):
        if turn.reply:
            name = conversation.id if len(conversation.turns) == 1 else f"{conversation.id}-{number}"
            said = WrittenTurn(text=turn.reply, audio=turn.reply_audio, respond=False)
            yield WrittenConversation(id=name, turns=(said,))


def moved(conversation: WrittenConversation, folder: Path, to: Path) -> WrittenConversation:
    """The conversation with its paths counted from the folder ``to``."""

    def placed(audio: str | None) -> str | None:
        return audio if audio is None or os.path.isabs(audio) else os.path.relpath(folder / audio, to)

    return replace(conversation, turns=tuple(
        replace(turn, audio=placed(turn.audio), reply_audio=placed(turn.reply_audio)) for turn in conversation.turns
    ))  # fmt: skip
