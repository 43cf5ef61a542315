"""The texts behind the rows: items and queries, self-contained, so that a saved ranker needs no data set."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from gensr.data.log import normalise_query


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
        item_ids: list[str],
        titles: list[str],
        categories: list[str],
        queries: list[str],
        item_text: Sequence[str] = ("title", "categories"),
    ) -> None:
        self.item_ids, self.titles, self.categories, self.queries = item_ids, titles, categories, queries
        self.item_text = tuple(item_text)
        self.text = [self.describe(title, path) for title, path in zip(titles, categories, strict=True)]

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

    def describe(self, title: str = "", categories: str = "") -> str:
        """The text of an item, in or outside the catalogue.

        Example:
            >>> Catalogue([""], [""], [""], [""]).describe("Kettle One", "Home|Kitchen||Gifts")
            'Kettle One, Home Kitchen, Gifts'
        """
        parts = {"title": title, "categories": categories.replace("||", ", ").replace("|", " ")}
        return ", ".join(text for name in self.item_text if (text := " ".join(parts[name].split())))

    def save(self, folder: Path) -> None:
        """Write the catalogue into `folder` (made where absent)."""
        folder.mkdir(parents=True, exist_ok=True)
        items = {"item_id": self.item_ids[1:], "title": self.titles[1:], "categories": self.categories[1:]}
        string = pa.string()
        pq.write_table(pa.table({k: pa.array(v, string) for k, v in items.items()}), folder / "items.parquet")
        pq.write_table(pa.table({"query": pa.array(self.queries[1:], string)}), folder / "queries.parquet")
        (folder / "catalogue.json").write_text(json.dumps({"item_text": self.item_text}) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> Catalogue:
        """Read what `save` wrote."""
        items = pq.read_table(folder / "items.parquet").to_pydict()
        queries = pq.read_table(folder / "queries.parquet")["query"].to_pylist()
        options = json.loads((folder / "catalogue.json").read_text(encoding="utf-8"))
        ids, titles, categories = (["", *items[name]] for name in ("item_id", "title", "categories"))
        return cls(ids, titles, categories, ["", *queries], options["item_text"])
