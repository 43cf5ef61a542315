"""Timestamps as people write them: numbers of any unit, ISO 8601 texts, typed times; read batch by batch.

ISO times become Unix microseconds first. Only when all of them are read is it known whether seconds suffice.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal, InvalidOperation
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gensr.data.times import PER_SECOND, Unit, time_zone
from gensr.errors import BadInputError

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICRO = timedelta(microseconds=1)
QUARTER = 900 * 10**6
"""Microseconds for which an offset from UTC holds."""
EXACT = 2.0**53
"""Floats below it are exact."""
FIRST, LAST = ((moment.replace(tzinfo=UTC) - EPOCH) // MICRO for moment in (datetime.min, datetime.max))
"""Microseconds that a calendar knows, of the years 1 to 9999."""
EXACT_NS = (2**63 - 1) // 1000
"""Microseconds that int64 also holds as nanoseconds."""
STEPS = {"s": 10**6, "ms": 10**3, "us": 1}
DAY = 86_400 * 10**6

Read = tuple[np.ndarray, np.ndarray]
"""Times int64 [E] and which of them could be read, bool [E]."""


class Timestamps:
    """Reads the timestamps of one log, in the order of its rows.

    The first value decides whether all of them are numbers or ISO 8601 times. Numbers keep their unit, whatever it is;
    fractions are rounded down and counted.

    Args:
        unit: what the times count; where ``auto``, numbers are left to `gensr.data.times.check_times`, and ISO times
            become seconds, or milliseconds if any has a fraction of a second.
        zone: IANA name of the zone of ISO times that name none.
    """

    def __init__(self, unit: Unit | Literal["auto"], zone: str) -> None:
        self.unit, self.zone = unit, zone
        self.rounded = 0
        self._iso: bool | None = None
        self._offsets: dict[int, int] = {}

    @staticmethod
    def fit(kind: pa.DataType) -> bool:
        """Whether a column of this type may hold times."""
        inner = kind.value_type if pa.types.is_dictionary(kind) else kind
        tests = ("string", "large_string", "integer", "floating", "decimal", "timestamp", "date")
        return any(getattr(pa.types, f"is_{test}")(inner) for test in tests)

    @property
    def expected(self) -> str:
        """What a value that could not be read should have been."""
        return (
            "Expected an ISO 8601 time, as in the first row"
            if self._iso
            else "Expected a number, or ISO 8601 in all rows"
        )

    def read(self, column: pa.Array) -> Read:
        """The times of the next rows, a column of a type that `fit`."""
        if pa.types.is_dictionary(column.type):
            column = column.dictionary_decode()
        if not (pa.types.is_temporal(column.type) or pa.types.is_integer(column.type)):
            if pa.types.is_floating(column.type):
                column = column.cast(pa.float64())
            else:
                column = pc.utf8_trim_whitespace(column.cast(pa.string()))
        if self._iso is None:
            self._iso = _holds_moments(column)
        return self._moments(column) if self._iso else self._numbers(column)

    def finish(self, time: np.ndarray) -> tuple[np.ndarray, Unit | Literal["auto"]]:
        """What `read` gave [E] in its final unit, and which that is.

        Raises:
            BadInputError: the times are ISO times, and the unit was said to be ``none``.
        """
        if not self._iso:
            return time, self.unit
        if self.unit == "none":
            raise BadInputError(
                'data.source.time_unit: "none" is for numbers that are no times; these are ISO 8601 times: use "auto"'
            )
        unit = self.unit
        if unit == "auto":
            unit = "ms" if (time % 10**6).any() else "s"
        if unit == "ns":
            return np.clip(time, -EXACT_NS, EXACT_NS) * 1000, unit
        step = 10**6 // PER_SECOND[unit]
        self.rounded += int((time % step != 0).sum())
        return time // step, unit

    def _numbers(self, column: pa.Array) -> Read:
        if pa.types.is_temporal(column.type):
            return _none_of(column)
        try:
            if not pa.types.is_floating(column.type) and not column.null_count:
                return column.cast(pa.int64()).to_numpy(), np.ones(len(column), bool)
            floats = column.cast(pa.float64()).to_numpy(zero_copy_only=False)
        except pa.ArrowInvalid:
            return _each(column, self._number)
        if not (np.isfinite(floats) & (np.abs(floats) < EXACT)).all():
            return _each(column, self._number)
        whole = np.floor(floats)
        self.rounded += int((whole != floats).sum())
        return whole.astype(np.int64), np.ones(len(whole), bool)

    def _moments(self, column: pa.Array) -> Read:
        kind = column.type
        if pa.types.is_integer(kind) or pa.types.is_floating(kind):
            return _none_of(column)
        if pa.types.is_temporal(kind):
            return self._typed(column)
        for target in (pa.timestamp("us", "UTC"), pa.timestamp("us")):  # all with a zone, or none of them
            try:
                return self._typed(column.cast(target))
            except pa.ArrowInvalid:
                continue
        return _each(column, self._moment)

    def _typed(self, column: pa.Array) -> Read:
        """Microseconds of times and dates, where a calendar knows them; those without a zone are read in `zone`."""
        kind, valid = column.type, column.is_valid().to_numpy(zero_copy_only=False)
        raw = column.cast(pa.int32()) if pa.types.is_date32(kind) else column
        count = pc.fill_null(raw.cast(pa.int64()), 0).to_numpy()
        if pa.types.is_timestamp(kind) and kind.unit == "ns":
            self.rounded += int((count % 1000 != 0).sum()) if self.unit in ("us", "ns") else 0
            time = count // 1000
        else:
            step = DAY if pa.types.is_date32(kind) else STEPS[getattr(kind, "unit", "ms")]
            valid &= (count >= FIRST // step) & (count <= LAST // step)
            time = np.where(valid, count, 0) * step
        valid &= (time >= FIRST) & (time <= LAST)
        if getattr(kind, "tz", None) is not None or self.zone == "UTC":
            return time, valid
        quarters, which = np.unique(np.where(valid, time, 0) // QUARTER, return_inverse=True)
        return time - np.array([self._offset(int(quarter)) for quarter in quarters], np.int64)[which], valid

    def _offset(self, quarter: int) -> int:
        """Offset of the zone from UTC in microseconds at a local time in quarters of an hour."""
        if quarter not in self._offsets:
            local = (EPOCH + quarter * QUARTER * MICRO).replace(tzinfo=time_zone(self.zone))
            self._offsets[quarter] = (local.utcoffset() or timedelta()) // MICRO
        return self._offsets[quarter]

    def _moment(self, value: Any) -> int | None:
        """Unix microseconds, if `value` is an ISO 8601 date or time."""
        moment = _parsed(value)
        if moment is None:
            return None
        return ((moment if moment.tzinfo else moment.replace(tzinfo=time_zone(self.zone))) - EPOCH) // MICRO

    def _number(self, value: Any) -> int | None:
        """A number rounded down, if `value` is one."""
        exact = _exact(value)
        if exact is None:
            return None
        number = math.floor(exact)
        self.rounded += number != exact
        return number


def _each(column: pa.Array, read: Callable[[Any], int | None]) -> Read:
    times = [read(value) for value in column.to_pylist()]
    valid = np.array([time is not None for time in times], bool)
    return np.array([time or 0 for time in times], np.int64), valid


def _none_of(column: pa.Array) -> Read:
    return np.zeros(len(column), np.int64), np.zeros(len(column), bool)


def _holds_moments(column: pa.Array) -> bool | None:
    """Whether the first value is an ISO time; None where there is none."""
    if pa.types.is_temporal(column.type):
        return True
    if not pa.types.is_string(column.type):
        return False
    first = next((value.as_py() for value in column if value.is_valid and value.as_py()), None)
    return None if first is None else _exact(first) is None and _parsed(first) is not None


def _exact(value: Any) -> Decimal | None:
    """The number that `value` is, as far as int64 goes."""
    try:
        number = Decimal(value)
    except (TypeError, ValueError, InvalidOperation):
        return None
    fits = number.is_finite() and -(2**63) <= number < 2**63 and "_" not in str(value)
    return number if fits else None


def _parsed(value: Any) -> datetime | None:
    try:
        return datetime.fromisoformat(value)
    except (TypeError, ValueError):
        return None
