"""The texts behind the rows: items and queries, self-contained, so that a saved ranker needs no data set."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from gensr.data.log import normalise_query
from gensr.data.texts import Texts
from gensr.files import undamaged

SPACE = r"\s\p{Z}\x0b\x1c-\x1f\x{85}"
"""Characters that `str.split` parts words at, for a class in Arrow's regular expressions."""


class Catalogue:
    """Texts of items and queries by row; row 0 is padding and holds ``""``.

    Args:
        item_ids: raw ids, [I+1].
        titles: [I+1].
        categories: [I+1], ``|`` between the levels of a hierarchy and ``||`` between hierarchies.
        queries: [Q+1].
        item_text: fields that make an item's text, in order.
    """

    def __init__(
        self,
        item_ids: Iterable[str],
        titles: Iterable[str],
        categories: Iterable[str],
        queries: Iterable[str],
        item_text: Sequence[str] = ("title", "categories"),
    ) -> None:
        self.item_ids, self.titles, self.categories = Texts.of(item_ids), Texts.of(titles), Texts.of(categories)
        self.queries = Texts.of(queries)
        self.item_text = tuple(item_text)
        self.text = Texts(self._describe_all, self.num_items)

    @property
    def num_items(self) -> int:
        """I: items are rows 1..I."""
        return len(self.item_ids) - 1

    @property
    def num_queries(self) -> int:
        """Q: queries are rows 1..Q."""
        return len(self.queries) - 1

    @cached_property
    def _item_rows(self) -> dict[str, int]:
        return {raw: row for row, raw in enumerate(self.item_ids) if row}

    @cached_property
    def _query_rows(self) -> dict[str, int]:
        return {text: row for row, text in enumerate(self.queries) if row}

    def item_row(self, raw_id: str) -> int:
        """Row of a raw item id, 0 where unknown."""
        return self._item_rows.get(str(raw_id), 0)

    def query_row(self, text: str) -> int:
        """Row of a query, 0 where unknown; white space does not matter."""
        return self._query_rows.get(normalise_query(text), 0)

    def with_text(self, fields: Sequence[str]) -> Catalogue:
        """The same items and queries, whose `text` is made of other fields."""
        return Catalogue(self.item_ids, self.titles, self.categories, self.queries, fields)

    def describe(self, title: str = "", categories: str = "") -> str:
        """The text of an item, in or outside the catalogue.

        Example:
            >>> Catalogue([""], [""], [""], [""]).describe("Kettle One", "Home|Kitchen||Gifts")
            'Kettle One, Home Kitchen, Gifts'
        """
        parts = {"title": title, "categories": categories.replace("||", ", ").replace("|", " ")}
        return ", ".join(text for name in self.item_text if (text := " ".join(parts[name].split())))

    def _describe_all(self) -> pa.Array:
        """`describe` of every item."""
        paths = pc.replace_substring(pc.replace_substring(self.categories.arrow, "||", ", "), "|", " ")
        parts = {"title": self.titles.arrow, "categories": paths}
        described = None
        for name in self.item_text:
            text = pc.utf8_trim(pc.replace_substring_regex(parts[name], f"[{SPACE}]+", " "), " ")
            if described is None:
                described = text
                continue
            apart = pc.if_else(pc.or_(pc.equal(described, ""), pc.equal(text, "")), "", ", ")
            described = pc.binary_join_element_wise(described, apart, text, "")
        return described

    def save(self, folder: Path) -> None:
        """Write the catalogue into `folder` (made where absent)."""
        folder.mkdir(parents=True, exist_ok=True)
        items = {"item_id": self.item_ids, "title": self.titles, "categories": self.categories}
        pq.write_table(pa.table({name: texts.arrow for name, texts in items.items()}), folder / "items.parquet")
        pq.write_table(pa.table({"query": self.queries.arrow}), folder / "queries.parquet")
        (folder / "catalogue.json").write_text(json.dumps({"item_text": self.item_text}) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: Path, advice: str = "") -> Catalogue:
        """Open what `save` wrote; texts are read when they are asked for.

        Args:
            folder: where it lies.
            advice: what to do where a file turns out damaged.
        """
        options = json.loads((folder / "catalogue.json").read_text(encoding="utf-8"))
        items, queries = folder / "items.parquet", folder / "queries.parquet"
        item_ids, titles, categories = (_column(items, name, advice) for name in ("item_id", "title", "categories"))
        return cls(item_ids, titles, categories, _column(queries, "query", advice), options["item_text"])


def _column(path: Path, name: str, advice: str) -> Texts:
    def load() -> pa.ChunkedArray:
        with undamaged(path, advice):
            return pq.read_table(path, columns=[name])[name]

    return Texts(load, pq.read_metadata(path).num_rows)
