"""Which events train, validate and test, and which events a request may see."""

from __future__ import annotations

from enum import IntEnum

import numpy as np

from gensr.data.tasks import Task


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


def leave_one_out(user: np.ndarray, item: np.ndarray, task: np.ndarray, past: np.ndarray) -> np.ndarray:
    """Split codes int8 [E]: per user and task the last event tests, the one before validates, the rest trains.

    Fewer than three events of a task only train. A training event that is a twin of a held-out one (same user, same
    moment, same item; a search and the purchase it was made from) becomes `Split.UNUSED`, or the answer would be
    trained on.

    Args:
        user: [E], events sorted by user and time.
        item: [E], rows >= 1.
        task: [E], `Task` codes.
        past: [E] of `strict_past`: equal for the events of one user and moment.
    """
    split = np.full(len(user), Split.TRAIN, np.int8)
    for code in Task:
        at = np.flatnonzero(task == code)
        counts = np.bincount(user[at], minlength=1)
        from_end = np.cumsum(counts)[user[at]] - 1 - np.arange(len(at))
        enough = counts[user[at]] >= 3
        split[at[enough & (from_end == 0)]] = Split.TEST
        split[at[enough & (from_end == 1)]] = Split.VALID
    face = past * (int(item.max(initial=0)) + 1) + item
    held_out = np.unique(face[split != Split.TRAIN])
    split[(split == Split.TRAIN) & np.isin(face, held_out)] = Split.UNUSED
    return split
