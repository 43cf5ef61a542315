"""RecBole's atomic files: what the largest library of recommenders, and its many copies, exchange data in.

The files say the type of every field but not what it means, so meanings are guessed from usual names. Files that come
divided bring their split along, which is how published numbers on them are compared.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gensr.data.log import EVENTS, ITEMS, SHOWN_ROWS, TEXT, EventLog, Origin, check_log, no_text
from gensr.data.sources.columns import ALIASES, codes_of_words, guess, tasks_of_queries
from gensr.data.sources.formats import TableFile, open_table
from gensr.data.sources.items import complete, ids_in, without_text
from gensr.data.sources.parts import PartsOrigin
from gensr.data.sources.published import RecBoleConfig
from gensr.data.sources.text import content_hash, existing, find_optional, format_suffix, names_in, text_lines
from gensr.data.split import SPELLINGS as SPLITS
from gensr.data.split import Split
from gensr.data.tasks import SPELLINGS
from gensr.errors import BadInputError, did_you_mean

TYPES = ("token", "token_seq", "float", "float_seq")
SEPARATORS = "\t,;| "
USUAL = ALIASES | {
    "user_id": (*ALIASES["user_id"], "session_id"),
    "item_id": (*ALIASES["item_id"], "business_id"),
    "query": (*ALIASES["query"], "query_text"),
    "title": ("title", "item_title", "movie_title", "item_name", "product_name", "name"),
    "categories": (*ALIASES["categories"], "class", "genre"),
}
"""Usual names of fields; see `ALIASES`."""


@dataclass(frozen=True)
class Files:
    """The files of one data set; `events` in the order of the splits, which are None for a file that is not divided."""

    events: tuple[tuple[Split | None, Path], ...]
    items: Path | None
    users: Path | None

    def each(self) -> list[Path | None]:
        """All of them, in a fixed order."""
        return [*(path for _, path in self.events), self.items, self.users]


@dataclass(frozen=True)
class AtomicFile:
    """A file whose header has been read.

    Attributes:
        table: its rows.
        types: the type of every field, by its name without type.
        columns: what every field is called in the header.
    """

    table: TableFile
    types: dict[str, str]
    columns: dict[str, str]


def read_log(config: RecBoleConfig) -> EventLog:
    """Events and items of the data set.

    Raises:
        BadInputError: files are missing or broken, a header is not RecBole's, or a needed field is not found.
    """
    files = find_files(config)
    rows: dict[str, int] = {}
    opened = [(split, open_atomic(path, quotes=config.quotes)) for split, path in files.events]
    own: dict[str, str] = {name: field for name, field in config.columns.items() if name in EVENTS.names}
    fields = _match(opened[0][1], EVENTS.names, own, ("user_id", "item_id"))
    if "timestamp" not in fields and config.order == "timestamp":
        raise BadInputError(
            f"{opened[0][1].table.path} has no field for timestamp; its fields: {', '.join(opened[0][1].types)}. Say "
            'which it is in data.source.columns: {"timestamp": "..."}, or that the rows are in order of time in '
            'data.source.order: "file"'
        )
    rounded, tables = 0, []
    for split, file in opened:
        table, fractions = _events(file, fields, config, split, start=sum(rows.values()))
        tables.append(table)
        rows[file.table.path.name] = table.num_rows
        rounded += fractions
    events = pa.concat_tables(tables)
    items, about, items_from = _items(files, config, events, rows)
    report: dict[str, Any] = {"files": rows, "dropped": {}, "events": _used(opened[0][1], fields), "items": about}
    report |= {"timestamps_rounded_down": rounded} if rounded else {}
    if files.users is not None:
        rows[files.users.name] = sum(1 for _ in text_lines(files.users)) - 1
        report["users"] = _used(open_atomic(files.users, quotes=config.quotes), {})
    return check_log(
        events,
        items,
        report,
        time_unit=config.time_unit if "timestamp" in fields else "none",
        time_zone=config.time_zone,
        events_from=_origin([file.table for _, file in opened], tables),
        items_from=items_from,
    )


def _used(file: AtomicFile, fields: Mapping[str, str]) -> dict[str, Any]:
    """Which fields were taken for what, and which were not read."""
    return {"fields": dict(fields), "not_read": [field for field in file.types if field not in fields.values()]}


def _origin(files: list[TableFile], tables: list[pa.Table]) -> Origin:
    """For complaints about rows of the `tables` that were read from the `files`, one after the other."""
    starts = np.cumsum([0, *(table.num_rows for table in tables)]).tolist()
    parts = zip(starts, (file.origin for file in files), strict=False)
    return PartsOrigin("events", parts=tuple(parts))


def identity(config: RecBoleConfig) -> str:
    """Hash of the options and of the files' content, what each file is for included."""
    files = find_files(config)
    uses = [None if split is None else int(split) for split, _ in files.events]
    return content_hash(f"{config.model_dump_json(exclude={'path'})}{uses}", files.each())


def recognise(path: Path) -> Path | None:
    """`path`, if it is an ``.inter`` file or a folder with one."""
    names = {path.name} if path.is_file() else names_in(path)
    return path if any(format_suffix(Path(name)) == ".inter" for name in names) else None


def find_files(config: RecBoleConfig) -> Files:
    """The files of the one data set at the path.

    Raises:
        BadInputError: none, or several to choose from.
    """
    path = Path(config.path)
    folder = path if path.is_dir() else existing(path).parent
    sets: dict[str, dict[str, Path]] = {}
    for file in sorted(folder.iterdir()):
        if file.is_file() and format_suffix(file) == ".inter":
            name, part = _name_and_part(file)
            sets.setdefault(name, {})[part] = file
    if path.is_dir():
        name, parts = _only_set(folder, sets)
    elif format_suffix(path) == ".inter":
        name, part = _name_and_part(path)
        parts = {part: file for part, file in sets[name].items() if part} if part else {"": path}
    else:
        raise BadInputError(f"data.source.path: {path} is no .inter file; expected one, or the folder it lies in")
    events = sorted((SPLITS[part], file) for part, file in parts.items()) if "" not in parts else [(None, parts[""])]
    others = (find_optional(folder, f"{name}{suffix}") for suffix in (".item", ".user"))
    return Files(tuple(events), *others)


def _name_and_part(file: Path) -> tuple[str, str]:
    """``ml-1m`` and ``train`` of ``ml-1m.train.inter.gz``; the part is ``""`` for whole files."""
    stem = file.name[: file.name.lower().rindex(".inter")]
    name, _, part = stem.rpartition(".")
    return (name, part) if name and part in SPLITS else (stem, "")


def _only_set(folder: Path, sets: dict[str, dict[str, Path]]) -> tuple[str, dict[str, Path]]:
    files = [file.name for parts in sets.values() for file in parts.values()]
    if not files:
        holds = ", ".join(sorted(file.name for file in folder.iterdir())[:20]) or "nothing"
        raise BadInputError(f"data.source.path: no .inter file in {folder}; it holds {holds}")
    name, parts = next(iter(sets.items()))
    if len(sets) > 1 or ("" in parts and len(parts) > 1):
        raise BadInputError(
            f"data.source.path: {folder} holds several .inter files: {', '.join(files)}. Name the one to read; the "
            "files of one divided data set are called NAME.{train,valid,test}.inter"
        )
    return name, parts


def open_atomic(path: Path, *, quotes: bool) -> AtomicFile:
    """The file at `path`, its separator found in its header.

    Raises:
        BadInputError: the header is no list of ``field:type``, or the file holds sequences instead of events.
    """
    header = next((text for _, text in text_lines(path)), "")
    separator = max(SEPARATORS, key=lambda mark: len(_fields(header, mark)))
    if fields := _fields(header, separator):
        columns = {cell.strip().rpartition(":")[0]: cell for cell in header.split(separator)}
        return AtomicFile(open_table(path, delimiter=separator, quotes=quotes), fields, columns)
    bad = next((cell for cell in re.split("[\t,]", header) if cell.strip().rpartition(":")[2] not in TYPES), header)
    hint = did_you_mean(bad.rpartition(":")[2], TYPES)
    raise BadInputError(
        f"{path}: line 1 is no header of RecBole: {bad[:60]!r} is not field:type with one of the types "
        f"{', '.join(TYPES)}{hint}"
    )


def _fields(header: str, separator: str) -> dict[str, str]:
    """The types of the fields of a header; none where `separator` does not leave ``field:type`` throughout."""
    cells = [cell.strip().rpartition(":") for cell in header.split(separator)]
    return {field: kind for field, _, kind in cells} if all(c[0] and c[2] in TYPES for c in cells) else {}


def _match(file: AtomicFile, wanted: Iterable[str], given: Mapping[str, str], needed: Iterable[str]) -> dict[str, str]:
    """The file's field for each canonical name it has: the one `given`, or a usual one."""
    path, found = file.table.path, {}
    if "item_id_list" in file.types:
        raise BadInputError(
            f"{path} holds item_id_list: sequences made for training, in which events repeat. Read the .inter file of "
            "single events that they were made from"
        )
    for name in wanted:
        field = given[name] if name in given else guess(name, list(file.types), USUAL)
        if field in file.types:
            found[name] = field
        elif field is not None or name in needed:
            hint = did_you_mean(field or name, file.types) or "."
            raise BadInputError(
                f"{path} has no field {field or name!r}{' for ' + name if field else ''}{hint} Fields: "
                f'{", ".join(file.types)}. Say which it is in data.source.columns: {{"{name}": "..."}}'
            )
    return found


def _events(
    file: AtomicFile, fields: Mapping[str, str], config: RecBoleConfig, split: Split | None, *, start: int
) -> tuple[pa.Table, int]:
    """Events of one file, `start` rows after the first of the data set; and how many times were rounded down."""
    columns = {name: file.columns[field] for name, field in fields.items() if field in file.types}
    if len(columns) < len(fields):
        raise BadInputError(f"{file.table.path} lacks fields of the other files: {', '.join(fields.values())}")
    kinds = {column: pa.string() if name == "timestamp" else TEXT for name, column in columns.items()}
    parts, rounded, first = [], 0, 0
    for batch in file.table.batches(kinds):
        cells = {name: batch[column] for name, column in columns.items()}
        count = batch.num_rows
        order = pa.array(np.arange(start + first, start + first + count))
        time, fractions = _times(cells["timestamp"], file.table, first) if "timestamp" in cells else (order, 0)
        query = cells.get("query", no_text(count))
        if "query" in cells:
            query = _joined(query, file.types[fields["query"]], config)
        task = _tasks(cells["task"], file.table, first) if "task" in cells else tasks_of_queries(query)
        row = {
            "user_id": cells["user_id"],
            "item_id": cells["item_id"],
            "timestamp": time,
            "task": task,
            "query": query,
        }
        row |= {"order": order} if config.order == "file" and "timestamp" in cells else {}
        row |= {} if split is None else {"split": pa.array(np.full(count, split, np.int8))}
        parts.append(pa.table(row))
        rounded, first = rounded + fractions, first + count
    if not parts:
        raise BadInputError(f"{file.table.path} is empty: it holds no rows under its header")
    return pa.concat_tables(parts), rounded


def _times(column: pa.Array, table: TableFile, first: int) -> tuple[pa.Array, int]:
    """Timestamps int64 of a text column, which may be whole numbers written as floats; and how many were rounded."""
    try:
        return column.cast(pa.int64()), 0
    except pa.ArrowInvalid:
        pass
    try:
        numbers = pc.fill_null(column.cast(pa.float64()), np.nan).to_numpy()
        bad = np.flatnonzero(~(np.abs(numbers) < 2**63))
    except pa.ArrowInvalid:
        bad = np.array([row for row, text in enumerate(column.to_pylist()) if not _is_number(text)])
    if len(bad):
        values = column.take(pa.array(bad[:SHOWN_ROWS])).to_pylist()
        raise table.origin.complaint("bad timestamp", bad + first, values, expected="Expected a number")
    whole = np.floor(numbers)
    return pa.array(whole.astype(np.int64)), int((whole != numbers).sum())


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def _tasks(column: pa.DictionaryArray, table: TableFile, first: int) -> pa.Array:
    """`Task` codes of a column of words."""
    codes = codes_of_words(column, SPELLINGS)
    if len(bad := np.flatnonzero(codes < 0)):
        values = column.take(pa.array(bad[:SHOWN_ROWS])).to_pylist()
        known = f"Known: {', '.join(SPELLINGS)}{did_you_mean(values[0].lower(), SPELLINGS)}"
        raise table.origin.complaint("unknown task", bad + first, values, expected=known)
    return pa.array(codes)


def _joined(column: pa.DictionaryArray, kind: str, config: RecBoleConfig) -> pa.DictionaryArray:
    """Texts, the elements of sequences joined by spaces."""
    if kind != "token_seq" or not config.sequence_separator.strip():
        return column
    words = pc.replace_substring(column.dictionary, config.sequence_separator, " ")
    return pa.DictionaryArray.from_arrays(column.indices, words)


def _items(
    files: Files, config: RecBoleConfig, events: pa.Table, rows: dict[str, int]
) -> tuple[pa.Table, dict[str, Any], Origin | None]:
    """The catalogue of the schema `ITEMS`, what to report of it, and where it comes from."""
    used = ids_in(events["item_id"])
    own: dict[str, str] = {name: field for name, field in config.columns.items() if name in ITEMS.names}
    if files.items is None:
        if texts := sorted(own.keys() - {"item_id"}):
            raise BadInputError(
                f"data.source.columns names {' and '.join(texts)}, fields of items, and there is no .item file beside "
                f"{files.events[0][1]}"
            )
        return without_text(used), {"file": None}, None
    file = open_atomic(files.items, quotes=config.quotes)
    if own.get("item_id") not in file.types:  # it may be meant for the events alone
        own.pop("item_id", None)
    fields = _match(file, ITEMS.names, own, ("item_id",))
    table = file.table.read([file.columns[field] for field in fields.values()]).rename_columns(list(fields))
    rows[files.items.name] = table.num_rows
    columns = {name: _texts(table, name, file, fields, config) for name in ITEMS.names}
    table = pa.table(columns, schema=ITEMS)
    items, absent = complete(table, used)
    return items, _used(file, fields) | {f"absent_from_{files.items.name}": absent}, file.table.origin


def _texts(
    table: pa.Table, name: str, file: AtomicFile, fields: Mapping[str, str], config: RecBoleConfig
) -> pa.Array | pa.ChunkedArray:
    """A column of the catalogue: elements of sequences are words of a title, but categories of their own."""
    if name not in fields:
        return pa.array([""] * table.num_rows, pa.string())
    if name == "item_id":
        return table[name]
    texts = pc.utf8_trim_whitespace(pc.fill_null(table[name], ""))
    sequence = file.types[fields[name]] == "token_seq"
    separator = config.sequence_separator.strip()
    if name == "title":
        return pc.replace_substring(texts, config.sequence_separator, " ") if sequence and separator else texts
    texts = pc.replace_substring(texts, "|", " ")
    if not sequence:
        return texts
    if not separator:
        return pc.replace_substring_regex(texts, r"\s+", "||")
    between = rf"(\s*{re.escape(separator)}\s*)+"
    texts = pc.replace_substring_regex(texts, rf"^{between}|{between}$", "")
    return pc.replace_substring_regex(texts, between, "||")
