"""Which column of a table is what: the names people use, the words when one is missing, and what tasks it tells."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gensr.data.sources.formats import TableFile, listed
from gensr.data.tasks import Task
from gensr.errors import BadInputError, did_you_mean

ALIASES = {
    "user_id": ("user_id", "user", "userid", "uid", "reviewer_id"),
    "item_id": ("item_id", "item", "itemid", "iid", "parent_asin", "asin", "product_id", "movie_id"),
    "timestamp": ("timestamp", "ts", "time", "datetime", "date", "unix_review_time", "unix_time"),
    "task": ("task",),
    "query": ("query", "search_query", "keywords"),
    "session": ("session", "session_id", "search_session_id"),
    "order": ("order",),
    "split": ("split",),
    "title": ("title", "name", "item_name"),
    "categories": ("categories", "category", "genres"),
}
"""Usual names, the preferred first; case, ``_``, ``-`` and spaces do not matter."""

Given = Mapping[str, str | None]
"""Column names that the user gives; None where there is none, whatever its name."""


def match(file: TableFile, wanted: Iterable[str], required: Iterable[str], given: Given) -> dict[str, str]:
    """The file's own name of each canonical column it has: the one `given`, or a usual one.

    Raises:
        BadInputError: a given column, or one of `required`, is not there.
    """
    columns = file.columns
    there = f"Columns: {listed(columns)}"
    found = {}
    for name in wanted:
        own = given[name] if name in given else guess(name, columns)
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


def guess(name: str, columns: list[str], usual: Mapping[str, Sequence[str]] = ALIASES) -> str | None:
    """The column whose name is a `usual` one for `name`."""
    simple = {_simple(column): column for column in reversed(columns)}
    return next((simple[_simple(alias)] for alias in usual[name] if _simple(alias) in simple), None)


def codes_of_words(column: pa.DictionaryArray, known: Mapping[str, int]) -> np.ndarray:
    """Codes int8 [E] of words in any case, -1 where unknown."""
    words = [int(known.get(text.strip().lower(), -1)) for text in column.dictionary.to_pylist()]
    codes: np.ndarray = np.array(words, np.int8)[column.indices.to_numpy()]
    return codes


def tasks_of_queries(query: pa.DictionaryArray) -> pa.Array:
    """`Task` codes of rows that do not say: an event with a query is a search."""
    asked = pc.not_equal(pc.utf8_trim_whitespace(query.dictionary), "").to_numpy(zero_copy_only=False)
    codes = np.where(asked, Task.SEARCH, Task.RECOMMENDATION).astype(np.int8)
    return pa.array(codes[query.indices.to_numpy()])


def _simple(column: str) -> str:
    return "".join(letter for letter in column.lower() if letter not in "_- ")
