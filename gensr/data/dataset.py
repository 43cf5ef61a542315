"""The prepared data: a log turned, once, into memory-mapped arrays from which requests are sliced."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from scipy import sparse

from gensr.data.audit import audit
from gensr.data.candidates import CandidateList, hash_lists, prepared_file
from gensr.data.catalogue import Catalogue
from gensr.data.log import EventLog, check_log
from gensr.data.split import HELD_OUT, Split, leave_one_out, strict_past
from gensr.data.tasks import Task
from gensr.errors import BadInputError, did_you_mean
from gensr.files import new_folder
from gensr.spec import DataSpec, fingerprint

__all__ = ["CandidateList", "Catalogue", "Dataset", "Split", "data_fingerprint", "prepare"]

SCHEMA = 1
"""Version of the folder's layout; a folder of another version must be prepared anew."""

MANIFEST = "manifest.json"
ARRAYS = ("user", "item", "task", "query", "time", "ordinal", "split", "past", "offsets")


class Dataset:
    """A prepared folder, opened: events sorted by user, time and file order, as memory-mapped arrays.

    Attributes:
        folder: where it lies.
        manifest: counts, the source's report, the audit, candidate hashes, the fingerprint.
        catalogue: texts and raw ids of items and queries.
        user: int32 [E], rows 1..U in order of first appearance.
        item: int32 [E], rows 1..I in the order of the items file.
        task: int8 [E], `Task` codes.
        query: int32 [E], rows 1..Q, 0 = none.
        time: int64 [E], in the log's own units.
        ordinal: int32 [E], dense rank of the time within the user.
        split: int8 [E], `Split` codes.
        past: int64 [E], end (exclusive) of the events of the same user with a smaller ordinal: what the event may see
            is ``offsets[user]:past``.
        offsets: int64 [U+2], the events of user u are ``offsets[u]:offsets[u+1]``.
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

    def __init__(self, folder: Path, manifest: dict[str, Any]) -> None:
        self.folder, self.manifest = folder, manifest
        with prepared_file(folder, "catalogue"):
            self.catalogue = Catalogue.load(folder / "catalogue")
        for name in ARRAYS:
            with prepared_file(folder, f"{name}.npy"):
                setattr(self, name, np.load(folder / f"{name}.npy", mmap_mode="r"))

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
        """`data_fingerprint` of the spec it was prepared from."""
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

    @cached_property
    def user_ids(self) -> list[str]:
        """Raw user ids by row, row 0 ``""``."""
        with prepared_file(self.folder, "users.parquet"):
            return ["", *pq.read_table(self.folder / "users.parquet")["user_id"].to_pylist()]

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
        digest = hashlib.sha256(json.dumps([self.user_ids, self.catalogue.item_ids]).encode())
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
        return CandidateList.load(self.folder / "candidates", name, self.manifest["candidates"][name])


def _count(rows: np.ndarray, columns: np.ndarray, shape: tuple[int, int]) -> sparse.csr_matrix:
    ones = np.ones(len(rows), np.float32)
    return sparse.coo_matrix((ones, (np.asarray(rows), np.asarray(columns))), shape).tocsr()  # sums repeats


def data_fingerprint(spec: DataSpec) -> str:
    """Hash of all that `prepare` depends on: the options that matter, the source's content, the layout."""
    source = [spec.source.type, type(spec.source).revision, spec.source.identity()]
    options = fingerprint([spec.item_text, spec.users, spec.seed, spec.max_history, spec.split, spec.candidates])
    return hashlib.sha256(json.dumps([SCHEMA, source, options]).encode()).hexdigest()


def prepare(spec: DataSpec, folder: Path, *, progress: bool = False) -> Dataset:
    """Read the source and write the prepared data; a folder that already holds them is opened as it is.

    The folder appears complete or not at all. Deterministic: equal specs and logs give equal bytes. Two processes must
    not prepare one folder at the same time; `gensr.files.locked` keeps them apart.

    Args:
        spec: the data section of a spec.
        folder: where to write; its parents are made.
        progress: tell the steps on stderr.

    Raises:
        BadInputError: bad input (nothing is left behind), or `folder` holds something else.
    """
    folder = Path(folder)
    identity = data_fingerprint(spec)
    if folder.exists():
        dataset = Dataset.open(folder)
        if dataset.fingerprint != identity:
            raise BadInputError(f"{folder} holds data prepared from another spec: remove it, or name another folder")
        return dataset
    say = _teller(progress)
    say(f"reading {spec.source.type}")
    log = spec.source.read()
    log = check_log(log.events, log.items, log.report)  # a plug-in may have built its log by hand
    with new_folder(folder) as temporary:
        _write(log, spec, identity, temporary, say)
    return Dataset.open(folder)


def _teller(progress: bool) -> Callable[[str], None]:
    def say(step: str) -> None:
        if progress:
            print(f"data: {step}", file=sys.stderr, flush=True)

    return say


def _write(log: EventLog, spec: DataSpec, identity: str, folder: Path, say: Callable[[str], None]) -> None:
    say(f"sorting {log.events.num_rows:,} events")
    users, catalogue, arrays = _arrange(log, spec)
    if not np.isin(arrays["split"], HELD_OUT).any():
        raise BadInputError(
            f"nothing can be held out: of {len(users):,} users none has three events of one task. Leave-one-out takes "
            "a user's last event for test and the one before for validation, and trains on the rest"
        )
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)
    pq.write_table(pa.table({"user_id": users}), folder / "users.parquet")
    catalogue.save(folder / "catalogue")

    manifest: dict[str, Any] = {"schema": SCHEMA, "fingerprint": identity, "candidates": {}}
    dataset = Dataset(folder, manifest)
    _draw_candidates(dataset, spec, folder / "candidates", say)
    say("auditing")
    manifest["counts"] = {
        "users": dataset.num_users,
        "items": dataset.num_items,
        "queries": dataset.num_queries,
        "events": dataset.num_events,
        **{f"{task.label}_events": int((dataset.task == task).sum()) for task in Task},
    }
    manifest["spec"] = spec.model_dump(mode="json")
    manifest["source"] = log.report
    manifest["audit"] = audit(dataset, spec.max_history)
    # Written last: a folder without it is no prepared data.
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _draw_candidates(dataset: Dataset, spec: DataSpec, folder: Path, say: Callable[[str], None]) -> None:
    """Draw, store and hash every list; the hashes go into the manifest."""
    folder.mkdir()
    requests = {split: dataset.requests(split) for split in HELD_OUT}
    for config in spec.candidates:
        say(f"drawing candidates {config.name}")
        drawn = config.draw(dataset, np.concatenate(list(requests.values())), seed=spec.seed)
        parts = np.split(drawn, [len(requests[HELD_OUT[0]])])
        lists = {split: (requests[split], part) for split, part in zip(HELD_OUT, parts, strict=True)}
        sha256 = hash_lists(lists)
        CandidateList(config.name, sha256, lists).save(folder)
        dataset.manifest["candidates"][config.name] = sha256


def _arrange(log: EventLog, spec: DataSpec) -> tuple[pa.Array, Catalogue, dict[str, np.ndarray]]:
    """Give rows to users, items and queries, sort the events, split them: user ids, catalogue, `ARRAYS`."""
    events = _sample_users(log.events, spec)
    users = events["user_id"].combine_chunks().dictionary_encode()
    queries, query = _query_rows(events["query"].combine_chunks())
    user = users.indices.to_numpy() + 1
    item = pc.index_in(events["item_id"], value_set=log.items["item_id"].combine_chunks()).to_numpy() + 1
    time = events["timestamp"].to_numpy()
    order = np.lexsort((time, user))  # stable: the file's order breaks ties
    arrays = {
        "user": user[order].astype(np.int32),
        "item": item[order].astype(np.int32),
        "task": events["task"].to_numpy()[order].astype(np.int8),
        "query": query[order].astype(np.int32),
        "time": time[order].astype(np.int64),
    }
    arrays["ordinal"], arrays["past"] = strict_past(arrays["user"], arrays["time"])
    arrays["split"] = leave_one_out(arrays["user"], arrays["item"], arrays["task"], arrays["past"])
    arrays["offsets"] = np.searchsorted(arrays["user"], np.arange(len(users.dictionary) + 2)).astype(np.int64)
    ids, titles, categories = (["", *log.items[name].to_pylist()] for name in ("item_id", "title", "categories"))
    return users.dictionary, Catalogue(ids, titles, categories, queries, spec.item_text), arrays


def _sample_users(events: pa.Table, spec: DataSpec) -> pa.Table:
    """The events of `spec.users` users drawn with `spec.seed`; all where it is absent."""
    if spec.users is None:
        return events
    users = events["user_id"].combine_chunks().dictionary_encode()
    total = len(users.dictionary)
    if spec.users > total:
        raise BadInputError(f"data.users: {spec.users:,} users asked for, the log has {total:,}")
    kept = np.zeros(total, bool)
    kept[np.random.default_rng([spec.seed, 0]).choice(total, spec.users, replace=False)] = True
    return events.filter(pa.array(kept[users.indices.to_numpy()]))


def _query_rows(queries: pa.Array) -> tuple[list[str], np.ndarray]:
    """Queries by row in order of first appearance, row 0 ``""``, and the row of every event."""
    encoded = queries.dictionary_encode()
    texts = encoded.dictionary.to_pylist()
    real = np.array([text != "" for text in texts], bool)
    rows = np.where(real, np.cumsum(real), 0)
    return ["", *(text for text in texts if text)], rows[encoded.indices.to_numpy()]
