"""Tables on disk, whatever their format: column names, chosen columns as text, and the line a bad row stands on.

Reading is left to pyarrow. Only when it refuses a file, or a row turns out bad, is the file read again slowly to say
exactly where.
"""

from __future__ import annotations

import csv
import gzip
import json
import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, cast

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from gensr.data.log import SHOWN_ROWS, Origin
from gensr.errors import BadInputError, did_you_mean

SUFFIXES = (".csv", ".tsv", ".jsonl", ".ndjson", ".parquet")


class TableFile(ABC):
    """A table on disk."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    @abstractmethod
    def columns(self) -> list[str]:
        """Names of the columns."""

    @abstractmethod
    def read(self, columns: Sequence[str]) -> pa.Table:
        """Some columns; text formats give strings, nulls may occur.

        Raises:
            BadInputError: the file is unreadable or broken; names the lines.
        """

    @property
    def origin(self) -> Origin:
        """For complaints about rows."""
        return Origin(str(self.path), self.lines)

    def lines(self, rows: Sequence[int]) -> list[int]:
        """Line numbers, from 1, of ascending row numbers, from 0."""
        wanted = set(rows)
        return [line for row, line in enumerate(self._starts()) if row in wanted]

    @abstractmethod
    def _starts(self) -> Iterator[int]:
        """The line on which each row starts."""


def open_table(path: Path) -> TableFile:
    """The table at `path`, by its suffix.

    Raises:
        BadInputError: no such file, an empty one, or a format gensr does not read.
    """
    if not path.is_file():
        near = did_you_mean(path.name, [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else [])
        raise BadInputError(f"no file {str(path)!r} in {Path.cwd()}{near}")
    kind = suffix(path)
    if kind not in SUFFIXES:
        raise BadInputError(f"{path}: unknown format; gensr reads {', '.join(SUFFIXES)}, the text formats also as .gz")
    with readable(path), _open(path) as stream:
        if not stream.read(1):
            raise BadInputError(f"{path} is empty")
    if kind == ".parquet":
        return ParquetFile(path)
    return DelimitedFile(path, "\t" if kind == ".tsv" else ",") if kind in (".csv", ".tsv") else JsonLinesFile(path)


def suffix(path: Path) -> str:
    """The suffix that tells the format: ``.csv`` of ``events.csv.gz``."""
    name = path.name.lower().removesuffix(".gz")
    return Path(name).suffix


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Turn failures to read `path` into `BadInputError`."""
    try:
        yield
    except (OSError, EOFError, zlib.error) as error:
        raise BadInputError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from None


def _open(path: Path) -> IO[bytes]:
    return cast(IO[bytes], gzip.open(path)) if path.name.lower().endswith(".gz") else path.open("rb")


class DelimitedFile(TableFile):
    """CSV or TSV with a header, quoted as spreadsheets do, perhaps gzipped."""

    def __init__(self, path: Path, delimiter: str) -> None:
        super().__init__(path)
        self.delimiter = delimiter

    @property
    def columns(self) -> list[str]:
        """See `TableFile.columns`."""
        with readable(self.path):
            _refuse_broken_utf8(self.path, lines=1)
            return next(self._records(), (1, [""]))[1]

    def read(self, columns: Sequence[str]) -> pa.Table:
        """See `TableFile.read`."""
        from pyarrow.csv import ConvertOptions, ParseOptions, read_csv

        try:
            with readable(self.path), _open(self.path) as stream:
                return read_csv(
                    stream,
                    parse_options=ParseOptions(delimiter=self.delimiter, newlines_in_values=True),
                    convert_options=ConvertOptions(
                        include_columns=list(columns), column_types={name: pa.string() for name in columns}
                    ),
                )
        except pa.ArrowInvalid as error:
            _refuse_broken_utf8(self.path)
            self._refuse_ragged_rows()
            raise BadInputError(f"{self.path} is no valid table: {error}") from None

    def _records(self) -> Iterator[tuple[int, list[str]]]:
        """Line and cells of every record, the header included; blank lines are none."""
        with _open(self.path) as stream:
            text = (line.decode("utf-8", errors="replace") for line in stream)
            reader = csv.reader((line.removeprefix("\ufeff") for line in text), delimiter=self.delimiter)
            start = 1
            for cells in reader:
                if cells:
                    yield start, cells
                start = reader.line_num + 1

    def _starts(self) -> Iterator[int]:
        records = self._records()
        next(records)
        return (line for line, _ in records)

    def _refuse_ragged_rows(self) -> None:
        records = self._records()
        width = len(next(records)[1])
        ragged = [(row, len(cells)) for row, (_, cells) in enumerate(records) if len(cells) != width]
        if ragged:
            rows, widths = zip(*ragged, strict=True)
            counts = [f"{count} cells" for count in widths[:SHOWN_ROWS]]
            raise self.origin.complaint(f"rows without the header's {width} cells", rows, counts)


class JsonLinesFile(TableFile):
    """One JSON object a line, perhaps gzipped. Lists become ``|``, lists of lists ``||``."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._objects: list[dict[str, Any]] | None = None

    @property
    def columns(self) -> list[str]:
        """See `TableFile.columns`."""
        return list({name: None for entry in self._load() for name in entry})

    def read(self, columns: Sequence[str]) -> pa.Table:
        """See `TableFile.read`."""
        entries = self._load()
        return pa.table({name: pa.array([_text(e.get(name)) for e in entries], pa.string()) for name in columns})

    def _load(self) -> list[dict[str, Any]]:
        if self._objects is None:
            _refuse_broken_utf8(self.path)
            objects, bad = [], []
            with readable(self.path), _open(self.path) as stream:
                for row, line in enumerate(line for line in stream if line.strip()):
                    try:
                        entry = json.loads(line)
                    except ValueError:
                        entry = None
                    if isinstance(entry, dict):
                        objects.append(entry)
                    else:
                        bad.append(row)
            if bad:
                raise self.origin.complaint("not one JSON object a line", bad)
            self._objects = objects
        return self._objects

    def _starts(self) -> Iterator[int]:
        with _open(self.path) as stream:
            yield from (number for number, line in enumerate(stream, start=1) if line.strip())


class ParquetFile(TableFile):
    """Apache Parquet; complaints name rows, for it has no lines."""

    @property
    def columns(self) -> list[str]:
        """See `TableFile.columns`."""
        with self._valid():
            return list(pq.read_schema(self.path).names)

    def read(self, columns: Sequence[str]) -> pa.Table:
        """See `TableFile.read`."""
        with self._valid():
            table = pq.read_table(self.path, columns=list(columns))
        for index, field in enumerate(table.schema):
            if pa.types.is_list(field.type) or pa.types.is_large_list(field.type):
                texts = [_text(value) for value in table[index].to_pylist()]
                table = table.set_column(index, field.name, pa.array(texts, pa.string()))
        return table

    @property
    def origin(self) -> Origin:
        """See `TableFile.origin`."""
        return Origin(str(self.path))

    @contextmanager
    def _valid(self) -> Iterator[None]:
        try:
            with readable(self.path):
                yield
        except pa.ArrowInvalid as error:
            raise BadInputError(f"{self.path} is no valid Parquet file: {error}") from None

    def _starts(self) -> Iterator[int]:
        raise NotImplementedError("rows of a Parquet file stand on no line")


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, list):
        nested = any(isinstance(level, list) for level in value)
        return ("||" if nested else "|").join(_text(level) for level in value)
    return str(value)


def _refuse_broken_utf8(path: Path, *, lines: int | None = None) -> None:
    """Raise `BadInputError` where one of the first `lines` lines (all where absent) is no UTF-8."""
    bad = []
    with readable(path), _open(path) as stream:
        for number, line in enumerate(stream, start=1):
            if lines is not None and number > lines:
                break
            try:
                line.decode("utf-8")
            except UnicodeDecodeError:
                bad.append(number)
    if bad:
        # A broken line counts as a line here, whatever row it belongs to.
        raise Origin(str(path), lambda rows: list(rows)).complaint("broken UTF-8", bad)
