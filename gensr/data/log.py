"""The canonical event log: what every source must yield, checked once, in one place.

Sources differ in files and spellings; everything behind them reads two tables with fixed columns and may rely on what
`check_log` has checked. Complaints about rows are worded here too, so that all sources name file and line alike.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.ipc

from gensr.data.split import Split
from gensr.data.tasks import Task
from gensr.data.times import TimeScale, Unit, check_times
from gensr.errors import BadInputError
from gensr.files import undamaged

TEXT = pa.dictionary(pa.int32(), pa.string())
"""Texts that repeat: each stored once. Columns of `pa.string()` are accepted and converted."""

EVENTS = pa.schema(
    [("user_id", TEXT), ("item_id", TEXT), ("timestamp", pa.int64()), ("task", pa.int8()), ("query", TEXT)]
)
OPTIONAL = pa.schema([("session", TEXT), ("order", pa.int64()), ("split", pa.int8()), ("generation", pa.int16())])
"""Columns that may follow those of `EVENTS`, in this order.

session: searches of one user that share session and query are clicks on one page of results; ``""`` = none. That of
    a recommendation says nothing.
order: settles the order of a user's events within one timestamp; without it they do not see each other.
split: `Split` codes of a log that comes divided, for the split `given`.
generation: 0 for the log that was there first, 1 for what was appended to it, and so on; `ITEMS` may have it too.
"""
GENERATION = pa.schema([OPTIONAL.field("generation")])
ITEMS = pa.schema([("item_id", pa.string()), ("title", pa.string()), ("categories", pa.string())])

SCHEMA = 1
"""Version of what `check_log` gives and `EventLog.save` writes; logs kept under another one are read anew."""
SHOWN_ROWS = 5
SHOWN_CHARACTERS = 200
"""Bad rows in a complaint, and how much of a bad value."""


@dataclass(frozen=True)
class EventLog:
    """Events and items of one log. Build it with `check_log`.

    Attributes:
        events: `EVENTS` and perhaps some of `OPTIONAL`, in file order: task is a `Task` code, query ``""`` for
            recommendation.
        items: `ITEMS`: the whole catalogue, ``""`` where a text is absent; in categories ``|`` stands between the
            levels of a hierarchy, ``||`` between hierarchies.
        report: what was read, dropped and why, as counts.
        time: what the timestamps count.
    """

    events: pa.Table
    items: pa.Table
    report: dict[str, Any]
    time: TimeScale = field(default_factory=TimeScale)

    def save(self, folder: Path) -> None:
        """Write the log into `folder`, which must exist."""
        options = pa.ipc.IpcWriteOptions(compression="lz4")
        for name, table in (("events", self.events), ("items", self.items)):
            with pa.ipc.new_file(str(folder / f"{name}.arrow"), table.schema, options=options) as writer:
                writer.write_table(table)
        about = {"report": self.report, "time": {"unit": self.time.unit, "zone": self.time.zone}}
        (folder / "log.json").write_text(json.dumps(about), encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> EventLog:
        """Read what `save` wrote.

        Raises:
            DamagedFileError: a file cannot be read.
        """
        with undamaged(folder, f"Delete {folder}; the next command that needs the log reads it again"):
            about = json.loads((folder / "log.json").read_text(encoding="utf-8"))
            tables = []
            for name in ("events", "items"):
                with pa.OSFile(str(folder / f"{name}.arrow")) as file:
                    tables.append(pa.ipc.open_file(file).read_all())
            return cls(tables[0], tables[1], about["report"], TimeScale(**about["time"]))


@dataclass(frozen=True)
class Origin:
    """Where a table's rows came from, for complaints.

    Attributes:
        name: the file, or a word for it.
        lines: maps row numbers (from 0) to line numbers of the file; absent where the rows have no lines.
    """

    name: str
    lines: Callable[[Sequence[int]], list[int]] | None = None

    def complaint(
        self, problem: str, rows: np.ndarray | Sequence[int], values: Sequence[Any] | None = None, *, expected: str = ""
    ) -> BadInputError:
        """An error naming the first few bad rows, their values [as many as rows] and how many more there are."""
        shown = [int(row) for row in rows[:SHOWN_ROWS]]
        places = [f"line {line}" for line in self.lines(shown)] if self.lines else [f"row {row + 1}" for row in shown]
        if values is not None:
            places = [f"{place} ({_brief(value)!r})" for place, value in zip(places, values, strict=False)]
        more = f" and {len(rows) - len(shown):,} more" if len(rows) > len(shown) else ""
        return BadInputError(f"{self.name}: {problem}: {', '.join(places)}{more}{'. ' + expected if expected else ''}")


def _brief(value: Any) -> Any:
    return value[:SHOWN_CHARACTERS] if isinstance(value, str | bytes | list) else value


def normalise_query(text: str) -> str:
    """A query as the catalogue stores it: without outer and repeated white space."""
    return " ".join(text.split())


def check_log(
    events: pa.Table,
    items: pa.Table,
    report: dict[str, Any],
    *,
    time_unit: Unit | Literal["auto"] = "auto",
    time_zone: str = "UTC",
    events_from: Origin | None = None,
    items_from: Origin | None = None,
) -> EventLog:
    """Check and tidy two tables that already have the columns and types of `EVENTS` and `ITEMS`.

    Nulls in texts become ``""``; queries are normalised; the query of a recommendation event is dropped and counted.

    Args:
        events: columns of `EVENTS`, perhaps of `OPTIONAL`, and no others that count; texts dictionary-encoded or not.
        items: columns of `ITEMS`.
        report: what the source did, as counts.
        time_unit: what the timestamps count; recognised by their size where ``auto``.
        time_zone: whose midnight divides days.
        events_from: for complaints about rows of `events`.
        items_from: for complaints about rows of `items`.

    Raises:
        BadInputError: no events, an empty id or number, a column of another type, an unknown code of a task or split,
            a search event without query, an item twice in `items`, an event whose item `items` lacks, or timestamps
            that cannot be times; with the first bad rows.
    """
    events_from, items_from = events_from or Origin("events"), items_from or Origin("items")
    events, items = _conform(events, EVENTS, OPTIONAL, events_from), _conform(items, ITEMS, GENERATION, items_from)
    for table, origin in ((events, events_from), (items, items_from)):
        if not table.num_rows:
            raise BadInputError(f"{origin.name} is empty: it holds no rows")
    _check_ids(items["item_id"], items_from, "item_id")
    _check_unique(items["item_id"], items_from)
    _check_ids(events["user_id"], events_from, "user_id")
    _check_ids(events["item_id"], events_from, "item_id")
    _check_codes(events["task"], Task, events_from)
    if "split" in events.column_names:
        _check_codes(events["split"], Split, events_from)
    known = items["item_id"].combine_chunks()
    _refuse_texts(
        events["item_id"],
        lambda ids: pc.invert(pc.is_in(ids, value_set=known)),
        events_from,
        f"items that {items_from.name} lacks",
    )
    unit = check_times(events["timestamp"].to_numpy(), time_unit, events_from.complaint)
    events, dropped = _tidy_queries(events, events_from)
    if dropped:
        report = {**report, "queries_dropped_from_recommendation_events": dropped}
    return EventLog(events, items, report, TimeScale(unit, time_zone))


def _conform(table: pa.Table, schema: pa.Schema, optional: pa.Schema, origin: Origin) -> pa.Table:
    """The columns of `schema`, and those of `optional` that are there, in their types, without nulls."""
    missing = [name for name in schema.names if name not in table.column_names]
    if missing:
        raise BadInputError(f"{origin.name} has no column {missing[0]!r}; its columns: {', '.join(table.column_names)}")
    fields = [*schema, *(field for field in optional if field.name in table.column_names)]
    return pa.table([_checked_column(table[field.name], field, origin) for field in fields], schema=pa.schema(fields))


def _checked_column(column: pa.ChunkedArray, field: pa.Field, origin: Origin) -> pa.ChunkedArray:
    try:
        column = _column(column, field.type)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise BadInputError(
            f"{origin.name}: column {field.name!r} is {column.type}, expected {field.type}: {error}"
        ) from None
    if column.null_count:  # of a number: an absent text is empty
        raise origin.complaint(f"no {field.name}", _rows(pc.is_null(column)))
    return column


def _column(column: pa.ChunkedArray, kind: pa.DataType) -> pa.ChunkedArray:
    if kind == TEXT:
        if not pa.types.is_dictionary(column.type):
            column = pc.fill_null(column.cast(pa.string()), "").dictionary_encode()
        elif column.null_count:
            column = pc.fill_null(pc.cast(column, column.type.value_type), "").dictionary_encode()
        elif column.type != kind:
            column = column.cast(kind)
        return one_dictionary(column)
    if kind == pa.string():
        return pc.fill_null(column.cast(pa.string()), "")
    return column.cast(kind)


def one_dictionary(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """A column of `TEXT` in one chunk, so that codes mean the same throughout."""
    if column.num_chunks == 1:
        return column
    if column.num_chunks == 0:
        return pa.chunked_array([pa.array([], TEXT)])
    return pa.chunked_array([pa.concat_arrays(column.unify_dictionaries().chunks)])


def no_text(rows: int) -> pa.DictionaryArray:
    """A column of `TEXT` that holds ``""`` throughout."""
    return pa.DictionaryArray.from_arrays(pa.array(np.zeros(rows, np.int32)), pa.array([""]))


def codes_of(column: pa.ChunkedArray) -> tuple[np.ndarray, pa.Array]:
    """Codes int32 [E] and texts of a `TEXT` column of a checked log; a text may be unused, and none comes twice."""
    array = column.chunk(0)
    return array.indices.to_numpy(), array.dictionary


def _rows(mask: Any) -> np.ndarray:
    return np.flatnonzero(mask.to_numpy(zero_copy_only=False) if isinstance(mask, pa.Array) else mask.to_numpy())


def _check_ids(ids: pa.ChunkedArray, origin: Origin, name: str) -> None:
    def empty(texts: pa.Array) -> pa.Array:
        return pc.equal(pc.utf8_trim_whitespace(texts), "")

    if ids.type == TEXT:
        _refuse_texts(ids, empty, origin, f"empty {name}", show=False)
    elif len(rows := _rows(empty(ids))):
        raise origin.complaint(f"empty {name}", rows)


def _refuse_texts(
    column: pa.ChunkedArray, bad: Callable[[pa.Array], pa.Array], origin: Origin, problem: str, *, show: bool = True
) -> None:
    """Complain of the rows whose text is `bad`; each distinct text is looked at once."""
    codes, texts = codes_of(column)
    wrong = bad(texts).to_numpy(zero_copy_only=False)
    if wrong.any() and len(rows := np.flatnonzero(wrong[codes])):
        values = [texts[int(codes[row])].as_py() for row in rows[:SHOWN_ROWS]] if show else None
        raise origin.complaint(problem, rows, values)


def _check_codes(column: pa.ChunkedArray, kind: type[Task] | type[Split], origin: Origin) -> None:
    wild = _rows(pc.invert(pc.is_in(column, value_set=pa.array([int(code) for code in kind], pa.int8()))))
    if len(wild):
        expected = ", ".join(f"{int(code)} ({code.label})" for code in kind)
        values = column.take(pa.array(wild[:SHOWN_ROWS])).to_pylist()
        raise origin.complaint(f"unknown {kind.__name__.lower()} code", wild, values, expected=f"Expected {expected}")


def _check_unique(ids: pa.ChunkedArray, origin: Origin) -> None:
    codes = ids.combine_chunks().dictionary_encode().indices.to_numpy()
    if codes.max(initial=-1) + 1 == len(codes):
        return
    _, first = np.unique(codes, return_index=True)
    repeated = np.setdiff1d(np.arange(len(codes)), first, assume_unique=True)
    values = ids.take(pa.array(repeated[:SHOWN_ROWS])).to_pylist()
    raise origin.complaint("duplicate item_id", repeated, values, expected="Every item may occur once")


def _tidy_queries(events: pa.Table, origin: Origin) -> tuple[pa.Table, int]:
    """Normalised queries, kept for search alone; and how many recommendation events lost theirs."""
    codes, texts = codes_of(events["query"])
    words = pa.array([normalise_query(text) for text in texts.to_pylist()], pa.string())
    tidy = pa.concat_arrays([pa.array([""]), words]).dictionary_encode()  # code 0 is the empty query
    query = tidy.indices.to_numpy()[1:][codes] if len(words) else np.zeros(len(codes), np.int32)
    searches = events["task"].to_numpy() == Task.SEARCH
    bare = np.flatnonzero(searches & (query == 0))
    if len(bare):
        raise origin.complaint("search events without a query", bare)
    dropped = int((~searches & (query > 0)).sum())
    query = np.where(searches, query, 0).astype(np.int32)
    column = pa.DictionaryArray.from_arrays(pa.array(query), tidy.dictionary)
    return events.set_column(4, "query", pa.chunked_array([column])), dropped
