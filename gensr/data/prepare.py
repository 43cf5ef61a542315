"""`prepare`: a log turned, once, into the folder that `Dataset` opens; complete or not there at all."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from gensr.data.append import renumber
from gensr.data.arrange import Arranged, arrange
from gensr.data.audit import audit
from gensr.data.candidates import CandidateList
from gensr.data.catalogue import Catalogue
from gensr.data.dataset import MANIFEST, SCHEMA, Dataset, write_arrays
from gensr.data.floors import measure_floors
from gensr.data.log import EventLog, check_log
from gensr.data.sources.config import SourceConfig
from gensr.data.split import HELD_OUT, unused_twins
from gensr.data.tasks import Task
from gensr.data.texts import Texts
from gensr.errors import BadInputError
from gensr.files import new_folder
from gensr.progress import Progress, reading
from gensr.spec import DataSpec, fingerprint

Reader = Callable[[SourceConfig], EventLog]


def data_fingerprint(spec: DataSpec) -> str:
    """Hash of all that `prepare` depends on: the options that matter, the source's content, the layout."""
    source = [spec.source.type, type(spec.source).revision, spec.source.identity()]
    options = [spec.item_text, spec.core, spec.users, spec.seed, spec.max_history, spec.split, spec.candidates]
    return hashlib.sha256(json.dumps([SCHEMA, source, fingerprint(options)]).encode()).hexdigest()


def prepare(
    spec: DataSpec, folder: Path, *, progress: bool = False, read: Reader = lambda source: source.read()
) -> Dataset:
    """Read the source and write the prepared data; a folder that already holds them is opened as it is.

    The folder appears complete or not at all. Deterministic: equal specs and logs give equal bytes, whatever the order
    of the log's rows. Two processes must not prepare one folder at the same time; `gensr.files.locked` keeps them
    apart.

    Args:
        spec: the data section of a spec.
        folder: where to write; its parents are made.
        progress: tell the steps on stderr.
        read: reads a source; `StageCache.log` remembers what was read.

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
    steps = Progress(enabled=progress)
    with steps.stage("read", f"data: reading {spec.source.type}"), reading(steps):
        log = read(spec.source)
        log = check_log(  # a plug-in may have built its log by hand
            log.events, log.items, log.report, time_unit=log.time.unit, time_zone=log.time.zone
        )
    with new_folder(folder) as temporary:
        _write(log, spec, identity, temporary, steps)
    seconds = ", ".join(f"{name} {spent:.1f}" for name, spent in steps.seconds.items())
    steps.note(f"data: ready after {sum(steps.seconds.values()):.1f} s ({seconds})")
    return Dataset.open(folder)


def _write(log: EventLog, spec: DataSpec, identity: str, folder: Path, steps: Progress) -> None:
    with steps.stage("arrange", f"data: sorting {log.events.num_rows:,} events"):
        arranged = arrange(log, spec)
        _split(arranged, spec, log)
    manifest: dict[str, Any] = {"schema": SCHEMA, "fingerprint": identity, "candidates": {}}
    manifest["time"] = {"unit": log.time.unit, "zone": log.time.zone}
    manifest["source"] = log.report | arranged.report
    with _numbered_by_id(folder, arranged) as first:
        _save(arranged, spec, first)
        dataset = Dataset(first, manifest)
        _draw_candidates(dataset, spec, steps)
        if first != folder:
            with steps.stage("renumber", "data: keeping the rows of what was there before"):
                renumber(dataset, arranged.generations, folder)
    dataset = Dataset(folder, manifest)
    manifest["counts"] = {
        "users": dataset.num_users,
        "items": dataset.num_items,
        "queries": dataset.num_queries,
        "events": dataset.num_events,
        **{f"{task.label}_events": int((dataset.task == task).sum()) for task in Task},
    }
    manifest["spec"] = spec.model_dump(mode="json")
    manifest["split"] = spec.split.boundaries(time=dataset.time, scale=log.time)
    with steps.stage("audit", "data: auditing"):
        manifest["audit"] = audit(dataset, spec.max_history)
    with steps.stage("floors", "data: measuring what trivial rankers reach"):
        manifest["audit"]["floors"] = measure_floors(dataset, spec)
    # Written last: a folder without it is no prepared data.
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _split(arranged: Arranged, spec: DataSpec, log: EventLog) -> None:
    """Add the split, and the rule that both faces of one interaction share it."""
    arrays = arranged.arrays
    named = ("user", "item", "task", "time", "past")
    split = spec.split.assign(**{name: arrays[name] for name in named}, given=arrays.pop("given", None), scale=log.time)
    if not np.isin(split, HELD_OUT).any():
        raise BadInputError(
            f"nothing can be held out of {len(arranged.users):,} users' events by data.split "
            f"{spec.split.type!r}. {spec.split.needs}"
        )
    arrays["split"] = unused_twins(split, past=arrays["past"], item=arrays["item"])


@contextmanager
def _numbered_by_id(folder: Path, arranged: Arranged) -> Iterator[Path]:
    """Where to write first: `folder`, or beside it where rows are renumbered afterwards."""
    if not arranged.generations:
        yield folder
        return
    first = folder / "by-id"
    first.mkdir()
    yield first
    shutil.rmtree(first)


def _save(arranged: Arranged, spec: DataSpec, folder: Path) -> None:
    item_ids, titles, categories, queries = map(Texts.of_rows, (*arranged.items.columns, arranged.queries))
    catalogue = Catalogue(item_ids, titles, categories, queries, spec.item_text)
    write_arrays(folder, arranged.arrays, Texts.of_rows(arranged.users), catalogue)


def _draw_candidates(dataset: Dataset, spec: DataSpec, steps: Progress) -> None:
    """Draw, store and hash every list; the hashes go into the manifest."""
    folder = dataset.folder / "candidates"
    folder.mkdir()
    for config in spec.candidates:
        with steps.stage(config.name, f"data: drawing candidates {config.name}"):
            try:
                listed = CandidateList.draw(config, dataset, seed=spec.seed)
            except BadInputError as error:  # perhaps of a list that the spec does not name
                told = " (one uniform list is always drawn; the spec may say which)" * (config.type == "uniform")
                raise BadInputError(f"data.candidates: {config.name}{told}: {error}") from None
            listed.save(folder)
            dataset.manifest["candidates"][config.name] = listed.sha256
