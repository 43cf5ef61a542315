"""New events for a log that is already in use: rows that were given out stay, new users and items get new ones.

What comes out is what preparing everything at once gives, the candidates included, but for the numbers of the rows. So
everything is prepared with rows numbered by raw id, and `renumber` writes the same data under the other numbers.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from gensr.data.catalogue import Catalogue
from gensr.data.log import EventLog, Origin, check_log
from gensr.data.sources.order import FILE_ORDER, order_of_rows
from gensr.data.texts import Texts
from gensr.errors import BadInputError

if TYPE_CHECKING:
    from gensr.data.dataset import Dataset

SAME = ("order", "split")
"""Optional columns that both logs must have, or neither."""


def join_logs(base: EventLog, new: EventLog) -> EventLog:
    """The log `base` with the events and items of `new`, marked as one generation later.

    An item that both have takes the new texts where they are not empty.

    Raises:
        BadInputError: the logs count time in different units, or only one of them has a column that orders or splits.
    """
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
    generation = 1 + max(_last(base.events), _last(base.items))
    known = pc.is_in(base.items["item_id"], value_set=new.items["item_id"].combine_chunks())
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
            "items_of_both": pc.sum(known).as_py() or 0,
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
    names = [name for name in base.column_names if name != "generation"]
    names += [name for name in new.column_names if name not in (*names, "generation")]
    for name in names:
        if name not in table.column_names:  # only a session can be absent
            absent = pa.array([""], pa.string()).dictionary_encode().take(pa.array(np.zeros(table.num_rows, np.int32)))
            table = table.append_column(name, absent)
    generations = table["generation"] if "generation" in table.column_names else None
    return _with_generation(table.select(names), generation, generations)


def _with_generation(table: pa.Table, generation: int, known: pa.ChunkedArray | None = None) -> pa.Table:
    """`table` with the column `generation`: the one it has already, where it is part of the base."""
    if "generation" in table.column_names:
        known, table = table["generation"], table.drop_columns(["generation"])
    if generation or known is None:
        known = pa.chunked_array([pa.array(np.full(table.num_rows, generation, np.int16))])
    return table.append_column("generation", known)


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
        arrays["entry"] = np.concatenate([[0], np.cumsum(begins)])
        arrays["starts"] = np.append(np.flatnonzero(begins), len(order))
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)
    _renumber_texts(dataset, rows, folder)
    _renumber_lists(dataset, rows["items"], place, folder)


def _renumber_texts(dataset: Dataset, rows: dict[str, np.ndarray], folder: Path) -> None:
    def moved(texts: Texts, kind: str) -> Texts:
        old = np.argsort(rows[kind])[1:] - 1  # place among rows 1.. of each new row
        return Texts.of_rows(texts.arrow.take(pa.array(old)))

    known = dataset.catalogue
    item_ids, titles, categories = (moved(texts, "items") for texts in (known.item_ids, known.titles, known.categories))
    queries = moved(known.queries, "queries")
    Catalogue(item_ids, titles, categories, queries, known.item_text).save(folder / "catalogue")
    pq.write_table(pa.table({"user_id": moved(dataset.user_ids, "users").arrow}), folder / "users.parquet")


def _renumber_lists(dataset: Dataset, rows: np.ndarray, place: np.ndarray, folder: Path) -> None:
    (folder / "candidates").mkdir()
    for name in dataset.candidate_names:
        listed = dataset.candidates(name).renumbered(place, rows)
        listed.save(folder / "candidates")
        dataset.manifest["candidates"][name] = listed.sha256
