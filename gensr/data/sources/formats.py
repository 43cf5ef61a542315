"""Tables on disk, whatever their format: column names, chosen columns in chosen types, and the line of a bad row.

Reading is left to pyarrow and comes in batches, so that a file may be larger than the memory. Only when a row turns
out bad is the file read again, slowly, to say exactly where.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence, Sized
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from gensr.data.log import SHOWN_CHARACTERS, TEXT, Origin
from gensr.data.sources.text import existing, format_suffix, open_binary, readable
from gensr.errors import BadInputError, did_you_mean

SUFFIXES = (".csv", ".tsv", ".jsonl", ".ndjson", ".parquet")
TEXTS = (pa.string(), TEXT)
MAX_COLUMNS = 10_000
SHOWN_COLUMNS = 50
"""Columns of many in a complaint."""


def listed(columns: Sequence[str]) -> str:
    """Names of columns for a complaint, the first ones of many."""
    names = [name[:SHOWN_CHARACTERS] for name in columns[:SHOWN_COLUMNS]]
    more = f" and {len(columns) - len(names):,} more" if len(columns) > len(names) else ""
    return ", ".join(names) + more


class TableFile(ABC):
    """A table on disk.

    Attributes:
        path: where it lies.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @cached_property
    def columns(self) -> list[str]:
        """Names of the columns.

        Raises:
            BadInputError: two of them have the same name, or there are more than `MAX_COLUMNS`.
        """
        names, places = self._names(), dict[str, int]()
        self._refuse_too_many(names)
        for place, name in enumerate(names, start=1):
            if name and places.setdefault(name, place) != place:
                both = f"columns {places[name]} and {place}"
                raise BadInputError(f"{self.path} has two columns named {name!r}, {both}; rename or remove one")
        return names

    def batches(
        self, columns: Mapping[str, pa.DataType | None], *, lists: Mapping[str, str] | None = None
    ) -> Iterator[pa.RecordBatch]:
        """Some columns, row by row in file order, a bounded number of rows at a time.

        Empty cells are ``""`` in text columns of delimited files and null in all else.

        Args:
            columns: their types; None leaves a column as the file has it: as text in text formats. In text columns
                (`pa.string()` or `TEXT`) whole numbers become decimal text, ``12`` for 12.0 too.
            lists: columns whose cells may be lists, and what to write between their elements; twice between lists of
                lists.

        Raises:
            BadInputError: no such column, an unreadable or broken file, or a value that does not fit its type; names
                file and line.
        """
        for name in columns:
            self.require(name)
        return self._batches(columns, lists or {})

    def read(self, columns: Sequence[str], *, lists: Mapping[str, str] | None = None) -> pa.Table:
        """All rows of some columns as text; see `batches`."""
        kinds = {name: pa.string() for name in columns}
        return pa.Table.from_batches(self.batches(kinds, lists=lists), pa.schema(kinds.items()))

    def require(self, name: str) -> None:
        """Raise `BadInputError` where there is no column `name`; tells which there are."""
        if name not in self.columns:
            hint = did_you_mean(name, self.columns) or "."
            raise BadInputError(f"{self.path} has no column {name!r}{hint} Columns: {listed(self.columns)}")

    def _refuse_too_many(self, names: Sized) -> None:
        if len(names) > MAX_COLUMNS:
            raise BadInputError(f"{self.path} has more than {MAX_COLUMNS:,} columns; expected one row a line")

    @property
    def origin(self) -> Origin:
        """For complaints about rows."""
        return Origin(str(self.path), self.lines)

    def lines(self, rows: Sequence[int]) -> list[int]:
        """Line numbers, from 1, of ascending row numbers, from 0."""
        starts, row, found = self._starts(), 0, []
        for wanted in rows:
            found.append(next(islice(starts, wanted - row, None)))
            row = wanted + 1
        return found

    def misfit(self, row: int, column: str, value: Any, expected: str) -> BadInputError:
        """The complaint about a value that its column cannot hold."""
        return self.origin.complaint(f"bad {column}", [row], [value], expected=f"Expected {expected}")

    @abstractmethod
    def _names(self) -> list[str]:
        """Names of the columns, as they stand there."""

    @abstractmethod
    def _batches(self, columns: Mapping[str, pa.DataType | None], lists: Mapping[str, str]) -> Iterator[pa.RecordBatch]:
        """See `batches`; all `columns` are there."""

    @abstractmethod
    def _starts(self) -> Iterator[int]:
        """The line on which each row starts."""


def open_table(
    path: Path | str,
    *,
    delimiter: str | None = None,
    header: Sequence[str] | None = None,
    encoding: str = "utf-8",
    quotes: bool = True,
) -> TableFile:
    """The table at `path`, by its suffix.

    Args:
        path: the file; it may be compressed (`.gz`, `.zst`).
        delimiter: the character between cells, whatever the suffix; where absent, a tab in `.tsv`, and in `.csv` a
            comma, or the tab, semicolon or bar that a first line without comma has.
        header: the columns of a delimited file that has no header line.
        encoding: of a delimited file.
        quotes: whether ``"`` encloses cells of a delimited file.

    Raises:
        BadInputError: no such file, an empty one, or a format gensr does not read.
    """
    from gensr.data.sources.delimited import DelimitedFile, guess_delimiter
    from gensr.data.sources.jsonlines import JsonLinesFile
    from gensr.data.sources.parquet import ParquetFile

    path = existing(path)
    kind = format_suffix(path)
    if delimiter is None and kind not in SUFFIXES:
        raise BadInputError(
            f"{path}: unknown format; gensr reads {', '.join(SUFFIXES)}, the text formats also as .gz or .zst"
        )
    with readable(path), open_binary(path) as stream:
        if not stream.read(1):
            raise BadInputError(f"{path} is empty")
    if delimiter is not None or kind in (".csv", ".tsv"):
        delimiter = delimiter or ("\t" if kind == ".tsv" else guess_delimiter(path, encoding))
        return DelimitedFile(path, delimiter, header=header, encoding=encoding, quotes=quotes)
    return ParquetFile(path) if kind == ".parquet" else JsonLinesFile(path)


class Misfit(NamedTuple):
    """A value that does not fit its column.

    Attributes:
        row: within the batch, from 0.
        value: as it stands there.
        expected: what would fit.
    """

    row: int
    value: Any
    expected: str


def text_of(value: Any, separator: str | None) -> str | None:
    """A value as text, None for none; lists joined by `separator`.

    A ``|`` in an element becomes a space where it would read as a separator.

    Raises:
        ValueError: it is no text, whole number or, with a separator, list of such.
    """
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, list) and separator is not None:
        if any(isinstance(level, list) for level in value):
            return (2 * separator).join(text_of(level, separator) or "" for level in value)
        levels = (text_of(level, None) or "" for level in value)
        return separator.join(level.replace("|", " ") if separator == "|" else level for level in levels)
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if isinstance(value, float) and math.isnan(value):
        return None
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    raise ValueError("text or a whole number" if separator is None else "text or a list of texts")


def convert(column: pa.Array, kind: pa.DataType) -> pa.Array | Misfit:
    """A column in another type, or the first value that does not fit it."""
    try:
        return _cast(column, kind)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        good, bad = 0, len(column)  # the first `good` fit, the first `bad` do not
        while bad - good > 1:
            middle = (good + bad) // 2
            try:
                _cast(column.slice(good, middle - good), kind)
                good = middle
            except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
                bad = middle
        return Misfit(good, _shown(column[good]), "text or a whole number" if kind in TEXTS else str(kind))


def _cast(column: pa.Array, kind: pa.DataType) -> pa.Array:
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if column.type != kind and (pa.types.is_boolean(column.type) or pa.types.is_temporal(column.type)):
        raise pa.ArrowInvalid("neither a text nor a number")
    if kind not in TEXTS:
        return column.cast(kind)
    if pa.types.is_floating(column.type):  # pandas makes them of whole numbers where a cell is empty
        column = pc.if_else(pc.is_nan(column), None, column).cast(pa.int64())
    text = column.cast(pa.string())
    return text.dictionary_encode() if kind == TEXT else text


def _shown(value: pa.Scalar) -> Any:
    try:
        return value.as_py()
    except ValueError:  # broken text
        return value.cast(pa.binary()).as_py()
