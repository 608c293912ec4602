"""KEY=VALUE: whatever is typed for whichever key, it is taken or refused in one line."""

from __future__ import annotations

import dataclasses
import math
import typing
from pathlib import Path
from typing import Any

import pytest

from duologue.checkpoints.settings import finite, whole
from duologue.data_prep.datasets.recordings import RecordingsConfig
from duologue.data_prep.prepare import RECIPES, parse_overrides
from duologue.data_prep.recipes.rewrite import RewriteConfig
from duologue.data_prep.recipes.sounds import SoundsConfig
from duologue.data_prep.recipes.spliced import SplicedConfig
from duologue.data_prep.recipes.turns import TurnsConfig
from duologue.data_prep.recipes.units import UnitsConfig
from duologue.demo.importing import KINDS, run
from duologue.model.errors import DuologueError
from duologue.training.main import STAGES, resolve

TYPED = (
    "foo", "-1", "0", "1", "2.5", "nan", "inf", "-inf", "1e999", "", "[]", "{}", "None", "true", ",", "1,2,3", "5,1",
    "nan,nan", "a=b", "²", "٣", "9" * 30, "9" * 5_000, "\x00", "..", "ü",
)  # fmt: skip
CONFIGS = [
    *(recipe.config for recipe in RECIPES.values()),
    RecordingsConfig, UnitsConfig, SoundsConfig, SplicedConfig, TurnsConfig, RewriteConfig,
]  # fmt: skip


def taken(read: typing.Callable[[], Any]) -> Any:
    """What was read, or the DuologueError, whose message is one line."""
    try:
        return read()
    except DuologueError as error:
        assert str(error) and "\n" not in str(error)
        return error


@pytest.mark.parametrize("stage", STAGES)
def test_any_value_for_any_key_of_a_recipe(stage: str) -> None:
    plain = resolve(stage, ["preset=tiny"])
    for key, kind in typing.get_type_hints(type(plain)).items():
        single = not dataclasses.is_dataclass(kind) and typing.get_origin(kind) is not dict
        for text in TYPED:
            found = taken(lambda entry=f"{key}={text}": resolve(stage, ["preset=tiny", entry]))
            if isinstance(found, DuologueError):
                continue
            assert single, f"{key}={text} was taken for {kind}"
            value = getattr(found, key)
            if kind in (int, float):
                assert math.isfinite(value) and value >= 0
            assert type(value) is type(getattr(plain, key)) or getattr(plain, key) is None or value is None


@pytest.mark.parametrize(
    ("stage", "entry", "said"),
    [
        ("speech_to_text", "adaptor=foo", r"adaptor=foo: adaptor is no single value: .*adaptor\.stack"),
        ("asr_pretrain", "mel=foo", r"mel=foo: mel is no single value: .*mel\.n_mels"),
        ("text_sft", "betas=0.9", "betas=0.9: it must be 2 values"),
        ("text_sft", "betas=0.9,1", r"betas is \(0.9, 1.0\); both must be 0 to below 1"),
        ("text_sft", "lr=nan", "lr=nan: the value must be of type float, and finite"),
        ("text_sft", "out=", "out is empty; it must name a folder"),
        ("text_sft", "learn=", "learn is empty"),
        ("text_sft", "seed=-1", "seed is -1; it must be at least 0"),
        ("text_sft", "stage=asr", "unknown key 'stage'"),
        ("asr_pretrain", "augment=foo", "augment is 'foo'; it must be one of none, light"),
        ("text_sft", "workers=1000000", "workers is 1000000; it must be at most 256"),
        ("asr_pretrain", "dropout=1", "dropout is 1.0; it must be below 1"),
    ],
)
def test_what_is_said(stage: str, entry: str, said: str) -> None:
    with pytest.raises(DuologueError, match=said):
        resolve(stage, [entry])


def test_any_value_for_any_key_of_prepare() -> None:
    for config in CONFIGS:
        fields = dataclasses.fields(config)
        needed = {field.name: "x" for field in fields if field.default is dataclasses.MISSING}
        for field in fields:
            for text in TYPED:
                entries = [f"{key}={value}" for key, value in (needed | {field.name: text}).items()]
                found = taken(lambda config=config, entries=entries: parse_overrides(config, entries))
                if field.type in ("int", "float") and not isinstance(found, DuologueError):
                    assert math.isfinite(getattr(found, field.name))


def test_any_value_for_any_option_of_an_importer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from duologue.demo import importing

    monkeypatch.setattr(importing, "resolve_foreign", lambda source: tmp_path)
    for kind in KINDS:
        for key in ("heads", "layer", "bandwidth_id"):
            for text in TYPED:
                found = taken(lambda kind=kind, entry=f"{key}={text}": run(kind, "x", tmp_path / "dest", [entry]))
                assert isinstance(found, DuologueError)  # the folder is empty


def test_numbers() -> None:
    assert whole("-7") == -7 and finite("1e3") == 1000.0
    for read, text in ((whole, "9223372036854775808"), (whole, "1.0"), (finite, "nan"), (finite, "-inf"), (finite, "")):
        with pytest.raises(ValueError):
            read(text)


@pytest.mark.parametrize("name", ["recipe.json", "config.json"])
@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"null", b"\xff", b'{"llm": 3}', b"[" * 100_000], ids=range(7))
def test_a_part_from_a_folder_that_cannot_be_read(tmp_path: Path, name: str, data: bytes) -> None:
    (tmp_path / name).write_bytes(data)
    for part in ("llm", "encoder"):
        found = taken(lambda part=part: resolve("speech_to_text", ["preset=tiny", f"{part}={tmp_path}"]))
        assert isinstance(found, DuologueError)
