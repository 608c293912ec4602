"""The tables: no two entries contradict each other, and a few facts are looked up by hand."""

from __future__ import annotations

from duologue.data_prep.nano.facts import (
    CAPITALS,
    COLOURS,
    DAYS,
    MONTHS,
    OPPOSITES,
    REPEAT_WORDS,
    SOUNDS,
    SPELLING_WORDS,
    UNIT_TABLE,
    YOUNG,
)


def test_no_two_entries_contradict_each_other() -> None:
    assert len(CAPITALS) >= 40 and len(set(CAPITALS.values())) == len(CAPITALS)
    both = [*OPPOSITES, *OPPOSITES.values()]
    assert len(set(both)) == len(both)  # so the opposite of an opposite is the word itself
    assert len(set(SOUNDS.values())) == len(SOUNDS) and len(set(YOUNG.values())) == len(YOUNG)
    assert len(set(SPELLING_WORDS)) == len(SPELLING_WORDS) and len(set(REPEAT_WORDS)) == len(REPEAT_WORDS)


def test_every_name_is_one_word() -> None:
    for word in (*CAPITALS, *CAPITALS.values(), *OPPOSITES, *SOUNDS, *YOUNG, *COLOURS.values(), *REPEAT_WORDS):
        assert word.isalpha() and word.islower(), word


def test_a_few_by_hand() -> None:
    some = {"france": "paris", "germany": "berlin", "denmark": "copenhagen", "japan": "tokyo", "peru": "lima"}
    assert some.items() <= CAPITALS.items()
    assert (DAYS[0], DAYS[6], MONTHS[0], MONTHS[1], MONTHS[11]) == (
        "monday", "sunday", "january", "february", "december",
    )  # fmt: skip
    sizes = {(small, one): size for small, _, one, size, _ in UNIT_TABLE}
    assert sizes["seconds", "minute"] == sizes["minutes", "hour"] == 60
    assert (sizes["hours", "day"], sizes["days", "week"], sizes["grams", "kilogram"]) == (24, 7, 1000)
