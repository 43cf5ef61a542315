import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gensr.training.schedule import step_size_factor

schedules = st.sampled_from(["linear", "cosine", "constant"])


@given(schedules, st.integers(0, 50), st.integers(1, 300))
def test_no_update_of_a_run_is_wasted_on_a_step_size_of_zero(schedule, warmup, total):
    for step in range(total):
        assert 0 < step_size_factor(step, warmup=warmup, total=total, schedule=schedule) <= 1


@given(schedules, st.integers(1, 50))
def test_the_warm_up_ends_at_the_peak(schedule, warmup):
    assert step_size_factor(warmup - 1, warmup=warmup, total=1000, schedule=schedule) == 1


def test_without_warm_up_the_first_step_is_the_peak():
    assert step_size_factor(0, warmup=0, total=10, schedule="linear") == 1


def test_linear_falls_by_equal_amounts_and_would_reach_zero_at_the_end():
    factors = [step_size_factor(s, warmup=2, total=10, schedule="linear") for s in range(2, 11)]
    assert factors == pytest.approx([1 - i / 8 for i in range(9)])


def test_cosine_is_half_way_down_at_half_time():
    assert step_size_factor(60, warmup=20, total=100, schedule="cosine") == pytest.approx(0.5)
    assert step_size_factor(40, warmup=20, total=100, schedule="cosine") == pytest.approx(
        0.5 * (1 + math.cos(math.pi / 4))
    )


def test_constant_stays_after_the_warm_up():
    assert {step_size_factor(s, warmup=3, total=9, schedule="constant") for s in range(3, 9)} == {1.0}
