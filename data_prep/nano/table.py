"""nano's wordings and facts are tables, in ``tables/`` as TOML: data, which nobody reads Python for."""

from __future__ import annotations

import functools
import tomllib
from pathlib import Path
from typing import Any


@functools.cache
def table(name: str) -> dict[str, Any]:
    """``tables/NAME.toml``, in its order, with tuples for arrays."""
    found = tomllib.loads(Path(__file__).with_name("tables").joinpath(f"{name}.toml").read_text(encoding="utf-8"))
    return {key: _fixed(value) for key, value in found.items()}


def _fixed(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _fixed(inside) for key, inside in value.items()}
    return tuple(map(_fixed, value)) if isinstance(value, list) else value


WORDINGS: dict[str, tuple[str, ...]] = table("wordings")["questions"]  # by kind
