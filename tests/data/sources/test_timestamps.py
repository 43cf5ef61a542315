from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gensr.data.sources.timestamps import Timestamps

ZONES = ("UTC", "Asia/Shanghai", "Europe/Berlin", "America/St_Johns", "Asia/Kathmandu")
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def read(columns, unit="auto", zone="UTC"):
    times = Timestamps(unit, zone)
    found = [times.read(column) for column in columns]
    time, unit = times.finish(np.concatenate([time for time, _ in found]))
    return time.tolist(), np.concatenate([valid for _, valid in found]).tolist(), unit, times.rounded


moments = st.datetimes(datetime(1995, 1, 1), datetime(2099, 12, 31))
offsets = st.sampled_from([None, *(timezone(timedelta(minutes=15 * n)) for n in (-14, 0, 22, 32))])


@settings(deadline=None)
@given(
    times=st.lists(st.builds(lambda time, zone: time.replace(tzinfo=zone), moments, offsets), min_size=1, max_size=6),
    zone=st.sampled_from(ZONES),
    cut=st.integers(0, 6),
    separator=st.sampled_from("T "),
)
def test_iso_times_are_what_the_standard_library_makes_of_them(times, zone, cut, separator):
    texts = [time.isoformat(separator) for time in times]
    expected = [(time if time.tzinfo else time.replace(tzinfo=ZoneInfo(zone))) - EPOCH for time in times]
    found, valid, unit, _ = read([pa.array(part, pa.string()) for part in (texts[:cut], texts[cut:])], "us", zone)
    assert found == [time // timedelta(microseconds=1) for time in expected]
    assert all(valid)
    assert unit == "us"


@settings(deadline=None)
@given(
    times=st.lists(moments, min_size=1, max_size=6),
    zone=st.sampled_from(ZONES),
    kind=st.sampled_from("s ms us ns".split()),
)
def test_typed_times_are_what_their_iso_texts_are(times, zone, kind):
    typed = pa.array(times, pa.timestamp("us")).cast(pa.timestamp(kind), safe=False)
    texts = pa.array([time.as_py().isoformat() for time in typed.cast(pa.timestamp("us"), safe=False)])
    assert read([typed], "us", zone) == read([texts], "us", zone)


@given(numbers=st.lists(st.integers(-(2**62), 2**62), min_size=1, max_size=6))
def test_whole_numbers_stay_exact_however_they_are_stored(numbers):
    for column in (pa.array(numbers), pa.array(map(str, numbers)), pa.array([f" {number} " for number in numbers])):
        assert read([column]) == (numbers, [True] * len(numbers), "auto", 0)
    assert read([pa.array(["1.5", *map(str, numbers)])])[0] == [1, *numbers]


def test_fractions_of_numbers_are_rounded_down_and_counted():
    for column in (pa.array(["1.75", "-0.5", "3", "1e3"]), pa.array([1.75, -0.5, 3, 1e3])):
        assert read([column]) == ([1, -1, 3, 1000], [True] * 4, "auto", 2)


@pytest.mark.parametrize(
    ("first", "second", "valid"),
    [
        (pa.array(["", "2024-01-01"]), pa.array([17]), [False, True, False]),
        (pa.array([17]), pa.array([datetime(2024, 1, 1)]), [True, False]),
        (pa.array(["17"]), pa.array(["2024-01-01", None, "soon", "nan", "1e300"]), [True] + [False] * 5),
        (pa.array([None, ""]), pa.array(["2024-01-01", "2024-13-01"]), [False, False, True, False]),
        (pa.array([1, None]), pa.array([float("inf"), float("nan"), 2.0]), [True, False, False, False, True]),
    ],
)
def test_the_first_value_decides_and_what_does_not_fit_it_is_bad(first, second, valid):
    columns = [part.cast(pa.string()) if pa.types.is_null(part.type) else part for part in (first, second)]
    assert read(columns)[1] == valid


def test_times_at_the_change_of_the_clock_are_read_as_the_standard_library_reads_them():
    texts = ["2024-03-31T02:30:00", "2024-10-27T02:30:00", "2024-10-27T01:59:59", "2024-10-27T03:00:00"]
    berlin = ZoneInfo("Europe/Berlin")
    expected = [int(datetime.fromisoformat(text).replace(tzinfo=berlin).timestamp()) for text in texts]
    assert read([pa.array(texts)], zone="Europe/Berlin")[0] == expected


@pytest.mark.parametrize("zone", ["UTC", "Asia/Shanghai"])
@pytest.mark.parametrize("kind", ["s", "ms", "us"])
def test_typed_times_beyond_any_calendar_are_bad_and_not_wrapped(kind, zone):
    times = pa.array([0, 2**62, -(2**62)], pa.timestamp(kind))
    assert read([times], zone=zone)[1] == [True, False, False]
    assert read([pa.array([0, 2**31 - 1], pa.int32()).cast(pa.date32())], zone=zone)[1] == [True, False]


def test_iso_times_that_nanoseconds_cannot_hold_stay_out_of_reach():
    assert read([pa.array(["2924-01-01"])], "ns")[0][0] > 2**62


def test_decimals_stay_exact():
    column = pa.array([Decimal("1714564800000000001"), Decimal("1")], pa.decimal128(20, 0))
    assert read([column]) == ([1_714_564_800_000_000_001, 1], [True, True], "auto", 0)


def test_only_what_is_rounded_counts_as_rounded():
    assert read([pa.array(["9007199254740993", "1.5"])]) == ([9007199254740993, 1], [True, True], "auto", 1)


def test_digits_with_underscores_are_no_number():
    assert read([pa.array(["1", "1_000"])])[1] == [True, False]


@pytest.mark.parametrize("kind", [pa.bool_(), pa.time32("s"), pa.duration("s"), pa.list_(pa.int64()), pa.binary()])
def test_types_that_are_no_times_do_not_fit(kind):
    assert not Timestamps.fit(kind)


def test_dates_and_categories_of_dates_fit():
    day = pa.array([19844], pa.date32())
    assert Timestamps.fit(day.dictionary_encode().type)
    assert read([day.dictionary_encode()]) == read([day]) == ([19844 * 86_400], [True], "s", 0)
