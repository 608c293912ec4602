"""Bad answers made beside good ones, for `train dpo`: loops, wrong facts, wrong names, answers to what asks nothing.

    prepare pairs source=chat.jsonl out=pairs.jsonl
    prepare pairs source=chat.jsonl out=pairs.jsonl kinds=identity identity=Nano others=Siri,Alexa
    prepare pairs source=chat.jsonl statements=said.jsonl out=pairs.jsonl "unclear=Sorry, I did not catch that."

Each turn with a reply gets one rejected answer of each kind that can be made of it; turns before it stay as they are. A
rejected answer has as many words as the reply, where there is one, so that nothing is learnt from length alone.

    repetition  the reply begins, and then its last words go round and round
    facts       another turn's slot in the place of its own, of a reply that begins alike if there is one; where there
                is no slot, another turn's reply
    identity    others' names or words in the place of one's own
    noise       of each of the `statements`, which ask nothing: the reply is `unclear`, and rejected another's reply

Sources: KwaiYii's negatives in fine-tuning; repetitions: Welleck et al. (arXiv 1908.04319), section 4.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ...checkpoints.files import expanded, write_json_lines
from ...checkpoints.outputs import keep_apart
from ...model.errors import DuologueError
from ..datasets.conversations import WrittenConversation, WrittenTurn, entry_of, folder_of, read_conversations
from ..datasets.shard_runs import require_at_least
from ..text.spoken import contains_slot
from .dialogues import moved

Frame = tuple[str, str, str]
KINDS = ("repetition", "facts", "identity", "noise")
TRIES = 20


@dataclass(frozen=True, kw_only=True)
class Config:
    """
    source: conversations with replies (see datasets/conversations.py)
    out: the file of conversations with rejected answers, one a line
    kinds: of bad answers; empty: all that the other settings allow
    statements: conversations whose turns ask nothing, or turns with `respond: false` of the source
    unclear: the reply to these
    identity: the assistant's own names, or words for what it is, with commas between
    others: what it is not, with commas between
    seed: another seed draws other answers
    """

    source: str
    out: str
    kinds: tuple[str, ...] = ()
    statements: str = ""
    unclear: str = ""
    identity: tuple[str, ...] = ()
    others: tuple[str, ...] = ()
    seed: int = 0

    def __post_init__(self) -> None:
        if strange := [kind for kind in self.kinds if kind not in KINDS]:
            raise DuologueError(f"kinds has {strange[0]!r}; expected some of {', '.join(KINDS)}")
        if "identity" in self.kinds and not (self.identity and self.others):
            raise DuologueError("kinds=identity needs identity= and others=, what the assistant is and what it is not")
        if "noise" in self.kinds and not self.unclear:
            raise DuologueError("kinds=noise needs unclear=, the reply to what asks nothing")
        if self.statements and not self.unclear:
            raise DuologueError(f"statements={self.statements} needs unclear=, the reply to what asks nothing")
        require_at_least(self, {"seed": 0})

    def made(self) -> tuple[str, ...]:
        """The kinds that are made."""
        allowed = {"identity": self.identity and self.others, "noise": self.unclear}
        return self.kinds or tuple(kind for kind in KINDS if allowed.get(kind, True))


def run(config: Config) -> dict[str, Any]:
    """Write the file; returns how many conversations it has, and rejected answers of each kind.

    Raises DuologueError when the source is wrong, or nothing can be made of it.
    """
    keep_apart({"out=": config.out}, {"source=": config.source, "statements=": config.statements})
    conversations = read_conversations(config.source)
    replies = Replies([turn for one in conversations for turn in one.turns if turn.text and turn.reply])
    if not replies.turns:
        raise DuologueError(f"{config.source} has no turn with a text and a reply")
    rng, out = np.random.default_rng([config.seed, 41]), expanded(config.out)
    counts = dict.fromkeys(config.made(), 0)
    made = []
    for conversation in conversations:
        turns = []
        for turn in conversation.turns:
            bad = dict(_bad_answers(turn, replies, config, rng)) if turn.text and turn.reply else {}
            for kind in bad:
                counts[kind] += 1
            turns.append(replace(turn, rejected=tuple(dict.fromkeys((*turn.rejected, *bad.values())))))
        if any(turn.rejected for turn in turns):
            made.append(moved(replace(conversation, turns=tuple(turns)), folder_of(config.source), out.parent))
    if "noise" in counts:
        noise = list(_to_noise(conversations, replies, config, rng))
        counts["noise"] = len(noise)
        made += noise
    if not any(counts.values()):
        raise DuologueError(f"{config.source}: none of its replies gives a bad answer of the kinds {', '.join(counts)}")
    out.parent.mkdir(parents=True, exist_ok=True)
    write_json_lines(out, [entry_of(one) for one in made])
    return {"conversations": len(made)} | counts


class Replies:
    """Turns with a reply, by what another's bad answer may be taken from."""

    def __init__(self, turns: Sequence[WrittenTurn]) -> None:
        self.turns = turns
        by_length: dict[int, dict[str, str]] = defaultdict(dict)
        slots: dict[tuple[Frame, int], dict[str, str]] = defaultdict(dict)  # by what stands around, and how many words
        for turn in turns:
            reply = turn.reply or ""
            by_length[len(_words(reply))].setdefault(reply.casefold(), reply)
            if found := _slot_in(turn):
                before, slot, after = found
                for frame in _frames(before, after):
                    slots[frame, len(_words(slot))].setdefault(slot.casefold(), slot)
        self.by_length = {length: list(found.values()) for length, found in by_length.items()}
        self.slots = {key: list(found.values()) for key, found in slots.items()}

    def as_long_as(self, reply: str, rng: np.random.Generator) -> str | None:
        """Another reply of as many words, or of the next number of words that there is one of; None: there is none."""
        length = len(_words(reply))
        for nearest in sorted(self.by_length, key=lambda other: (abs(other - length), other)):
            if other := _another(self.by_length[nearest], reply, rng):
                return other
        return None


def _bad_answers(
    turn: WrittenTurn, replies: Replies, config: Config, rng: np.random.Generator
) -> Iterator[tuple[str, str]]:
    """(kind, answer) of each kind that can be made; none of them is the reply or contains its slot."""
    for kind in config.made():
        for _ in range(TRIES):
            if kind == "repetition":
                answer = repetition(turn.reply or "", rng)
            elif kind == "facts":
                answer = wrong_fact(turn, replies, rng)
            elif kind == "identity":
                answer = wrong_identity(turn.reply or "", config, rng)
            else:
                break
            right = turn.slot if kind == "facts" and turn.slot else turn.reply
            if answer and right and answer != turn.reply and not contains_slot(answer, right):
                yield kind, answer
                break


def repetition(reply: str, rng: np.random.Generator) -> str | None:
    """It begins as the reply does; then one to three words go round, up to as many words as the reply has."""
    words = _words(reply)
    if len(words) < 4:
        return None
    width = int(rng.integers(1, min(3, len(words) // 3) + 1))
    begun = int(rng.integers(width, len(words) - 2 * width + 1))
    round_ = words[begun - width : begun]
    looped = [*words[:begun], *(round_ * len(words))][: len(words)]
    return " ".join(looped)


def wrong_fact(turn: WrittenTurn, replies: Replies, rng: np.random.Generator) -> str | None:
    """The reply with another's slot, or another's reply where there is none."""
    found = _slot_in(turn)
    if found is None:
        return replies.as_long_as(turn.reply or "", rng)
    before, slot, after = found
    for frame in _frames(before, after):
        if other := _another(replies.slots[frame, len(_words(slot))], slot, rng):
            return before + other + after
    return None


def wrong_identity(reply: str, config: Config, rng: np.random.Generator) -> str | None:
    """Others' names in the places of one's own; of as many words, if there are such."""
    for name in config.identity:
        pattern = re.compile(rf"\b{re.escape(name)}\b", re.IGNORECASE)
        if pattern.search(reply):
            same = [other for other in config.others if len(_words(other)) == len(_words(name))]
            other = _drawn(same or list(config.others), rng)
            return other.join(pattern.split(reply))
    return None


def _to_noise(
    conversations: Sequence[WrittenConversation], replies: Replies, config: Config, rng: np.random.Generator
) -> Iterator[WrittenConversation]:
    """Of each statement a conversation: that it is not understood, and an answer to something else."""
    if config.statements:
        said = [turn for one in read_conversations(config.statements) for turn in one.turns]
        folder = folder_of(config.statements)
    else:
        said = [turn for one in conversations for turn in one.turns if not turn.respond]
        folder = folder_of(config.source)
    if not said:
        raise DuologueError(f"{config.source} has no turn with respond false: give statements=FILE, or leave noise out")
    for at, turn in enumerate(said):
        rejected = replies.as_long_as(config.unclear, rng)
        if rejected is None:
            return
        made = WrittenTurn(
            text=turn.text, audio=turn.audio, start=turn.start, end=turn.end, channel=turn.channel,
            reply=config.unclear, rejected=(rejected,),
        )  # fmt: skip
        one = WrittenConversation(id=f"noise-{at:06d}", turns=(made,))
        yield moved(one, folder, expanded(config.out).parent)


def _words(text: str | None) -> list[str]:
    return (text or "").split()


def _frames(before: str, after: str) -> tuple[Frame, ...]:
    """What a slot stands in, the narrowest first: the reply's first words and the words beside the slot, these alone,
    and nothing."""
    first, last = _words(before.casefold()), _words(after.casefold())
    beside = (" ".join(first[-1:]), " ".join(last[:1]))
    return (" ".join(first[:2]), *beside), ("", *beside), ("", "", "")


def _slot_in(turn: WrittenTurn) -> tuple[str, str, str] | None:
    """The reply before its slot, the slot as it stands there, and what follows; None where it does not stand there."""
    reply = turn.reply or ""
    for wanted in filter(None, map(str.strip, (turn.slot or "").split("|"))):
        if found := re.search(rf"\b{re.escape(wanted)}\b", reply, re.IGNORECASE):
            return reply[: found.start()], found[0], reply[found.end() :]
    return None


def _drawn(among: Sequence[str], rng: np.random.Generator) -> str:
    return among[int(rng.integers(len(among)))]


def _another(among: Sequence[str], one: str, rng: np.random.Generator) -> str | None:
    """One of different texts that is not ``one``, upper and lower case alike; None: there is none."""
    at = int(rng.integers(len(among)))
    found = among[at] if among[at].casefold() != one.casefold() else among[(at + 1) % len(among)]
    return None if found.casefold() == one.casefold() else found
