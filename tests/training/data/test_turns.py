"""Rows of turns: an answer that is asked for again may have been cut short, and then no more of it is said again."""

from collections import Counter
from dataclasses import replace

import numpy as np

from duologue.data_prep.datasets.question_sets import question_set
from duologue.training.data.marked_turns import marked_tokens
from duologue.training.recipes.text_sft import cut_short

NANO, TOKENS = question_set("nano"), marked_tokens("nano")
BEFORE = ("what is two plus three", "two plus three is five")


def test_what_was_cut_short_is_said_again_as_short_and_teaches_no_stopping() -> None:
    rng = np.random.default_rng(0)
    lengths: Counter[int] = Counter()
    for _ in range(400):
        row = TOKENS.row()
        answer = row.add_before({"before": BEFORE, "answer": BEFORE[1]}, rng, NANO)
        assert answer is not None and BEFORE[1].startswith(answer)
        assert TOKENS.decode(row.ids).split() == f"{BEFORE[0]} {answer}".split()
        said = row.weights[-len(TOKENS.encode(answer)) - 2 :]
        assert set(said) == {0.0}
        assert row.ids[-1] == TOKENS.eos
        lengths[len(answer.split())] += 1
    assert set(lengths) == set(range(1, 6)) and 0.25 < lengths[5] / 400 < 0.45, "mostly cut"


def test_another_follow_up_goes_on_from_the_whole_answer() -> None:
    row = TOKENS.row()
    turn = {"before": BEFORE, "answer": "five plus one is six"}
    assert row.add_before(turn, np.random.default_rng(0), NANO) == "five plus one is six"
    assert TOKENS.decode(row.ids) == " ".join(BEFORE) and row.weights[-1] == 1.0
    assert TOKENS.row().add_before({"before": BEFORE}, np.random.default_rng(0), NANO) is None


def test_written_dialogues_are_cut_short_too_and_recalling_them_is_measured() -> None:
    """text_sft learns from them, and its figure asks for exactly what was heard."""
    (dialogue,) = cut_short(NANO, 1)
    assert dialogue.before is not None and dialogue.before[1] == dialogue.answer
    whole = replace(dialogue, history=(BEFORE,), answer=BEFORE[1], template="")
    rng = np.random.default_rng(0)
    said = set()
    for _ in range(40):
        row = TOKENS.row()
        row.add_dialogue(whole, 0.2, rng, NANO)
        heard = TOKENS.decode(row.ids).removeprefix(BEFORE[0] + " ")
        again = heard.split(f" {whole.question} ")
        assert again[0] == again[1]
        said.add(again[0])
    assert len(said) == 5
    lengths = {len(d.answer.split()) for d in cut_short(NANO, 16)}
    assert 1 in lengths and len(lengths) > 3
