"""What a command line names: settings as KEY=VALUE, read onto a frozen dataclass, and the modules of a folder by name.

``prepare``, ``train``, ``evaluate``, ``import``, ``assemble``, ``grow`` and ``bench`` take their settings so.
What is unknown, of another type or missing is one line that says what would be right.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import importlib
import inspect
import math
import re
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar, overload

from ..model.errors import DuologueError
from .files import expanded, with_home

T = TypeVar("T")
_LARGEST = 2**63 - 1  # numpy and torch count to here
_BOOL = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


@overload
def read_settings(config: type[T], words: Sequence[str], whose: str, *, fixed: Sequence[str] = ...) -> T: ...
@overload
def read_settings(config: T, words: Sequence[str], whose: str, *, fixed: Sequence[str] = ...) -> T: ...
def read_settings(config: Any, words: Sequence[str], whose: str, *, fixed: Sequence[str] = ()) -> Any:
    """``config`` with the settings that ``words`` give it; of the same key the last one counts.

    ``encoder.n_audio_layer=4`` reaches a config within, also one that is optional, and an entry of a dictionary. Where
    there are several, ``encoder.kind=whisper`` takes the one that stands in whisper.py. A tuple's values have commas
    between, ``none`` empties what may be empty, ``~`` is the home folder.

    Args:
        config: a dataclass, whose fields without a default must be given; or one that is made and is to be changed.
        whose: who takes them, for messages: "recipe asr_pretrain".
        fixed: fields that are no settings.
    Raises:
        DuologueError: one line that names the key, the value and what would be right; or what the dataclass refuses.
    """
    given = {}
    for word in map(with_home, words):
        key, equals, text = word.partition("=")
        if not equals:
            example = f"{word[2:].replace('-', '_')}=…" if word.startswith("--") else "for example seed=1"
            raise DuologueError(f"{word!r}, given to {whose}, must be KEY=VALUE, {example}")
        given[key] = text
    return _with(config, given, whose, fixed)


def settings_of(function: Callable[..., Any], besides: Sequence[str]) -> type:
    """The keyword arguments of a function, without some, as a config for :func:`read_settings`."""
    own = [each for each in inspect.signature(function, eval_str=True).parameters.values() if each.name not in besides]
    fields: list[Any] = [
        (each.name, each.annotation, *([] if each.default is each.empty else [each.default])) for each in own
    ]
    return dataclasses.make_dataclass("Settings", fields, frozen=True, kw_only=True)


def _with(
    config: type[T] | T,
    given: Mapping[str, str],
    whose: str,
    fixed: Sequence[str] = (),
    where: str = "",
    kept: Mapping[str, Any] | None = None,
) -> T:
    cls: Any = config if isinstance(config, type) else type(config)
    hints = typing.get_type_hints(cls)
    fields = {field.name: field for field in dataclasses.fields(cls) if field.init and field.name not in fixed}
    values: dict[str, Any] = dict(kept or {})
    within: dict[str, dict[str, str]] = {}
    for key, text in given.items():
        name, dot, rest = key.partition(".")
        if name not in fields:
            raise _unknown(where + name, [where + field for field in fields], "key", whose)
        if dot:
            within.setdefault(name, {})[rest] = text
        else:
            values[name] = _value(hints[name], text, where + name)
    for name, inner in within.items():
        now = fields[name].default if isinstance(config, type) else getattr(config, name)
        values[name] = _inner(hints[name], now, inner, whose, where + name)
    if isinstance(config, type):
        needed = [name for name, field in fields.items() if field.default is field.default_factory]  # both are MISSING
        if absent := [name for name in needed if values.get(name, "") == ""]:
            raise DuologueError(f"{whose} needs {', '.join(f'{where}{name}=…' for name in absent)}")
    try:
        return cls(**values) if isinstance(config, type) else dataclasses.replace(config, **values)  # type: ignore
    except DuologueError as error:
        raise DuologueError(f"{where.rstrip('.')}: {error}" if where else str(error)) from None


def _inner(kind: Any, now: Any, given: Mapping[str, str], whose: str, where: str) -> Any:
    """The config or dictionary ``now`` with these settings; an optional one that is empty is made of them."""
    if isinstance(now, dict):
        for key in given:
            if key not in now:
                raise _unknown(f"{where}.{key}", [f"{where}.{name}" for name in now], "key", whose)
        return now | {key: _value(type(now[key]), text, f"{where}.{key}") for key, text in given.items()}
    options = [option for option in (kind, *typing.get_args(kind)) if dataclasses.is_dataclass(option)]
    if "kind" in given and len(options) > 1:  # another of several configs: it keeps what the one now says of its fields
        kinds = {str(option.__module__).rpartition(".")[2]: option for option in options}
        chosen = _one_of(kinds, given["kind"], f"{where}.kind")
        given = {key: text for key, text in given.items() if key != "kind"}
        if type(now) is not chosen:
            names = [each.name for each in dataclasses.fields(chosen) if hasattr(now, each.name)]
            kept = {name: getattr(now, name) for name in names}
            return _with(chosen, given, whose, (), f"{where}.", kept)
    if not dataclasses.is_dataclass(now) and len(options) != 1:
        raise DuologueError(f"unknown key {where}.{next(iter(given))!s} for {whose}: {where} has no settings within")
    return _with(now if dataclasses.is_dataclass(now) else options[0], given, whose, (), f"{where}.")


def _value(kind: Any, text: str, key: str) -> Any:
    """What ``text`` means for a field of type ``kind``."""
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        options = [option for option in args if option is not types.NoneType]
        if text.lower() == "none" and len(options) < len(args):
            return None
        for option in options[:-1]:
            try:
                return _value(option, text, key)
            except DuologueError:
                continue
        return _value(options[-1], text, key)
    if origin is tuple:
        parts = [part for part in text.split(",") if part]
        kinds = args[:1] * len(parts) if args[-1] is Ellipsis else args
        if len(kinds) != len(parts):
            raise DuologueError(f"{key}={text}: it must be {len(kinds)} values with a comma between, not {len(parts)}")
        return tuple(_value(one, part, key) for one, part in zip(kinds, parts, strict=True))
    if dataclasses.is_dataclass(kind) or dict in (kind, origin):
        fields = dataclasses.fields(kind) if dataclasses.is_dataclass(kind) else ()
        names = ", ".join(f"{key}.{field.name}" for field in fields) or f"{key}.NAME"
        raise DuologueError(f"{key}={text}: {key} is no single value: its settings are {names}")
    if origin is typing.Literal:
        return _one_of({str(arg): arg for arg in args}, text, key)
    if isinstance(kind, type) and issubclass(kind, Enum):
        return _one_of({str(member.value): member for member in kind}, text, key)
    if kind is bool:
        return _one_of(_BOOL, text.lower(), key)
    read, what = _READ.get(kind, (str, "a text"))
    try:
        return read(text)
    except ValueError:
        raise DuologueError(f"{key}={text}: the value must be {what}") from None


def _one_of(choices: Mapping[str, Any], text: str, key: str) -> Any:
    if text not in choices:
        raise DuologueError(f"{key}={text}: the value must be one of {', '.join(choices)}")
    return choices[text]


def whole(text: str) -> int:
    """Raises ValueError unless it is a whole number that 64 bits hold."""
    value = int(text)
    if abs(value) > _LARGEST:
        raise ValueError(text)
    return value


def finite(text: str) -> float:
    """Raises ValueError unless it is a number: neither nan nor infinite."""
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(text)
    return value


def _path(text: str) -> Path:
    if not text:
        raise ValueError(text)
    return expanded(text)


_READ: Mapping[Any, tuple[Callable[[str], Any], str]] = {
    int: (whole, "a whole number"), float: (finite, "a number, and finite"), Path: (_path, "a path"),
}  # fmt: skip


def _unknown(name: str, known: Iterable[str], what: str, whose: str = "") -> DuologueError:
    """One line with the nearest name, and all of them."""
    known = list(known)
    near = difflib.get_close_matches(name, known, 1)
    did = f" (did you mean {near[0]}?)" if near else ""
    return DuologueError(
        f"unknown {what} {name!r}{f' for {whose}' if whose else ''}{did}; "
        + (f"there are: {', '.join(sorted(known))}" if known else "there are none")
    )


@dataclass(frozen=True)
class Catalogue:
    """The modules of a folder that a command finds by name: those that define ``defines``; all others are helpers.

    To add one means to add its file. Names and first lines are read from the source: ``--help`` imports nothing.
    """

    folder: str  # from the root: "training/recipes"
    what: str  # "recipe"
    defines: str = "run"
    dash: bool = False  # a name has - where its file has _

    def first_lines(self) -> dict[str, str]:
        """{name: the first line of its module's docstring}, sorted by name."""
        return _first_lines(self)

    def module(self, name: str) -> ModuleType:
        """Raises DuologueError for a name that is none of them."""
        if name not in (known := self.first_lines()):
            raise _unknown(name, known, self.what)
        stem = name.replace("-", "_") if self.dash else name
        return importlib.import_module(f"..{self.folder.replace('/', '.')}.{stem}", __package__)

    def help(self) -> str:
        """A paragraph of a command's help: each name with its first line."""
        rows = self.first_lines()
        width = max(map(len, rows)) + 2
        return "\b\n" + "\n".join(f"  {name:<{width}}{line}" for name, line in rows.items())


@functools.cache
def _first_lines(catalogue: Catalogue) -> dict[str, str]:
    found = {}
    for path in sorted((Path(__file__).parent.parent / catalogue.folder).glob("*.py")):
        source = path.read_text(encoding="utf-8")
        if re.search(rf"^(def|class) {catalogue.defines}\b", source, re.MULTILINE):
            doc = re.match(r'"""(.*?)(?:"""|\n)', source)
            found[path.stem.replace("_", "-") if catalogue.dash else path.stem] = doc[1] if doc else ""
    return found
