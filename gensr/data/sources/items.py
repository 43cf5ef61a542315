"""Items that events name and no file describes: they stay in the catalogue, without a text."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from gensr.data.log import ITEMS


def ids_in(column: pa.ChunkedArray) -> pa.Array:
    """The distinct texts of a column of `TEXT`, in order of first appearance."""
    return pc.unique(column.unify_dictionaries()).dictionary_decode()


def without_text(ids: pa.Array) -> pa.Table:
    """Items of `ITEMS` that have no title and no category; ids may be numbers."""
    nothing = pa.repeat(pa.scalar("", pa.string()), len(ids))
    return pa.table([ids.cast(pa.string()), nothing, nothing], schema=ITEMS)


def complete(items: pa.Table, ids: pa.Array) -> tuple[pa.Table, int]:
    """The items, then those of the distinct `ids` that they lack, without text; and how many these are."""
    absent = ids.filter(pc.invert(pc.is_in(ids, value_set=items["item_id"].combine_chunks())))
    return pa.concat_tables([items, without_text(absent)]), len(absent)
