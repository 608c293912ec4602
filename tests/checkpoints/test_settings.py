"""KEY=VALUE: whatever is typed for whichever key, it is taken or refused in one line."""

from __future__ import annotations

import dataclasses
import math
import re
import typing
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Literal

import pytest

from duologue.checkpoints.settings import Catalogue, finite, read_settings, whole
from duologue.data_prep.prepare import RECIPES as PREPARED
from duologue.demo.importing import IMPORTERS, run
from duologue.model.codec.codec import CodecConfig
from duologue.model.codec.quantiser import QuantiserConfig
from duologue.model.codec.seanet import SEANetConfig
from duologue.model.codec.spectral_encoder import SpectralEncoderConfig
from duologue.model.codec.vocos import VocosConfig
from duologue.model.errors import DuologueError
from duologue.training.main import RECIPES, resolve

TYPED = (
    "foo", "-1", "0", "1", "2.5", "nan", "inf", "-inf", "1e999", "", "[]", "{}", "None", "true", ",", "1,2,3", "5,1",
    "nan,nan", "a=b", "²", "٣", "9" * 30, "9" * 5_000, "\x00", "..", "ü",
)  # fmt: skip


def taken(read: typing.Callable[[], Any]) -> Any:
    """What was read, or the DuologueError, whose message is one line."""
    try:
        return read()
    except DuologueError as error:
        assert str(error) and "\n" not in str(error)
        return error


@pytest.mark.parametrize("stage", RECIPES.first_lines())
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
        ("speech_to_text", "adaptor=foo", "unknown model 'foo': not a bundled name .*, not a folder"),
        ("asr_pretrain", "mel=foo", r"mel=foo: mel is no single value: .*mel\.n_mels"),
        ("text_sft", "betas=0.9", "betas=0.9: it must be 2 values"),
        ("text_sft", "betas=0.9,1", r"betas is \(0.9, 1.0\); both must be 0 to below 1"),
        ("text_sft", "lr=nan", "lr=nan: the value must be a number, and finite"),
        ("text_sft", "out=", "out is empty; it must name a folder"),
        ("text_sft", "learn=", "learn is empty"),
        ("text_sft", "seed=-1", "seed is -1; it must be at least 0"),
        ("text_sft", "stage=asr", "unknown key 'stage'"),
        ("asr_pretrain", "augment=foo", "augment is 'foo'; it must be one of none, light"),
        ("text_sft", "workers=1000000", "workers is 1000000; it must be at most 256"),
    ],
)
def test_what_is_said(stage: str, entry: str, said: str) -> None:
    with pytest.raises(DuologueError, match=said):
        resolve(stage, [entry])


@pytest.mark.parametrize("catalogue", [PREPARED, IMPORTERS], ids=lambda catalogue: catalogue.what)
def test_any_value_for_any_setting(catalogue: Catalogue) -> None:
    for name in catalogue.first_lines():
        config = catalogue.module(name).Config
        kinds, fields = typing.get_type_hints(config), dataclasses.fields(config)
        needed = {field.name: "1" for field in fields if field.default is dataclasses.MISSING}
        for field in fields:
            for text in TYPED:
                entries = [f"{key}={value}" for key, value in (needed | {field.name: text}).items()]
                found = taken(lambda config=config, entries=entries: read_settings(config, entries, "it"))
                if kinds[field.name] in (int, float) and not isinstance(found, DuologueError):
                    assert math.isfinite(getattr(found, field.name))


def test_any_value_for_any_option_of_an_importer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from duologue.demo import importing

    monkeypatch.setattr(importing, "resolve_foreign", lambda source: tmp_path)
    for kind in IMPORTERS.first_lines():
        for key in ("heads", "layer", "bandwidth_id"):
            for text in TYPED:
                found = taken(lambda kind=kind, entry=f"{key}={text}": run(kind, "x", tmp_path / "dest", [entry]))
                assert isinstance(found, DuologueError)  # the folder is empty


class Colour(StrEnum):
    RED = "red"
    BLUE = "blue"


@dataclass(frozen=True, kw_only=True)
class Inner:
    size: int
    pair: tuple[float, float] = (0.0, 1.0)

    def __post_init__(self) -> None:
        if self.size < 0:
            raise DuologueError(f"size is {self.size}; it must be at least 0")


@dataclass(frozen=True, kw_only=True)
class Other:
    width: int = 1


@dataclass(frozen=True, kw_only=True)
class Outer:
    """One field of each type that a setting may have."""

    inner: Inner = Inner(size=3)
    perhaps: Inner | None = None
    either: Inner | Other = Other()
    sizes: dict[str, Any] = dataclasses.field(default_factory=lambda: {"layers": 2, "name": "x"})
    colour: Colour = Colour.RED
    how: Literal["slow", "fast"] = "slow"
    path: Path | None = None
    names: tuple[str, ...] = ()
    number: int | float = 0


def test_settings_reach_within() -> None:
    words = ["inner.pair=2,3", "perhaps.size=4", "either.width=5", "sizes.layers=6", "colour=blue", "how=fast",
             "path=~/x", "names=a,b", "number=0.5", "inner.size=1", "inner.size=7"]  # fmt: skip
    found = read_settings(Outer(), words, "it")
    assert found == Outer(
        inner=Inner(size=7, pair=(2.0, 3.0)), perhaps=Inner(size=4), either=Other(width=5),
        sizes={"layers": 6, "name": "x"}, colour=Colour.BLUE, how="fast", path=Path.home() / "x", names=("a", "b"),
        number=0.5,
    )  # fmt: skip
    assert read_settings(found, ["perhaps=none", "path=none"], "it").perhaps is None
    assert resolve("asr_pretrain", ["preset=tiny", "encoder.n_audio_layer=1"]).encoder.n_audio_layer == 1  # type: ignore[attr-defined]


def test_another_kind_of_a_part_keeps_what_both_say() -> None:
    codec = CodecConfig(encoder=SEANetConfig(dim=32, kernel=9), quantiser=QuantiserConfig(dim=32), decoder=None)
    words = ["encoder.kind=spectral_encoder", "encoder.layers=2", "decoder.kind=vocos", "decoder.in_dim=32"]
    found = read_settings(codec, words, "it")
    assert found.encoder == SpectralEncoderConfig(dim=32, kernel=9, hop=320, layers=2)
    assert found.decoder == VocosConfig(in_dim=32)
    assert read_settings(found, ["encoder.kind=spectral_encoder", "encoder.layers=3"], "it").encoder.kernel == 9
    for word, said in (
        ("encoder.kind=spectral", "encoder.kind=spectral: the value must be one of seanet, spectral_encoder"),
        ("encoder.layers=2", "unknown key 'encoder.layers'"),
        ("quantiser.kind=x", "unknown key 'quantiser.kind'"),
    ):
        with pytest.raises(DuologueError, match=re.escape(said)):
            read_settings(codec, [word], "it")


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("inner.sise=1", r"'inner\.sise' for it \(did you mean inner\.size\?\); there are: inner\.pair, inner\.size$"),
        ("inner.size=x", "inner.size=x: the value must be a whole number"),
        ("inner.size=-1", "inner: size is -1; it must be at least 0"),
        ("inner=3", "inner=3: inner is no single value: its settings are inner.size, inner.pair"),
        ("perhaps.pair=1,2", "it needs perhaps.size=…"),
        ("sizes.depth=1", "unknown key 'sizes.depth'.*sizes.layers"),
        ("sizes.layers=x", "sizes.layers=x: the value must be a whole number"),
        ("colour=green", "colour=green: the value must be one of red, blue"),
        ("how=soon", "how=soon: the value must be one of slow, fast"),
        ("path=", "path=: the value must be a path"),
        ("colour.x=1", "unknown key colour.x for it: colour has no settings within"),
        ("out", "'out', given to it, must be KEY=VALUE"),
    ],
)
def test_what_is_said_of_a_setting(word: str, said: str) -> None:
    found = taken(lambda: read_settings(Outer(), [word], "it"))
    assert isinstance(found, DuologueError) and re.search(said, str(found)), found


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
