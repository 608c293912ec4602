"""The grammar of nano's first domain: questions in many wordings, with answers that are computed, not written.

    generate(seed, index, split) -> Dialogue

A question has a kind (plus, capitals, …), one of the kind's wordings, and operands. One wording in ten and one pair of
operands in five belong to the test (fewer to development) and are never in a training question; see splits.py. Facts
that can only be learnt by heart hold out wordings alone. The idea, short spoken questions with short spoken answers, is
that of InstructS2S-200K (Fang et al., "LLaMA-Omni", arXiv 2409.06666).
"""

from __future__ import annotations

import functools
import re
import string

import numpy as np

from ..datasets.question_sets import Dialogue
from ..datasets.splits import Split, operand_split, stable_fraction, template_splits
from ..text.spoken import LETTERS, NUMBER_WORDS
from .domain import FIRST_KINDS, KIND_OF, KINDS, LATER_KINDS, PRACTICE, REWORDED
from .facts import REPEAT_WORDS
from .kinds.kind import Category, Kind, Operands
from .small_talk import INTERJECTIONS, LEAD_INS, TRAILERS, with_fillers

__all__ = ["Category", "Dialogue", "Split", "behind_another_turn", "count_distinct", "generate", "is_held_out",
           "is_whole_question", "templates_of"]  # fmt: skip


_BEFORE, _AFTER = "|".join((*INTERJECTIONS, *LEAD_INS)), "|".join(TRAILERS)  # fillers around a question
_SLOT = re.compile(r"\{[a-z]+\}")
_SAID = (*2 * NUMBER_WORDS, *LETTERS, *REPEAT_WORDS)  # words of replies


@functools.cache
def template_table() -> dict[str, dict[str, Split]]:
    """{kind: {template: split}}, of all kinds but those for practice."""
    shared = {kind.name for kind in KINDS if kind.category is Category.SMALL_TALK}
    table: dict[str, dict[str, Split]] = {}
    for kinds in (FIRST_KINDS, LATER_KINDS, REWORDED):  # each by itself: what came later changes nothing
        table |= template_splits({kind.name: kind.templates for kind in kinds}, shared)
    return table


@functools.cache
def templates_of(kind: str, split: Split) -> tuple[str, ...]:
    if kind in template_table():
        return tuple(template for template, where in template_table()[kind].items() if where is split)
    return () if split is not Split.TRAIN else tuple(filter(_may_be_practised, KIND_OF[kind].templates))


def _may_be_practised(template: str) -> bool:
    """Whether no question in these words is one in a wording that is kept."""
    return not is_held_out(_SLOT.sub("x", template))


@functools.cache
def _held_out_wordings() -> re.Pattern[str]:
    """Matches a question in a wording kept for development or the test, whatever is asked about, fillers or none."""
    wordings = [
        "[a-z ]+".join(re.escape(literal) for literal, *_ in string.Formatter().parse(template))
        + ("[a-z ]+" if template.endswith("}") else "")
        for table in template_table().values()
        for template, where in table.items()
        if where is not Split.TRAIN
    ]
    return re.compile(_between_fillers("|".join(wordings)))


def _between_fillers(pattern: str) -> str:
    return rf"(?:(?:{_BEFORE}) )*(?:{pattern})(?: (?:{_AFTER}))*"


def is_held_out(text: str) -> bool:
    """Whether a text is a question in a wording that no training question has."""
    return _held_out_wordings().fullmatch(text) is not None


@functools.cache
def _ways_to_ask() -> list[tuple[re.Pattern[str], list[set[str]]]]:
    """Every wording as a pattern, and what each of its groups may be about; nothing there: anything."""
    ways = []
    for kind in KINDS:
        about: dict[str, set[str]] = {}
        for operands in kind.domain if isinstance(kind.domain, tuple) else ():
            for slot, words in kind.solve(operands).fields.items():
                about.setdefault(slot, set()).add(words)
        for template in kind.templates:
            pattern, slots = _as_pattern(template, "(.+)")
            ways.append((re.compile(pattern), [about.get(slot, set()) for slot in slots]))
    return ways


def _as_pattern(template: str, group: str) -> tuple[str, list[str]]:
    """A wording as a pattern with a group for each of its slots, and the slots."""
    parts = list(string.Formatter().parse(template))
    pattern = "".join(re.escape(literal) + ("" if slot is None else group) for literal, slot, *_ in parts)
    return pattern, [slot for _, slot, *_ in parts if slot is not None]


def is_whole_question(text: str) -> bool:
    """Whether a text is a question already, and not the beginning of one: "what comes after twenty" (five)."""
    for pattern, about in _ways_to_ask():
        found = pattern.fullmatch(text)
        if found and all(not words or group in words for group, words in zip(found.groups(), about, strict=True)):
            return True
    return False


def pauses_in(question: str) -> list[int]:
    """Behind how many words one may pause: where what was said is not a question already, which nobody could tell."""
    words = re.sub(rf"(?: (?:{_AFTER}))+$", "", question).split()
    said = {cut: " ".join(words[:cut]) for cut in range(1, len(words))}
    return [
        cut
        for cut, text in said.items()
        if not is_whole_question(re.sub(rf"^(?:(?:{_BEFORE}) )+", "", f"{text} ").strip())
    ]


def template_id(kind: str, template: str) -> str:
    return f"{kind}-{int(stable_fraction(f'id {kind} {template}') * 2**32):08x}"


@functools.cache
def _kinds_of(split: Split) -> tuple[tuple[Kind, ...], np.ndarray]:
    kinds = tuple(kind for kind in KINDS if templates_of(kind.name, split))
    return kinds, np.cumsum([kind.weight for kind in kinds])


@functools.cache
def _practised() -> tuple[tuple[Kind, ...], np.ndarray]:
    return PRACTICE, np.cumsum([kind.weight for kind in PRACTICE])


def split_of(kind: Kind, operands: Operands) -> Split | None:
    """Where these operands belong; None: everywhere."""
    return operand_split(kind.key(operands)) if kind.held_out else None


def generate(
    seed: int, index: int, split: Split | str = Split.TRAIN, *, fillers: bool = True, practice: float = 0.0
) -> Dialogue:
    """The `index`-th dialogue of a seed: the same one whenever and wherever it is asked for.

    practice: the fraction of training's dialogues in wordings for practice (see practice.py); the others stay as
    they are.
    """
    split = Split(split)
    rng = np.random.default_rng([seed, index, tuple(Split).index(split)])
    practised = split is Split.TRAIN and practice > 0 and np.random.default_rng([seed, index, 3]).random() < practice
    kinds, ends = _practised() if practised else _kinds_of(split)
    kind = kinds[int(np.searchsorted(ends, rng.uniform(0, ends[-1]), side="right").clip(0, len(kinds) - 1))]
    templates = templates_of(kind.name, split)
    template = templates[int(rng.integers(len(templates)))]
    operands = kind.draw(rng)
    while split_of(kind, operands) not in (None, split):
        operands = kind.draw(rng)
    answer = kind.solve(operands)
    question = template.format(**answer.fields)
    before = _turn_before(kind, operands, rng)
    return Dialogue(
        category=kind.category,
        kind=kind.name,
        template=template_id(kind.name, template),
        question=with_fillers(question, rng) if fillers else question,
        answer=answer.reply,
        slot=answer.slot,
        operands=kind.key(operands),
        history=() if before is None else (before,),
    )


def _turn_before(kind: Kind, operands: Operands, rng: np.random.Generator) -> tuple[str, str] | None:
    """Question and answer of the turn before, asked as in training: what is held out is how one goes on from it."""
    if kind.before is None:
        return None
    name, earlier = kind.before(operands)
    wordings = templates_of(name, Split.TRAIN)
    first = KIND_OF[name].solve(earlier)
    return wordings[int(rng.integers(len(wordings)))].format(**first.fields), first.reply


@functools.cache
def _follow_ups() -> dict[str, tuple[Kind, list[str], re.Pattern[str]]]:
    """{id of a follow-up's wording: its kind, its slots, and what it matches, a group each, fillers or none}."""
    found = {}
    for kind in KIND_OF.values():
        for template in kind.templates if kind.before is not None else ():
            pattern, slots = _as_pattern(template, "(.+?)")
            found[template_id(kind.name, template)] = kind, slots, re.compile(_between_fillers(pattern))
    return found


def behind_another_turn(template: str, question: str, rng: np.random.Generator) -> tuple[tuple[str, str], str] | None:
    """Another turn of the training's, which the question may go on from, and the answer to it then.

    The words of a follow-up say nothing of the turn before ("and add five to that"), so one clip of it teaches as many
    as are drawn. What is only said again ("what did you say") is to be what was said, be it right or wrong: three in
    ten times it is the answer to something else, and as often such an answer with other words in it, which only who
    copies them can say again. None: ``template`` is no follow-up's, or none like the question was drawn in
    10,000 attempts.
    """
    kind, slots, pattern = _follow_ups().get(template, (None, [], None))
    said = None if pattern is None else pattern.fullmatch(question)
    if kind is None or said is None:
        return None
    for _ in range(10_000):
        operands = kind.draw(rng)
        answer = kind.solve(operands)
        before = _turn_before(kind, operands, rng)
        new = split_of(kind, operands) in (None, Split.TRAIN)
        if before and new and [answer.fields[slot] for slot in slots] == list(said.groups()):
            reply = answer.reply
            if not slots and (wrong := rng.random()) < 0.6:
                reply = kind.solve(kind.draw(rng)).reply
                reply = _with_other_words(reply, rng) if wrong < 0.3 else reply
                before = before[0], reply
            return before, reply
    return None


def _with_other_words(reply: str, rng: np.random.Generator) -> str:
    """The reply with a tenth of its words to all of them replaced by others that replies have, numbers above all."""
    fraction = rng.uniform(0.1, 1)
    return " ".join(_SAID[int(rng.integers(len(_SAID)))] if rng.random() < fraction else word for word in reply.split())


def count_distinct() -> dict[str, tuple[int, int]]:
    """{kind: (distinct operands, distinct questions without fillers)} of the kinds whose operands can be listed."""
    return {
        kind.name: (len(kind.domain), len(kind.domain) * len(kind.templates))
        for kind in KINDS
        if isinstance(kind.domain, tuple)
    }
