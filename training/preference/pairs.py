"""Pairs of answers, of which one is better, as packed rows.

    {"text", "reply", "rejected": […]} -> the rows of the reply and of each rejected answer, behind the same turns

Of a row that is compared, only its last answer and the token that ends it count.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from os.path import isfile
from pathlib import Path
from typing import Any

import torch

from ...checkpoints.files import expanded
from ...data_prep.datasets.question_sets import history_of
from ...model.errors import DuologueError
from ..data.turns import HISTORY, Hearing, Row, TurnTokens, pack
from ..data.written import read_dialogues

SAME, OWN = 1, 2  # of an answer's tokens: those up to where the two answers of a pair part; those from there on


@dataclass(frozen=True)
class Pair:
    """The rows of a better and of a worse answer."""

    chosen: Row
    rejected: Row

    @property
    def answers(self) -> tuple[list[int], list[int]]:
        """The tokens of both answers, each with the one that ends it."""
        return self.chosen.ids[self.chosen.said.start :], self.rejected.ids[self.rejected.said.start :]

    @property
    def in_common(self) -> int:
        """How many tokens both answers begin with."""
        one, other = self.answers
        apart = (at for at, (a, b) in enumerate(zip(one, other, strict=False)) if a != b)
        return next(apart, min(len(one), len(other)))

    @property
    def counted(self) -> tuple[list[int], list[int]]:
        """Of each token of both answers, SAME or OWN. The end of a worse answer is not what is wrong with it, unless it
        comes too early: it is SAME."""
        common = self.in_common
        marks = [[SAME] * common + [OWN] * (len(answer) - common) for answer in self.answers]
        if len(marks[1]) > common + 1:
            marks[1][-1] = SAME
        return marks[0], marks[1]


def pack_pairs(pairs: Sequence[Pair], width: int) -> tuple[dict[str, Any], list[Row]]:
    """Both rows of each pair, packed with the others: what :func:`pack` gives, and the rows in order; besides

    pairs: (P, 2) the segments of the better and the worse answer of each pair.
    answers: (B, L) SAME or OWN at the tokens of an answer that is compared, 0 elsewhere.
    weights: what counts in the cross-entropy, of the better answers' rows alone.
    """
    for pair in pairs:
        pair.rejected.weights = [0.0] * len(pair.rejected.ids)
    batch, order = pack([row for pair in pairs for row in (pair.chosen, pair.rejected)], width)
    number = {id(row): at for at, row in enumerate(order)}
    batch["pairs"] = torch.tensor([[number[id(pair.chosen)], number[id(pair.rejected)]] for pair in pairs])
    marks = dict[int, list[int]]()
    for pair in pairs:
        for row, marked in zip((pair.chosen, pair.rejected), pair.counted, strict=True):
            marks[id(row)] = ([0] * row.said.start + marked)[: len(row.ids)]
    batch["answers"] = torch.zeros_like(batch["ids"])
    batch["answers"][batch["segments"] >= 0] = torch.tensor([mark for row in order for mark in marks[id(row)]])
    return batch, order


def pair_of(
    tokens: TurnTokens,
    turn: Mapping[str, Any],
    rejected: str,
    frames: int = 0,
    hearing: Hearing | None = None,
    longest: int | None = None,
) -> Pair:
    """The pair of a turn, a clip's metadata, and of one answer that is worse than its own.

    frames: positions in which the turn is heard; 0: it is read. hearing: how earlier turns are heard; their clips stand
    in the rows' ``clips``, the turn's own does not. longest: positions; where a row has more, the oldest turns are left
    out, and then its end.
    """
    history = history_of(turn)[-HISTORY:]
    while True:
        before = tokens.row(turn.get("system"))
        for question, answer in history:
            earlier, clip, instruction = (hearing(question, answer) if hearing else None) or (0, -1, None)
            before.add_turn(question, answer, earlier, 0.0, 0.0, instruction)
            before.clips += [clip] if earlier else []
        rows = before, before.copy()
        for row, answer in zip(rows, (turn["answer"], rejected), strict=True):
            row.add_turn(turn["text"], answer, frames, float(frames > 0), instruction=turn.get("instruction"))
        if longest is None or max(len(row.ids) for row in rows) <= longest:
            return Pair(*rows)
        if not history:
            for row in rows:
                row.ids, row.weights = row.ids[:longest], row.weights[:longest]
            return Pair(*rows)
        history = history[1:]


def are_written(names: Sequence[str]) -> bool:
    """Whether data are files of conversations, rather than prepared sets of clips.

    Raises:
        DuologueError: some are the one and some the other.
    """
    written = [not name.startswith("live:") and not isfile(expanded(Path(name)) / "dataset.json") for name in names]
    if len(set(written)) > 1:
        raise DuologueError(f"data={','.join(names)} mixes files of conversations and sets of clips: give one kind")
    return bool(written) and written[0]


def read_turns(files: Sequence[str]) -> list[dict[str, Any]]:
    """Each turn in files of conversations that has rejected answers, as a clip's metadata.

    Raises:
        DuologueError: a file that cannot be read, or there is no such turn.
    """
    found: list[dict[str, Any]] = []
    for name, dialogue in read_dialogues(files):
        history: list[tuple[str, str]] = []
        for turn in dialogue.turns:
            if turn.rejected:
                said = {"text": turn.question, "answer": turn.answer, "rejected": turn.rejected}
                before = {"conversation": name, "system": dialogue.system, "history": tuple(history)}
                found.append(said | before | {"instruction": turn.instruction})
            history.append((turn.question, turn.answer))
    if not found:
        raise DuologueError(f"no turn in {', '.join(files)} has 'rejected', an answer that is worse than its 'reply'")
    return found
