"""Logs in files of the user's own: columns found by name, values read, complaints with file and line."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gensr.data.log import (
    EVENTS,
    ITEMS,
    OPTIONAL,
    SHOWN_ROWS,
    TEXT,
    EventLog,
    Origin,
    check_log,
    no_text,
    one_dictionary,
)
from gensr.data.sources.columns import Given, codes_of_words, match, tasks_of_queries
from gensr.data.sources.config import TableConfig
from gensr.data.sources.formats import SUFFIXES, Misfit, TableFile, convert, open_table
from gensr.data.sources.items import without_text
from gensr.data.sources.order import FILE_ORDER, order_of_rows
from gensr.data.sources.parts import PartsOrigin, find_parts
from gensr.data.sources.text import content_hash, existing
from gensr.data.sources.timestamps import Timestamps
from gensr.data.split import SPELLINGS as SPLITS
from gensr.data.tasks import SPELLINGS, Task
from gensr.errors import BadInputError, did_you_mean

REQUIRED = ("user_id", "item_id", "timestamp")
EVENT_COLUMNS = (*EVENTS.names, "session", "order", "split")
NUMBERS = ("timestamp", "order")
"""Columns that are no texts; how they are read depends on what the file has."""
CODES: dict[str, Mapping[str, int]] = {"task": SPELLINGS, "split": SPLITS}
"""Columns of few words, and their codes."""

IGNORED = 'To ignore that column, set data.source.columns: {{"{}": null}}'


class Files(NamedTuple):
    """Where a log lies; each table in one file or several."""

    events: list[Path]
    searches: list[Path]
    items: list[Path]


def read_log(config: TableConfig) -> EventLog:
    """The log in the files that `config` names; errors as in `gensr.data.sources.formats` and `check_log`."""
    files, given = find_files(config), dict[str, str | None](config.columns.items())
    tables = [[open_table(path) for path in paths] for paths in files]
    _check_given(given, files, tables)
    if config.file_order:
        _check_file_order(given, tables[:2])
    reader = EventReader(Timestamps(config.time_unit, config.time_zone))
    columns = {}
    for role, group in zip(("events", "searches"), tables[:2], strict=True):
        if group:
            task = None if not files.searches else Task.SEARCH if role == "searches" else Task.RECOMMENDATION
            columns[role] = reader.read(group, task, _given_here(given, group))
    events, unit = reader.events()
    report: dict[str, Any] = {"files": reader.rows, "columns": columns, "dropped": {}}
    if config.file_order:
        events, report[FILE_ORDER] = order_of_rows(events)
    if files.items:
        items, items_from, columns["items"] = _read_items(tables[2], given, reader.rows)
    else:
        items, items_from = without_text(events["item_id"].chunk(0).dictionary), None
    if reader.times.rounded:
        report["timestamps_rounded_down"] = reader.times.rounded
    log = check_log(
        events,
        items,
        report,
        time_unit=unit,
        time_zone=config.time_zone,
        events_from=reader.origin,
        items_from=items_from,
    )
    return replace(log, report=log.report | {"time_unit": log.time.unit})


def identity(config: TableConfig) -> str:
    """Hash of the options and the files' content; where the files lie does not matter."""
    files = find_files(config)
    options = config.model_dump(mode="json", exclude={"path", "items", "searches"})
    return content_hash(json.dumps([options, [len(paths) for paths in files]], sort_keys=True), chain(*files))


def recognise(path: Path) -> Path | None:
    """The folder at `path`, if it has files of the names that this source looks for; a single file may be anyone's."""
    try:
        find_files(TableConfig(path=str(path)))
    except (BadInputError, OSError):
        return None
    return path if path.is_dir() else None


def find_files(config: TableConfig) -> Files:
    """Where events and items lie.

    Raises:
        BadInputError: nothing there, or several files to choose from.
    """
    searches = [existing(config.searches, "data.source.searches")] if config.searches else []
    items = [existing(config.items, "data.source.items")] if config.items else []
    if not isinstance(config.path, str):
        return Files([existing(path) for path in config.path], searches, items)
    path = Path(config.path)
    if not path.is_dir():
        if not path.is_file():
            near = did_you_mean(path.name, [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else [])
            raise BadInputError(f"data.source.path: no file or folder {config.path!r} in {Path.cwd()}{near}")
        return Files([path], searches, items)
    searches = searches or find_parts(path, "searches")
    events = find_parts(path, "interactions", "events")
    if not (events or searches):
        raise _absent(path, "interactions.* or events.*")
    items = items or find_parts(path, "items")
    if not items:
        raise _absent(path, "items.*")
    return Files(events, searches, items)


def _absent(folder: Path, wanted: str) -> BadInputError:
    names = ", ".join(sorted(path.name for path in folder.iterdir())) or "nothing"
    return BadInputError(f"no {wanted} ({', '.join(SUFFIXES)}) in {folder}; it holds {names}")


def _check_given(given: Given, files: Files, tables: list[list[TableFile]]) -> None:
    """Refuse names of columns that no file could have."""
    if not files.items and (texts := [name for name in ("title", "categories") if given.get(name)]):
        raise BadInputError(f"data.source.columns.{texts[0]}: the items have no file; name it as data.source.items")
    events = [group[0] for group in tables[:2] if group]
    for name, own in given.items():
        if own and name in EVENT_COLUMNS and not any(own in file.columns for file in events):
            match(events[0], [name], (), given)


def _check_file_order(given: Given, tables: list[list[TableFile]]) -> None:
    """Refuse an order of rows where there is another one, or none."""
    groups = [group for group in tables if group]
    for group in groups:
        if own := match(group[0], ["order"], (), _given_here(given, group)):
            raise BadInputError(
                f"data.source.file_order: {group[0].path} has an order of its own, column {own['order']!r}; use one of "
                f"them. {IGNORED.format('order')}"
            )
    if len(groups) > 1:
        raise BadInputError(
            f"data.source.file_order: {groups[0][0].path} and {groups[1][0].path} are two tables, whose rows have no "
            "common order; put all events into one, or give both an order column"
        )


def _given_here(given: Given, group: list[TableFile]) -> Given:
    """What is given of these files' columns; the rest is meant for other files."""
    return {name: own for name, own in given.items() if own is None or own in group[0].columns}


def _match_all(
    group: list[TableFile], wanted: tuple[str, ...], required: tuple[str, ...], given: Given
) -> list[dict[str, str]]:
    """Column names of each file of one table, which must have the same columns."""
    names = [match(file, wanted, required, given) for file in group]
    for file, found in zip(group, names, strict=True):
        for name in names[0].keys() ^ found.keys():
            has, lacks = (group[0], file) if name in names[0] else (file, group[0])
            raise BadInputError(
                f"{lacks.path} has no column {name!r}, which {has.path} has: they are read as one table"
            )
    return names


class EventReader:
    """Collects the events of several files, batch by batch.

    Args:
        times: reads their timestamps.
    """

    def __init__(self, times: Timestamps) -> None:
        self.times = times
        self.rows: dict[str, int] = {}
        self._chunks: list[dict[str, pa.Array]] = []
        self._parts: list[tuple[int, Origin]] = []
        self._count = 0
        self._optional: dict[str, Path] = {}

    @property
    def origin(self) -> Origin:
        """For complaints about rows of `events`."""
        first = self._parts[0][1]
        return first if len(self._parts) == 1 else PartsOrigin(first.name, first.lines, tuple(self._parts))

    def read(self, group: list[TableFile], task: Task | None, given: Given) -> dict[str, str]:
        """Read the files of one table and return how their columns are called.

        Args:
            group: the files.
            task: of all its events unless the files say; where absent, a query makes a search.
            given: the user's column names.
        """
        required = (*REQUIRED, "query") if task is Task.SEARCH else REQUIRED
        names = _match_all(group, EVENT_COLUMNS, required, given)
        self._require_same_optional(group[0], names[0])
        before = self._count
        for file, found in zip(group, names, strict=True):
            self._parts.append((self._count, file.origin))
            start = self._count
            self._read_file(file, found, task)
            self.rows[file.path.name if file.path.name not in self.rows else str(file.path)] = self._count - start
        if self._count == before:
            raise BadInputError(f"{group[0].path} is empty: it holds no rows under its header")
        return names[0]

    def events(self) -> tuple[pa.Table, Any]:
        """All events, columns of `EVENTS` and `OPTIONAL`, and what their timestamps count, ``auto`` where unknown."""
        names = [name for name in EVENT_COLUMNS if any(name in chunk for chunk in self._chunks)]
        columns = {}
        for field in [*EVENTS, *OPTIONAL]:
            if field.name in names:
                chunks = [
                    chunk[field.name] if field.name in chunk else no_text(len(chunk["task"])) for chunk in self._chunks
                ]
                columns[field.name] = pa.chunked_array(chunks, field.type)
        self._chunks = []
        time, unit = self.times.finish(columns["timestamp"].to_numpy())
        columns["timestamp"] = pa.chunked_array([pa.array(time)])
        return pa.table({n: one_dictionary(c) if c.type == TEXT else c for n, c in columns.items()}), unit

    def _require_same_optional(self, file: TableFile, names: dict[str, str]) -> None:
        """Refuse an order or split that only one of two tables has: the other's rows would have none."""
        found = {name: file.path for name in names if name in ("order", "split")}
        for name in found.keys() ^ self._optional.keys() if self._parts else ():
            has = found.get(name) or self._optional[name]
            lacks = file.path if name in self._optional else self._parts[0][1].name
            raise BadInputError(
                f"{lacks} has no column {name!r}, which {has} has: give both or neither. {IGNORED.format(name)}"
            )
        self._optional = found

    def _read_file(self, file: TableFile, names: dict[str, str], task: Task | None) -> None:
        bad = {name: BadRows() for name in (*CODES, "timestamp")}
        row = 0
        for batch in _event_batches(file, names):
            chunk = {}
            for name, column in batch.items():
                if name == "timestamp":
                    time, valid = self.times.read(column)
                    bad[name].add(row, ~valid, column)
                    chunk[name] = pa.array(time)
                elif name in CODES:
                    codes = codes_of_words(column, CODES[name])
                    bad[name].add(row, codes < 0, column)
                    chunk[name] = pa.array(codes)
                elif name == "order":
                    chunk[name] = self._order(file, row, column)
                else:
                    chunk[name] = column
            rows = len(chunk["timestamp"])
            chunk.setdefault("query", no_text(rows))
            if "task" not in chunk:
                said = task is not None
                chunk["task"] = pa.array(np.full(rows, task, np.int8)) if said else tasks_of_queries(chunk["query"])
            self._chunks.append(chunk)
            row += rows
        bad["timestamp"].refuse(file.origin, "bad timestamp", self.times.expected)
        bad["task"].refuse(file.origin, "unknown task", _known(bad["task"].values, SPELLINGS))
        bad["split"].refuse(
            file.origin, "unknown split", f"{_known(bad['split'].values, SPLITS)}. {IGNORED.format('split')}"
        )
        self._count += row

    def _order(self, file: TableFile, start: int, column: pa.Array) -> pa.Array:
        """Whole numbers of a batch that starts at row `start`."""
        found = convert(column.fill_null("") if pa.types.is_string(column.type) else column, pa.int64())
        row = found.row if isinstance(found, Misfit) else found.is_null().index(True).as_py()
        if row >= 0:
            problem, value = "an order that is no whole number", column[row].as_py()
            raise file.origin.complaint(problem, [start + row], [value], expected=IGNORED.format("order"))
        return found


class BadRows:
    """Rows of one file with a value nobody can read, and the first few of those values."""

    def __init__(self) -> None:
        self.values: list[Any] = []
        self._rows: list[np.ndarray] = []

    def add(self, start: int, bad: np.ndarray, column: pa.Array) -> None:
        """The `bad` rows [E] of a batch that starts at row `start`."""
        if bad.any():
            rows = np.flatnonzero(bad)
            self._rows.append(rows + start)
            shown = column.take(pa.array(rows[: SHOWN_ROWS - len(self.values)]))
            if pa.types.is_temporal(shown.type):  # Python knows no year beyond 9999
                shown = shown.cast(pa.string())
            self.values += shown.to_pylist()

    def refuse(self, origin: Origin, problem: str, expected: str) -> None:
        """Raise `BadInputError` where there are any."""
        if self._rows:
            raise origin.complaint(problem, np.concatenate(self._rows), self.values, expected=expected)


def _event_batches(file: TableFile, names: dict[str, str]) -> Iterator[dict[str, pa.Array]]:
    """Columns by canonical name, texts as `TEXT` without nulls, times as they are."""
    own: dict[str, pa.DataType | None] = {column: TEXT for name, column in names.items() if name not in NUMBERS}
    numbers = [name for name in NUMBERS if name in names]
    for name in numbers:
        if names[name] in own:
            other = next(other for other in names if names[other] == names[name] and other != name)
            raise BadInputError(f"{file.path}: column {names[name]!r} is taken for both {name} and {other}")
    own |= {names[name]: None for name in numbers}
    lists = {names["query"]: " "} if "query" in names else {}
    for batch in file.batches(own, lists=lists):
        kind = batch.schema.field(names["timestamp"]).type
        if not Timestamps.fit(kind):
            raise BadInputError(
                f"{file.path}: column {names['timestamp']!r} holds {kind}; expected numbers, ISO 8601 texts or times"
            )
        columns = {name: batch.column(column) for name, column in names.items()}
        yield {name: _filled(column) if column.type == TEXT else column for name, column in columns.items()}


def _filled(column: pa.Array) -> pa.Array:
    return pc.fill_null(column.dictionary_decode(), "").dictionary_encode() if column.null_count else column


def _known(values: list[str], known: Mapping[str, int]) -> str:
    hint = did_you_mean(values[0].lower(), known).removeprefix("; ") if values else ""
    return f"Known: {', '.join(known)}" + (f" ({hint})" if hint else "")


def _read_items(group: list[TableFile], given: Given, rows: dict[str, int]) -> tuple[pa.Table, Origin, dict[str, str]]:
    """Items of the schema `ITEMS`, where they come from, and how their columns are called; adds to `rows`."""
    # Both kinds of files have an item_id; the other name may be meant for the events alone.
    given = {name: own for name, own in given.items() if name != "item_id" or own in group[0].columns}
    names = _match_all(group, tuple(ITEMS.names), ("item_id",), given)
    tables, parts, count = [], [], 0
    for file, found in zip(group, names, strict=True):
        lists = {column: "|" if name == "categories" else " " for name, column in found.items() if name != "item_id"}
        table = file.read(list(dict.fromkeys(found.values())), lists=lists)
        texts = {
            name: table[found[name]] if name in found else pa.nulls(len(table), pa.string()) for name in ITEMS.names
        }
        tables.append(pa.table(texts, schema=ITEMS))
        parts.append((count, file.origin))
        count += len(table)
        rows[file.path.name if file.path.name not in rows else str(file.path)] = len(table)
    if not count:
        raise BadInputError(f"{group[0].path} is empty: it holds no rows under its header")
    first = parts[0][1]
    origin = first if len(parts) == 1 else PartsOrigin(first.name, first.lines, tuple(parts))
    return pa.concat_tables(tables), origin, names[0]
