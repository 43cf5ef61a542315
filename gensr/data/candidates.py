"""Which items compete with the truth: drawn once, stored and hashed, so that all rankers meet the same lists."""

from __future__ import annotations

import hashlib
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from gensr.data.split import HELD_OUT, Split
from gensr.errors import BadInputError, DamagedFileError
from gensr.files import undamaged

if TYPE_CHECKING:
    from gensr.data.dataset import Dataset

CHUNK = 16384


@dataclass(frozen=True)
class CandidateList:
    """The candidates of every held-out request under one recipe.

    Attributes:
        name: name of the recipe, such as ``uniform-99``.
        sha256: hash of the arrays.
        lists: per held-out split the requests (event positions int64 [R]) and their candidates (int32 [R, C], the
            truth among them, in shuffled order, 0 = padding).
    """

    name: str
    sha256: str
    lists: dict[Split, tuple[np.ndarray, np.ndarray]]

    def save(self, folder: Path) -> None:
        """Write the arrays into `folder`, which must exist."""
        for split, (events, items) in self.lists.items():
            np.save(folder / f"{self.name}-{split.label}-events.npy", events)
            np.save(folder / f"{self.name}-{split.label}-items.npy", items)

    @classmethod
    def load(cls, folder: Path, name: str, sha256: str) -> CandidateList:
        """Read what `save` wrote, memory-mapped.

        Raises:
            DamagedFileError: a file cannot be read, or the arrays are not those that `sha256` was taken of.
        """
        lists = {
            split: (_load(folder, name, split, "events"), _load(folder, name, split, "items")) for split in HELD_OUT
        }
        if hash_lists(lists) != sha256:
            raise DamagedFileError(
                f"candidate list {name!r} in {folder} is damaged: its hash is not the manifest's. "
                f"{_cure(folder.parent)}"
            )
        return cls(name, sha256, lists)


def prepared_file(folder: Path, name: str) -> AbstractContextManager[None]:
    """Around reading one file of prepared data: where it is damaged, say so and how to get it back."""
    return undamaged(folder / name, _cure(folder))


def _cure(folder: Path) -> str:
    return f"Delete {folder}; the next command that needs the data prepares them again"


def _load(folder: Path, name: str, split: Split, part: str) -> np.ndarray:
    file = f"{name}-{split.label}-{part}.npy"
    with prepared_file(folder.parent, f"{folder.name}/{file}"):
        array: np.ndarray = np.load(folder / file, mmap_mode="r")
    return array


def hash_lists(lists: dict[Split, tuple[np.ndarray, np.ndarray]]) -> str:
    """Sha256 over splits, shapes and values, the same on every machine."""
    digest = hashlib.sha256()
    for split, arrays in sorted(lists.items()):
        for array, dtype in zip(arrays, ("<i8", "<i4"), strict=True):
            digest.update(f"{split.label}{array.shape}".encode())
            digest.update(np.ascontiguousarray(array, dtype=dtype).data)
    return digest.hexdigest()


def draw_uniform(dataset: Dataset, events: np.ndarray, *, count: int, seed: int) -> np.ndarray:
    """The truth and `count` items its user never touched, in either task and any split, in shuffled order.

    Args:
        dataset: the prepared data.
        events: requests, event positions [R].
        count: negatives, drawn uniformly without replacement.
        seed: the lists depend on nothing else.

    Returns:
        int32 [R, count + 1].

    Raises:
        BadInputError: the catalogue, less what a user touched, is too small.
    """
    user = np.asarray(dataset.user)
    touched = Touched(user, np.asarray(dataset.item), dataset.num_users, dataset.num_items)
    rng = np.random.default_rng([seed, 1])
    drawn = np.empty((len(events), count + 1), np.int32)
    for start in range(0, len(events), CHUNK):
        some = events[start : start + CHUNK]
        part = drawn[start : start + CHUNK]
        part[:, 0] = dataset.item[some]
        part[:, 1:] = touched.draw_others(user[some], count, rng, user_ids=dataset.user_ids)
        drawn[start : start + CHUNK] = rng.permuted(part, axis=1)
    return drawn


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
        self.keys = np.unique(user.astype(np.int64) * (num_items + 1) + item)
        self.counts = np.bincount(self.keys // (num_items + 1), minlength=num_users + 1)

    def contains(self, user: np.ndarray, item: np.ndarray) -> np.ndarray:
        """Whether users touched items, elementwise, bool."""
        keys = user.astype(np.int64) * (self.num_items + 1) + item
        at = np.searchsorted(self.keys, keys)
        return np.asarray(self.keys[np.minimum(at, len(self.keys) - 1)] == keys)

    def draw_others(self, user: np.ndarray, count: int, rng: np.random.Generator, *, user_ids: list[str]) -> np.ndarray:
        """`count` distinct items per row that the row's user [R] did not touch, uniform: int32 [R, count].

        Raises:
            BadInputError: a user left too few items; `user_ids` names them.
        """
        left = self.num_items - self.counts[user]
        if len(user) and left.min() < count:
            worst = int(np.argmin(left))
            raise BadInputError(
                f"too few items for {count} negatives: the catalogue holds {self.num_items:,} and user "
                f"{user_ids[user[worst]]!r} touched {self.counts[user[worst]]:,} of them, so {left[worst]:,} are left. "
                "Ask for fewer negatives, or bring more items"
            )
        drawn = np.empty((len(user), count), np.int32)
        crowded = left < max(4 * count, self.num_items // 8)
        drawn[~crowded] = self._draw_by_rejection(user[~crowded], count, rng)
        drawn[crowded] = self._draw_from_rest(user[crowded], count, rng)
        return drawn

    def _draw_by_rejection(self, user: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
        """Draw freely and redraw what was touched or repeats: quick where little is excluded."""
        drawn = rng.integers(1, self.num_items + 1, (len(user), count), dtype=np.int32)
        rows = np.arange(len(user))  # rows that may still hold a bad draw
        while len(rows):
            some = drawn[rows]
            bad = self.contains(user[rows, None], some) | _repeats(some)
            some[bad] = rng.integers(1, self.num_items + 1, int(bad.sum()), dtype=np.int32)
            drawn[rows] = some
            rows = rows[bad.any(axis=1)]
        return drawn

    def _draw_from_rest(self, user: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
        """Take the smallest of random keys over the untouched items: exact where little is left to draw from."""
        drawn = np.empty((len(user), count), np.int32)
        step = max(1, 4_000_000 // (self.num_items + 1))
        items = np.arange(1, self.num_items + 1)
        for start in range(0, len(user), step):
            some = user[start : start + step]
            keys = rng.random((len(some), self.num_items))
            keys[self.contains(some[:, None], items[None])] = 2.0
            drawn[start : start + step] = np.argpartition(keys, count - 1, axis=1)[:, :count] + 1
        return drawn


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
