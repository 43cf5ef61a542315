"""Which events train, validate and test, and which events a request may see.

The rules take arrays of events sorted by user and time and give `Split` codes; `unused_twins` is applied after every
one of them. A *moment* is the events of one user that do not see each other: same time, and same order where the log
has one.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from enum import IntEnum

import numpy as np

from gensr.data.tasks import Task
from gensr.data.times import PER_SECOND, TimeScale, time_zone
from gensr.errors import BadInputError


class Split(IntEnum):
    """What an event is for. The values are the codes in `Dataset.split`."""

    TRAIN = 0
    VALID = 1
    TEST = 2
    UNUSED = 3
    """The other face of a held-out event: it stands in later histories, but trains nothing and counts nowhere."""

    @property
    def label(self) -> str:
        """The word in files and reports."""
        return self.name.lower()


HELD_OUT = (Split.VALID, Split.TEST)
SPELLINGS = {
    "train": Split.TRAIN,
    "training": Split.TRAIN,
    "valid": Split.VALID,
    "validation": Split.VALID,
    "val": Split.VALID,
    "dev": Split.VALID,
    "test": Split.TEST,
    "testing": Split.TEST,
    "unused": Split.UNUSED,  # as `gensr data export` writes it
}
"""Words for them in logs and names of files."""


def strict_past(user: np.ndarray, time: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Ordinals and past ends of events sorted by user and time.

    Events of one user at one time share an ordinal and do not see each other, whatever their order in the file.

    Args:
        user: [E], non-decreasing.
        time: [E], non-decreasing within a user.

    Returns:
        ordinal int32 [E], the dense rank of the time within the user, from 0; past int64 [E], the end (exclusive) of
        the events with a smaller ordinal of the same user.
    """
    first_of_user = np.ones(len(user), bool)
    first_of_user[1:] = user[1:] != user[:-1]
    first_of_moment = first_of_user.copy()
    first_of_moment[1:] |= time[1:] != time[:-1]
    position = np.arange(len(user))
    moment = np.cumsum(first_of_moment)
    user_start = np.maximum.accumulate(np.where(first_of_user, position, 0))
    past = np.maximum.accumulate(np.where(first_of_moment, position, 0))
    return (moment - moment[user_start]).astype(np.int32), past.astype(np.int64)


def unused_twins(split: np.ndarray, past: np.ndarray, item: np.ndarray) -> np.ndarray:
    """Split codes int8 [E] in which no training event is a twin of a held-out one: such a twin is `Split.UNUSED`.

    Twins are events of one user, moment and item, such as a search and the purchase it was made from: training on one
    would train on the answer of the other.

    Args:
        split: codes [E]; left as they are.
        past: [E] of `strict_past`: equal for the events of one moment, and for no others.
        item: [E], rows >= 1.
    """
    face = past * (int(item.max(initial=0)) + 1) + item
    held_out = np.sort(face[np.isin(split, HELD_OUT)])
    training = np.flatnonzero(split == Split.TRAIN)
    at = np.searchsorted(held_out, face[training])
    twin = at < len(held_out)
    twin[twin] = held_out[at[twin]] == face[training[twin]]
    mended = split.astype(np.int8)  # a copy
    mended[training[twin]] = Split.UNUSED
    return mended


def last_events(user: np.ndarray, task: np.ndarray, *, min_events: int = 3) -> np.ndarray:
    """Leave-one-out, int8 [E]: per user and task the last event tests, the one before validates, the rest trains.

    Args:
        user: [E], events sorted by user and time.
        task: [E], `Task` codes.
        min_events: users with fewer events of a task only train in it.
    """
    split = np.full(len(user), Split.TRAIN, np.int8)
    for code in Task:
        at = np.flatnonzero(task == code)
        number, from_end = _stream(user[at])
        enough = number >= min_events
        split[at[enough & (from_end == 0)]] = Split.TEST
        split[at[enough & (from_end == 1)]] = Split.VALID
    return split


def last_shares(user: np.ndarray, task: np.ndarray, past: np.ndarray, *, valid: float, test: float) -> np.ndarray:
    """Split codes int8 [E]: of the n events of a user and task the last ``test * n`` test, ``valid * n`` validate.

    Numbers are rounded to the nearest, halves up, and at least one event stays for training. A moment that a boundary
    would cut goes to the earlier side as a whole.

    Args:
        user: [E], events sorted by user and time.
        task: [E], `Task` codes.
        past: [E] of `strict_past`.
        valid: share that validates.
        test: share that tests.
    """
    split = np.full(len(user), Split.TRAIN, np.int8)
    for code in Task:
        at = np.flatnonzero(task == code)
        number, after = _stream(user[at])
        # Counted for the first event of each moment: the others go where it goes.
        first = np.ones(len(at), bool)
        first[1:] = past[at[1:]] != past[at[:-1]]
        opening = np.maximum.accumulate(np.where(first, np.arange(len(at)), 0))
        from_end = after[opening]
        tests = np.minimum(np.floor(test * number + 0.5), number - 1)
        valids = np.minimum(np.floor(valid * number + 0.5), number - 1 - tests)
        split[at[from_end < tests + valids]] = Split.VALID
        split[at[from_end < tests]] = Split.TEST
    return split


def _stream(user: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of events [E] sorted by user: how many the user has, and how many come after each, int64 [E]."""
    counts = np.bincount(user, minlength=1)
    return counts[user], np.cumsum(counts)[user] - 1 - np.arange(len(user))


def from_cut_offs(time: np.ndarray, valid_from: int, test_from: int) -> np.ndarray:
    """Split codes int8 [E]: events from `test_from` on test, earlier ones from `valid_from` on validate."""
    split = np.full(len(time), Split.TRAIN, np.int8)
    split[time >= valid_from] = Split.VALID
    split[time >= test_from] = Split.TEST
    return split


def day_cut_offs(
    time: np.ndarray, scale: TimeScale, *, rolling: bool, valid_days: int, test_days: int
) -> tuple[int, int]:
    """`valid_from` and `test_from` such that the last `test_days` test and the `valid_days` before them validate.

    Args:
        time: [E], in any order, not empty.
        scale: what the times count.
        rolling: days are 24 hours counted back from the last event; else calendar days of the zone, the last one
            as short as the log leaves it.
        valid_days: days that validate.
        test_days: days that test.

    Raises:
        BadInputError: the timestamps are no Unix times.
    """
    last = int(time.max())
    if rolling:
        test_from = last - test_days * scale.day + 1
        return test_from - valid_days * scale.day, test_from
    day = date(1970, 1, 1) + timedelta(days=int(scale.days(np.array([last]))[0]) + 1 - test_days)
    starts = (
        datetime(d.year, d.month, d.day, tzinfo=time_zone(scale.zone)) for d in (day - timedelta(valid_days), day)
    )
    valid_from, test_from = (_count(start, scale) for start in starts)
    return valid_from, test_from


def share_cut_offs(time: np.ndarray, *, valid: float, test: float) -> tuple[int, int]:
    """`valid_from` and `test_from` such that at most `test` of all events test and at most `valid` validate.

    A time at which a boundary would fall goes to the earlier side with all its events.

    Args:
        time: [E], in any order, not empty.
        valid: share that validates.
        test: share that tests.
    """
    ordered = np.sort(time)

    def opening(share: float) -> int:
        # Shares of decimals are seldom exact in binary: 0.3 of 10 events are 3.
        first = len(ordered) - int(np.floor(share * len(ordered) + 1e-9))
        return int(ordered[first - 1]) + 1 if first else int(ordered[0])

    return opening(valid + test), opening(test)


def instant(value: str | int, scale: TimeScale, option: str) -> int:
    """A point in time in the log's own unit.

    Args:
        value: a number in that unit, or an ISO 8601 date or time, of `scale.zone` where it names no offset.
        scale: what the times count.
        option: names the value in errors.

    Raises:
        BadInputError: neither of the two, or a date in a log whose timestamps are no Unix times.
    """
    if isinstance(value, int) or value.lstrip("-").isdecimal():
        return int(value)
    try:
        moment = datetime.fromisoformat(value)
    except ValueError:
        raise BadInputError(
            f"{option}: {value!r} is no point in time; expected a number in the log's unit or an ISO 8601 time such as "
            "'2023-06-09' or '2023-06-09T12:00:00+08:00'"
        ) from None
    if scale.unit == "none":
        raise BadInputError(
            f"{option}: the timestamps of this log are no Unix times, so {value!r} means nothing in it; expected a "
            "number such as the timestamps are"
        )
    return _count(moment if moment.tzinfo else moment.replace(tzinfo=time_zone(scale.zone)), scale)


def _count(moment: datetime, scale: TimeScale) -> int:
    """A moment in the scale's unit, exactly."""
    since = moment.astimezone(UTC) - datetime(1970, 1, 1, tzinfo=UTC)
    return since // timedelta(microseconds=1) * PER_SECOND[scale.unit] // 10**6


def draw_validation(split: np.ndarray, past: np.ndarray, item: np.ndarray, *, share: float, seed: int) -> np.ndarray:
    """Split codes int8 [E] in which `share` of the training interactions, drawn by `seed`, validate.

    Twins are drawn together, so that none of an interaction is lost to training for the sake of the other half.

    Args:
        split: codes [E]; left as they are.
        past: [E] of `strict_past`.
        item: [E], rows >= 1.
        share: of the training interactions, rounded to the nearest, at least one where there are two.
        seed: the draw depends on nothing else but the events.
    """
    drawn = split.astype(np.int8)  # a copy
    training = np.flatnonzero(split == Split.TRAIN)
    face = (past * (int(item.max(initial=0)) + 1) + item)[training]
    faces, which = np.unique(face, return_inverse=True)
    number = min(max(int(share * len(faces) + 0.5), 1), len(faces) - 1)
    if number < 1:
        return drawn
    chosen = np.zeros(len(faces), bool)
    chosen[np.random.default_rng([seed, 2]).choice(len(faces), number, replace=False)] = True
    drawn[training[chosen[which]]] = Split.VALID
    return drawn
