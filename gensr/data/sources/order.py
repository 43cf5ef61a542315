"""The order of a file's rows as the order of events, for timestamps too coarse to tell it.

What is hidden without it must stay hidden with it: the two faces of one interaction, a search and the purchase it led
to, stand in two rows of one time.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from gensr.data.log import codes_of, one_dictionary

FILE_ORDER = "events_that_share_a_row_number"
"""In the report of a log that `order_of_rows` ordered."""


def order_of_rows(events: pa.Table) -> tuple[pa.Table, int]:
    """Events with the column ``order``, filled with row numbers; and how many events share theirs with another.

    Twins, events of one user, item and time, share the smaller number. So do the user's events of that time between
    them, which would else see a twin whose row comes after theirs.

    Args:
        events: in the order of their rows, with columns as in `EVENTS`; not empty.
    """
    user, item = (codes_of(one_dictionary(events[name]))[0] for name in ("user_id", "item_id"))
    order = shared_rows(user, item, events["timestamp"].to_numpy())
    shared = int((np.bincount(order)[order] > 1).sum())
    return events.append_column("order", pa.array(order)), shared


def shared_rows(user: np.ndarray, item: np.ndarray, time: np.ndarray) -> np.ndarray:
    """The row number int64 [E] of each event, or the smallest of those that must not see each other.

    Args:
        user: codes [E].
        item: codes [E].
        time: [E].
    """
    rows = np.lexsort((time, user))  # stable: events of one user and time stay in the order of their rows
    user, item, time = user[rows], item[rows], time[rows]
    moment = np.cumsum(np.append(True, (user[1:] != user[:-1]) | (time[1:] != time[:-1])))
    face = np.lexsort((item, moment))
    ends = np.flatnonzero(
        np.append((moment[face[1:]] != moment[face[:-1]]) | (item[face[1:]] != item[face[:-1]]), True)
    )
    last = np.empty(len(rows), np.int64)  # position of each event's last twin
    last[face] = np.repeat(face[ends], np.diff(ends, prepend=-1))
    starts = np.flatnonzero(np.append(True, np.arange(1, len(rows)) > np.maximum.accumulate(last)[:-1]))
    order = np.empty(len(rows), np.int64)
    order[rows] = np.repeat(rows[starts], np.diff(starts, append=len(rows)))
    return order
