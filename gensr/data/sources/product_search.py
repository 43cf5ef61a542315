"""The released Amazon product-search collections, read as they are: to compare with numbers published on them.

They hold relevant pairs of a user's query and an item, divided into train and test by reviews hidden at random, and
refer by line number to a file of reviews that is published elsewhere. With it, every pair is one face of a review and
shares its time and line; without it, there is no past to look at.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gensr.data.log import TEXT, EventLog, Origin, check_log, codes_of, normalise_query
from gensr.data.sources.amazon_files import (
    LAYOUTS,
    both_faces,
    find_version,
    read_items,
    read_reviews,
    with_whole_dictionaries,
)
from gensr.data.sources.items import ids_in
from gensr.data.sources.published import ProductSearchConfig
from gensr.data.sources.text import (
    SHOWN_LINES,
    Dropped,
    TableBuilder,
    content_hash,
    existing,
    find_file,
    find_optional,
    names_in,
    text_lines,
)
from gensr.data.split import Split
from gensr.data.tasks import Task
from gensr.data.times import Unit
from gensr.errors import BadInputError

QUERY_FILE, REVIEW_LINES = "query_text.txt", "train_review_id.txt"
QRELS = {"train.qrels": Split.TRAIN, "test.qrels": Split.TEST}
PAIRS = pa.schema([("user_id", TEXT), ("item_id", TEXT), ("query", pa.int32()), ("line", pa.int64())])
QUERIES = pa.schema([("line", pa.int64()), ("query", pa.string())])
LAYOUT = LAYOUTS["2014"]
DIGITS = 9


@dataclass(frozen=True)
class Files:
    """The files of a collection, and those it was made of where they are there."""

    queries: Path
    qrels: dict[Split, Path]
    review_lines: Path | None
    reviews: Path | None
    metadata: Path | None


def read_log(config: ProductSearchConfig) -> EventLog:
    """A search event for every relevant pair and, with the reviews, a recommendation event for each; column ``split``.

    Raises:
        BadInputError: a file is missing or broken, or no relevant pair is left.
    """
    unit: Unit
    files, dropped = find_files(config), Dropped()
    queries = _read_queries(files.queries)
    rows, pairs = {files.queries.name: queries.num_rows}, {}
    for split, path in files.qrels.items():
        pairs[split], rows[path.name] = _read_pairs(path, queries, dropped)
    events = pa.concat_tables([_searches(table, split, queries) for split, table in pairs.items()])
    report = {"searches": {split.label: table.num_rows for split, table in pairs.items()}}
    origin, unit = Origin(config.path), "none"
    if files.reviews is not None and files.review_lines is not None:
        events, counts = _placed(events, files, files.reviews, files.review_lines, dropped, rows)
        report |= {"reviews": counts}
        order = events["order"].to_numpy()
        origin, unit = Origin(str(files.reviews), lambda rows: [int(order[row]) + 1 for row in rows]), "s"
    if not (events["task"].to_numpy() == Task.SEARCH).any():
        why = dropped.reasons() or "The qrels files hold none"
        raise BadInputError(f"{config.path}: no relevant pair is left. {why}")
    events = with_whole_dictionaries(events)
    items, item_counts, lines = read_items(
        files.metadata, LAYOUT, dropped, ids_in(events["item_id"]), all_items=config.all_items
    )
    if files.metadata is not None:
        rows[files.metadata.name] = lines
    report = {"files": rows, "dropped": dropped.report(), "items": item_counts, **report}
    return check_log(events, items, report, time_unit=unit, events_from=origin)


def find_files(config: ProductSearchConfig) -> Files:
    """Where everything lies.

    Raises:
        BadInputError: queries or judgements are missing, or the reviews were named but not which of them train.
    """
    queries = find_file(config.path, QUERY_FILE)
    found = {split: find_optional(config.path, name) for name, split in QRELS.items()}
    qrels = {split: path for split, path in found.items() if path is not None}
    if not qrels:
        find_file(config.path, *QRELS)
    reviews = None if config.reviews is None else existing(config.reviews, "data.source.reviews")
    lines = None
    if reviews is not None:
        # Without it nobody knows which purchases are hidden, and the answers would stand in the training events.
        lines = find_file(config.path, REVIEW_LINES)
    metadata = None if config.metadata is None else existing(config.metadata, "data.source.metadata")
    return Files(queries, qrels, lines, reviews, metadata)


def identity(config: ProductSearchConfig) -> str:
    """Hash of the options and of the files' content."""
    files = find_files(config)
    options = config.model_dump_json(exclude={"path", "reviews", "metadata"})
    qrels = [files.qrels.get(split) for split in QRELS.values()]
    return content_hash(options, [files.queries, *qrels, files.review_lines, files.reviews, files.metadata])


def recognise(path: Path) -> Path | None:
    """The folder at `path`, if it holds the released files under their names."""
    names = names_in(path)
    return path if QUERY_FILE in names and not names.isdisjoint(QRELS) else None


def _read_queries(path: Path) -> pa.Table:
    """`QUERIES`; the line number, from 0, is the query's id, so blank lines count though they are no query."""
    table = TableBuilder(QUERIES)
    for line, text in text_lines(path):
        if query := normalise_query(text):
            table.add(line - 1, query)
    return table.table().combine_chunks()


def _read_pairs(path: Path, queries: pa.Table, dropped: Dropped) -> tuple[pa.Table, int]:
    """The relevant pairs of a file as `PAIRS`, query a row of `queries`; and how many lines the file has."""
    row_of = {line: row for row, line in enumerate(queries["line"].to_pylist())}
    table, lines = TableBuilder(PAIRS), 0
    for line, text in text_lines(path):
        lines += 1
        pair = _parse_pair(text)
        if pair is None:
            dropped.add(f"{path.name}: not <user>_<query line> 0 <item> <0 or 1>", line)
        elif pair[1] not in row_of:
            dropped.add(f"{path.name}: {QUERY_FILE} has no such line", line)
        elif not pair[3]:
            dropped.add(f"{path.name}: judged as not relevant", line)
        else:
            table.add(pair[0], pair[2], row_of[pair[1]], line)
    return table.table(), lines


def _parse_pair(text: str) -> tuple[str, int, str, bool] | None:
    """User, query line, item, and whether relevant. The user may hold underscores: the last one divides."""
    cells = text.split()
    if len(cells) != 4 or cells[3] not in ("0", "1"):
        return None
    user, _, query = cells[0].rpartition("_")
    if not user or not _is_number(query):
        return None
    return user, int(query), cells[2], cells[3] == "1"


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) <= DIGITS


def _searches(pairs: pa.Table, split: Split, queries: pa.Table) -> pa.Table:
    """Search events at time 0."""
    size = pairs.num_rows
    texts = queries["query"].combine_chunks()
    codes = pairs["query"].combine_chunks()
    return pa.table(
        {
            "user_id": pairs["user_id"],
            "item_id": pairs["item_id"],
            "timestamp": pa.repeat(pa.scalar(0, pa.int64()), size),
            "task": pa.repeat(pa.scalar(int(Task.SEARCH), pa.int8()), size),
            "query": pa.DictionaryArray.from_arrays(codes, texts),
            "split": pa.repeat(pa.scalar(int(split), pa.int8()), size),
            "line": pairs["line"],
        }
    )


def _placed(
    searches: pa.Table, files: Files, reviews_path: Path, lines_path: Path, dropped: Dropped, rows: dict[str, int]
) -> tuple[pa.Table, dict[str, int]]:
    """All events of the reviews with column ``order``: the searches at their review's time, and a recommendation each.

    A pair of the training file belongs to a review that trains, one of the test file to a hidden one.
    """
    find_version(reviews_path, "2014")
    reviews, rows[reviews_path.name] = read_reviews(reviews_path, LAYOUT, dropped)
    if not reviews.num_rows:
        raise BadInputError(f"{reviews_path}: not one of its {rows[reviews_path.name]:,} lines is a review")
    numbers, rows[lines_path.name] = _read_review_lines(lines_path, dropped)
    order = reviews["order"].to_numpy()
    hidden = ~np.isin(order, numbers)
    dropped.add(
        f"{lines_path.name}: {reviews_path.name} has no such review", rows=int((~np.isin(numbers, order)).sum())
    )
    searches = with_whole_dictionaries(searches)
    found = _reviews_of(searches, reviews, hidden)
    for split, path in files.qrels.items():
        lost = (found < 0) & (searches["split"].to_numpy() == split)
        which = "hidden reviews" if split is Split.TEST else "reviews that train"
        first = searches["line"].to_numpy()[lost][:SHOWN_LINES].tolist()
        dropped.add_lines(f"{path.name}: no such purchase among the {which}", first, int(lost.sum()))
    counts = {"train": int((~hidden).sum()), "hidden": int(hidden.sum()), "searches_placed": int((found >= 0).sum())}
    code, texts = codes_of(searches["query"])
    division = np.where(hidden, Split.TEST, Split.TRAIN).astype(np.int8)
    placed = found >= 0
    return both_faces(reviews.append_column("split", pa.array(division)), found[placed], code[placed], texts), counts


def _read_review_lines(path: Path, dropped: Dropped) -> tuple[np.ndarray, int]:
    """The numbers, from 0, of the lines of the reviews that train, distinct int64; and how many lines the file has."""
    table, lines = TableBuilder(pa.schema([("number", pa.int64())])), 0
    for line, text in text_lines(path):
        lines += 1
        number = text.strip().removeprefix("line_")
        if _is_number(number):
            table.add(int(number))
        else:
            dropped.add(f"{path.name}: not line_<number>", line)
    return np.unique(table.table()["number"].to_numpy()), lines


def _reviews_of(searches: pa.Table, reviews: pa.Table, hidden: np.ndarray) -> np.ndarray:
    """Row of the review that each search is the other face of, the first where several fit; -1 where none does."""
    user, users = codes_of(reviews["user_id"])
    item, items = codes_of(reviews["item_id"])
    asked = [_codes_in(searches["user_id"], users), _codes_in(searches["item_id"], items)]
    bought = 2 * (user.astype(np.int64) * len(items) + item) + hidden
    wanted = 2 * (asked[0] * len(items) + asked[1]) + (searches["split"].to_numpy() == Split.TEST)
    by_key = np.argsort(bought, kind="stable")
    row = by_key[np.minimum(np.searchsorted(bought[by_key], wanted), len(bought) - 1)]
    return np.where((bought[row] == wanted) & (asked[0] >= 0) & (asked[1] >= 0), row, -1)


def _codes_in(column: pa.ChunkedArray, texts: pa.Array) -> np.ndarray:
    """Rows of `texts`, int64 [E], -1 where it lacks the column's."""
    codes, own = codes_of(column)
    rows = pc.fill_null(pc.index_in(own, value_set=texts), -1).to_numpy().astype(np.int64)
    return np.asarray(rows[codes])
