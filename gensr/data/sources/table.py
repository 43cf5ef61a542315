"""Logs in files of the user's own: columns found by name, values read, complaints with file and line."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gensr.data.log import EVENTS, ITEMS, SHOWN_ROWS, EventLog, Origin, check_log
from gensr.data.sources.config import TableConfig
from gensr.data.sources.formats import SUFFIXES, TableFile, open_table, readable, suffix
from gensr.data.tasks import SPELLINGS, Task, parse_task
from gensr.errors import BadInputError, did_you_mean

ALIASES = {
    "user_id": ("user_id", "user", "userid", "uid", "reviewer_id"),
    "item_id": ("item_id", "item", "itemid", "iid", "parent_asin", "asin", "product_id", "movie_id"),
    "timestamp": ("timestamp", "ts", "time", "datetime", "date", "unix_review_time", "unix_time"),
    "task": ("task",),
    "query": ("query", "search_query", "keywords"),
    "title": ("title", "name", "item_name"),
    "categories": ("categories", "category", "genres"),
}
"""Usual names, the preferred first; case, ``_``, ``-`` and spaces do not matter."""

REQUIRED = ("user_id", "item_id", "timestamp")
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def read_log(config: TableConfig) -> EventLog:
    """The log in the files that `config` names; errors as in `gensr.data.sources.formats` and `check_log`."""
    events_path, items_path = find_files(config)
    given: dict[str, str] = dict(config.columns.items())
    events, events_from, events_report = _read_events(open_table(events_path), given)
    if items_path is None:
        items, items_from = _items_of(events), None
        items_report: dict[str, Any] = {"file": None, "rows": items.num_rows}
    else:
        items, items_from, items_report = _read_items(open_table(items_path), given)
    report = {"events": events_report, "items": items_report}
    return check_log(events, items, report, events_from=events_from, items_from=items_from)


def content_hash(config: TableConfig) -> str:
    """Hash of the column names and the files' content; where they lie does not matter."""
    digest = hashlib.sha256(json.dumps(config.columns, sort_keys=True).encode())
    for path in find_files(config):
        digest.update(f"\n{suffix(path) if path else None}\n".encode())
        if path is not None:
            with readable(path), path.open("rb") as stream:
                digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()


def find_files(config: TableConfig) -> tuple[Path, Path | None]:
    """Where events and items lie.

    Raises:
        BadInputError: nothing there, or several files to choose from.
    """
    path = Path(config.path)
    if path.is_dir():
        events = _find(path, ("interactions", "events"))
        return events, Path(config.items) if config.items else _find(path, ("items",))
    if not path.is_file():
        near = did_you_mean(path.name, [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else [])
        raise BadInputError(f"data.source.path: no file or folder {config.path!r} in {Path.cwd()}{near}")
    return path, Path(config.items) if config.items else None


def _find(folder: Path, stems: tuple[str, ...]) -> Path:
    files = sorted(path for path in folder.iterdir() if path.is_file())
    found = [p for p in files if p.name.lower().split(".")[0] in stems and suffix(p) in SUFFIXES]
    wanted = " or ".join(f"{stem}.*" for stem in stems)
    if not found:
        names = ", ".join(path.name for path in files) or "nothing"
        raise BadInputError(f"no {wanted} ({', '.join(SUFFIXES)}) in {folder}; it holds {names}")
    if len(found) > 1:
        names = ", ".join(path.name for path in found)
        raise BadInputError(f"{folder} holds several {wanted}: {names}. Name the file of events as data.source.path")
    return found[0]


def _match(file: TableFile, wanted: Iterable[str], required: Iterable[str], given: Mapping[str, str]) -> dict[str, str]:
    """The file's own name of each canonical column it has: the one `given`, or a usual one."""
    columns = file.columns
    there = f"Columns: {', '.join(columns)}"
    found = {}
    for name in wanted:
        own = given.get(name) or _guess(name, columns)
        if own in columns:
            found[name] = own
        elif own is not None:
            hint = did_you_mean(own, columns) or "."
            raise BadInputError(f"{file.path} has no column {own!r} for {name}{hint} {there}")
        elif name in required:
            hint = did_you_mean(name, columns) or "."
            raise BadInputError(
                f"{file.path} has no column {name!r}{hint} {there}. "
                f'Say which it is in data.source.columns: {{"{name}": "..."}}'
            )
    return found


def _guess(name: str, columns: list[str]) -> str | None:
    """The column whose name is a usual one for `name`."""
    simple = {_simple(column): column for column in reversed(columns)}
    return next((simple[_simple(alias)] for alias in ALIASES[name] if _simple(alias) in simple), None)


def _simple(column: str) -> str:
    return "".join(letter for letter in column.lower() if letter not in "_- ")


def _report(file: TableFile, names: dict[str, str], table: pa.Table) -> dict[str, Any]:
    return {"file": file.path.name, "columns": names, "rows": table.num_rows}


def _canonical(file: TableFile, names: dict[str, str]) -> pa.Table:
    """The chosen columns under their canonical names, as text but for typed timestamps."""
    table = file.read(list(names.values())).rename_columns(list(names))
    if not table.num_rows:
        raise BadInputError(f"{file.path} is empty: it holds no rows under its header")
    for index, field in enumerate(table.schema):
        if field.name != "timestamp":
            table = table.set_column(index, field.name, pc.fill_null(table[index].cast(pa.string()), ""))
    return table


def _with_absent(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """`table` with the text columns of `schema` it lacks, empty."""
    for name in schema.names:
        if name not in table.column_names:
            table = table.append_column(name, pa.array([""] * table.num_rows, pa.string()))
    return table.select(schema.names)


def _items_of(events: pa.Table) -> pa.Table:
    ids = events["item_id"].combine_chunks().dictionary_encode().dictionary
    return _with_absent(pa.table({"item_id": ids}), ITEMS)


def _read_events(file: TableFile, given: Mapping[str, str]) -> tuple[pa.Table, Origin, dict[str, Any]]:
    """Events of the schema `EVENTS`, where they come from, and what to report."""
    names = _match(file, EVENTS.names, REQUIRED, given)
    table = _canonical(file, names)
    time, fractional = read_timestamps(table["timestamp"], file.origin)
    query = table["query"] if "query" in names else pa.array([""] * table.num_rows, pa.string())
    if "task" in names:
        task = _read_tasks(table["task"].combine_chunks(), file.origin)
    else:
        asked = pc.not_equal(pc.utf8_trim_whitespace(query), "")
        task = pc.if_else(asked, int(Task.SEARCH), int(Task.RECOMMENDATION)).cast(pa.int8())
    columns = [table["user_id"], table["item_id"], pa.array(time), task, query]
    report = _report(file, names, table) | ({"timestamps_rounded_down": fractional} if fractional else {})
    return pa.table(columns, schema=EVENTS), file.origin, report


def _read_items(file: TableFile, given: Mapping[str, str]) -> tuple[pa.Table, Origin, dict[str, Any]]:
    """Items of the schema `ITEMS`, where they come from, and what to report."""
    # Both files have an item_id; the other name may be meant for the events alone.
    given = {name: column for name, column in given.items() if name != "item_id" or column in file.columns}
    names = _match(file, ITEMS.names, ("item_id",), given)
    table = _canonical(file, names)
    return _with_absent(table, ITEMS), file.origin, _report(file, names, table)


def _read_tasks(column: pa.Array, origin: Origin) -> pa.Array:
    """`Task` codes of a text column in any usual spelling."""
    encoded = column.dictionary_encode()
    codes, unknown = [], []
    for code, name in enumerate(encoded.dictionary.to_pylist()):
        try:
            codes.append(int(parse_task(name)))
        except BadInputError:
            codes.append(0)
            unknown.append(code)
    if unknown:
        rows = np.flatnonzero(np.isin(encoded.indices.to_numpy(), unknown))
        values = column.take(pa.array(rows[:SHOWN_ROWS])).to_pylist()
        hint = did_you_mean(values[0].lower(), SPELLINGS).removeprefix("; ")
        expected = f"Known: {', '.join(SPELLINGS)}" + (f" ({hint})" if hint else "")
        raise origin.complaint("unknown task", rows, values, expected=expected)
    return pa.array(codes, pa.int8()).take(encoded.indices)


def read_timestamps(column: pa.ChunkedArray, origin: Origin) -> tuple[np.ndarray, int]:
    """Times as int64 [E], and how many were rounded down.

    Numbers keep their unit, whatever it is. ISO 8601 texts and typed timestamps become Unix seconds; without a zone
    they are read as UTC. The first value decides which of the two a text column holds.

    Raises:
        BadInputError: names the lines of the values that are neither.
    """
    kind = column.type
    if pa.types.is_temporal(kind):
        column = pc.floor_temporal(column.cast(pa.timestamp("us", getattr(kind, "tz", None))), unit="second")
        column = pc.divide(column.cast(pa.int64()), 1_000_000)
    if pa.types.is_integer(column.type) and not column.null_count:
        return column.cast(pa.int64()).to_numpy(), 0
    try:
        if pa.types.is_string(column.type):
            return column.cast(pa.int64()).to_numpy(), 0
    except pa.ArrowInvalid:
        pass  # not whole numbers throughout: look at each value
    return _read_each(column.to_pylist(), origin)


def _read_each(values: list[Any], origin: Origin) -> tuple[np.ndarray, int]:
    first = next((value for value in values if value not in (None, "")), None)
    iso = _number(first) is None and _moment(first) is not None
    read = _moment if iso else _number
    times = [read(value) for value in values]
    bad = np.array([row for row, time in enumerate(times) if time is None], np.int64)
    if len(bad):
        expected = "an ISO 8601 time, as in the first row" if iso else "a number, or ISO 8601 in all rows"
        shown = [values[row] for row in bad[:SHOWN_ROWS]]
        raise origin.complaint("bad timestamp", bad, shown, expected=f"Expected {expected}")
    fractional = 0 if iso else sum(float(value) != time for value, time in zip(values, times, strict=True))
    return np.array(times, np.int64), fractional


def _number(value: Any) -> int | None:
    """A number rounded down, if `value` is one that int64 holds."""
    try:
        number = int(value) if isinstance(value, str) else math.floor(value)
    except (TypeError, ValueError, OverflowError):
        try:
            number = math.floor(float(value))
        except (TypeError, ValueError, OverflowError):
            return None
    return number if -(2**63) <= number < 2**63 else None


def _moment(value: Any) -> int | None:
    """Unix seconds, rounded down, if `value` is an ISO 8601 date or time."""
    try:
        moment = datetime.fromisoformat(value.strip())
    except (AttributeError, ValueError):
        return None
    return ((moment if moment.tzinfo else moment.replace(tzinfo=UTC)) - EPOCH) // timedelta(seconds=1)
