"""Nested config dataclasses to plain JSON values and back, strictly: what is unknown, missing or of another type is an
error that names the field.

Fields may be bool, int, float, str, None, Literal, Enum (by value), Fraction ("3/2"), a nested dataclass, list, tuple,
dict with string keys, Any (plain JSON values), and unions of these.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from enum import Enum
from fractions import Fraction
from typing import Any, TypeVar

from ..model.errors import DuologueError

T = TypeVar("T")


def config_to_dict(config: Any, newer: bool = True) -> dict[str, Any]:
    """A config dataclass as JSON values, fields in the order of their declaration.

    Args:
        newer: False leaves out a field whose metadata says ``newer`` and that has its default: a file of before it had
            the same.
    Raises:
        DuologueError: a value has no JSON form.
    """
    return _fields(config, "", newer)


def _fields(config: Any, where: str, newer: bool) -> dict[str, Any]:
    shown = [(f, getattr(config, f.name)) for f in dataclasses.fields(config)]
    return {f.name: _dump(value, _join(where, f.name), newer) for f, value in shown
            if newer or "newer" not in f.metadata or value != _default(f)}  # fmt: skip


def _default(field: dataclasses.Field[Any]) -> Any:
    return field.default if field.default_factory is dataclasses.MISSING else field.default_factory()


def config_from_dict(cls: type[T], data: Any, where: str = "") -> T:
    """The dataclass ``cls`` from what :func:`config_to_dict` wrote; its own ``__post_init__`` checks run too.

    A field that has a default must be there nevertheless: a checkpoint says all that it was made with. Only an optional
    part of a model (see speech_lm_config.py), or a field whose metadata says ``newer``, may be absent: the file is
    older than it.

    Args:
        where: the path of this object in the file, for messages ("encoder", "unit_decoder").
    Raises:
        DuologueError: naming the first field that is unknown, missing, of another type, or refused by the dataclass.
    """
    name = where or cls.__name__
    if not isinstance(data, dict):
        raise DuologueError(f"config: {name} is {_show(data)}; it must be an object")
    fields = {f.name: f for f in dataclasses.fields(cls) if f.init}  # type: ignore[arg-type]
    for key in data:
        if key not in fields:
            raise DuologueError(f"config: unknown field {_join(where, key)!r}; {name} has: {', '.join(fields)}")
    for key, field in fields.items():
        optional = "newer" in field.metadata or ("part" in field.metadata and field.default is None)
        if key not in data and not optional:
            raise DuologueError(f"config: field {_join(where, key)!r} is missing")
    kinds = typing.get_type_hints(cls)
    values = {key: read_value(kinds[key], data[key], _join(where, key)) for key in fields if key in data}
    try:
        return cls(**values)
    except DuologueError as error:
        raise DuologueError(f"config: {where + ': ' if where else ''}{error}") from None


def _join(where: str, field: str) -> str:
    return f"{where}.{field}" if where else str(field)


def _show(value: Any) -> str:
    """A value in a message, cut to one short line."""
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _dump(value: Any, where: str, newer: bool) -> Any:
    if value is None or (isinstance(value, (bool, int, float, str)) and not isinstance(value, Enum)):
        return value
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, Fraction):
        return str(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return _fields(value, where, newer)
    if isinstance(value, (list, tuple)):
        return [_dump(item, f"{where}[{i}]", newer) for i, item in enumerate(value)]
    if isinstance(value, dict) and all(isinstance(key, str) for key in value):
        return {key: _dump(item, _join(where, key), newer) for key, item in value.items()}
    raise DuologueError(f"config: field {where!r} is {_show(value)}, which a config file cannot hold")


def read_value(kind: Any, value: Any, where: str) -> Any:
    """``value`` of a file, checked and rebuilt as the annotated type ``kind``; ``where`` is its path in messages.

    Raises:
        DuologueError: as :func:`config_from_dict`.
    """
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if kind is Any:
        return value
    if origin in (typing.Union, types.UnionType):
        return _read_union(args, value, where)
    if origin is typing.Literal:
        if value in args and type(value) in {type(arg) for arg in args}:
            return value
        raise DuologueError(f"config: {where} is {_show(value)}; it must be {' or '.join(map(repr, args))}")
    if origin is tuple or kind is tuple:
        if isinstance(value, list):
            return _read_tuple(args, value, where)
    elif origin is list or kind is list:
        if isinstance(value, list):
            return [read_value(args[0] if args else Any, item, f"{where}[{i}]") for i, item in enumerate(value)]
    elif origin is dict or kind is dict:
        if isinstance(value, dict):
            return {key: read_value(args[1] if args else Any, item, _join(where, key)) for key, item in value.items()}
    elif dataclasses.is_dataclass(kind):
        return config_from_dict(kind, value, where)  # type: ignore[arg-type]
    elif kind is None or kind is type(None):
        if value is None:
            return None
    elif kind is float:
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            return float(value)
    elif kind in (bool, int, str):
        if type(value) is kind:
            return value
    elif isinstance(kind, type) and issubclass(kind, (Enum, Fraction)):
        try:
            return kind(value)
        except (ValueError, TypeError, ZeroDivisionError):
            pass
    raise DuologueError(f"config: {where} is {_show(value)}; it must be of type {_name(kind)}")


def _read_union(options: tuple[Any, ...], value: Any, where: str) -> Any:
    """The first option that fits. ``X | None``, the usual case, keeps X's own message."""
    if value is None and type(None) in options:
        return None
    rest = [option for option in options if option is not type(None)]
    if len(rest) == 1:
        return read_value(rest[0], value, where)
    sizes = [option for option in rest if dataclasses.is_dataclass(option)]
    if isinstance(value, dict) and sizes:  # several configs: the one whose fields differ least says what is wrong

        def differences(option: Any) -> int:
            return len(value.keys() ^ {field.name for field in dataclasses.fields(option)})

        return read_value(min(sizes, key=differences), value, where)
    for option in rest:
        try:
            return read_value(option, value, where)
        except DuologueError:
            continue
    raise DuologueError(f"config: {where} is {_show(value)}; it must be of type {' | '.join(map(_name, options))}")


def _read_tuple(args: tuple[Any, ...], value: list[Any], where: str) -> tuple[Any, ...]:
    if not args:
        return tuple(value)
    if args[-1] is Ellipsis:
        kinds: tuple[Any, ...] = (args[0],) * len(value)
    elif len(args) == len(value):
        kinds = args
    else:
        raise DuologueError(f"config: {where} has {len(value)} values; it must have {len(args)}")
    return tuple(map(read_value, kinds, value, (f"{where}[{i}]" for i in range(len(value)))))


def _name(kind: Any) -> str:
    return "None" if kind is type(None) else kind.__name__ if isinstance(kind, type) else str(kind)
