"""Speech with a context, which helps to write it down or misleads: the source of `prepare turns` for context SFT.

    prepare context source=mine out=context.jsonl
    prepare context source=chat.jsonl out=context.jsonl history=0.5        what was said before as the context
    prepare context source=cuts.jsonl.gz out=context.jsonl field=summary   contexts that the source has, of an LLM say
    prepare context source=dev.jsonl out=misled.jsonl without=0 misleading=1    for a figure: contexts that never fit

Each turn becomes a clip with an instruction and a context behind it, whose reply is what is said. A context is the
source's own, if it has one; or the turns before; or a list of rare words, those of the text among others' or, to
mislead, others' alone. A part of the clips has none, so that the model does not need one.

Source: Seed-ASR (arXiv 2407.04675), section 3, context SFT.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ...checkpoints.files import expanded, write_json_lines
from ...model.decoding.labels import plain_words
from ...model.errors import DuologueError
from ..datasets.conversations import WrittenConversation, WrittenTurn, entry_of, folder_of, read_conversations
from ..datasets.shard_runs import require_at_least
from ..text.context import INSTRUCTION, with_context
from .dialogues import moved

PUNCTUATION = ".,;:!?\"'()[]…“”‘’"


@dataclass(frozen=True, kw_only=True)
class Config:
    """
    source: conversations or recordings (see datasets/conversations.py)
    out: the file of conversations, one a line
    instruction: what stands in writing beside each clip, before the context
    without: fraction of the clips that have no context
    misleading: fraction of the lists that have no word of the text
    history: fraction of the turns behind others whose context is what was said before
    field: a field of the source that holds a context; "": none does
    rare: a word is rare that the source says in at most so many turns
    words: the most words of a list
    seed: another seed draws other contexts
    """

    source: str
    out: str
    instruction: str = INSTRUCTION
    without: float = 0.3
    misleading: float = 0.2
    history: float = 0.3
    field: str = ""
    rare: int = 3
    words: int = 10
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("without", "misleading", "history"):
            if not 0 <= getattr(self, name) <= 1:
                raise DuologueError(f"{name}={getattr(self, name)}: a fraction lies between 0 and 1")
        require_at_least(self, {"rare": 1, "words": 1, "seed": 0})
        if not self.instruction.strip():
            raise DuologueError(f"instruction is empty: it must say what is to be done, for example: {INSTRUCTION}")


def run(config: Config) -> dict[str, Any]:
    """Write the file; returns how many clips it has, and of which contexts.

    Raises DuologueError when the source is wrong, or has no texts.
    """
    found, folder, out = read_conversations(config.source), folder_of(config.source), expanded(config.out)
    forms, counts = dict[str, str](), Counter[str]()
    for words in (_words(turn) for one in found for turn in one.turns):
        counts.update(words.keys())
        forms = words | forms
    pool = {word: forms[word] for word, times in counts.items() if times <= config.rare}  # in the order of the source
    rng = np.random.default_rng([config.seed, 37])
    made, kinds = [], Counter[str]()
    for conversation in found:
        for number, turn in enumerate(conversation.turns):
            if not _words(turn):
                continue
            kind, context = _context(turn, conversation.turns[:number], pool, config, rng)
            kinds[kind] += 1
            clip = replace(
                turn, instruction=with_context(config.instruction, context), reply=turn.text, reply_audio=None,
                slot=None, respond=True,
            )  # fmt: skip
            name = conversation.id if len(conversation.turns) == 1 else f"{conversation.id}-{number}"
            made.append(entry_of(moved(WrittenConversation(id=name, turns=(clip,)), folder, out.parent)))
    if not made:
        raise DuologueError(f"{config.source} has no turn with a text: nothing was written")
    out.parent.mkdir(parents=True, exist_ok=True)
    write_json_lines(out, made)
    return {"clips": len(made), **dict(sorted(kinds.items()))}


def _words(turn: WrittenTurn) -> dict[str, str]:
    """The words that are said, each as it is first written."""
    found = dict[str, str]()
    for written in (turn.text or "").split():
        for word in plain_words(written).split():
            found.setdefault(word, written.strip(PUNCTUATION) if word == plain_words(written) else word)
    return found


def _context(
    turn: WrittenTurn, before: Sequence[WrittenTurn], pool: Mapping[str, str], config: Config, rng: np.random.Generator
) -> tuple[str, str | list[str]]:
    """The kind of a clip's context, and the context."""
    plain, told, mislead = rng.random(3)
    if plain < config.without:
        return "none", ""
    if config.field and (own := turn.fields.get(config.field, "").strip()):
        return "own", own
    past = " ".join(text.strip() for each in before for text in (each.text, each.reply) if text)
    if past and told < config.history:
        return "history", past
    said, every = _words(turn), list(pool)
    wanted = [word for word in said if word in pool][: config.words] if mislead >= config.misleading else []
    room = int(rng.integers(max(1, len(wanted)), config.words + 1))
    others = [every[at] for at in rng.permutation(len(every))[: room + len(said)] if every[at] not in said]
    words = wanted + others[: room - len(wanted)]
    kind = "words" if wanted else "misleading" if words else "none"
    return kind, [pool[words[at]] for at in rng.permutation(len(words))]
