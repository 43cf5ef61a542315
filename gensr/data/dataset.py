"""The prepared data, opened: memory-mapped arrays from which requests are sliced. `gensr.data.prepare` writes them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from scipy import sparse

from gensr.data.candidates import CandidateList, cure, prepared_file
from gensr.data.catalogue import Catalogue
from gensr.data.split import Split
from gensr.data.tasks import Task
from gensr.data.texts import Texts
from gensr.data.times import TimeScale
from gensr.errors import BadInputError, did_you_mean

__all__ = ["CandidateList", "Catalogue", "Dataset", "Split"]

SCHEMA = 3
"""Version of the folder: of its layout, and of what equal specs and logs give; another one must be prepared anew."""

MANIFEST = "manifest.json"
ARRAYS = ("user", "item", "task", "query", "time", "ordinal", "split", "past", "offsets")
CLICKS = 5
"""Most clicks of a search session that a history shows; KuaiSAR's sessions have up to 5 in UniSAR's preparation."""
SOME_ARRAYS = ("order", "entry", "starts")
"""Arrays that only some logs have."""


class Dataset:
    """A prepared folder, opened: events sorted by user and time, as memory-mapped arrays.

    Opening reads next to nothing: arrays are mapped, texts are read when they are first asked for.

    Attributes:
        folder: where it lies.
        manifest: counts, the source's report, the audit, candidate hashes, the fingerprint.
        catalogue: texts and raw ids of items and queries.
        user: int32 [E], rows 1..U in the order of the raw ids, shorter ones first; what was appended comes after.
        item: int32 [E], rows 1..I, likewise.
        task: int8 [E], `Task` codes.
        query: int32 [E], rows 1..Q, 0 = none.
        time: int64 [E], in the log's own units: see `scale`.
        ordinal: int32 [E], dense rank of the time, and of the `order` within it, within the user.
        split: int8 [E], `Split` codes.
        past: int64 [E], end (exclusive) of the events of the same user with a smaller ordinal: what the event may see
            is ``offsets[user]:past``.
        offsets: int64 [U+2], the events of user u are ``offsets[u]:offsets[u+1]``.
        order: int64 [E], what orders the events of a user and time; None where the log has no such column.
        starts: int64 [H+1], first events of what counts as one thing in a history: an event, or all clicks of one
            search session; the last is E. None where each event is its own.
        entry: int64 [E+1], how many of `starts` lie before an event; None likewise.
    """

    user: np.ndarray
    item: np.ndarray
    task: np.ndarray
    query: np.ndarray
    time: np.ndarray
    ordinal: np.ndarray
    split: np.ndarray
    past: np.ndarray
    offsets: np.ndarray
    order: np.ndarray | None
    starts: np.ndarray | None
    entry: np.ndarray | None

    def __init__(self, folder: Path, manifest: dict[str, Any]) -> None:
        self.folder, self.manifest = folder, manifest
        with prepared_file(folder, "catalogue"):
            self.catalogue = Catalogue.load(folder / "catalogue", advice=cure(folder))
        for name in (*ARRAYS, *SOME_ARRAYS):
            path = folder / f"{name}.npy"
            if name in SOME_ARRAYS and not path.exists():
                setattr(self, name, None)
                continue
            with prepared_file(folder, path.name):
                # A view as a plain array: numpy's own class for mapped files makes every slice slow.
                setattr(self, name, np.asarray(np.load(path, mmap_mode="r")))

    @classmethod
    def open(cls, folder: Path) -> Dataset:
        """Open what `prepare` wrote.

        Raises:
            BadInputError: no prepared data there, or of another layout, or damaged.
        """
        folder = Path(folder)
        try:
            manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
            schema = manifest["schema"]
        except (OSError, ValueError, KeyError, TypeError):
            raise BadInputError(
                f"{folder} holds no prepared data: no readable {MANIFEST}. If gensr made it, delete it; the next "
                "command that needs the data prepares them again"
            ) from None
        if schema != SCHEMA:
            raise BadInputError(f"{folder} has layout {schema}, this version reads {SCHEMA}: prepare the data again")
        return cls(folder, manifest)

    @property
    def fingerprint(self) -> str:
        """`gensr.data.prepare.data_fingerprint` of the spec it was prepared from."""
        return str(self.manifest["fingerprint"])

    @property
    def num_users(self) -> int:
        """U: users are rows 1..U."""
        return len(self.offsets) - 2

    @property
    def num_items(self) -> int:
        """I: items are rows 1..I."""
        return self.catalogue.num_items

    @property
    def num_queries(self) -> int:
        """Q: queries are rows 1..Q."""
        return self.catalogue.num_queries

    @property
    def num_events(self) -> int:
        """E."""
        return len(self.user)

    @property
    def scale(self) -> TimeScale:
        """What the times count."""
        return TimeScale(**self.manifest["time"])

    @cached_property
    def user_ids(self) -> Texts:
        """Raw user ids by row, row 0 ``""``."""
        with prepared_file(self.folder, "users.parquet"):
            return Texts.of_rows(pq.read_table(self.folder / "users.parquet")["user_id"])

    def history(self, events: np.ndarray, length: int) -> tuple[np.ndarray, np.ndarray]:
        """What requests see: the newest `length` entries of their strict past, oldest first.

        Args:
            events: event positions [B].
            length: L, entries at most; the clicks of one search session are one entry.

        Returns:
            Positions of the entries' first events int64 [B, L], and which are real, bool [B, L]; the others are 0.
        """
        end, begin = self.past[events], self.offsets[self.user[events]]
        if self.entry is not None:
            end, begin = self.entry[end], self.entry[begin]
        slots = np.maximum(begin, end - length)[:, None] + np.arange(length)
        real = slots < end[:, None]
        slots = np.where(real, slots, 0)
        return (slots if self.starts is None else np.where(real, self.starts[slots], 0)), real

    def clicks(self, positions: np.ndarray, most: int) -> np.ndarray:
        """Items of the entries that begin at `positions` [...], the first `most` of each: int32 [..., most], 0 = none.

        A search session has as many as it has clicks, anything else one.
        """
        if self.starts is None or self.entry is None:
            sizes = np.ones(positions.shape, np.int64)
        else:
            sizes = self.starts[self.entry[positions] + 1] - positions
        at = positions[..., None] + np.arange(most)
        real = np.arange(most) < sizes[..., None]
        return np.where(real, self.item[np.where(real, at, 0)], 0)

    def requests(self, split: Split, task: Task | None = None) -> np.ndarray:
        """Positions of the events that ask a request in `split`, int64, ascending."""
        chosen = self.split == split
        return np.flatnonzero(chosen if task is None else chosen & (self.task == task))

    def user_items(self, task: Task = Task.RECOMMENDATION) -> sparse.csr_matrix:
        """Who touched what in training events of `task`: csr float32 [U+1, I+1] of ones."""
        events = self.requests(Split.TRAIN, task)
        matrix = _count(self.user[events], self.item[events], (self.num_users + 1, self.num_items + 1))
        matrix.data[:] = 1.0
        return matrix

    @cached_property
    def interactions_digest(self) -> str:
        """Sha256 of `user_items` and the raw ids of its rows: all that a CF table reads of the data."""
        pairs = self.user_items().tocsr()
        digest = hashlib.sha256(json.dumps([list(self.user_ids), list(self.catalogue.item_ids)]).encode())
        for part in (pairs.indptr.astype("<i8"), pairs.indices.astype("<i8")):
            digest.update(part.tobytes())
        return digest.hexdigest()

    def item_counts(self, task: Task) -> np.ndarray:
        """Training events of `task` by item row, int64 [I+1]."""
        return np.bincount(self.item[self.requests(Split.TRAIN, task)], minlength=self.num_items + 1)

    def query_clicks(self) -> sparse.csr_matrix:
        """Training clicks by query and item, csr float32 [Q+1, I+1] of counts."""
        events = self.requests(Split.TRAIN, Task.SEARCH)
        return _count(self.query[events], self.item[events], (self.num_queries + 1, self.num_items + 1))

    @property
    def candidate_names(self) -> list[str]:
        """The candidate lists, the one that selects models first."""
        return list(self.manifest["candidates"])

    def candidates(self, name: str) -> CandidateList:
        """The stored list called `name`, its hash checked."""
        if name not in self.candidate_names:
            hint = did_you_mean(name, self.candidate_names) or "."
            raise BadInputError(f"no candidate list {name!r}{hint} Prepared: {', '.join(self.candidate_names)}")
        return CandidateList.load(self.folder / "candidates", name, self.manifest["candidates"][name], self)


def _count(rows: np.ndarray, columns: np.ndarray, shape: tuple[int, int]) -> sparse.csr_matrix:
    ones = np.ones(len(rows), np.float32)
    return sparse.coo_matrix((ones, (np.asarray(rows), np.asarray(columns))), shape).tocsr()  # sums repeats


def write_arrays(folder: Path, arrays: Mapping[str, np.ndarray], user_ids: Texts, catalogue: Catalogue) -> None:
    """Write into `folder`, which must exist, what `Dataset` opens but for the manifest and the candidate lists."""
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)
    pq.write_table(pa.table({"user_id": user_ids.arrow}), folder / "users.parquet")
    catalogue.save(folder / "catalogue")
