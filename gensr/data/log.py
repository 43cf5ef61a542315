"""The canonical event log: what every source must yield, checked once, in one place.

Sources differ in files and spellings; everything behind them reads two tables with fixed columns and may rely on what
`check_log` has checked. Complaints about rows are worded here too, so that all sources name file and line alike.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gensr.data.tasks import Task
from gensr.errors import BadInputError

EVENTS = pa.schema(
    [
        ("user_id", pa.string()),
        ("item_id", pa.string()),
        ("timestamp", pa.int64()),
        ("task", pa.int8()),
        ("query", pa.string()),
    ]
)
ITEMS = pa.schema([("item_id", pa.string()), ("title", pa.string()), ("categories", pa.string())])

SHOWN_ROWS = 5


@dataclass(frozen=True)
class EventLog:
    """Events and items of one log. Build it with `check_log`.

    Attributes:
        events: `EVENTS`, in file order: task is a `Task` code, query ``""`` for recommendation.
        items: `ITEMS`: the whole catalogue, ``""`` where a text is absent; in categories ``|`` stands between the
            levels of a hierarchy, ``||`` between hierarchies.
        report: what was read, dropped and why, as counts.
    """

    events: pa.Table
    items: pa.Table
    report: dict[str, Any]


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
            places = [f"{place} ({value!r})" for place, value in zip(places, values, strict=False)]
        more = f" and {len(rows) - len(shown):,} more" if len(rows) > len(shown) else ""
        return BadInputError(f"{self.name}: {problem}: {', '.join(places)}{more}{'. ' + expected if expected else ''}")


def normalise_query(text: str) -> str:
    """A query as the catalogue stores it: without outer and repeated white space."""
    return " ".join(text.split())


def check_log(
    events: pa.Table,
    items: pa.Table,
    report: dict[str, Any],
    *,
    events_from: Origin | None = None,
    items_from: Origin | None = None,
) -> EventLog:
    """Check and tidy two tables that already have the columns and types of `EVENTS` and `ITEMS`.

    Nulls become ``""``; queries are normalised; the query of a recommendation event is dropped and counted.

    Raises:
        BadInputError: no events, an empty id, an unknown task code, a search event without query, an item twice in
            `items`, or an event whose item `items` lacks; with the first bad rows.
    """
    events_from, items_from = events_from or Origin("events"), items_from or Origin("items")
    events, items = _conform(events, EVENTS, events_from), _conform(items, ITEMS, items_from)
    for table, origin in ((events, events_from), (items, items_from)):
        if not table.num_rows:
            raise BadInputError(f"{origin.name} is empty: it holds no rows")
    _check_ids(items, items_from, "item_id")
    _check_unique(items["item_id"], items_from)
    _check_ids(events, events_from, "user_id")
    _check_ids(events, events_from, "item_id")
    wild = _rows(pc.invert(pc.is_in(events["task"], value_set=pa.array([int(task) for task in Task], pa.int8()))))
    if len(wild):
        values = events["task"].take(pa.array(wild[:SHOWN_ROWS])).to_pylist()
        raise events_from.complaint("unknown task code", wild, values)
    unknown = _rows(pc.invert(pc.is_in(events["item_id"], value_set=items["item_id"].combine_chunks())))
    if len(unknown):
        values = events["item_id"].take(pa.array(unknown[:SHOWN_ROWS])).to_pylist()
        raise events_from.complaint(f"items that {items_from.name} lacks", unknown, values)
    events, dropped = _tidy_queries(events, events_from)
    if dropped:
        report = {**report, "queries_dropped_from_recommendation_events": dropped}
    return EventLog(events, items, report)


def _conform(table: pa.Table, schema: pa.Schema, origin: Origin) -> pa.Table:
    """The columns of `schema`, in its types, without nulls."""
    missing = [name for name in schema.names if name not in table.column_names]
    if missing:
        raise BadInputError(f"{origin.name} has no column {missing[0]!r}; its columns: {', '.join(table.column_names)}")
    table = table.select(schema.names)
    for index, field in enumerate(schema):
        if pa.types.is_string(field.type):
            table = table.set_column(index, field.name, pc.fill_null(table[field.name].cast(pa.string()), ""))
    return table.cast(schema)


def _rows(mask: Any) -> np.ndarray:
    return np.flatnonzero(mask.to_numpy(zero_copy_only=False) if isinstance(mask, pa.Array) else mask.to_numpy())


def _check_ids(table: pa.Table, origin: Origin, column: str) -> None:
    empty = _rows(pc.equal(pc.utf8_trim_whitespace(table[column]), ""))
    if len(empty):
        raise origin.complaint(f"empty {column}", empty)


def _check_unique(ids: pa.ChunkedArray, origin: Origin) -> None:
    codes = ids.combine_chunks().dictionary_encode().indices.to_numpy()
    _, first = np.unique(codes, return_index=True)
    repeated = np.setdiff1d(np.arange(len(codes)), first, assume_unique=True)
    if len(repeated):
        values = ids.take(pa.array(repeated[:SHOWN_ROWS])).to_pylist()
        raise origin.complaint("duplicate item_id", repeated, values, expected="Every item may occur once")


def _tidy_queries(events: pa.Table, origin: Origin) -> tuple[pa.Table, int]:
    """Normalised queries, kept for search alone; and how many recommendation events lost theirs."""
    encoded = events["query"].combine_chunks().dictionary_encode()
    words = pa.array([normalise_query(text) for text in encoded.dictionary.to_pylist()], pa.string())
    queries = words.take(encoded.indices)
    searches = pc.equal(events["task"].combine_chunks(), pa.scalar(int(Task.SEARCH), pa.int8()))
    empty = pc.equal(queries, "")
    bare = _rows(pc.and_(searches, empty))
    if len(bare):
        raise origin.complaint("search events without a query", bare)
    dropped = pc.sum(pc.and_(pc.invert(searches), pc.invert(empty))).as_py() or 0
    return events.set_column(4, "query", pc.if_else(searches, queries, "")), int(dropped)
