"""Drawing items that users did not touch: for the stored lists of candidates and for the negatives of training.

Nothing here is as large as users x items. Little excluded: draw freely and redraw what was wrong. Much excluded: order
what is left by random keys.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from gensr.data.arrays import distinct
from gensr.errors import BadInputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gensr.data.dataset import Dataset

CHUNK = 16384
"""Rows drawn together."""


@dataclass(frozen=True)
class Pool:
    """Items that negatives are drawn from.

    Attributes:
        items: int32 [D], ascending, distinct.
        interactions: items as often as they are to be drawn, int32 [N]; uniform over `items` where absent.
    """

    items: np.ndarray
    interactions: np.ndarray | None = None

    def propose(self, rng: np.random.Generator, size: int) -> np.ndarray:
        """Free draws, int32 [size]."""
        source = self.items if self.interactions is None else self.interactions
        drawn: np.ndarray = source[rng.integers(0, len(source), size, dtype=np.int32)]
        return drawn

    @cached_property
    def weights(self) -> np.ndarray:
        """How often each item is proposed, float64 [D]."""
        if self.interactions is None:
            return np.ones(len(self.items))
        counts = np.bincount(self.interactions, minlength=int(self.items[-1]) + 1)
        return np.asarray(counts[self.items], np.float64)


class Touched:
    """Who touched what, as a sorted key array: draws items that users did not touch without a dense U x I matrix.

    Args:
        user: rows [E] of the events that count.
        item: rows [E] of the events that count.
        num_users: U, users are 1..U.
        num_items: I, items are 1..I.
    """

    def __init__(self, user: np.ndarray, item: np.ndarray, num_users: int, num_items: int) -> None:
        self.num_items = num_items
        self.keys = distinct(user.astype(np.int64) * (num_items + 1) + item)
        self.counts = np.bincount(self.keys // (num_items + 1), minlength=num_users + 1)
        self._filter = _BitFilter(self.keys)

    @classmethod
    def of(cls, dataset: Dataset) -> Touched:
        """What users touched in either task and any split."""
        return cls(np.asarray(dataset.user), np.asarray(dataset.item), dataset.num_users, dataset.num_items)

    @cached_property
    def catalogue(self) -> Pool:
        """All items."""
        return Pool(np.arange(1, self.num_items + 1, dtype=np.int32))

    def contains(self, user: np.ndarray, item: np.ndarray) -> np.ndarray:
        """Whether users touched items, elementwise, bool."""
        keys = user.astype(np.int64) * (self.num_items + 1) + item
        found = self._filter.may_hold(keys)
        some = keys[found]
        at = np.searchsorted(self.keys, some)
        found[found] = self.keys[np.minimum(at, len(self.keys) - 1)] == some
        return found

    def require(self, user: np.ndarray, count: int, *, user_ids: Sequence[str]) -> None:
        """Raise `BadInputError` where users [R] left fewer than `count` items; `user_ids` names them."""
        left = self.num_items - self.counts[user]
        if len(user) and left.min() < count:
            worst = int(np.argmin(left))
            fewer = f"Ask for at most {left[worst]:,}, or bring more items" if left[worst] else "Bring more items"
            raise BadInputError(
                f"too few items for {count} negatives: the catalogue holds {self.num_items:,} and user "
                f"{user_ids[user[worst]]!r} touched {self.counts[user[worst]]:,} of them, so {left[worst]:,} are left. "
                f"{fewer}"
            )

    def draw_others(
        self, user: np.ndarray, count: int, rng: np.random.Generator, *, user_ids: Sequence[str]
    ) -> np.ndarray:
        """`count` distinct items per row that the row's user [R] did not touch, uniform: int32 [R, count].

        Raises:
            BadInputError: a user left too few items; `user_ids` names them.
        """
        self.require(user, count, user_ids=user_ids)
        drawn = np.zeros((len(user), count), np.int32)
        self.fill(drawn, user, rng, self.catalogue)
        return drawn

    def fill(self, drawn: np.ndarray, user: np.ndarray, rng: np.random.Generator, pool: Pool) -> None:
        """Fill the zeros of `drawn` int32 [R, C] in place with items of `pool`, drawn without replacement.

        What is filled in is distinct, not touched by the row's user [R], and none of what the row holds already, which
        stands in its first columns.

        Args:
            drawn: rows to complete; the users must have left enough items of `pool`.
            user: of each row.
            rng: what is drawn depends on nothing else.
            pool: what to draw from.
        """
        crowded = self._crowded(user, drawn.shape[1], pool)
        for kind, method in ((False, self._fill_by_rejection), (True, self._fill_from_rest)):
            rows = np.flatnonzero(crowded == kind)
            for start in range(0, len(rows), CHUNK):
                some = rows[start : start + CHUNK]
                drawn[some] = method(drawn[some], user[some], rng, pool)

    def _crowded(self, user: np.ndarray, count: int, pool: Pool) -> np.ndarray:
        """Rows bool [R] for which so little of `pool` is left that free draws would mostly be in vain."""
        if pool.interactions is None:
            left = len(pool.items) - self.counts[user]
            return np.asarray(left < max(4 * count, len(pool.items) // 8))
        weights = np.zeros(self.num_items + 1)
        weights[pool.items] = pool.weights
        gone = np.bincount(self.keys // (self.num_items + 1), weights[self.keys % (self.num_items + 1)])
        gone = np.append(gone, np.zeros(len(self.counts) - len(gone)))
        heaviest = np.sort(weights)[-count:].sum()  # at worst, these are drawn first
        return np.asarray(weights.sum() - gone[user] - heaviest <= weights.sum() / 20)  # also where all weigh 0

    def _fill_by_rejection(
        self, drawn: np.ndarray, user: np.ndarray, rng: np.random.Generator, pool: Pool
    ) -> np.ndarray:
        """Draw freely and redraw what was touched or repeats: quick where little is excluded."""
        empty = drawn == 0
        drawn[empty] = pool.propose(rng, int(empty.sum()))
        rows = np.arange(len(user))  # rows that may still hold a bad draw
        while len(rows):
            some = drawn[rows]
            bad = self.contains(user[rows, None], some) | _repeats(some)
            some[bad] = pool.propose(rng, int(bad.sum()))
            drawn[rows] = some
            rows = rows[bad.any(axis=1)]
        return drawn

    def _fill_from_rest(self, drawn: np.ndarray, user: np.ndarray, rng: np.random.Generator, pool: Pool) -> np.ndarray:
        """Take the smallest of random keys over the untouched items: exact where little is left to draw from."""
        count, items = drawn.shape[1], pool.items
        step = max(1, 4_000_000 // (len(items) + 1))
        for start in range(0, len(user), step):
            some, held = user[start : start + step], drawn[start : start + step]
            keys = _random_keys(rng, len(some), pool)
            keys[self.contains(some[:, None], items[None])] = np.inf
            row, column = np.nonzero(held)
            keys[row, np.searchsorted(items, held[row, column])] = -1.0  # what a row holds, it keeps
            drawn[start : start + step] = items[np.argpartition(keys, count - 1, axis=1)[:, :count]]
        return drawn


def _random_keys(rng: np.random.Generator, rows: int, pool: Pool) -> np.ndarray:
    """Keys float64 [rows, D] whose order is that of draws without replacement (Efraimidis, Spirakis, 2006)."""
    if pool.interactions is None:
        return rng.random((rows, len(pool.items)))
    waits = rng.standard_exponential((rows, len(pool.items)))
    # Items of weight 0 come after all others, in random order: no exponential variate reaches 1,000.
    return np.where(pool.weights > 0, waits / np.maximum(pool.weights, 1), 1_000 + waits)


class _BitFilter:
    """Says of most keys that they are not in a set, by one look at a bit table of at most two bytes a key.

    Args:
        keys: int64 [n].
    """

    def __init__(self, keys: np.ndarray) -> None:
        bits = max(10, (8 * len(keys)).bit_length())
        self._shift = np.uint64(64 - bits)
        table = np.zeros(1 << bits, bool)
        table[self._slot(keys)] = True
        self._table = np.packbits(table, bitorder="little")

    def may_hold(self, keys: np.ndarray) -> np.ndarray:
        """False where a key is not in the set, bool; True for all that are, and for about one in ten of the others."""
        slot = self._slot(keys)
        byte = self._table[slot >> np.uint64(3)]
        return np.asarray(byte >> (slot & np.uint64(7)).astype(np.uint8) & 1).astype(bool)

    def _slot(self, keys: np.ndarray) -> np.ndarray:
        # Fibonacci hashing (Knuth, vol. 3, 6.4): the high bits of a product with 2^64 / the golden ratio.
        return (keys.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)) >> self._shift


def _repeats(rows: np.ndarray) -> np.ndarray:
    """True where a value [R, C] occurred earlier in its row."""
    repeats = np.zeros(rows.shape, bool)
    ordered = np.sort(rows, axis=1)
    some = np.flatnonzero((ordered[:, 1:] == ordered[:, :-1]).any(axis=1))
    order = np.argsort(rows[some], axis=1, kind="stable")
    ordered = np.take_along_axis(rows[some], order, axis=1)
    again = np.zeros(ordered.shape, bool)
    again[:, 1:] = ordered[:, 1:] == ordered[:, :-1]
    inner = np.zeros(ordered.shape, bool)
    np.put_along_axis(inner, order, again, axis=1)
    repeats[some] = inner
    return repeats
