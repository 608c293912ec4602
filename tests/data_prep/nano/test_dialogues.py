"""The grammar: many distinct questions, right answers, and a test that training has never seen."""

from __future__ import annotations

import re
import subprocess
import sys
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest

from duologue.data_prep.datasets.splits import operand_split
from duologue.data_prep.nano import dialogues as grammar
from duologue.data_prep.nano import vocabulary
from duologue.data_prep.nano.dialogues import (
    Dialogue,
    Split,
    behind_another_turn,
    count_distinct,
    generate,
    is_held_out,
    template_id,
    template_table,
    templates_of,
)
from duologue.data_prep.nano.domain import KIND_OF, KINDS, PRACTICE, Category
from duologue.data_prep.nano.facts import CAPITALS, DAYS, MONTHS, OPPOSITES
from duologue.data_prep.nano.small_talk import INTERJECTIONS, LEAD_INS, TRAILERS
from duologue.data_prep.text.spoken import contains_slot, letters_marked, normalise, number_in_words

N = 3000
NUMBER = {number_in_words(n): n for n in range(10000)}
NUMBER_WORDS = set(" ".join(NUMBER).split())


@pytest.fixture(scope="module")
def drawn() -> dict[Split, list[Dialogue]]:
    return {split: [generate(3, index, split) for index in range(N)] for split in Split}


@pytest.fixture(scope="module")
def plain() -> dict[Split, list[Dialogue]]:
    """Without fillers."""
    return {split: [generate(8, index, split, fillers=False) for index in range(N)] for split in Split}


def test_a_hundred_thousand_questions_are_distinct() -> None:
    """Counted by writing every one of the finite kinds down, not by multiplication."""
    questions: set[str] = set()
    for kind in KINDS:
        if not isinstance(kind.domain, tuple):
            continue
        fields = [kind.solve(operands).fields for operands in kind.domain]
        written = {template.format(**slots) for slots in fields for template in kind.templates[:4]}
        assert len(written) == len(fields) * len(kind.templates[:4]), kind.name
        questions |= written
        for slots in fields[:: max(1, len(fields) // 50)]:
            assert len({template.format(**slots) for template in kind.templates}) == len(kind.templates), kind.name
        assert count_distinct()[kind.name] == (len(set(kind.domain)), len(set(kind.domain)) * len(kind.templates))
    assert len(questions) > 100_000
    assert sum(count for _, count in count_distinct().values()) > 500_000


def test_every_large_kind_has_ten_wordings() -> None:
    for kind in KINDS:
        if kind.category is not Category.SMALL_TALK and kind.name != "outside":
            assert len(set(kind.templates)) == len(kind.templates) >= 10, kind.name
    assert sum(kind.category is Category.SMALL_TALK for kind in KINDS) >= 25


def test_no_wording_of_a_held_out_question_is_trained_on_under_another_kind() -> None:
    """Whatever the slots are called. (How one goes on from another turn is held out of each kind by itself.)"""
    where: dict[str, set[Split]] = {}
    for kind in KINDS:
        for split in Split:
            for template in templates_of(kind.name, split) if kind.before is None else ():
                where.setdefault(re.sub(r"{\w+}", "{}", template), set()).add(split)
    assert {wording for wording, splits in where.items() if len(splits) > 1} == set()


def test_training_never_sees_the_test(drawn: dict[Split, list[Dialogue]]) -> None:
    templates = {split: {dialogue.template for dialogue in drawn[split]} for split in Split}
    assert not templates[Split.TRAIN] & (templates[Split.TEST] | templates[Split.DEV])
    assert not templates[Split.TEST] & templates[Split.DEV]
    held_out = {kind.name for kind in KINDS if kind.held_out}
    operands = {split: {d.operands for d in drawn[split] if d.kind in held_out} for split in Split}
    assert not operands[Split.TRAIN] & (operands[Split.TEST] | operands[Split.DEV])
    assert not operands[Split.TEST] & operands[Split.DEV]
    for split in Split:
        assert all(operand_split(key) is split for key in operands[split])


def test_a_mirrored_sum_is_not_trained_on(drawn: dict[Split, list[Dialogue]]) -> None:
    def pair(dialogue: Dialogue) -> frozenset[str]:
        return frozenset(re.split(" plus | is ", dialogue.answer)[:2])

    train = {pair(dialogue) for dialogue in drawn[Split.TRAIN] if dialogue.kind == "plus"}
    test = {pair(dialogue) for dialogue in drawn[Split.TEST] if dialogue.kind == "plus"}
    assert train and test and not train & test


def test_shares_held_out() -> None:
    assert sum(map(len, (templates_of(kind.name, Split.TEST) for kind in KINDS))) == pytest.approx(
        sum(len(kind.templates) for kind in KINDS) / 10, rel=0.2
    )
    for kind in KINDS:
        if kind.held_out and isinstance(kind.domain, tuple) and len(kind.domain) > 1000:
            fractions = Counter(operand_split(kind.key(operands)) for operands in kind.domain)
            assert fractions[Split.TEST] / len(kind.domain) == pytest.approx(0.20, abs=0.02), kind.name
            assert fractions[Split.DEV] / len(kind.domain) == pytest.approx(0.05, abs=0.015), kind.name


def test_every_kind_can_be_learnt_and_the_test_has_no_new_words() -> None:
    known = {word for kind in template_table() for t in templates_of(kind, Split.TRAIN) for word in t.split()}
    for kind in template_table():
        assert len(templates_of(kind, Split.TRAIN)) >= 3, kind
        for split in (Split.DEV, Split.TEST):
            for template in templates_of(kind, split):
                assert set(template.split()) <= known, template


def recompute(question: str, kind: str) -> set[str]:
    """What may be the answer, worked out from the question's words alone, in another way than the grammar's."""
    kind = kind.removesuffix("_more")  # asks the same otherwise
    words = question.replace("which one", "which").split()
    runs, at = [], 0
    while at < len(words):  # the longest number from here on
        ends = [end for end in range(len(words), at, -1) if " ".join(words[at:end]) in NUMBER]
        if ends:
            runs.append(NUMBER[" ".join(words[at : ends[0]])])
            at = ends[0]
        else:
            at += 1
    day = next((word for word in words if word in DAYS), "")
    # "may" is a month only at the end of the question proper
    month = next((word for word in words if word in MONTHS), "")
    if kind == "plus":
        return {number_in_words(runs[0] + runs[1])}
    if kind == "minus":
        return {number_in_words(max(runs) - min(runs))}
    if kind == "times":
        return {number_in_words(runs[0] * runs[1])}
    if kind == "larger":
        return {f"{number_in_words(max(runs))} is larger"}
    if kind == "smaller":
        return {f"{number_in_words(min(runs))} is smaller"}
    if kind in ("number_after", "number_before"):
        return {number_in_words(runs[0] + (1 if kind == "number_after" else -1)) + " comes"}
    if kind in ("day_after", "day_before", "days_after"):
        step = {"day_after": 1, "day_before": -1}.get(kind, runs[0] if runs else 0)
        return {f"is {(DAYS * 4)[DAYS.index(day) + step + 7]}"}
    if kind in ("month_after", "month_before"):
        return {f"is {(MONTHS * 3)[MONTHS.index(month) + (1 if kind == 'month_after' else -1) + 12]}"}
    if kind == "capitals":
        return {CAPITALS[next(word for word in words if word in CAPITALS)]}
    if kind == "opposites":
        both = OPPOSITES | {v: k for k, v in OPPOSITES.items()}
        return {f"is {both[word]}" for word in words if word in both}
    if kind == "spelling":
        return {" ".join(word) for word in words}
    if kind == "repeat":
        return {" ".join(words[start:]) for start in range(len(words))}
    if kind == "units":
        sizes = {"minute": 60, "hour": 60, "day": 24, "week": 7, "year": 12, "metre": 100, "kilometre": 1000,
                 "kilogram": 1000, "foot": 12, "feet": 12, "dozen": 12}  # fmt: skip
        # the number stands right before the larger unit
        for at in range(1, len(words)):
            size = sizes.get(words[at]) or sizes.get(words[at].removesuffix("s"))
            if size and words[at - 1] in NUMBER:
                return {number_in_words(runs[0] * size)}
    if kind == "double":
        return {number_in_words(runs[0] * 2)}
    if kind == "half":
        return {number_in_words(max(runs) // 2)}
    if kind == "parity":
        return {f"is {('even', 'odd')[runs[0] % 2]}"}
    if kind in ("clock_after", "clock_before"):
        hours, start = (12 if run == 0 else run for run in runs[:2])
        clock = list(range(1, 13)) * 3
        return {f"is {number_in_words(clock[11 + start + (hours if kind == 'clock_after' else -hours)])} o clock"}
    if kind == "month_days":
        thirty = ("april", "june", "september", "november")
        return {f"{'thirty' if month in thirty else 'twenty eight' if month == 'february' else 'thirty one'} days"}
    if kind == "first_letter":
        return {f"letter {word[0]}" for word in words}
    if kind == "orders":
        return {" ".join(words[start:]) for start in range(len(words))}
    raise AssertionError((question, kind))


def test_days_are_counted_out_one_by_one() -> None:
    kind = KIND_OF["days_after"]
    assert kind.solve((2, "saturday")).reply == "two days after saturday one sunday two monday it is monday"
    for number, day in kind.domain:
        answer = kind.solve((number, day))
        words = answer.reply.split()
        named, counted = [word for word in words if word in DAYS], [word for word in words if word in NUMBER]
        assert counted == [number_in_words(number), *map(number_in_words, range(1, number + 1))]
        assert named[0] == day and len(named) == number + 2  # its own, those that pass, and the last of these again
        assert all(DAYS[(DAYS.index(a) + 1) % 7] == b for a, b in pairwise(named[:-1])) and named[-1] == named[-2]
        assert contains_slot(answer.reply, answer.slot)
        assert not contains_slot(answer.reply.rpartition(" it is ")[0], answer.slot)  # to count is no answer


# What is known by heart, and what goes on from another turn (see below).
COMPUTED = {kind.name for kind in KINDS if kind.before is None} - {
    "sounds", "young", "colours", "legs", "continents",
} - {kind.name for kind in KINDS if kind.category in (Category.SMALL_TALK, Category.OUTSIDE)}  # fmt: skip


@pytest.mark.parametrize("split", list(Split))
def test_answers_are_right(plain: dict[Split, list[Dialogue]], split: Split) -> None:
    checked: Counter[str] = Counter()
    for dialogue in plain[split]:
        if dialogue.kind in COMPUTED:
            wanted = recompute(dialogue.question, dialogue.kind)
            slot = dialogue.slot
            if dialogue.category is Category.UNITS:
                slot = slot.rsplit(" ", 1)[0]
            assert slot in wanted, dialogue
            checked[dialogue.kind] += 1
    assert set(checked) == COMPUTED


def test_practice_is_right_and_of_training_alone(plain: dict[Split, list[Dialogue]]) -> None:
    """In phrases and frames that vary apart, none of them a wording that is kept; in words that are known."""
    asked: Counter[str] = Counter()
    for index in range(N):
        dialogue = generate(8, index, fillers=False, practice=0.25)
        kind = dialogue.kind.removesuffix("_practice")
        if kind == dialogue.kind:
            assert dialogue == plain[Split.TRAIN][index]  # the others stay as they are
            continue
        asked[kind] += 1
        assert not is_held_out(dialogue.question) and set(dialogue.question.split()) <= set(vocabulary.words())
        if KIND_OF[dialogue.kind].held_out:
            assert operand_split(KIND_OF[dialogue.kind].key(tuple(_operands(dialogue.operands)))) is Split.TRAIN
        if kind in COMPUTED:
            slot = dialogue.slot.rsplit(" ", 1)[0] if dialogue.category is Category.UNITS else dialogue.slot
            assert slot in recompute(dialogue.question, kind), dialogue
    assert set(asked) == {kind.name.removesuffix("_practice") for kind in PRACTICE}
    assert all(templates_of(kind.name, split) == () for kind in PRACTICE for split in (Split.DEV, Split.TEST))
    assert 0.22 < asked.total() / N < 0.28
    assert generate(8, 1, Split.TEST, practice=1.0) == generate(8, 1, Split.TEST)


def _operands(text: str) -> list[int | str]:
    return [int(word) if word.isdigit() else word for word in text.split()[1:]]


def assert_goes_on(kind: str, question: str, before: tuple[str, str], answer: str) -> None:
    """The answer follows from the answer before and the new words."""
    earlier, words = before[1], answer.split()
    if kind == "follow_again":
        assert answer == earlier
    elif kind in ("follow_capitals", "follow_opposites"):
        known = CAPITALS if kind == "follow_capitals" else OPPOSITES
        known = known | {v: k for k, v in OPPOSITES.items()}
        assert words[-1] in {known[word] for word in question.split() if word in known}
        assert earlier.rsplit(" ", 2)[0] == answer.rsplit(" ", 2)[0].replace(words[-3], earlier.split()[-3])
    else:
        first = NUMBER[earlier.rsplit(" is ", 1)[1]]
        numbers = [word for word in question.split() if word in NUMBER_WORDS]
        then = NUMBER[" ".join(numbers)]
        result = {"plus": first + then, "minus": first - then, "times": first * then}[kind[7:]]
        assert answer.rsplit(" is ", 1)[1] == number_in_words(result), (question, before, answer)


def test_a_follow_up_goes_on_from_its_turn(plain: dict[Split, list[Dialogue]]) -> None:
    """The turn before is one that training asks."""
    checked: Counter[str] = Counter()
    for split in Split:
        for dialogue in plain[split]:
            if dialogue.category is not Category.FOLLOW_UP:
                assert dialogue.before is None
                continue
            assert dialogue.before is not None and contains_slot(dialogue.answer, dialogue.slot)
            assert_goes_on(dialogue.kind, dialogue.question, dialogue.before, dialogue.answer)
            checked[dialogue.kind] += 1
    assert set(checked) == {kind.name for kind in KINDS if kind.before is not None}


def test_a_follow_up_goes_on_from_other_turns_as_well(drawn: dict[Split, list[Dialogue]]) -> None:
    """The same words, fillers included, behind turns that are drawn anew, none of them held out."""
    rng, turns = np.random.default_rng(0), Counter[tuple[str, str]]()
    follow_ups = [dialogue for dialogue in drawn[Split.TRAIN] if dialogue.before is not None]
    for dialogue in follow_ups:
        found = behind_another_turn(dialogue.template, dialogue.question, rng)
        assert found is not None, dialogue
        before, answer = found
        assert_goes_on(dialogue.kind, dialogue.question, before, answer)
        if dialogue.kind[7:] in ("plus", "minus", "times"):
            first, then = (NUMBER[words] for words in answer.split(" is ")[0].split(f" {dialogue.kind[7:]} "))
            assert operand_split(KIND_OF[dialogue.kind[7:]].key((first, then))) is Split.TRAIN
        turns[before] += 1
    assert len(turns) > 0.7 * len(follow_ups)


@pytest.mark.parametrize(("kind", "practice"), [("follow_again", 0.0), ("follow_again_practice", 0.2)])
def test_what_was_said_wrongly_is_said_again_as_it_was(kind: str, practice: float) -> None:
    drawn = [generate(9, index, "train", fillers=False, practice=practice) for index in range(N)]
    answers, rng = {dialogue.question: dialogue.answer for dialogue in drawn}, np.random.default_rng(0)
    again = [dialogue for dialogue in drawn if dialogue.kind == kind]
    turns = [behind_another_turn(dialogue.template, dialogue.question, rng) for dialogue in again for _ in range(9)]
    wrong = [answers[before[0]] != said for before, said in filter(None, turns) if before[0] in answers]
    assert 0.35 < np.mean(wrong) < 0.65 and len(wrong) > 100


def test_some_of_what_is_said_again_nobody_can_say_who_does_not_copy_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Answers with other words in them, which no question has."""
    rng, garbled, real = np.random.default_rng(0), dict[str, str](), grammar._with_other_words

    def with_other_words(reply: str, rng: np.random.Generator) -> str:
        other = real(reply, rng)
        garbled[other] = reply
        return other

    monkeypatch.setattr(grammar, "_with_other_words", with_other_words)
    drawn = (generate(9, index, "train") for index in range(N))
    again = [dialogue for dialogue in drawn if dialogue.kind == "follow_again"]
    turns = [behind_another_turn(dialogue.template, dialogue.question, rng) for dialogue in again for _ in range(9)]
    said = [answer for before, answer in filter(None, turns) if before[1] == answer]
    assert len(said) == len(turns)  # behind whatever it was
    assert 0.2 < np.mean([garbled.get(answer, answer) != answer for answer in said]) < 0.4
    changed = [np.mean([a != b for a, b in zip(other.split(), reply.split(), strict=True)])
               for other, reply in garbled.items()]  # fmt: skip
    assert 0.4 < np.mean(changed) < 0.7 and min(changed) < 0.2 and max(changed) > 0.9
    assert {word for other in garbled for word in other.split()} <= set(vocabulary.words())


def test_what_goes_on_from_nothing_known_stays_as_it_is() -> None:
    rng = np.random.default_rng(0)
    drawn = [generate(9, index, "train", fillers=False) for index in range(N)]
    plain = next(dialogue for dialogue in drawn if dialogue.before is None)
    capitals = next(dialogue for dialogue in drawn if dialogue.question.startswith("and of "))
    assert behind_another_turn(capitals.template, capitals.question, rng) is not None
    assert behind_another_turn(plain.template, plain.question, rng) is None
    assert behind_another_turn(capitals.template, "what is that plus five", rng) is None
    assert behind_another_turn(capitals.template, "and of atlantis", rng) is None


def test_a_sum_that_goes_on_is_held_out_with_its_like() -> None:
    train = [generate(11, index, "train") for index in range(N)]
    for dialogue in train:
        if dialogue.kind == "follow_plus":
            _, a, b = dialogue.operands.split()
            assert operand_split(KIND_OF["plus"].key((int(a), int(b)))) is Split.TRAIN


def test_later_kinds_changed_nothing_of_what_was_held_out() -> None:
    """The test's wordings of the first kinds, as they were when the first nano was trained."""
    kept = {
        "plus": {"how much is {a} plus {b}", "{a} plus {b}"},
        "repeat": {"say {w}", "can you say {w}"},
    }
    for name, wordings in kept.items():
        assert set(templates_of(name, Split.TEST)) == wordings


def test_a_reply_has_its_slot_and_wrong_ones_have_not(drawn: dict[Split, list[Dialogue]]) -> None:
    arithmetic = [d for d in drawn[Split.TRAIN] if d.category is Category.ARITHMETIC]
    for dialogue in (d for dialogues in drawn.values() for d in dialogues):
        assert contains_slot(dialogue.answer, dialogue.slot), dialogue
    for one, other in pairwise(arithmetic):
        assert contains_slot(other.answer, one.slot) == (one.slot == other.slot), (one, other)


@pytest.mark.parametrize(
    ("reply", "slot", "wanted"),
    [
        ("forty seven plus thirty five is eighty two", "eighty two", True),
        ("Forty-seven plus 35 is 82.", "eighty two", True),
        ("one hundred plus eighty two is one hundred eighty two", "eighty two", False),
        ("seventy minus sixty six is four", "four", True),
        ("seventy four minus seventy is five", "four", False),
        ("four plus one is five", "four", False),
        ("three weeks are twenty one days", "twenty one days", True),
        ("three weeks are thirty one days", "one days", False),
        ("the capital of france is paris", "paris", True),
        ("the capital of france is parish", "paris", False),
        ("", "paris", False),
        ("anything", "", False),
        ("they speak jamaican english", "Jamaican Creole English Language|Jamaican English", True),
        ("they speak english", "Jamaican Creole English Language|Jamaican English", False),
        ("anything", "|", False),
    ],
)
def test_slots(reply: str, slot: str, wanted: bool) -> None:
    assert contains_slot(reply, slot) is wanted


def test_the_same_dialogue_in_any_process(drawn: dict[Split, list[Dialogue]]) -> None:
    code = "from duologue.data_prep.nano.dialogues import generate\nfor i in range(50): print(generate(3, i, 'test'))"
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True,
        env={"PYTHONPATH": ":".join(sys.path), "PYTHONHASHSEED": "77"},
    )  # fmt: skip
    assert run.stdout.splitlines() == [str(dialogue) for dialogue in drawn[Split.TEST][:50]]


def test_seeds_and_indices_differ() -> None:
    questions = {generate(seed, index).question for seed in range(5) for index in range(40)}
    assert len(questions) > 150


def test_text_is_plain_words(drawn: dict[Split, list[Dialogue]]) -> None:
    for dialogue in (d for dialogues in drawn.values() for d in dialogues):
        for text in (dialogue.question, dialogue.answer, dialogue.slot):
            assert re.fullmatch(r"[a-z]+( [a-z]+)*", text), dialogue


def test_fillers_come_before_or_after(drawn: dict[Split, list[Dialogue]]) -> None:
    plain = [generate(3, index, fillers=False).question for index in range(N)]
    both = list(zip(plain, (d.question for d in drawn[Split.TRAIN]), strict=True))
    assert 0.2 < sum(bare != full for bare, full in both) / N < 0.6
    fillers = {word for phrase in (*INTERJECTIONS, *LEAD_INS, *TRAILERS) for word in phrase.split()}
    for bare, full in both:
        assert f" {bare} " in f" {full} "
        assert set(full.replace(bare, "", 1).split()) <= fillers


def test_numbers_in_words() -> None:
    assert [number_in_words(n) for n in (0, 13, 30, 47, 100, 144, 999, 3000, 9042)] == [
        "zero", "thirteen", "thirty", "forty seven", "one hundred", "one hundred forty four",
        "nine hundred ninety nine", "three thousand", "nine thousand forty two",
    ]  # fmt: skip
    assert len({number_in_words(n) for n in range(10000)}) == 10000
    with pytest.raises(ValueError, match="10000"):
        number_in_words(10000)


def test_normalise() -> None:
    assert normalise("What's 47 + thirty-five?") == "whats forty seven thirty five"
    assert normalise("3 + 4, 9 - 2 and 3*5") == "three plus four nine minus two and three times five"
    assert normalise("a well-known 47-year-old") == "a well known forty seven year old"
    assert normalise("  Hello,\n WORLD! ") == "hello world"
    assert normalise("Yes—it is/was … a_b") == "yes it is was a b", "words that a mark parts are not joined"
    assert normalise("1,024") == "one thousand twenty four" and normalise("1, 2,30") == "one two thirty"


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("cat is spelled c a t", "cat is spelled c A t"),
        ("a cat has a tail", "a cat has a tail"),
        ("a p p l e", "A p p l e"),
        ("s e a", "s e A"),
        ("am i a robot", "am i a robot"),
        ("the letter a", "the letter A"),
        ("a", "a"),
    ],
)
def test_the_letter_and_the_article(text: str, wanted: str) -> None:
    assert letters_marked(text, "A") == wanted


def test_template_ids_are_distinct() -> None:
    ids = [template_id(kind.name, template) for kind in KINDS for template in kind.templates]
    assert len(set(ids)) == len(ids)
