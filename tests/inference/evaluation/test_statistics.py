"""Intervals and differences against closed forms: the bootstrap, Holm's correction, growth exponents."""

from __future__ import annotations

import math

import numpy as np
import pytest

from duologue.inference.evaluation.metrics.statistics import (
    Better,
    Metric,
    Statistic,
    compare,
    evaluate,
    fraction,
    growth_exponent,
    holm,
    percentiles,
)

WER = Metric(key="wer", name="WER", better=Better.LOWER)


def rows(amounts: np.ndarray, weights: np.ndarray | None = None, key: str = "wer") -> list[dict]:
    weights = np.ones(len(amounts)) if weights is None else weights
    return [{"measures": {key: [a, w]}} for a, w in zip(amounts.tolist(), weights.tolist(), strict=True)]


def test_the_bootstrap_interval_of_a_mean_is_the_normal_one() -> None:
    values = np.random.default_rng(0).normal(3.0, 2.0, 400)
    found = evaluate(WER, rows(values))
    spread = 1.96 * values.std() / math.sqrt(400)
    assert found.value == pytest.approx(values.mean()) and found.count == 400
    assert found.low == pytest.approx(values.mean() - spread, abs=0.06 * spread * 2)
    assert found.high == pytest.approx(values.mean() + spread, abs=0.06 * spread * 2)


def test_the_bootstrap_of_two_values_has_its_exact_distribution() -> None:
    """Of 0 and 1, a resample's mean is 0, 1/2 or 1 with 1/4, 1/2, 1/4: so the interval is the whole of [0, 1]."""
    found = evaluate(WER, rows(np.array([0.0, 1.0])))
    assert (found.low, found.value, found.high) == (0.0, 0.5, 1.0)


def test_a_share_has_the_binomial_interval() -> None:
    found = evaluate(WER, rows(np.repeat([1.0, 0.0], [80, 20])))
    spread = 1.96 * math.sqrt(0.8 * 0.2 / 100)
    assert found.low == pytest.approx(0.8 - spread, abs=0.015) and found.high == pytest.approx(0.8 + spread, abs=0.015)


def test_an_error_rate_is_a_ratio_of_sums() -> None:
    found = evaluate(WER, rows(np.array([1.0, 3.0]), np.array([10.0, 2.0])))
    assert found.value == pytest.approx(4 / 12), "not the mean of 0.1 and 1.5"


def test_percentiles_and_what_is_not_there() -> None:
    values = np.arange(101.0)
    for statistic, wanted in ((Statistic.P50, 50.0), (Statistic.P95, 95.0)):
        metric = Metric(key="ms", name="delay", statistic=statistic)
        found = evaluate(metric, [*rows(values, key="ms"), {"measures": {}}, {}])
        assert found.value == pytest.approx(wanted) and found.count == 101
        assert found.low < wanted < found.high
    assert evaluate(WER, []).value is None and evaluate(WER, [{}]).count == 0
    assert evaluate(WER, rows(np.zeros(3), np.zeros(3))).value is None, "no words at all"
    assert percentiles([None, 1.0])["p50"] == 1.0 and percentiles([])["max"] is None
    assert fraction([True, False]) == 0.5 and fraction([]) is None


def by_id(amounts: np.ndarray) -> dict[str, dict]:
    return {str(at): row for at, row in enumerate(rows(amounts))}


def test_a_paired_difference_has_the_normal_interval_and_p() -> None:
    rng = np.random.default_rng(1)
    first = rng.normal(0, 5, 300)
    change = rng.normal(0.25, 1.0, 300)
    found = compare(WER, by_id(first), by_id(first + change))
    error = change.std() / math.sqrt(300)
    assert found.b - found.a == pytest.approx(change.mean())
    assert found.low == pytest.approx(change.mean() - 1.96 * error, abs=0.15 * error)
    assert found.high == pytest.approx(change.mean() + 1.96 * error, abs=0.15 * error)
    assert found.p < 0.01, "paired, though the two samples' own spread is twenty times the difference"
    z = abs(change.mean() / error)
    weak = compare(WER, by_id(first), by_id(first + change - change.mean() + 1.5 * error))
    assert weak.p == pytest.approx(math.erfc(1.5 / math.sqrt(2)), abs=0.03) and z > 3


def test_no_difference_is_none() -> None:
    values = by_id(np.random.default_rng(2).normal(size=50))
    found = compare(WER, values, values)
    assert found.p == 1.0 and found.low == found.high == 0.0
    assert compare(WER, values, {}).a is None and compare(WER, values, {}).count == 0


def test_few_items_prove_nothing() -> None:
    found = compare(WER, by_id(np.zeros(4)), by_id(np.ones(4)))
    assert found.p == pytest.approx(1 / 8)


def test_false_alarms_come_as_often_as_they_may() -> None:
    """Two systems that do not differ: p below 0.1 about one time in ten."""
    rng = np.random.default_rng(3)
    alarms = [compare(WER, by_id(rng.normal(size=60)), by_id(rng.normal(size=60)), seed).p < 0.1 for seed in range(100)]
    assert 0.04 < np.mean(alarms) < 0.18


def test_holm_by_the_book() -> None:
    """Holm (1979): 0.01 <= 0.05/4, 0.013 <= 0.05/3, then 0.03 > 0.05/2, and everything larger falls with it."""
    assert holm([0.03, 0.01, 0.04, 0.013]) == [False, True, False, True]
    assert holm([0.04]) == [True] and holm([None, 0.02]) == [False, True] and holm([]) == []


@pytest.mark.parametrize("exponent", [0.0, 1.0, 1.8])
def test_growth_exponents(exponent: float) -> None:
    lengths = [2, 4, 8, 16]
    assert growth_exponent(lengths, [3.0 * x**exponent for x in lengths]) == pytest.approx(exponent, abs=1e-9)
    assert growth_exponent([1, 2], [1.0, 2.0]) is None
