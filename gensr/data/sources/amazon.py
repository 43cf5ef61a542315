"""Amazon reviews as a log of purchases and of the searches that may have led to them.

Nobody publishes what people typed into that shop. So a search is imitated by the category path of what was bought
(`gensr.data.queries`), as the papers do whose numbers one wants to compare with. Both events of a review are the two
faces of one interaction, and they share its time and its line: neither may stand in the history of the other.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gensr.data.arrays import spread
from gensr.data.log import EventLog, Origin, check_log, codes_of
from gensr.data.queries import STOP_WORDS, item_queries, krovetz, read_stop_words
from gensr.data.sources.amazon_files import (
    LAYOUTS,
    Layout,
    both_faces,
    count_words,
    find_version,
    metadata_beside,
    read_items,
    read_reviews,
)
from gensr.data.sources.published import AmazonConfig
from gensr.data.sources.text import Dropped, content_hash, existing
from gensr.errors import BadInputError

REVIEWS_OF_2014 = re.compile(r"reviews_.+\.json(\.gz|\.zst)?")
"""Names that nobody else uses; those of later publications say little without their metadata."""


@dataclass(frozen=True)
class ItemQueries:
    """The queries that each item could have been found by.

    Attributes:
        texts: distinct queries.
        codes: int32 [N], rows of `texts`, item by item.
        start: int64 [I+1], where the codes of each item begin.
    """

    texts: list[str]
    codes: np.ndarray
    start: np.ndarray


def read_log(config: AmazonConfig) -> EventLog:
    """A recommendation event for every review, and a search where its item has a query; column ``order`` is the line.

    Raises:
        BadInputError: a file is missing or broken, or not one review can be read.
        MissingExtraError: the stemmer is not installed.
    """
    path, metadata, stop_words = find_files(config)
    version, dropped = find_version(path, config.version), Dropped()
    layout = LAYOUTS[version]
    reviews, review_lines = read_reviews(path, layout, dropped, min_rating=config.min_rating)
    if not reviews.num_rows:
        raise BadInputError(f"{path}: no review is left of {review_lines:,} lines. {dropped.reasons()}")
    item, ids = codes_of(reviews["item_id"])
    items, counts, item_lines = read_items(metadata, layout, dropped, ids, all_items=config.all_items)
    row_of = pc.index_in(ids, value_set=items["item_id"].combine_chunks()).to_numpy(zero_copy_only=False)
    queries = _queries_of(items["categories"].combine_chunks(), config, _words(config, stop_words), path, layout)
    events, searches = _events(reviews, row_of[item], queries, config)
    report = {
        "files": {path.name: review_lines, metadata.name: item_lines},
        "dropped": dropped.report(),
        "version": version,
        "items": counts | {"with_a_query": int((np.diff(queries.start) > 0).sum())},
        "searches": searches,
    }
    order = events["order"].to_numpy()
    origin = Origin(str(path), lambda rows: [int(order[row]) + 1 for row in rows])
    return check_log(events, items, report, time_unit=layout.unit, events_from=origin, items_from=Origin(metadata.name))


def find_files(config: AmazonConfig) -> tuple[Path, Path, Path | None]:
    """Reviews, metadata, and the list of stop words where there is one.

    Raises:
        BadInputError: one of them is missing.
    """
    reviews = existing(config.reviews, "data.source.reviews")
    metadata = Path(config.metadata) if config.metadata is not None else metadata_beside(reviews)
    if metadata is None:
        raise BadInputError(
            f"no metadata beside {reviews}: it holds the titles, and the categories that searches are made of. Name "
            "it as data.source.metadata"
        )
    stop_words = None if config.stop_words is None else existing(config.stop_words, "data.source.stop_words")
    return reviews, existing(metadata, "data.source.metadata"), stop_words


def identity(config: AmazonConfig) -> str:
    """Hash of the options and of the files' content."""
    options = config.model_dump_json(exclude={"reviews", "metadata", "stop_words"})
    return content_hash(options, find_files(config))


def recognise(path: Path) -> Path | None:
    """The file of reviews at `path`, if it carries its published name; but for 2014, beside its metadata."""
    try:
        if path.is_file():
            return path if _is_review_file(path) else None
        files = sorted(entry for entry in path.iterdir() if entry.is_file())
    except OSError:
        return None
    if any(file.name.startswith("query_text.txt") for file in files):
        return None  # the released product-search files, with the reviews they were made of
    found = [file for file in files if _is_review_file(file)]
    return found[0] if len(found) == 1 else None


def _is_review_file(path: Path) -> bool:
    return REVIEWS_OF_2014.fullmatch(path.name) is not None or metadata_beside(path) is not None


def _words(config: AmazonConfig, stop_words: Path | None) -> dict[str, Any]:
    """What `item_queries` needs to know about words."""
    return {
        "min_levels": config.min_levels,
        "stop_words": STOP_WORDS if stop_words is None else read_stop_words(stop_words),
        "stem": krovetz() if config.stemmer == "krovetz" else None,
        "wording": config.wording,
    }


def _queries_of(
    categories: pa.Array, config: AmazonConfig, words: dict[str, Any], path: Path, layout: Layout
) -> ItemQueries:
    """Queries by item row; equal paths, of which there are few, are taken apart once."""
    encoded = categories.dictionary_encode()
    paths = encoded.dictionary.to_pylist()
    queries = [item_queries(text, **words) for text in paths]
    if config.min_count:
        stem: Callable[[str], str] | None = words["stem"]
        candidates = {word for texts in queries for text in texts for word in text.split()}
        counts = count_words(path, layout, candidates, stem, config.wording)
        known = frozenset(word for word, count in counts.items() if count >= config.min_count)
        queries = [item_queries(text, **words, vocabulary=known) for text in paths]
    row = {text: code for code, text in enumerate(dict.fromkeys(text for texts in queries for text in texts))}
    flat = np.array([row[text] for texts in queries for text in texts], np.int32)
    count = np.array([len(texts) for texts in queries], np.int64)
    begin = np.cumsum(count) - count
    which = encoded.indices.to_numpy()
    start = np.concatenate([[0], np.cumsum(count[which])])
    _, place = spread(begin[which], count[which])
    return ItemQueries(list(row), flat[place], start)


def _events(
    reviews: pa.Table, item: np.ndarray, queries: ItemQueries, config: AmazonConfig
) -> tuple[pa.Table, dict[str, int]]:
    """Both faces of every review, in file order, and what to report of the searches.

    Args:
        reviews: `REVIEWS`.
        item: rows of the catalogue, [R].
        queries: of the catalogue.
        config: which queries are drawn.
    """
    kept, drawn = np.random.default_rng(config.seed).random((2, len(item)))
    count = np.diff(queries.start)[item]
    searched = np.flatnonzero((count > 0) & (kept < config.keep))
    first = queries.start[item[searched]]
    if config.queries_per_review == "all":
        range_of, place = spread(first, count[searched])
        searched = searched[range_of]
    else:
        place = first + (drawn[searched] * count[searched]).astype(np.int64)
    return both_faces(reviews, searched, queries.codes[place], pa.array(queries.texts, pa.string())), {
        "events": len(searched),
        "queries": len(np.unique(queries.codes[place])),
        "reviews_of_items_without_a_query": int((count == 0).sum()),
        "reviews_left_out_by_keep": int(((count > 0) & (kept >= config.keep)).sum()),
    }
