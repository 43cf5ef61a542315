"""New events for a log that is already in use: rows that were given out stay, new users and items get new ones.

What comes out is what preparing everything at once gives, the candidates included, but for the numbers of the rows. So
everything is prepared with rows numbered by raw id, and `renumber` writes the same data under the other numbers.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gensr.data.catalogue import Catalogue
from gensr.data.dataset import Dataset, write_arrays
from gensr.data.log import EventLog, Origin, check_log, no_text
from gensr.data.sessions import entries
from gensr.data.sources.order import FILE_ORDER, order_of_rows
from gensr.data.texts import Texts
from gensr.errors import BadInputError

SAME = ("order", "split")
"""Optional columns that both logs must have, or neither."""


def join_logs(base: EventLog, new: EventLog) -> EventLog:
    """The log `base` with the events and items of `new`, marked as one generation later.

    An item that both have takes the new texts where they are not empty.

    Raises:
        BadInputError: the logs count time in different units, or only one of them has a column that orders or splits.
    """
    _require_alike(base, new)
    by_rows = FILE_ORDER in base.report
    generation = 1 + max(_last(base.events), _last(base.items))
    items, renewed = _renew(base.items, new.items)
    fresh = new.items.filter(
        pc.invert(pc.is_in(new.items["item_id"], value_set=base.items["item_id"].combine_chunks()))
    )
    events = [
        _with_columns(table, base.events, new.events, at) for table, at in ((base.events, 0), (new.events, generation))
    ]
    joined = pa.concat_tables(events).unify_dictionaries()
    catalogue = [_with_generation(items, 0), _with_generation(fresh, generation)]
    report: dict[str, Any] = {
        "base": base.report,
        "new": new.report,
        "appended": {
            "events": new.events.num_rows,
            "new_items": fresh.num_rows,
            "items_with_new_text": renewed,
            "items_of_both": new.items.num_rows - fresh.num_rows,
        },
    }
    if by_rows:  # twins may stand on both sides
        joined, report[FILE_ORDER] = order_of_rows(joined.drop_columns(["order"]))
    return check_log(
        joined,
        pa.concat_tables(catalogue),
        report,
        time_unit=base.time.unit,
        time_zone=base.time.zone,
        events_from=Origin("the events of data.source.base and data.source.new together"),
    )


def _require_alike(base: EventLog, new: EventLog) -> None:
    """Raise `BadInputError` where the events of the two cannot be put into one order."""
    if base.time != new.time:
        raise BadInputError(
            f"data.source.new counts time in {_words(new)}, data.source.base in {_words(base)}: they cannot be ordered"
        )
    for name in SAME:
        if (name in base.events.column_names) != (name in new.events.column_names):
            has, lacks = ("base", "new") if name in base.events.column_names else ("new", "base")
            raise BadInputError(f"data.source.{has} has a column {name!r}, data.source.{lacks} has none: give both one")
    by_rows = FILE_ORDER in base.report
    if by_rows != (FILE_ORDER in new.report):
        has, lacks = ("base", "new") if by_rows else ("new", "base")
        raise BadInputError(f"data.source.{has} has file_order, data.source.{lacks} has not: give both the same order")


def _words(log: EventLog) -> str:
    return f"{log.time.unit if log.time.unit != 'none' else 'no known unit'} ({log.time.zone})"


def _last(table: pa.Table) -> int:
    return int(pc.max(table["generation"]).as_py() or 0) if "generation" in table.column_names else 0


def _renew(old: pa.Table, new: pa.Table) -> tuple[pa.Table, int]:
    """`old` with the texts that `new` brings; and how many items changed."""
    at = pc.index_in(old["item_id"], value_set=new["item_id"].combine_chunks())
    changed = np.zeros(old.num_rows, bool)
    for name in ("title", "categories"):
        text = pc.fill_null(new[name].combine_chunks().take(at), "")
        better = pc.and_(pc.not_equal(text, ""), pc.not_equal(text, old[name]))
        changed |= better.to_numpy()
        old = old.set_column(old.column_names.index(name), name, pc.if_else(better, text, old[name]))
    return old, int(changed.sum())


def _with_columns(table: pa.Table, base: pa.Table, new: pa.Table, generation: int) -> pa.Table:
    """`table` with the columns of both logs, in one order, and its generation last."""
    names = [name for name in dict.fromkeys([*base.column_names, *new.column_names]) if name != "generation"]
    table = _with_generation(table, generation)
    for name in names:
        if name not in table.column_names:  # only a session can be absent
            table = table.append_column(name, no_text(table.num_rows))
    return table.select([*names, "generation"])


def _with_generation(table: pa.Table, generation: int) -> pa.Table:
    """`table` with the column `generation`: the one it has already, where it is part of the base."""
    own = None
    if "generation" in table.column_names:
        own, table = table["generation"], table.drop_columns(["generation"])
    if generation or own is None:
        own = pa.array(np.full(table.num_rows, generation, np.int16))
    return table.append_column("generation", own)


def renumber(dataset: Dataset, rows: dict[str, np.ndarray], folder: Path) -> None:
    """Write `dataset` into `folder`, which must exist, under other row numbers; the manifest's hashes follow.

    Args:
        dataset: the data to copy.
        rows: the new row of every old one, int64 [n+1], by kind: ``users``, ``items``, ``queries``.
        folder: where to write; its manifest is not.
    """
    user = rows["users"][dataset.user]
    order = np.argsort(user, kind="stable")  # events move in blocks, a user's stay together
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    user = user[order]
    offsets = np.searchsorted(user, np.arange(dataset.num_users + 2))
    moved = offsets[user] - dataset.offsets[dataset.user[order]]
    arrays: dict[str, Any] = {
        "user": user.astype(np.int32),
        "item": rows["items"][dataset.item[order]].astype(np.int32),
        "query": rows["queries"][dataset.query[order]].astype(np.int32),
        "past": dataset.past[order] + moved,
        "offsets": offsets,
        **{name: getattr(dataset, name)[order] for name in ("task", "time", "ordinal", "split")},
    }
    if dataset.order is not None:
        arrays["order"] = dataset.order[order]
    if dataset.starts is not None:
        begins = np.zeros(len(order), bool)
        begins[place[dataset.starts[:-1]]] = True
        arrays |= entries(begins)
    known = dataset.catalogue
    item_ids, titles, categories = (
        _moved(texts, rows["items"]) for texts in (known.item_ids, known.titles, known.categories)
    )
    catalogue = Catalogue(item_ids, titles, categories, _moved(known.queries, rows["queries"]), known.item_text)
    write_arrays(folder, arrays, _moved(dataset.user_ids, rows["users"]), catalogue)
    _renumber_lists(dataset, rows["items"], place, folder)


def _moved(texts: Texts, rows: np.ndarray) -> Texts:
    """Texts under new row numbers: of every old row [n+1]."""
    old = np.argsort(rows)[1:] - 1  # place among rows 1.. of each new row
    return Texts.of_rows(texts.arrow.take(pa.array(old)))


def _renumber_lists(dataset: Dataset, rows: np.ndarray, place: np.ndarray, folder: Path) -> None:
    (folder / "candidates").mkdir()
    for name in dataset.candidate_names:
        listed = dataset.candidates(name).renumbered(place, rows)
        listed.save(folder / "candidates")
        dataset.manifest["candidates"][name] = listed.sha256
