from __future__ import annotations

import itertools

import numpy as np
import pytest

from gensr.errors import BadInputError
from gensr.evaluation import significance
from gensr.evaluation.metrics import Ranks
from gensr.evaluation.significance import bootstrap_interval, compare, sign_flip_test

RNG = np.random.default_rng(5)


def ranks(better, request=None, task=None):
    size = len(better)
    return Ranks(
        np.arange(size) if request is None else request,
        np.ones(size) if task is None else task,
        better,
        np.ones(size),
        np.full(size, 100),
    )


def test_the_interval_equals_that_of_resampled_requests():
    values = RNG.choice([0.0, 0.5, 1.0], size=(400, 2), p=[0.5, 0.2, 0.3])
    low, high = bootstrap_interval(values, resamples=4000, seed=1)
    rng = np.random.default_rng(2)
    means = np.stack([values[rng.integers(0, 400, 400)].mean(axis=0) for _ in range(4000)])
    np.testing.assert_allclose([low, high], np.quantile(means, [0.025, 0.975], axis=0), atol=0.006)


def test_the_interval_has_the_normal_width_for_many_requests():
    values = RNG.random((5000, 1))
    low, high = bootstrap_interval(values, resamples=300)
    assert (high - low)[0] == pytest.approx(2 * 1.96 * values.std() / 5000**0.5, rel=0.2)


def test_the_interval_of_equal_values_is_a_point():
    low, high = bootstrap_interval(np.full((10, 1), 0.25), resamples=20)
    assert low[0] == high[0] == 0.25


def test_a_seed_repeats_and_another_one_does_not():
    values = RNG.random((50, 1))
    assert bootstrap_interval(values, seed=3) == bootstrap_interval(values, seed=3)
    assert bootstrap_interval(values, seed=3) != bootstrap_interval(values, seed=4)


def test_splitting_the_draws_keeps_the_resamples(monkeypatch):
    values = RNG.random((50, 1))
    whole = bootstrap_interval(values, resamples=40)
    monkeypatch.setattr(significance, "CHUNK", 150)
    np.testing.assert_allclose(bootstrap_interval(values, resamples=40), whole, rtol=1e-12)


def test_nothing_to_resample_is_refused():
    with pytest.raises(ValueError, match="requests and resamples"):
        bootstrap_interval(np.empty((0, 1)))


def test_the_sign_flip_test_equals_full_enumeration():
    differences = np.array([0.4, 0.1, -0.2, 0.3, 0.3, 0.0, 0.5])
    flips = np.array(list(itertools.product([1, -1], repeat=7))) @ differences
    exact = np.mean(np.abs(flips) >= differences.sum() - 1e-12)
    assert sign_flip_test(differences, resamples=40_000) == pytest.approx(exact, abs=0.01)


def test_equal_runs_do_not_differ():
    assert sign_flip_test(np.zeros(5)) == 1


def test_a_clear_difference_is_found_and_a_p_value_is_never_zero():
    p = sign_flip_test(np.ones(100), resamples=999)
    assert p == pytest.approx(0.001)


def test_runs_are_compared_by_request_whatever_their_order():
    size = 400
    task = np.repeat([1, 2], size // 2)
    first, second = ranks(RNG.integers(0, 30, size), task=task), ranks(RNG.integers(0, 10, size), task=task)
    shuffled = second.select(RNG.permutation(size))
    found = compare(first, shuffled, metrics=["ndcg@5", "mrr"], resamples=200)
    assert found == compare(first, second, metrics=["ndcg@5", "mrr"], resamples=200)
    assert [(row.task, row.metric, row.requests) for row in found] == [
        ("recommendation", "ndcg@5", 200),
        ("recommendation", "mrr", 200),
        ("search", "ndcg@5", 200),
        ("search", "mrr", 200),
    ]
    for row in found:
        assert row.low < row.difference < row.high
        assert row.difference == pytest.approx(row.second - row.first)
        assert row.low > 0
        assert row.p_value < 0.01


def test_runs_on_other_requests_cannot_be_compared():
    with pytest.raises(BadInputError, match="one ranked 3, the other 3, and 2 requests occur in both"):
        compare(ranks([0, 0, 0]), ranks([0, 0, 0], request=np.array([1, 2, 3])), metrics=["mrr"])
