"""Cases are timed interleaved and compared within rounds; a clock of our own says how long calls take."""

from __future__ import annotations

import gc

import pytest

from gensr.bench.timing import Spread, measure, paired_ratio, rotated, the_baseline
from tests.bench.toys import Clock, case


def timed(seconds, *, rounds=3, **options):
    """Names to seconds, the first the baseline; -> timings by name, and the clock."""
    clock = Clock()
    group = [case(name, clock.taking(name, taken), baseline=not i) for i, (name, taken) in enumerate(seconds.items())]
    found = measure(group, rounds=rounds, clock=clock, **options)
    return {timing.case.name: timing for timing in found}, clock


def test_every_round_runs_every_case_once_in_rotating_order():
    _, clock = timed({"a": 1.0, "b": 2.0, "c": 3.0}, rounds=4)
    warm, rounds = clock.calls[:3], clock.calls[3:]
    assert warm == ["a", "b", "c"]
    assert rounds == [*"abc", *"bca", *"cab", *"abc"]


def test_seconds_are_those_of_one_call_and_warm_ups_do_not_count():
    found, _ = timed({"a": [9.0, 1.0, 1.0, 5.0], "b": [9.0, 2.0, 4.0, 3.0]})
    assert found["a"].seconds == Spread(1.0, 1.0, 3.0)
    assert found["b"].seconds == Spread(2.5, 3.0, 3.5)


def test_a_slow_moment_that_hits_a_whole_round_leaves_the_ratio_alone():
    found, _ = timed({"a": [3.0, 3.0, 9.0, 6.0], "b": [1.0, 1.0, 3.0, 2.0]})
    assert found["b"].ratio == Spread(3.0, 3.0, 3.0)
    assert found["a"].ratio == Spread(1.0, 1.0, 1.0)


def test_the_ratio_compares_seconds_per_unit():
    clock = Clock()
    group = [
        case("100 at once", clock.taking("a", 2.0), units=100, baseline=True),
        case("1,000 at once", clock.taking("b", 5.0), units=1000),
    ]
    assert measure(group, rounds=2, clock=clock)[1].ratio.median == pytest.approx(4.0)


def test_a_fast_call_is_repeated_until_the_sample_is_long_enough():
    found, clock = timed({"slow": 0.5, "fast": 0.003}, rounds=2, min_seconds=0.02)
    assert (found["slow"].repeats, found["fast"].repeats) == (1, 7)
    assert clock.calls.count("fast") == 1 + 2 * 7
    assert found["fast"].seconds.median == pytest.approx(0.003)


def test_slow_groups_get_fewer_rounds():
    found, _ = timed({"a": 11.0, "b": 1.0}, rounds=9)
    assert {timing.rounds for timing in found.values()} == {3}
    assert timed({"a": 9.0, "b": 1.0}, rounds=9)[0]["b"].rounds == 9


def test_what_compiles_itself_is_warm_before_it_is_timed():
    clock = Clock()
    compiled = clock.taking("compiled", [60.0, 0.3, 0.0021, *[0.001] * 40])
    group = [case("plain", clock.taking("plain", 0.004), baseline=True), case("compiled", compiled, warmup=3)]
    plain, found = measure(group, rounds=4, clock=clock)
    assert clock.calls[:4] == ["plain", *["compiled"] * 3]
    assert (plain.rounds, found.rounds, found.repeats) == (4, 4, 10)  # the minute was spent once
    assert found.seconds.median == pytest.approx(0.001)


def test_the_device_is_waited_for_before_and_after_each_sample():
    seen = []
    group = [case("a", lambda: seen.append("run"), baseline=True)]
    measure(group, rounds=2, min_seconds=0, synchronise=lambda: seen.append("wait"))
    assert seen == ["wait", "run", "wait"] * 3


def test_garbage_is_collected_beside_the_clock_and_not_under_it():
    during = []
    measure([case("a", lambda: during.append(gc.isenabled()), baseline=True)], rounds=1, min_seconds=0)
    assert not any(during)
    assert gc.isenabled()


@pytest.mark.parametrize("baselines", [0, 2])
def test_a_group_has_exactly_one_baseline(baselines):
    group = [case(str(i), baseline=i < baselines) for i in range(3)]
    with pytest.raises(ValueError, match=f"toy, sums: {baselines} baselines among 3 cases"):
        the_baseline(group)


def test_spreads_are_quartiles():
    assert Spread.of([4.0, 1.0, 3.0, 2.0, 5.0]) == Spread(2.0, 3.0, 4.0)
    assert Spread.of([2.0]) == Spread(2.0, 2.0, 2.0)
    assert paired_ratio([2.0, 8.0, 9.0], [1.0, 2.0, 3.0]) == Spread(2.5, 3.0, 3.5)
    assert rotated("abc", 4) == ["b", "c", "a"]
