"""Which clicks are one page of results: what a history takes for one entry, and whose parts do not see each other.

Logs give the clicks of a page one time or several. Where the user did something else between two of them, putting both
at the first would show the later click to what came before it, so only clicks that nothing interrupts are joined.
"""

from __future__ import annotations

import numpy as np


def joined_moments(user: np.ndarray, moment: np.ndarray, session: np.ndarray, query: np.ndarray) -> np.ndarray:
    """The moments int64 [E] at which events happen once the clicks of a page are put at the first of them.

    A click joins the one before it on its page (same user, session and query) unless another event of the user stands
    at its own moment or between the two: that event would then see a click that is not past to it.

    Args:
        user: [E], non-decreasing.
        moment: int64 [E], non-decreasing, one number per user and moment, from 0 without gaps.
        session: int64 [E], 0 = none.
        query: [E].
    """
    clicks = np.flatnonzero(session > 0)
    if not len(clicks):
        return moment
    page = user[clicks].astype(np.int64) * (int(session.max()) + 1) + session[clicks]
    order = np.lexsort((moment[clicks], query[clicks], page))
    clicks, page = clicks[order], page[order]
    opens = np.ones(len(clicks), bool)
    opens[1:] = (page[1:] != page[:-1]) | (query[clicks][1:] != query[clicks][:-1])
    # Of every page the moments that hold clicks of it, with their number.
    first = np.flatnonzero(opens | np.append(True, np.diff(moment[clicks]) != 0))
    here, opens = moment[clicks[first]], opens[first]
    if opens.all():  # as in logs that know one time of a page
        return moment
    held = np.diff(np.append(first, len(clicks)))
    until = np.cumsum(np.bincount(moment))[here]  # events up to the end of each moment
    alone = np.append(0, np.diff(until)) == held
    begins = np.maximum.accumulate(np.where(opens | ~alone, np.arange(len(first)), 0))
    joined = moment.copy()
    joined[clicks] = np.repeat(here[begins], held)
    return joined


def entries(begins: np.ndarray) -> dict[str, np.ndarray]:
    """The arrays ``starts`` and ``entry`` of `gensr.data.dataset.Dataset`.

    Args:
        begins: where something begins that a history takes for one thing, bool [E].
    """
    return {
        "starts": np.append(np.flatnonzero(begins), len(begins)),
        "entry": np.concatenate([[0], np.cumsum(begins)]),
    }
