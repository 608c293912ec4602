"""What counts as a right reply."""

import pytest

from duologue.data_prep.nano.dialogues import Split, generate
from duologue.inference.evaluation.judges.slots import is_right

PLUS = ("seven plus forty eight is fifty five", "fifty five")
SPELL = ("fire is spelled f i r e", "f i r e")
LARGER = ("seventy five is larger than twenty eight", "seventy five is larger")
REPEAT = ("say bank bread", "say bank bread")
WEEKS = ("eleven weeks are seventy seven days", "seventy seven days")


@pytest.mark.parametrize(
    ("reply", "question", "right"),
    [
        ("seven plus forty eight is fifty five", PLUS, True),
        ("It's 55.", PLUS, True),
        ("fifty five", PLUS, True),
        ("seven plus fifty five is forty eight", PLUS, False),  # an operand is no answer
        ("seven plus forty eight is one hundred fifty five", PLUS, False),
        ("seven plus forty eight is fifty", PLUS, False),
        ("five", PLUS, False),
        ("", PLUS, False),
        ("fire is spelled f i r e", SPELL, True),
        ("fire is spelled f i r e s", SPELL, False),
        ("fire is spelled a f i r e", SPELL, False),
        ("fire is spelled f r i e", SPELL, False),
        ("seventy five is larger", LARGER, True),
        ("one hundred seventy five is larger", LARGER, False),
        ("twenty eight is larger than seventy five", LARGER, False),
        ("say bank bread", REPEAT, True),
        ("say bank bread bread", REPEAT, False),
        ("bank bread", REPEAT, False),
        ("eleven weeks are seventy seven days", WEEKS, True),
        ("eleven weeks are one hundred seventy seven days", WEEKS, False),
        ("eleven weeks are seventy days", WEEKS, False),
    ],
)
def test_rules(reply: str, question: tuple[str, str], right: bool) -> None:
    assert is_right(reply, *question) is right


def test_by_ear() -> None:
    spell_tub = ("tub is spelled t u b", "t u b")
    assert is_right("tub is spelled tea you be", *spell_tub, by_recogniser=True)
    assert not is_right("tub is spelled tea you be", *spell_tub)
    assert is_right("seven plus one is ate", "seven plus one is eight", "eight", by_recogniser=True)


@pytest.mark.parametrize("split", list(Split))
def test_the_reference_answers_are_right_and_others_are_not(split: Split) -> None:
    dialogues = [generate(3, index, split) for index in range(300)]
    for dialogue in dialogues:
        assert is_right(dialogue.answer, dialogue.answer, dialogue.slot), dialogue
        assert is_right(dialogue.answer, dialogue.answer, dialogue.slot, by_recogniser=True), dialogue
        assert not is_right("", dialogue.answer, dialogue.slot)
    shifted = zip(dialogues, dialogues[1:] + dialogues[:1], strict=True)
    luck = sum(is_right(other.answer, asked.answer, asked.slot) for asked, other in shifted)
    assert luck < 20, "another question's answer is rarely right"
