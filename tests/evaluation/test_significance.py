from __future__ import annotations

import itertools

import numpy as np
import pytest

from gensr.evaluation import significance
from gensr.evaluation.significance import bootstrap_interval, crossed_interval, holm, sign_flip_test

RNG = np.random.default_rng(5)


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


@pytest.mark.parametrize("copies", [1, 40])
def test_the_sign_flip_test_agrees_with_drawn_signs_whether_sizes_repeat_or_not(copies):
    differences = np.repeat(RNG.normal(0.25, 1, 40), copies) / copies
    signs = np.random.default_rng(1).choice([-1, 1], size=(5000, len(differences)))
    drawn = np.mean(np.abs(signs @ differences) >= abs(differences.sum()) - 1e-12)
    assert sign_flip_test(differences, resamples=5000) == pytest.approx(drawn, abs=0.03)


def test_p_values_of_runs_that_do_not_differ_are_uniform():
    rng = np.random.default_rng(7)
    values = np.sort([sign_flip_test(rng.normal(size=30), resamples=400, seed=i) for i in range(1000)])
    assert np.abs(values - (np.arange(1000) + 0.5) / 1000).max() < 1.95 / 1000**0.5  # Kolmogorov-Smirnov at 0.1 %


# Requests and seeds


def test_the_crossed_interval_of_one_seed_is_that_of_requests():
    values = RNG.random((1, 200))
    low, high = bootstrap_interval(values.T, resamples=500, seed=4)
    assert crossed_interval(values, resamples=500, seed=4) == pytest.approx((low[0], high[0]), abs=1e-12)


def test_the_crossed_interval_equals_that_of_rows_and_columns_drawn_one_by_one():
    values = RNG.normal(size=(3, 60)) + RNG.normal(size=(3, 1))
    rng = np.random.default_rng(2)
    means = [values[np.ix_(rng.integers(0, 3, 3), rng.integers(0, 60, 60))].mean() for _ in range(8000)]
    found = crossed_interval(values, resamples=8000, seed=1)
    np.testing.assert_allclose(found, np.quantile(means, [0.025, 0.975]), atol=0.05)


def test_seeds_that_disagree_widen_the_crossed_interval():
    values = np.repeat(RNG.normal(size=(1, 300)), 3, axis=0)
    alike = crossed_interval(values)
    apart = crossed_interval(values + np.array([[-0.5], [0.0], [0.5]]))
    assert apart[1] - apart[0] > 2 * (alike[1] - alike[0])


def test_the_crossed_interval_does_not_depend_on_how_the_draws_are_split(monkeypatch):
    values = RNG.random((2, 50))
    whole = crossed_interval(values, resamples=40)
    monkeypatch.setattr(significance, "CHUNK", 150)
    np.testing.assert_allclose(crossed_interval(values, resamples=40), whole, rtol=1e-12)


def test_no_values_have_no_crossed_interval():
    with pytest.raises(ValueError, match="values and resamples"):
        crossed_interval(np.empty((0, 3)))


@pytest.mark.parametrize(("seeds", "spread"), [(1, 0.0), (3, 0.0), (5, 0.2)])
def test_intervals_of_runs_that_do_not_differ_cover_zero_as_often_as_promised(seeds, spread):
    rng = np.random.default_rng(seeds)
    covered = 0
    for trial in range(200):
        values = rng.normal(size=(seeds, 80)) + spread * rng.normal(size=(seeds, 1)) + rng.normal(size=(1, 80))
        low, high = crossed_interval(values, resamples=300, seed=trial)
        covered += low <= 0 <= high
    assert covered >= 180  # 95 % are 190; of 200 trials fewer than 180 are a sign of something wrong


# Several at once


def test_holm_gives_the_worked_example():
    # Holm (1979), step-down: .005 x 4, .01 x 3, .03 x 2, .04 x 1, each at least what came before.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])


def test_holm_keeps_one_p_value_orders_and_stops_at_one():
    assert holm([0.2]) == [0.2]
    assert holm([]) == []
    assert holm([0.5, 0.6]) == [1.0, 1.0]
    values = RNG.random(20)
    adjusted = np.array(holm(values.tolist()))
    assert (adjusted >= values).all()
    assert (np.diff(adjusted[np.argsort(values)]) >= 0).all()


def test_holm_raises_false_alarms_among_many_to_no_more_than_promised():
    rng = np.random.default_rng(3)
    assert np.mean([min(holm(rng.random(5).tolist())) < 0.05 for _ in range(2000)]) < 0.065
