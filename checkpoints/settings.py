"""The numbers of KEY=VALUE, as the commands train, prepare and import take them."""

from __future__ import annotations

import math

_MOST = 2**63 - 1  # numpy and torch count to here


def whole(text: str) -> int:
    """Raises ValueError unless it is a whole number that 64 bits hold."""
    value = int(text)
    if abs(value) > _MOST:
        raise ValueError(text)
    return value


def finite(text: str) -> float:
    """Raises ValueError unless it is a number: neither nan nor infinite."""
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(text)
    return value
