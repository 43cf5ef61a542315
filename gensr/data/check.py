"""What a log is, before anything is made of it: which source reads it, what it holds, what a spec must say of it.

Users bring files, not source names. Published files are recognised by their names; everything else is a table.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow.compute as pc

from gensr.data.arrays import count_distinct
from gensr.data.log import codes_of
from gensr.data.sources.config import SOURCES, AppendConfig, SourceConfig, TableConfig
from gensr.data.tasks import Task
from gensr.errors import BadInputError
from gensr.spec import load_spec
from gensr.spec_file import read_spec

if TYPE_CHECKING:
    from gensr.data.log import EventLog

FILES = ("path", "items", "searches")
"""Options of a table that name files."""
SHOWN_EVENTS = 3
HELD_OUT_FROM = 3
"""Events of one task from which leave-one-out can hold some of a user's out."""


def recognise(path: str) -> SourceConfig | None:
    """The source whose published file names stand at `path`; None where none does, and it can only be a table."""
    for name in SOURCES.names():
        try:
            source = SOURCES.get(name)
        except BadInputError:  # a broken plug-in reads nothing, and `gensr components source` says why
            continue
        found = None if source is TableConfig else source.recognise(Path(path))
        if found is not None:
            return found
    return None


def table_like(source: SourceConfig | None, path: str, items: str | None) -> TableConfig:
    """A table at `path`, read as the table in `source` is: the same columns and units; other files."""
    while isinstance(source, AppendConfig):
        source = source.new if isinstance(source.new, TableConfig) else source.base
    options = source.model_dump() if isinstance(source, TableConfig) else {}
    for name in FILES:
        options.pop(name, None)
    return TableConfig.model_validate({**options, "path": path, "items": items})


def appended_spec(spec: str, new: SourceConfig) -> dict[str, Any]:
    """The mapping of a spec whose log is that of `spec` and then `new`; what `spec` left unsaid stays unsaid."""
    base = load_spec(spec).data.source
    data = read_spec(spec)
    return {**data, "data": {**data.get("data", {}), "source": _short(AppendConfig(base=base, new=new))}}


def _short(source: SourceConfig) -> dict[str, Any]:
    """A source as a spec names it, options at their default left out."""
    options: dict[str, Any] = {"type": source.type}
    for name, value in source.model_dump(mode="json", exclude_defaults=True, exclude={"type"}).items():
        part = getattr(source, name)
        options[name] = _short(part) if isinstance(part, SourceConfig) else value
    return options


def snippet(source: SourceConfig) -> str:
    """The ``"source": {...}`` line of a spec that reads this log; options at their default are left out."""
    return f'"source": {json.dumps(_short(source), ensure_ascii=False)}'


def summary(log: EventLog) -> dict[str, Any]:
    """What a log holds, ready for JSON.

    Returns:
        ``counts``: users, items, queries and events, and what of them is odd; ``time``: unit, zone, first and last time
        in words; ``first_events``: the first rows as they were read.
    """
    first = log.events.slice(0, SHOWN_EVENTS).to_pylist()
    shown = [event | {"task": Task(event["task"]).label} for event in first]
    return {"counts": _counts(log), "time": _times(log), "first_events": shown}


def _counts(log: EventLog) -> dict[str, int]:
    user, names = codes_of(log.events["user_id"])
    task = log.events["task"].to_numpy()
    per_task = {code: np.bincount(user[task == code], minlength=len(names)) for code in Task}
    recommendation, search = per_task[Task.RECOMMENDATION], per_task[Task.SEARCH]
    no_text = pc.and_(pc.equal(log.items["title"], ""), pc.equal(log.items["categories"], ""))
    queries = codes_of(log.events["query"])[0][task == Task.SEARCH]
    return {
        "events": log.events.num_rows,
        **{f"{code.label}_events": int((task == code).sum()) for code in Task},
        "users": int((recommendation + search > 0).sum()),
        "users_with_both_tasks": int(((recommendation > 0) & (search > 0)).sum()),
        "users_with_three_events_of_a_task": int((np.maximum(recommendation, search) >= HELD_OUT_FROM).sum()),
        "items": log.items.num_rows,
        "items_with_events": count_distinct(codes_of(log.events["item_id"])[0]),
        "items_without_title_and_categories": int(pc.sum(no_text).as_py() or 0),
        "queries": count_distinct(queries),
    }


def _times(log: EventLog) -> dict[str, str]:
    time = log.events["timestamp"].to_numpy()
    return {
        "unit": log.time.unit,
        "zone": log.time.zone,
        "first": log.time.describe(int(time.min())),
        "last": log.time.describe(int(time.max())),
    }
