"""The rows of any of KuaiSAR's files, block by block, and the files that describe items and users."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gensr.data.log import ITEMS, Origin
from gensr.data.sources.formats import open_table
from gensr.data.sources.items import without_text
from gensr.data.sources.published import KuaiSARConfig
from gensr.data.sources.text import SHOWN_LINES, Dropped
from gensr.data.times import check_times
from gensr.errors import BadInputError

USER_FEATURES = ("search_active_level", "rec_active_level", "onehot_feat1", "onehot_feat2")
LEVELS = ("first", "second", "third", "fourth")
WORD_IDS = r"^\s*\[\s*\d+(\s*,\s*\d+)*\s*\]\s*$"


class Blocks:
    """Blocks of a file's rows and the numbers of these rows, from 0; rows with an empty cell are dropped.

    Args:
        path: a CSV file.
        columns: the columns to read and their types.
        dropped: counts the rows left out.
        optional: columns that may be empty.

    Attributes:
        rows: rows read so far.
    """

    def __init__(
        self, path: Path, columns: Mapping[str, pa.DataType], dropped: Dropped, optional: tuple[str, ...] = ()
    ) -> None:
        self.path, self.rows, self._columns, self._dropped = path, 0, columns, dropped
        self._required = [name for name in columns if name not in optional]

    def __iter__(self) -> Iterator[tuple[pa.RecordBatch, np.ndarray]]:
        for block in open_table(self.path).batches(self._columns):
            rows = np.arange(self.rows, self.rows + block.num_rows)
            self.rows += block.num_rows
            for name in self._required:
                if block.column(name).null_count:
                    filled = pc.is_valid(block.column(name))
                    bad = ~filled.to_numpy(zero_copy_only=False)
                    self.drop(f"empty {name}", rows[bad])
                    block, rows = block.filter(filled), rows[~bad]
            yield block, rows
        if not self.rows:
            raise BadInputError(f"{self.path} is empty: it holds no rows under its header")

    def drop(self, reason: str, rows: np.ndarray) -> None:
        """Count `rows` as left out for `reason`."""
        self._dropped.add_lines(f"{self.path.name}: {reason}", self.lines(rows[:SHOWN_LINES]), len(rows))

    def times(self, column: pa.Array, rows: np.ndarray) -> np.ndarray:
        """Times of `rows` in whole ms, int64, from floats.

        Raises:
            BadInputError: some are no times in ms; names their lines.
        """
        time: np.ndarray = (
            np.floor(np.nan_to_num(column.to_numpy(), nan=-1.0)).clip(-(2.0**62), 2.0**62).astype(np.int64)
        )
        check_times(time, "ms", Origin(str(self.path), lambda bad: self.lines(rows[list(bad)])).complaint)
        return time

    @staticmethod
    def lines(rows: np.ndarray) -> list[int]:
        """Lines of row numbers: no cell of these files holds a line break, and line 1 is the header."""
        return [int(row) + 2 for row in rows]


def word_ids(lists: pa.Array) -> pa.Array:
    """``12 7 99`` for every text ``[12, 7, 99]``, null for one that is no list of whole numbers or an empty one.

    Args:
        lists: strings [n].
    """
    words = pc.utf8_trim(pc.replace_substring_regex(lists, pattern=r"[\s,]+", replacement=" "), characters="[] ")
    return pc.if_else(pc.match_substring_regex(lists, WORD_IDS), words, pa.scalar(None, pa.string()))


def read_items(
    path: Path, touched: np.ndarray, config: KuaiSARConfig, dropped: Dropped
) -> tuple[pa.Table, dict[str, int]]:
    """Items of the schema `ITEMS`, those without features last, and counts.

    Args:
        path: `item_features.csv`.
        touched: sorted ids of all items of the events, int64.
        config: what to keep of the file.
        dropped: counts the rows left out.
    """
    part = {"english": "name_en", "chinese": "name", "id": "id"}[config.category_names]
    levels = [(f"{level}_level_category_id", f"{level}_level_category_{part}") for level in LEVELS]
    kinds = {"item_id": pa.int64(), "caption": pa.string()}
    kinds |= {name: pa.int64() if name.endswith("_id") else pa.string() for pair in levels for name in pair}
    blocks, tables, columns = Blocks(path, kinds, dropped, optional=tuple(kinds)[1:]), [], defaultdict(list)
    unreadable = 0
    for block, rows in blocks:
        if not config.all_items:
            wanted = _among(block["item_id"].to_numpy(), touched)
            block, rows = block.filter(pa.array(wanted)), rows[wanted]
        columns["id"].append(block["item_id"].to_numpy())
        columns["row"].append(rows)
        title, bad = _titles(block["caption"])
        unreadable += bad
        tables.append(pa.table({"title": title, "categories": _category_paths(block, levels)}))
    ids, row = joined(columns).values()
    texts = pa.concat_tables(tables)
    known, first = np.unique(ids, return_index=True)
    if len(first) < len(ids):
        first.sort()
        blocks.drop("item listed before", np.delete(row, first))
        ids, texts = ids[first], texts.take(pa.array(first))
    bare = np.setdiff1d(touched, known, assume_unique=True)
    table = texts.add_column(0, "item_id", pa.array(ids).cast(pa.string())).cast(ITEMS)
    found = {"rows": blocks.rows, "without_features": len(bare), "captions_unreadable": unreadable}
    return pa.concat_tables([table, without_text(pa.array(bare))]), found | {"kept": len(ids) + len(bare)}


def _among(ids: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Which `ids` are among the sorted `known`, bool [ids]: `np.isin` would sort all that is known for every block."""
    if not len(known):
        return np.zeros(len(ids), bool)
    at = np.searchsorted(known, ids).clip(max=len(known) - 1)
    found: np.ndarray = known[at] == ids
    return found


def _titles(captions: pa.Array) -> tuple[pa.Array, int]:
    """Word ids of captions, ``""`` where there is none, and how many captions are no lists."""
    words, text = word_ids(captions), pc.fill_null(captions, "")
    there = pc.invert(pc.is_in(pc.utf8_trim_whitespace(text), value_set=pa.array(["", "[]"])))
    return pc.fill_null(words, ""), int(pc.sum(pc.and_(there, words.is_null())).as_py() or 0)


def _category_paths(block: pa.RecordBatch, levels: list[tuple[str, str]]) -> pa.Array:
    """``Food|Snacks``: the levels that an item has, from the columns (id, name) of each."""
    parts = []
    for number, name in levels:
        text = pc.utf8_trim_whitespace(pc.replace_substring(block[name].cast(pa.string()), "|", " "))
        absent = pc.or_(pc.equal(pc.fill_null(block[number], 0), 0), pc.is_in(text, pa.array(["", "empty", None])))
        parts.append(pc.if_else(absent, "", pc.binary_join_element_wise("|", text, "", null_handling="replace")))
    return pc.utf8_ltrim(pc.binary_join_element_wise(*parts, ""), characters="|")


def describe_users(path: Path, dropped: Dropped) -> tuple[int, dict[str, int]]:
    """Rows, and how many values each feature takes: the documentation has two of them the wrong way round."""
    blocks = Blocks(path, dict.fromkeys(("user_id", *USER_FEATURES), pa.int64()), dropped, optional=USER_FEATURES)
    sizes = dict.fromkeys(USER_FEATURES, 0)
    for block, _ in blocks:
        for name in USER_FEATURES:
            sizes[name] = max(sizes[name], 1 + (pc.max(block[name]).as_py() or 0))
    return blocks.rows, sizes


def describe_follows(path: Path, dropped: Dropped) -> tuple[int, dict[str, int]]:
    """Rows, and how many users follow anybody."""
    blocks = Blocks(path, {"user_id": pa.int64(), "user_follow_id": pa.int64()}, dropped)
    users = [block["user_id"].to_numpy() for block, _ in blocks]
    return blocks.rows, {"users": len(np.unique(np.concatenate(users)))}


def joined(columns: dict[str, list[np.ndarray]]) -> dict[str, np.ndarray]:
    """The pieces of each column as one array; the pieces are given up on the way, for two copies of all are many."""
    return {name: np.concatenate(columns.pop(name)) for name in list(columns)}
