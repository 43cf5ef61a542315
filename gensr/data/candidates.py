"""Which items compete with the truth: drawn once, stored and hashed, so that all rankers meet the same lists."""

from __future__ import annotations

import hashlib
import json
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gensr.data.arrays import spread
from gensr.data.split import HELD_OUT, Split
from gensr.errors import DamagedFileError
from gensr.files import undamaged

if TYPE_CHECKING:
    from gensr.data.config import CandidatesConfig
    from gensr.data.dataset import Dataset

FULL = {"rule": "the whole catalogue less what the user touched"}
"""What is stored of a list whose rows are made on demand."""


class FullRows:
    """Rows of the list ``full``: all items but the ones the request's user touched, and the truth; made on demand.

    Behaves like an int32 array [R, I] as far as lists of candidates are read: an index array gives rows, a slice a part
    of the same kind. Column c holds item c + 1, or 0 where it is left out.

    Args:
        dataset: the prepared data.
        events: requests, event positions [R].
    """

    def __init__(self, dataset: Dataset, events: np.ndarray) -> None:
        self.dataset, self.events = dataset, events
        self.shape = (len(events), dataset.num_items)

    def __len__(self) -> int:
        return len(self.events)

    def __getitem__(self, rows: Any) -> Any:
        if isinstance(rows, slice):
            return FullRows(self.dataset, self.events[rows])
        events = np.asarray(self.events)[rows]
        if events.ndim == 0:
            return self._rows(events[None])[0]
        return self._rows(events)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return self._rows(np.asarray(self.events)).astype(dtype or np.int32, copy=False)

    def _rows(self, events: np.ndarray) -> np.ndarray:
        data = self.dataset
        user = data.user[events]
        row, position = spread(data.offsets[user], data.offsets[user + 1] - data.offsets[user])
        rows = np.tile(np.arange(1, data.num_items + 1, dtype=np.int32), (len(events), 1))
        rows[row, data.item[position] - 1] = 0
        truth = data.item[events]
        rows[np.arange(len(events)), truth - 1] = truth
        return rows


@dataclass(frozen=True)
class CandidateList:
    """The candidates of every held-out request under one recipe.

    Attributes:
        name: name of the recipe, such as ``uniform-99``.
        sha256: hash of the arrays, or of the rule that makes the rows and the events it is applied to.
        lists: per held-out split the requests (event positions int64 [R]) and their candidates (int32 [R, C], the
            truth among them, in shuffled order, 0 = padding; or `FullRows`).
    """

    name: str
    sha256: str
    lists: dict[Split, tuple[np.ndarray, np.ndarray | FullRows]]

    @classmethod
    def draw(cls, config: CandidatesConfig, dataset: Dataset, *, seed: int) -> CandidateList:
        """The list of a recipe over all held-out requests."""
        requests = {split: dataset.requests(split) for split in HELD_OUT}
        drawn = config.draw(dataset, np.concatenate(list(requests.values())), seed=seed)
        first = len(requests[HELD_OUT[0]])
        parts = (drawn[:first], drawn[first:])
        lists = {split: (requests[split], part) for split, part in zip(HELD_OUT, parts, strict=True)}
        return cls(config.name, hash_lists(lists), lists)

    def save(self, folder: Path) -> None:
        """Write the arrays into `folder`, which must exist."""
        for split, (events, items) in self.lists.items():
            np.save(folder / f"{self.name}-{split.label}-events.npy", events)
            if isinstance(items, FullRows):
                (folder / f"{self.name}-{split.label}-rule.json").write_text(json.dumps(FULL) + "\n")
            else:
                np.save(folder / f"{self.name}-{split.label}-items.npy", items)

    @classmethod
    def load(cls, folder: Path, name: str, sha256: str, dataset: Dataset) -> CandidateList:
        """Read what `save` wrote, memory-mapped.

        Args:
            folder: where it lies.
            name: of the list.
            sha256: what the manifest says of it.
            dataset: makes the rows that are not stored.

        Raises:
            DamagedFileError: a file cannot be read, or the arrays are not those that `sha256` was taken of.
        """
        lists: dict[Split, tuple[np.ndarray, np.ndarray | FullRows]] = {}
        for split in HELD_OUT:
            events = _load(folder, name, split, "events")
            on_demand = (folder / f"{name}-{split.label}-rule.json").exists()
            lists[split] = (events, FullRows(dataset, events) if on_demand else _load(folder, name, split, "items"))
        if hash_lists(lists) != sha256:
            raise DamagedFileError(
                f"candidate list {name!r} in {folder} is damaged: its hash is not the manifest's. {cure(folder.parent)}"
            )
        return cls(name, sha256, lists)

    def renumbered(self, place: np.ndarray, rows: np.ndarray) -> CandidateList:
        """The same list where events and items have other numbers: for what `append` writes.

        Args:
            place: new position of every event, int64 [E].
            rows: new row of every item, [I+1]; row 0 stays.
        """
        lists: dict[Split, tuple[np.ndarray, np.ndarray | FullRows]] = {}
        for split, (events, items) in self.lists.items():
            order = np.argsort(place[events])
            moved = place[events][order]
            if isinstance(items, FullRows):
                lists[split] = (moved, FullRows(items.dataset, moved))
            else:
                lists[split] = (moved, rows[items[order]].astype(np.int32))
        return CandidateList(self.name, hash_lists(lists), lists)


def prepared_file(folder: Path, name: str) -> AbstractContextManager[None]:
    """Around reading one file of prepared data: where it is damaged, say so and how to get it back."""
    return undamaged(folder / name, cure(folder))


def cure(folder: Path) -> str:
    """What to do about a damaged file of prepared data."""
    return f"Delete {folder}; the next command that needs the data prepares them again"


def _load(folder: Path, name: str, split: Split, part: str) -> np.ndarray:
    file = f"{name}-{split.label}-{part}.npy"
    with prepared_file(folder.parent, f"{folder.name}/{file}"):
        array: np.ndarray = np.load(folder / file, mmap_mode="r")
    return array


def hash_lists(lists: dict[Split, tuple[np.ndarray, np.ndarray | FullRows]]) -> str:
    """Sha256 over splits, shapes and values, the same on every machine; of rows made on demand, over their rule."""
    digest = hashlib.sha256()
    for split, arrays in sorted(lists.items()):
        for array, dtype in zip(arrays, ("<i8", "<i4"), strict=True):
            digest.update(f"{split.label}{array.shape}".encode())
            if isinstance(array, FullRows):
                digest.update(FULL["rule"].encode())
            else:
                digest.update(np.ascontiguousarray(array, dtype=dtype).data)
    return digest.hexdigest()
