"""What timestamps count: seconds, milliseconds, ... or mere positions; and which of them cannot be times.

A log in which some rows count seconds and others milliseconds, or where a broken clock wrote 1970, still sorts, and
then every history is wrong. So units are recognised by size, and rows that do not fit are named.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Literal, Protocol
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

import numpy as np

from gensr.errors import BadInputError, did_you_mean

Unit = Literal["s", "ms", "us", "ns", "none"]
PER_SECOND: dict[Unit, int] = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
EARLIEST, LATEST = 788_918_400, 4_102_444_800
"""1995-01-01 and 2100-01-01 UTC in Unix seconds: what counts as a time; also tells units apart."""
UNIX = 0.1
"""Share of the numbers from which they are taken for times."""


@dataclass(frozen=True)
class TimeScale:
    """What the timestamps of a log count.

    Attributes:
        unit: Unix time in ``s``, ``ms``, ``us`` or ``ns``; ``none`` for anything else, such as positions.
        zone: IANA name of the time zone whose midnight divides days.
    """

    unit: Unit = "none"
    zone: str = "UTC"

    @property
    def day(self) -> int:
        """24 hours in the unit.

        Raises:
            BadInputError: the timestamps are no Unix times.
        """
        self._require_unix("a day")
        return 86_400 * PER_SECOND[self.unit]

    def days(self, time: np.ndarray) -> np.ndarray:
        """Calendar day of each time [E] in `zone`, as days since 1970-01-01, int32."""
        self._require_unix("a calendar day")
        zone, per = time_zone(self.zone), PER_SECOND[self.unit]
        hours = time // (3600 * per)  # an offset holds for whole hours, but for rare changes at half past
        distinct, which = np.unique(hours, return_inverse=True)
        starts = [datetime.fromtimestamp(int(hour) * 3600, UTC).astimezone(zone) for hour in distinct]
        offsets = np.array([int((start.utcoffset() or timedelta()).total_seconds()) for start in starts], np.int64)
        return ((time // per + offsets[which]) // 86_400).astype(np.int32)

    def describe(self, time: int) -> str:
        """A time in words: an ISO 8601 time in `zone`, or the number where the unit is ``none``."""
        if self.unit == "none":
            return str(time)
        moment = datetime.fromtimestamp(time / PER_SECOND[self.unit], time_zone(self.zone))
        return moment.isoformat(sep=" ", timespec="seconds")

    def _require_unix(self, what: str) -> None:
        if self.unit == "none":
            raise BadInputError(
                f"the timestamps of this log are no Unix times, so {what} means nothing in it. If they are, say so in "
                'the source, such as data.source.time_unit: "s"'
            )


def time_zone(name: str) -> tzinfo:
    """The zone called `name`.

    Raises:
        BadInputError: no such IANA zone on this machine.
    """
    try:
        return UTC if name == "UTC" else ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        hint = did_you_mean(name, sorted(available_timezones()))
        expected = "expected an IANA name such as 'UTC' or 'Asia/Shanghai'"
        raise BadInputError(f"no time zone {name!r}; {expected}{hint}") from None


class Rows(Protocol):
    """How complaints name rows: see `gensr.data.log.Origin.complaint`."""

    def __call__(self, problem: str, rows: np.ndarray, values: list[int], *, expected: str) -> BadInputError:
        """The error to raise."""


def check_times(time: np.ndarray, unit: Unit | Literal["auto"], complaint: Rows) -> Unit:
    """The unit of timestamps int64 [E], recognised by their size where `unit` is ``auto``.

    Numbers are positions where hardly any has the size of a Unix time; where many have, the others are mistakes.

    Raises:
        BadInputError: times of several units, negative ones, or ones outside 1995 to 2100; names the first rows.
    """
    if unit == "none" or not len(time):
        return "none"
    found: Unit = _recognise(time) if unit == "auto" else unit
    if found == "none":
        bad = np.flatnonzero(time < 0)
        expected = 'Where they mean what they say, set time_unit: "none"'
    else:
        per = PER_SECOND[found]
        bad = np.flatnonzero((time < EARLIEST * per) | (time >= LATEST * per))
        expected = f"The others are Unix times in {found}; expected from 1995 to 2100"
        if unit == "auto":
            expected += '. Where all are mere positions, set time_unit: "none"'
    if not len(bad):
        return found
    values = time[bad[:5]].tolist()
    if (time[bad] < 0).all():
        raise complaint("negative timestamps", bad, values, expected=expected)
    other = _recognise(np.abs(time[bad]))
    if found != "none" and other not in ("none", found):
        raise complaint(f"mixed time units, {found} and {other}", bad, values, expected=expected)
    raise complaint("timestamps that are no times", bad, values, expected=expected)


def _recognise(time: np.ndarray) -> Unit:
    """The unit in which most of the times lie between 1995 and 2100, if at least `UNIX` do."""
    fits = {unit: int(((time >= EARLIEST * per) & (time < LATEST * per)).sum()) for unit, per in PER_SECOND.items()}
    best = max(fits, key=lambda unit: fits[unit])
    return best if fits[best] >= UNIX * len(time) else "none"
