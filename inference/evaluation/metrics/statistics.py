"""From rows to figures: what a metric is, its value with an interval by bootstrap, and whether two systems differ.

A row is what is known of one item (a question, a file). Its ``measures`` hold for each metric ``[amount, weight]``: the
figure over many rows is the sum of the amounts over the sum of the weights. So a word error rate is errors over words,
a fraction is 0 or 1 over 1, and both are resampled in the same way. Latencies are given at a percentile instead.

Sources: Efron and Tibshirani, "An Introduction to the Bootstrap" (1993), chapters 13 and 16; for word error rates
Bisani and Ney (ICASSP 2004); for many comparisons at once Holm (Scandinavian Journal of Statistics, 1979).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

import numpy as np

Row = Mapping[str, Any]

RESAMPLES = 2_000
_AT_ONCE = 2_000_000  # indices drawn at a time, so that memory stays small


class Better(Enum):
    HIGHER = "higher"
    LOWER = "lower"
    NEITHER = "neither"  # a description


class Statistic(Enum):
    RATIO = "ratio"  # sum of amounts over sum of weights: a mean, a fraction, an error rate
    P50 = "p50"
    P95 = "p95"


@dataclass(frozen=True, kw_only=True)
class Metric:
    """One figure.

    key: of ``measures`` in the rows.  suffix: tells figures of the same measure apart ("p95").
    unit: "%" (the value is a fraction of 1), "ms", "s", "MOS", "dB", "Hz" or "".
    reference: a figure to stand beside it, and where it comes from.
    """

    key: str
    name: str
    unit: str = ""
    better: Better = Better.HIGHER
    statistic: Statistic = Statistic.RATIO
    reference: tuple[float, str] | None = None

    @property
    def id(self) -> str:
        return self.key if self.statistic is Statistic.RATIO else f"{self.key}_{self.statistic.value}"


@dataclass(frozen=True, kw_only=True)
class Finding:
    """A metric's value over rows. low, high: 95 % interval. count: rows it is over; value is None over none."""

    metric: Metric
    value: float | None
    low: float | None
    high: float | None
    count: int

    def to_json(self) -> dict[str, Any]:
        metric = self.metric
        return {
            "id": metric.id, "name": metric.name, "unit": metric.unit, "better": metric.better.value,
            "value": self.value, "low": self.low, "high": self.high, "count": self.count,
            "reference": None if metric.reference is None else list(metric.reference),
        }  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Difference:
    """How B differs from A in a metric, over the rows that both have. p: two-sided, by paired bootstrap."""

    metric: Metric
    a: float | None
    b: float | None
    low: float | None
    high: float | None
    p: float | None
    count: int
    differs: bool = False  # after Holm's correction, at 5 %

    @property
    def better(self) -> bool | None:
        """Whether B is the better; None where they do not differ or neither way is better."""
        if not self.differs or self.metric.better is Better.NEITHER or self.a is None or self.b is None:
            return None
        return (self.b > self.a) == (self.metric.better is Better.HIGHER)


def fraction(values: Iterable[float]) -> float | None:
    """The mean: of what holds or not, how often it does; None of none."""
    held = list(values)
    return float(np.mean(held)) if held else None


def percentiles(values: Sequence[float | None]) -> dict[str, float | None]:
    """The median, the 95th percentile and the largest of what is known."""
    known = [value for value in values if value is not None]
    if not known:
        return {"p50": None, "p95": None, "max": None}
    return {"p50": float(np.percentile(known, 50)), "p95": float(np.percentile(known, 95)), "max": float(max(known))}


def measured(rows: Iterable[Row], key: str) -> list[tuple[float, float]]:
    """(amount, weight) of the rows that have the measure."""
    pairs = [row.get("measures", {}).get(key) for row in rows]
    return [(float(pair[0]), float(pair[1])) for pair in pairs if pair is not None]


def evaluate(metric: Metric, rows: Iterable[Row], seed: int = 0) -> Finding:
    """The metric over all rows that have it, with the interval in which 95 % of the resamples lie."""
    pairs = np.array(measured(rows, metric.key)).reshape(-1, 2)
    value = _value(metric.statistic, pairs[None])[0] if len(pairs) else np.nan
    if not np.isfinite(value):
        return Finding(metric=metric, value=None, low=None, high=None, count=len(pairs))
    draws = _resample(len(pairs), seed, lambda index: _value(metric.statistic, pairs[index]))
    low, high = np.nanpercentile(draws, [2.5, 97.5])
    return Finding(metric=metric, value=float(value), low=float(low), high=float(high), count=len(pairs))


def compare(metric: Metric, a: Mapping[str, Row], b: Mapping[str, Row], seed: int = 0) -> Difference:
    """B against A over the rows, by id, in which both have the metric: the same rows are drawn from both."""
    shared = [key for key in a if key in b and all(metric.key in side[key].get("measures", {}) for side in (a, b))]
    pairs = [np.array(measured((side[key] for key in shared), metric.key)).reshape(-1, 2) for side in (a, b)]
    values = [_value(metric.statistic, side[None])[0] if shared else np.nan for side in pairs]
    if not np.isfinite(values).all():
        return Difference(metric=metric, a=None, b=None, low=None, high=None, p=None, count=len(shared))

    def difference(index: np.ndarray) -> np.ndarray:
        return _value(metric.statistic, pairs[1][index]) - _value(metric.statistic, pairs[0][index])

    draws = _resample(len(shared), seed, difference)
    draws = draws[np.isfinite(draws)]
    low, high = np.percentile(draws, [2.5, 97.5])
    tail = min(np.sum(draws <= 0), np.sum(draws >= 0))
    # With so few items that luck alone often gives them all one sign, no test can tell: 2^(1 - n) is the least p.
    p = min(1.0, max(2 * (float(tail) + 1) / (len(draws) + 1), 2.0 ** (1 - len(shared))))
    first, second = (float(value) for value in values)
    return Difference(metric=metric, a=first, b=second, low=float(low), high=float(high), p=p, count=len(shared))


def holm(p_values: Sequence[float | None], level: float = 0.05) -> list[bool]:
    """Which of many tests hold when the chance that any of them errs is to stay below ``level``."""
    known = sorted((p, at) for at, p in enumerate(p_values) if p is not None)
    held = [False] * len(p_values)
    for rank, (p, at) in enumerate(known):
        if p > level / (len(known) - rank):
            break
        held[at] = True
    return held


def growth_exponent(lengths: Sequence[float], costs: Sequence[float]) -> float | None:
    """The slope of log cost over log length by least squares: 1 for linear growth; None below three lengths."""
    known = [(x, y) for x, y in zip(lengths, costs, strict=True) if x > 0 and y > 0]
    if len({x for x, _ in known}) < 3:
        return None
    x, y = np.log(np.array(known)).T
    return float(np.polyfit(x, y, 1)[0])


def _value(statistic: Statistic, pairs: np.ndarray) -> np.ndarray:
    """(R, n, 2) amounts and weights -> (R,)."""
    amounts, weights = pairs[..., 0], pairs[..., 1]
    with np.errstate(invalid="ignore", divide="ignore"):
        if statistic is Statistic.RATIO:
            return np.asarray(amounts.sum(-1) / weights.sum(-1))
        return np.asarray(np.percentile(amounts / weights, 50 if statistic is Statistic.P50 else 95, axis=-1))


def _resample(count: int, seed: int, of: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """``of`` (r, count) indices drawn with replacement, RESAMPLES times in all -> (RESAMPLES,)."""
    rng = np.random.default_rng(seed)
    size = max(1, min(RESAMPLES, _AT_ONCE // count))
    sizes = [min(size, RESAMPLES - done) for done in range(0, RESAMPLES, size)]
    return np.concatenate([of(rng.integers(count, size=(part, count))) for part in sizes])
