"""The Amazon review files line by line: three publications that spell the same facts differently.

2014 wrote Python literals where 2018 and 2023 wrote JSON, names changed, categories were flattened, and scraped pages
left their code in titles. Here they become one table of reviews and one of items; what they mean is decided elsewhere.
"""

from __future__ import annotations

import ast
import html
import re
import warnings
from collections import Counter
from collections.abc import Callable, Container, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gensr.data.log import ITEMS, TEXT, one_dictionary
from gensr.data.queries import Wording, words_of
from gensr.data.sources.items import complete, without_text
from gensr.data.sources.text import (
    Dropped,
    TableBuilder,
    encodable,
    find_optional,
    format_suffix,
    json_object,
    text_lines,
)
from gensr.data.tasks import Task
from gensr.errors import BadInputError

Version = Literal["2014", "2018", "2023"]

REVIEWS = pa.schema([("user_id", TEXT), ("item_id", TEXT), ("timestamp", pa.int64()), ("order", pa.int64())])
"""Reviews; order is the number of the line, from 0."""

MAX_LITERAL = 1 << 18
"""Longest Python literal in bytes: its parsed form takes a hundred times its length. The longest published lines,
items with long descriptions, have some 30,000."""
LITERAL_ERRORS = (ValueError, SyntaxError, TypeError, RecursionError, MemoryError)
FIRST_ASIN = re.compile(r"\{'asin': '([^'\\]+)'")
SCRIPT = re.compile(r"getTime\(|\bfunction\s*\(|\bvar \w+ ?=")
TAGS = re.compile(r"</?[a-zA-Z][^<>]*>")
"""Scripts and tags are what scraping left in some titles and categories of 2018."""


@dataclass(frozen=True)
class Layout:
    """Field names of one publication.

    Attributes:
        user: who reviewed.
        item: what; in the metadata too.
        time: when, as a number in `unit`.
        unit: what `time` counts.
        rating: how many stars.
        words: fields with the words of a review.
        categories: of the metadata: one list of levels, or a list of such lists.
    """

    user: str
    item: str
    time: str
    unit: Literal["s", "ms"]
    rating: str
    words: tuple[str, str]
    categories: str


LAYOUTS: dict[Version, Layout] = {
    "2014": Layout("reviewerID", "asin", "unixReviewTime", "s", "overall", ("summary", "reviewText"), "categories"),
    "2018": Layout("reviewerID", "asin", "unixReviewTime", "s", "overall", ("summary", "reviewText"), "category"),
    "2023": Layout("user_id", "parent_asin", "timestamp", "ms", "rating", ("title", "text"), "categories"),
}


@dataclass(frozen=True)
class Metadata:
    """Items of a metadata file, each once.

    Attributes:
        items: `ITEMS`, in file order.
        lines: how many lines the file has.
        repeated: lines of an item that an earlier line had described.
        page_code: titles and levels that held tags, which were removed, or a script, and were left out.
    """

    items: pa.Table
    lines: int
    repeated: int
    page_code: int


def parse_record(text: str) -> dict[str, Any] | None:
    """The JSON object or Python dictionary of plain values on a line; None where it is neither. Executes nothing."""
    text = text.strip()
    if not text.startswith("{'"):
        return json_object(text)
    if len(text) > MAX_LITERAL:
        return None
    with warnings.catch_warnings(), suppress(*LITERAL_ERRORS):
        warnings.simplefilter("ignore")  # of odd escapes inside texts
        record = ast.literal_eval(text)
        return record if isinstance(record, dict) else None
    return None


def records(path: Path, dropped: Dropped) -> Iterator[tuple[int, dict[str, Any]]]:
    """Number, from 1, and record of every line that holds one; the others are counted."""
    for line, text in text_lines(path):
        record = parse_record(text)
        if record is None:
            dropped.add(f"{path.name}: neither a JSON object nor a Python dictionary", line)
        else:
            yield line, record


def find_version(path: Path, wanted: Version | Literal["auto"]) -> Version:
    """The publication whose field names the first record of a file of reviews has.

    Raises:
        BadInputError: none of them, another one than `wanted`, or no record at all.
    """
    first = next((record for _, record in records(path, Dropped())), None)
    if first is None:
        raise BadInputError(f"{path} holds no reviews: no line is a JSON object or a Python dictionary")
    fits = [name for name, layout in LAYOUTS.items() if {layout.user, layout.item, layout.time} <= first.keys()]
    if not fits or (wanted != "auto" and wanted not in fits):
        layout = LAYOUTS["2023" if wanted == "auto" else wanted]
        expected = f"{layout.user}, {layout.item} and {layout.time}" + (
            ", or reviewerID, asin and unixReviewTime" if wanted == "auto" else f", as version {wanted} has them"
        )
        raise BadInputError(
            f"{path}: the first record has the fields {', '.join(first)[:500] or 'none'}; expected {expected}"
        )
    if wanted != "auto":
        return wanted
    # The reviews of 2014 and 2018 share these fields; only later ones tell whether the purchase was verified.
    return "2018" if "2018" in fits and "verified" in first else fits[0]


def read_reviews(
    path: Path, layout: Layout, dropped: Dropped, *, min_rating: float | None = None
) -> tuple[pa.Table, int]:
    """The reviews as `REVIEWS`, in file order, and how many lines there are."""
    builder, before, nameless = TableBuilder(REVIEWS), dropped.total, f"{path.name}: no {layout.user} or {layout.item}"
    for line, record in records(path, dropped):
        user, item = _id(record.get(layout.user)), _id(record.get(layout.item))
        time = _whole(record.get(layout.time))
        if not user or not item:
            dropped.add(nameless, line)
        elif time is None:
            dropped.add(f"{path.name}: {layout.time} is no positive number", line)
        elif min_rating is not None and not _rated(record.get(layout.rating), min_rating):
            dropped.add(f"{path.name}: {layout.rating} is not at least {min_rating:g}", line)
        else:
            builder.add(user, item, time, line - 1)
    table = with_whole_dictionaries(builder.table())
    return table, table.num_rows + dropped.total - before


def with_whole_dictionaries(table: pa.Table) -> pa.Table:
    """A table in which each text column has one dictionary, so that `codes_of` reads it."""
    for index, field in enumerate(table.schema):
        if field.type == TEXT:
            table = table.set_column(index, field, one_dictionary(table[index]))
    return table.combine_chunks()


def read_metadata(path: Path, layout: Layout, dropped: Dropped, *, wanted: Container[str] | None) -> Metadata:
    """Titles and categories; of several lines of an item the first counts.

    Args:
        path: the file of metadata.
        layout: its field names.
        dropped: counts the lines that hold no item.
        wanted: the items to keep, all where None. The slow literals of other items are not even parsed.
    """
    table, seen, lines, repeated, page_code = TableBuilder(ITEMS), set[str](), 0, 0, 0
    for line, text in text_lines(path):
        lines += 1
        early = FIRST_ASIN.match(text) if wanted is not None else None
        if early and wanted is not None and early[1] not in wanted:
            continue
        record = parse_record(text)
        item = _id(record.get(layout.item)) if record is not None else ""
        if record is None:
            dropped.add(f"{path.name}: neither a JSON object nor a Python dictionary", line)
        elif not item:
            dropped.add(f"{path.name}: no {layout.item}", line)
        elif item in seen:
            repeated += 1
        elif wanted is None or item in wanted:
            seen.add(item)
            names = [record.get("title"), *_levels(record.get(layout.categories))]
            page_code += sum(isinstance(name, str) and _has_code(name) for name in names)
            table.add(item, _clean(record.get("title")), _joined(record.get(layout.categories)))
    return Metadata(table.table(), lines, repeated, page_code)


def count_words(
    path: Path, layout: Layout, wanted: Container[str], stem: Callable[[str], str] | None, wording: Wording
) -> Counter[str]:
    """How often each of the `wanted` stems occurs in the titles and texts of all reviews of a file."""
    counts: Counter[str] = Counter()
    for _, record in records(path, Dropped()):
        for name in layout.words:
            words = words_of(text, wording) if isinstance(text := record.get(name), str) else []
            counts.update(word for word in (map(stem, words) if stem else words) if word in wanted)
    return counts


def metadata_beside(reviews: Path) -> Path | None:
    """The file of metadata that was published with one of reviews, if it lies beside it under its own name."""
    shop = reviews.name[: reviews.name.lower().rfind(format_suffix(reviews))]
    shop = shop.removeprefix("reviews_").removesuffix("_5")
    if (
        format_suffix(reviews) not in (".json", ".jsonl")
        or not shop
        or shop.startswith("meta_")
        or not reviews.parent.is_dir()
    ):
        return None
    return find_optional(reviews.parent, f"meta_{shop}.json", f"meta_{shop}.jsonl")


def _id(value: Any) -> str:
    """An id as it stands, ``""`` where it is no text that can be stored."""
    return value.strip() if isinstance(value, str) and encodable(value) else ""


def _whole(value: Any) -> int | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 2**63:
        return None
    return int(value)


def _rated(value: Any, least: float) -> bool:
    return isinstance(value, int | float) and value >= least


def _storable(text: str) -> str:
    """Without lone surrogates, which JSON can spell and no file can hold."""
    return text.encode("utf-8", "ignore").decode("utf-8")


def _has_code(text: str) -> bool:
    return SCRIPT.search(text) is not None or TAGS.search(html.unescape(text)) is not None


def _clean(value: Any) -> str:
    """A text on one line, with its characters instead of their HTML names, without tags; a script is no text."""
    if not isinstance(value, str) or SCRIPT.search(value):
        return ""
    return " ".join(_storable(TAGS.sub(" ", html.unescape(value))).split())


def _paths(value: Any) -> list[list[Any]]:
    """Hierarchies from one list of levels or a list of such lists."""
    if not isinstance(value, list):
        return []
    return [path for path in value if isinstance(path, list)] or [value]


def _levels(value: Any) -> list[Any]:
    return [level for path in _paths(value) for level in path]


def _joined(value: Any) -> str:
    """Our categories text: ``|`` between the levels of a hierarchy, ``||`` between hierarchies; no empty levels."""
    paths = ([_clean(level.replace("|", " ")) for level in path if isinstance(level, str)] for path in _paths(value))
    return "||".join("|".join(named) for path in paths if (named := [level for level in path if level]))


def read_items(
    path: Path | None, layout: Layout, dropped: Dropped, reviewed: pa.Array, *, all_items: bool = False
) -> tuple[pa.Table, dict[str, int], int]:
    """The catalogue: items of the metadata, then those that only events name, without text.

    Args:
        path: the file of metadata; without one no item has a text.
        layout: its field names.
        dropped: counts lines that hold no item.
        reviewed: distinct item ids that need an entry.
        all_items: keep items of the metadata that are not in `reviewed`.

    Returns:
        `ITEMS`; counts for the report; lines of the file.

    Raises:
        BadInputError: the metadata describe none of them.
    """
    if path is None:
        return without_text(reviewed), {"without_metadata": len(reviewed)}, 0
    wanted = None if all_items else set(reviewed.to_pylist())
    found = read_metadata(path, layout, dropped, wanted=wanted)
    items, missing = complete(found.items, reviewed)
    if missing == len(reviewed):
        raise BadInputError(
            f"{path}: none of its {found.lines:,} lines describes one of the {missing:,} items of the events, by "
            f"{layout.item}; is it the metadata of another shop or publication? {dropped.reasons()}".rstrip()
        )
    counts = {
        "items": items.num_rows,
        "without_metadata": missing,
        "without_title": int(pc.sum(pc.equal(items["title"], "")).as_py() or 0),
        "without_categories": int(pc.sum(pc.equal(items["categories"], "")).as_py() or 0),
        "repeated_metadata_lines": found.repeated,
        "texts_with_page_code": found.page_code,
    }
    return items, counts, found.lines


def both_faces(reviews: pa.Table, searched: np.ndarray, query: np.ndarray, texts: pa.Array) -> pa.Table:
    """A recommendation event for every review and a search for those `searched`, review by review.

    Args:
        reviews: `REVIEWS`, and perhaps more columns, which both faces get.
        searched: rows of `reviews` [S]; one with several queries comes several times.
        query: which of `texts` each search asked [S].
        texts: distinct queries.
    """
    row = np.concatenate([np.arange(reviews.num_rows), searched])
    task = np.repeat(np.array([Task.RECOMMENDATION, Task.SEARCH], np.int8), [reviews.num_rows, len(searched)])
    code = np.concatenate([np.zeros(reviews.num_rows, np.int32), query + 1]).astype(np.int32)
    by_line = np.argsort(row, kind="stable")
    events = reviews.take(pa.array(row[by_line])).append_column("task", pa.array(task[by_line]))
    asked = pa.DictionaryArray.from_arrays(pa.array(code[by_line]), pa.concat_arrays([pa.array([""]), texts]))
    return events.append_column("query", asked)
