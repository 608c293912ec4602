"""Configs to JSON and back: everything comes back as it was, and what is wrong is named."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from enum import Enum
from fractions import Fraction
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from duologue.checkpoints.config_io import config_from_dict, config_to_dict
from duologue.model.errors import DuologueError


class Shape(Enum):
    ROUND = "round"
    SQUARE = "square"


@dataclass(frozen=True, kw_only=True)
class Inner:
    width: int
    rate: Fraction = Fraction(1)

    def __post_init__(self) -> None:
        if self.width < 1:
            raise DuologueError(f"width is {self.width}; it must be at least 1")


@dataclass(frozen=True, kw_only=True)
class Outer:
    name: str
    flag: bool
    fraction: float
    inner: Inner | None
    inners: tuple[Inner, ...] = ()
    pair: tuple[int, float] = (1, 2.0)
    grid: tuple[tuple[int, ...], ...] = ()
    names: list[str]
    shape: Shape = Shape.ROUND
    norm: Literal["a", "b", 1] = "a"
    extra: dict[str, Any]
    counts: dict[str, int]
    either: int | str = 0


@dataclass(frozen=True, kw_only=True)
class Wider:
    width: int
    rate: Fraction
    depth: int


@dataclass(frozen=True, kw_only=True)
class Newer:
    names: dict[str, int] = field(default_factory=dict, metadata={"newer": True})


@dataclass(frozen=True, kw_only=True)
class Kinds:
    part: Wider | Inner


inners = st.builds(Inner, width=st.integers(1, 9), rate=st.fractions(min_value=0, max_value=9, max_denominator=7))
floats = st.floats(allow_nan=False, allow_infinity=False)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | floats | st.text(max_size=3),
    lambda inside: st.lists(inside, max_size=2) | st.dictionaries(st.text(max_size=2), inside, max_size=2),
    max_leaves=4,
)
outers = st.builds(
    Outer,
    name=st.text(max_size=4),
    flag=st.booleans(),
    fraction=floats,
    inner=st.none() | inners,
    inners=st.lists(inners, max_size=2).map(tuple),
    pair=st.tuples(st.integers(), floats),
    grid=st.lists(st.lists(st.integers(), max_size=2).map(tuple), max_size=2).map(tuple),
    names=st.lists(st.text(max_size=2), max_size=2),
    shape=st.sampled_from(Shape),
    norm=st.sampled_from(["a", "b", 1]),
    extra=st.dictionaries(st.text(max_size=2), json_values, max_size=2),
    counts=st.dictionaries(st.text(max_size=2), st.integers(), max_size=2),
    either=st.integers() | st.text(max_size=2),
)


@given(outers)
def test_there_and_back(config: Outer) -> None:
    text = json.dumps(config_to_dict(config))
    again = config_from_dict(Outer, json.loads(text))
    assert again == config
    assert json.dumps(config_to_dict(again)) == text  # the types too: 1 stays 1, and 1.0 stays 1.0


GOOD = config_to_dict(
    Outer(name="n", flag=True, fraction=1.0, inner=Inner(width=2), names=["x", "y"], extra={"a": None}, counts={"k": 1})
)


def test_whole_numbers_are_floats_too() -> None:
    fraction = config_from_dict(Outer, GOOD | {"fraction": 2}).fraction
    assert fraction == 2.0 and type(fraction) is float


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"nam": "x"}, "unknown field 'nam'; Outer has: name, flag, "),
        ({"name": 3}, "name is 3; it must be of type str"),
        ({"name": None}, "name is None; it must be of type str"),
        ({"flag": 1}, "flag is 1; it must be of type bool"),
        ({"fraction": "1.0"}, "fraction is '1.0'; it must be of type float"),
        ({"fraction": True}, "fraction is True; it must be of type float"),
        ({"inner": {"width": 2}}, "field 'inner.rate' is missing"),
        ({"inner": {"width": 2.0, "rate": "1"}}, "inner.width is 2.0; it must be of type int"),
        ({"inner": {"width": True, "rate": "1"}}, "inner.width is True; it must be of type int"),
        ({"inner": {"width": 0, "rate": "1"}}, "inner: width is 0; it must be at least 1"),
        ({"inner": {"width": 1, "rate": "1/0"}}, "inner.rate is '1/0'; it must be of type Fraction"),
        ({"inners": [{"width": 1, "rate": "1"}, {"width": "1", "rate": "1"}]}, r"inners[1].width is '1'"),
        ({"inners": {}}, "inners is {}; it must be of type tuple"),
        ({"pair": [1]}, "pair has 1 values; it must have 2"),
        ({"pair": [1, "x"]}, "pair[1] is 'x'"),
        ({"grid": [[1], [None]]}, "grid[1][0] is None"),
        ({"names": "x"}, "names is 'x'; it must be of type list"),
        ({"shape": "oval"}, "shape is 'oval'; it must be of type Shape"),
        ({"norm": "c"}, "norm is 'c'; it must be 'a' or 'b' or 1"),
        ({"norm": True}, "norm is True; it must be"),
        ({"counts": {"k": "1"}}, "counts.k is '1'; it must be of type int"),
        ({"extra": []}, "extra is []; it must be of type dict"),
        ({"either": 1.5}, "either is 1.5; it must be of type int | str"),
    ],
)
def test_what_is_wrong_is_named(change: dict[str, Any], message: str) -> None:
    with pytest.raises(DuologueError) as caught:
        config_from_dict(Outer, GOOD | change)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("field", sorted(GOOD))
def test_every_field_must_be_there(field: str) -> None:
    """Also those with a default: a changed default must not change an old model."""
    with pytest.raises(DuologueError, match=f"field '{field}' is missing"):
        config_from_dict(Outer, {key: value for key, value in GOOD.items() if key != field})


def test_a_newer_field_may_be_absent_and_is_left_out_where_it_says_nothing() -> None:
    assert config_from_dict(Newer, {}) == Newer()
    assert config_to_dict(Newer(), newer=False) == {}
    assert config_to_dict(Newer(names={"a": 1}), newer=False) == {"names": {"a": 1}}


def test_what_has_no_json_form_is_refused() -> None:
    with pytest.raises(DuologueError, match=r"field 'extra\.f' is <"):
        config_to_dict(Outer(name="", flag=True, fraction=1.0, inner=None, names=[], extra={"f": object()}, counts={}))


def test_of_several_configs_the_fields_tell_which_it_is() -> None:
    for part in (Inner(width=2), Wider(width=2, rate=Fraction(1), depth=3)):
        assert config_from_dict(Kinds, config_to_dict(Kinds(part=part))).part == part
    with pytest.raises(DuologueError, match=r"unknown field 'part\.height'; part has: width, rate$"):
        config_from_dict(Kinds, {"part": {"width": 2, "rate": "1", "height": 3}})
