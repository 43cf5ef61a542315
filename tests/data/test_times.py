"""What timestamps count, and which cannot be times."""

from __future__ import annotations

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gensr.data.log import Origin
from gensr.data.times import TimeScale, check_times, time_zone
from gensr.errors import BadInputError

COMPLAIN = Origin("log.csv", lambda rows: [row + 2 for row in rows]).complaint
NOW = 1_700_000_000


@pytest.mark.parametrize(("unit", "per"), [("s", 1), ("ms", 10**3), ("us", 10**6), ("ns", 10**9)])
def test_units_are_recognised_by_size(unit, per):
    times = np.array([NOW, NOW + 86_400, 874_724_710]) * per  # the last is MovieLens 100k's first rating, in 1997
    assert check_times(times, "auto", COMPLAIN) == unit


@pytest.mark.parametrize("times", [[0, 1, 2], [1, 1, 1], [5, 10**6, 3]])
def test_positions_are_no_times(times):
    assert check_times(np.array(times), "auto", COMPLAIN) == "none"


def failure(times, unit="auto"):
    with pytest.raises(BadInputError) as caught:
        check_times(np.array(times, np.int64), unit, COMPLAIN)
    return str(caught.value)


def test_mixed_units_are_named_with_their_lines():
    message = failure([NOW, NOW + 1, NOW * 1000, NOW + 2])
    assert message.startswith(f"log.csv: mixed time units, s and ms: line 4 ({NOW * 1000})")
    assert "expected from 1995 to 2100" in message


@pytest.mark.parametrize("unit", ["auto", "s"])
def test_negative_times_are_named(unit):
    assert failure([NOW, NOW, -5], unit).startswith("log.csv: negative timestamps: line 4 (-5)")


def test_negative_positions_are_refused_unless_they_are_meant():
    assert 'set time_unit: "none"' in failure([0, 1, 2, -1])
    assert check_times(np.array([0, 1, -1]), "none", COMPLAIN) == "none"


@pytest.mark.parametrize("wild", [0, -1, NOW * 10])
def test_a_log_whose_clock_was_broken_most_of_the_time_is_no_log_of_positions(wild):
    assert 'set time_unit: "none"' in failure([wild] * 6 + [NOW] * 4)
    assert check_times(np.array([NOW] + [17] * 20), "auto", COMPLAIN) == "none"


def test_three_units_are_mixed_units():
    assert failure([NOW, NOW * 10**3, NOW * 10**6]).startswith("log.csv: mixed time units, s and ms: line 3")


@pytest.mark.parametrize("wild", [0, 5_000_000_000])
def test_a_broken_clock_is_named(wild):
    assert f"timestamps that are no times: line 3 ({wild})" in failure([NOW, wild, NOW])


def test_a_stated_unit_is_held_to():
    assert "mixed time units, s and ms" in failure([NOW * 1000, NOW * 1000], "s")


@given(
    st.integers(800_000_000, 4_000_000_000),
    st.sampled_from(["UTC", "Asia/Shanghai", "America/New_York", "Asia/Kolkata"]),
)
def test_calendar_days_are_those_of_the_zone(second, name):
    zone = UTC if name == "UTC" else ZoneInfo(name)
    day = datetime.fromtimestamp(second, zone).date().toordinal() - datetime(1970, 1, 1).toordinal()
    assert TimeScale("ms", name).days(np.array([second * 1000])).tolist() == [day]


def test_days_mean_nothing_among_positions():
    with pytest.raises(BadInputError, match=r'no Unix times, so a calendar day means nothing .*time_unit: "s"'):
        TimeScale().days(np.array([1, 2]))
    with pytest.raises(BadInputError, match="no Unix times, so a day means nothing"):
        _ = TimeScale().day


def test_times_are_told_in_words():
    assert TimeScale("ms", "Asia/Shanghai").describe(1_684_737_000_000) == "2023-05-22 14:30:00+08:00"
    assert TimeScale().describe(7) == "7"


def test_an_unknown_zone_is_an_error():
    with pytest.raises(BadInputError, match="no time zone 'Asia/Peking'; expected an IANA name"):
        time_zone("Asia/Peking")
