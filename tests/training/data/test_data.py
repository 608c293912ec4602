"""Which clips make a batch."""

import numpy as np
import pytest

from duologue.training.data.corpus import Plan

LENGTHS = np.random.default_rng(0).integers(1000, 100_000, 203)


@pytest.mark.parametrize("together", [1, 4])
def test_each_epoch_visits_every_clip_once(together):
    plan = Plan(LENGTHS, 8, 0, together)
    for epoch in (0, 1):
        first = epoch * plan.batches_per_epoch
        items = [plan(first + i) for i in range(plan.batches_per_epoch)]
        assert {where for where, _ in items} == {epoch}
        assert sorted(np.concatenate([batch for _, batch in items])) == list(range(len(LENGTHS)))
    assert not np.array_equal(plan(0)[1], plan(plan.batches_per_epoch)[1])


def test_the_batches_of_a_step_are_alike():
    """Two processes that share a step wait little for each other; at random one would have twice the other's work."""

    def waits(together):
        plan = Plan(LENGTHS, 8, 0, together)
        longest = [LENGTHS[plan(i)[1]].max() for i in range(plan.batches_per_epoch // 2 * 2)]
        pairs = np.array(longest).reshape(-1, 2)
        return (pairs.max(1) / pairs.mean(1)).mean() - 1

    assert waits(2) < 0.12 < 0.2 < waits(1)


def test_a_batch_depends_on_seed_and_number_alone():
    a, b, c = Plan(LENGTHS, 8, 0), Plan(LENGTHS, 8, 0), Plan(LENGTHS, 8, 1)
    b(70)
    assert np.array_equal(a(3)[1], b(3)[1]) and not np.array_equal(a(3)[1], c(3)[1])
