"""MovieLens in its three generations of files: ratings as recommendations, tags as searches.

A tag is real text that a user wrote about one movie. It was written to label, not to find, so it makes an honest but
small test of both tasks with real times, real titles and no synthesis.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gensr.data.log import EVENTS, ITEMS, TEXT, EventLog, Origin, check_log, no_text, normalise_query
from gensr.data.sources.formats import TableFile, open_table
from gensr.data.sources.items import complete, ids_in
from gensr.data.sources.published import MovieLensConfig
from gensr.data.sources.text import (
    SHOWN_LINES,
    Dropped,
    TableBuilder,
    content_hash,
    find_file,
    find_optional,
    format_suffix,
    names_in,
    open_binary,
    readable,
    text_lines,
)
from gensr.data.tasks import Task
from gensr.data.times import Rows, check_times
from gensr.errors import BadInputError

LAYOUTS = {"u.data": "u.item", "ratings.dat": "movies.dat", "ratings.csv": "movies.csv"}
"""Ratings and movies of 100K; of 1M and 10M; of 20M and later."""

RATINGS = ("userId", "movieId", "rating", "timestamp")
TAGS = {"userId": TEXT, "movieId": TEXT, "tag": TEXT, "timestamp": pa.int64()}
MOVIES = ("movieId", "title", "genres")
NO_GENRE = ("(no genres listed)", "unknown")


@dataclass(frozen=True)
class Files:
    """The files of one edition; absent ones are None."""

    ratings: Path
    movies: Path
    tags: Path | None
    genres: Path | None

    def each(self) -> list[Path | None]:
        """All of them, in a fixed order."""
        return [self.ratings, self.movies, self.tags, self.genres]


def read_log(config: MovieLensConfig) -> EventLog:
    """Ratings from `min_rating` on and tags, with the movies' titles and genres; times in Unix seconds.

    Raises:
        BadInputError: files are missing or broken, or no event is left.
    """
    files, dropped = find_files(config), Dropped()
    rows: dict[str, int] = {}
    events = [_ratings(files.ratings, config.min_rating, dropped, rows)]
    if files.tags is not None and config.tags:
        events.append(_tags(files.tags, config.drop_tags, dropped, rows))
    joined = pa.concat_tables(events)
    if not joined.num_rows:
        read = ", ".join(f"{count:,} rows of {name}" for name, count in rows.items())
        why = f". {dropped.reasons()}" if dropped.total else ""
        raise BadInputError(f"{config.path}: no event is left of {read}{why}")
    movies, movies_from = _movies(files)
    rows[files.movies.name] = movies.num_rows
    movies, absent = complete(movies, ids_in(joined["item_id"]))
    report = {
        "files": rows,
        "dropped": dropped.report(),
        "recommendations": events[0].num_rows,
        "searches": joined.num_rows - events[0].num_rows,
        f"items_absent_from_{files.movies.name}": absent,
    }
    return check_log(joined, movies, report, time_unit="s", items_from=movies_from)


def identity(config: MovieLensConfig) -> str:
    """Hash of the options and of the files' content."""
    return content_hash(config.model_dump_json(exclude={"path"}), find_files(config).each())


def recognise(path: Path) -> Path | None:
    """The folder with the ratings and the movies of an edition, if `path` is it or its file of ratings."""
    folder = path.parent if path.name in LAYOUTS else path
    names = names_in(folder)
    return folder if any({ratings, movies} <= names for ratings, movies in LAYOUTS.items()) else None


def find_files(config: MovieLensConfig) -> Files:
    """The files of the edition in the folder.

    Raises:
        BadInputError: none or several editions, or one without its movies.
    """
    folder = Path(config.path)
    ratings = find_file(folder, *LAYOUTS)
    others = [name for name in LAYOUTS if find_optional(folder, name) not in (None, ratings)]
    if others:
        raise BadInputError(f"data.source.path: {folder} holds {ratings.name} and {others[0]}, of different editions")
    name = next(name for name in LAYOUTS if ratings.name.startswith(name))
    movies, old = find_file(folder, LAYOUTS[name]), name == "u.data"
    tags = None if old else find_optional(folder, f"tags{Path(name).suffix}")
    return Files(ratings, movies, tags, find_file(folder, "u.genre") if old else None)


def _ratings(path: Path, least: float, dropped: Dropped, rows: dict[str, int]) -> pa.Table:
    """Events of the schema `EVENTS` from the ratings of at least `least`."""
    kinds = dict(zip(RATINGS, (TEXT, TEXT, pa.float64(), pa.int64()), strict=True))
    parts, low = [], 0
    for batch in _full_rows(_open_ratings(path), kinds, dropped, rows):
        kept = batch.filter(pc.greater_equal(batch["rating"], least))
        low += batch.num_rows - kept.num_rows
        parts.append(_events(kept, Task.RECOMMENDATION, no_text(kept.num_rows)))
    dropped.add(f"{path.name}: rating below {least:g}", rows=low)
    return pa.concat_tables([EVENTS.empty_table(), *parts])


def _open_ratings(path: Path) -> TableFile:
    kind = format_suffix(path)
    if kind == ".csv":
        return open_table(path)
    if kind == ".data":
        return open_table(path, delimiter="\t", header=RATINGS, quotes=False)
    # "::" is a ":", an empty cell and a ":", for nothing but numbers stands between.
    header = [name for rating in RATINGS for name in (rating, f"after {rating}")][:-1]
    return open_table(path, delimiter=":", header=header, quotes=False)


def _full_rows(
    file: TableFile, kinds: Mapping[str, pa.DataType], dropped: Dropped, rows: dict[str, int]
) -> Iterator[pa.Table]:
    """Rows in which no cell is empty, batch by batch, with checked times; the others are counted."""
    start = 0
    for batch in file.batches(kinds):
        full = np.logical_and.reduce([_filled(batch[name]) for name in kinds])
        kept = np.flatnonzero(full) + start  # row numbers in the file
        if len(kept) < len(full):
            empty = (np.flatnonzero(~full)[:SHOWN_LINES] + start).tolist()
            dropped.add_lines(f"{file.path.name}: an empty cell", file.lines(empty), len(full) - len(kept))
            batch = batch.filter(pa.array(full))
        check_times(batch["timestamp"].to_numpy(), "s", _complaint(file, kept))
        start += len(full)
        yield pa.table([batch[name] for name in kinds], names=list(kinds))
    rows[file.path.name] = start


def _filled(cells: pa.Array) -> np.ndarray:
    """Which cells hold something, bool [rows]; white space is nothing."""
    if pa.types.is_dictionary(cells.type):
        filled = pc.not_equal(pc.utf8_trim_whitespace(cells.dictionary), "").take(cells.indices)
    else:
        filled = cells.is_valid()
    return np.asarray(filled.to_numpy(zero_copy_only=False))


def _complaint(file: TableFile, kept: np.ndarray) -> Rows:
    """Complaints about rows of a batch, whose row numbers in the file are `kept`."""

    def complain(problem: str, rows: np.ndarray, values: list[int], *, expected: str) -> BadInputError:
        return file.origin.complaint(problem, kept[rows], values, expected=expected)

    return complain


def _events(rows: pa.Table, task: Task, query: pa.Array | pa.ChunkedArray) -> pa.Table:
    codes = pa.array(np.full(rows.num_rows, task, np.int8))
    return pa.table([rows["userId"], rows["movieId"], rows["timestamp"], codes, query], schema=EVENTS)


def _tags(path: Path, unwanted: tuple[str, ...], dropped: Dropped, rows: dict[str, int]) -> pa.Table:
    """Events of the schema `EVENTS` from the tags, but for the `unwanted` and the empty ones."""
    refused = {normalise_query(tag).casefold() for tag in unwanted}
    parts, blank, refusals = [EVENTS.empty_table()], 0, 0
    csv = format_suffix(path) == ".csv"
    for batch in _full_rows(open_table(path), TAGS, dropped, rows) if csv else _tags_of_dat(path, dropped, rows):
        tags = batch["tag"].combine_chunks()
        words = [normalise_query(tag).casefold() for tag in tags.dictionary.to_pylist()]
        empty = np.array([not word for word in words], bool)[tags.indices.to_numpy()]
        refuse = np.array([word in refused for word in words], bool)[tags.indices.to_numpy()]
        blank, refusals = blank + int(empty.sum()), refusals + int((refuse & ~empty).sum())
        kept = batch.filter(pa.array(~(empty | refuse)))
        parts.append(_events(kept, Task.SEARCH, kept["tag"]))
    dropped.add(f"{path.name}: a blank tag", rows=blank)
    dropped.add(f"{path.name}: a tag of drop_tags", rows=refusals)
    return pa.concat_tables(parts)


def _tags_of_dat(path: Path, dropped: Dropped, rows: dict[str, int]) -> Iterator[pa.Table]:
    """All tags of a file of lines ``user::movie::tag::time``; a tag may hold ``::`` itself."""
    builder, count = TableBuilder(pa.schema([*TAGS.items(), ("line", pa.int64())])), 0
    for line, text in text_lines(path):
        count += 1
        user, movie, *tag, time = text.split("::") if text.count("::") > 2 else ("", "", "", "")
        if user and movie and time.isdecimal() and len(time) < 13:
            builder.add(user, movie, "::".join(tag), int(time), line)
        else:
            dropped.add(f"{path.name}: not user::movie::tag::time", line)
    rows[path.name] = count
    table = builder.table().unify_dictionaries().combine_chunks()
    lines = table["line"].to_numpy()
    origin = Origin(str(path), lambda bad: lines[list(bad)].tolist())
    check_times(table["timestamp"].to_numpy(), "s", origin.complaint)
    yield from (pa.Table.from_batches([batch]) for batch in table.to_batches())


def _movies(files: Files) -> tuple[pa.Table, Origin]:
    """Items of the schema `ITEMS`, genres as hierarchies of one level; and where they come from."""
    if files.genres is not None:
        table, origin = _movies_of_100k(files.movies, files.genres)
    elif format_suffix(files.movies) == ".csv":
        file = open_table(files.movies)
        table, origin = file.read(MOVIES), file.origin
    else:
        table, origin = _movies_of_dat(files.movies)
    genres = pc.utf8_trim_whitespace(table["genres"])
    genres = pc.if_else(pc.is_in(genres, value_set=pa.array(NO_GENRE)), "", pc.replace_substring(genres, "|", "||"))
    return pa.table([table["movieId"], pc.utf8_trim_whitespace(table["title"]), genres], schema=ITEMS), origin


def _movies_of_100k(path: Path, genres: Path) -> tuple[pa.Table, Origin]:
    """Movies with a flag for each genre of ``u.genre``, whose lines are ``name|number``."""
    names: list[str] = []
    for line, text in text_lines(genres, encoding="latin-1"):
        name, _, number = text.rpartition("|")
        if number.strip() != str(len(names)):
            raise BadInputError(f"{genres}: line {line} is {text[:80]!r}; expected name|{len(names)}")
        names.append(name)
    about = ["movieId", "title", "released", "released on video", "url"]
    file = open_table(path, delimiter="|", header=[*about, *names], encoding="latin-1", quotes=False)
    table = file.read(file.columns)
    flags = np.stack([pc.equal(table[name], "1").to_numpy() for name in names], axis=1)
    texts = ["|".join(name for name, flag in zip(names, row, strict=True) if flag) for row in flags]
    return table.select(["movieId", "title"]).append_column("genres", pa.array(texts, pa.string())), file.origin


def _movies_of_dat(path: Path) -> tuple[pa.Table, Origin]:
    """Movies of lines ``id::title::genres``; a title may hold ``::`` itself."""
    builder = TableBuilder(pa.schema([*((name, pa.string()) for name in MOVIES), ("line", pa.int64())]))
    for line, text in text_lines(path, encoding=_encoding(path)):
        if text.count("::") < 2:
            raise BadInputError(f"{path}: line {line} is not id::title::genres: {text[:80]!r}")
        movie, *title, genres = text.split("::")
        builder.add(movie, "::".join(title), genres, line)
    table = builder.table()
    lines = table["line"].to_numpy()
    return table, Origin(str(path), lambda rows: lines[list(rows)].tolist())


def _encoding(path: Path) -> str:
    """UTF-8 (10M) or Latin-1 (1M, whose accents are no UTF-8)."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    with readable(path), open_binary(path) as stream:
        try:
            while block := stream.read(1 << 20):
                decoder.decode(block)
            decoder.decode(b"", final=True)
        except UnicodeDecodeError:
            return "latin-1"
    return "utf-8"
