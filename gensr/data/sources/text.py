"""Text files line by line, whatever their compression: what every source that is no plain table reads through.

Lines are bounded in length and checked for what no text holds, so that a binary file or a file without line ends is
refused early instead of filling the memory; what a source drops is counted here, with the first lines.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, cast

import pyarrow as pa

from gensr.errors import BadInputError, did_you_mean
from gensr.progress import rows_read

MAX_LINE = 4 << 20
"""Longest line in bytes; the longest review of the Amazon files has about 40,000."""
COMPRESSIONS = (".gz", ".zst")
SHOWN_LINES = 5
BLOCK = 65_536


def existing(path: Path | str, option: str = "data.source.path") -> Path:
    """`path`, if a file stands there.

    Raises:
        BadInputError: names `option` and the nearest file.
    """
    path = Path(path)
    if not path.is_file():
        near = did_you_mean(path.name, [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else [])
        raise BadInputError(f"{option}: no file {str(path)!r} in {Path.cwd()}{near}")
    return path


def find_file(folder: Path | str, *names: str, option: str = "data.source.path") -> Path:
    """The first of `names` in `folder`, also with a suffix of `COMPRESSIONS`.

    Raises:
        BadInputError: no such folder, or none of them in it; tells what it holds.
    """
    found = find_optional(folder, *names, option=option)
    if found is None:
        folder = Path(folder)
        holds = ", ".join(sorted(path.name for path in folder.iterdir())[:20]) or "nothing"
        raise BadInputError(f"{option}: no {' or '.join(names)} (or .gz, .zst) in {folder}; it holds {holds}")
    return found


def find_optional(folder: Path | str, *names: str, option: str = "data.source.path") -> Path | None:
    """As `find_file`; None where it is absent."""
    folder = Path(folder)
    if not folder.is_dir():
        raise BadInputError(f"{option}: no folder {str(folder)!r} in {Path.cwd()}")
    paths = (folder / f"{name}{suffix}" for name in names for suffix in ("", *COMPRESSIONS))
    return next((path for path in paths if path.is_file()), None)


def names_in(folder: Path) -> set[str]:
    """Names of what lies in `folder`, without suffixes of `COMPRESSIONS`; none if it is no folder. Never raises."""
    try:
        return {_unpacked(path) for path in folder.iterdir()} if folder.is_dir() else set()
    except OSError:
        return set()


def format_suffix(path: Path) -> str:
    """The suffix that tells the format: ``.csv`` of ``events.csv.gz``."""
    return Path(_unpacked(path)).suffix.lower()


def _unpacked(path: Path) -> str:
    packed = path.name.lower().endswith(COMPRESSIONS)
    return path.name[: path.name.rindex(".")] if packed else path.name


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Turn failures to read `path`, a truncated archive among them, into `BadInputError`."""
    try:
        yield
    except (OSError, EOFError, zlib.error) as error:  # pyarrow's errors on broken archives are OSErrors too
        raise BadInputError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from None


def open_binary(path: Path) -> IO[bytes]:
    """The bytes of a file, decompressed by its suffix."""
    name = path.name.lower()
    if name.endswith(".gz"):
        return cast(IO[bytes], gzip.open(path))
    if name.endswith(".zst"):
        return cast(IO[bytes], io.BufferedReader(pa.CompressedInputStream(pa.OSFile(str(path)), "zstd"), 1 << 20))
    return path.open("rb")


def text_lines(path: Path, *, encoding: str = "utf-8", ends: bool = False) -> Iterator[tuple[int, str]]:
    """Line number, from 1, and text without line end of every line that is not blank; one line in memory at a time.

    Args:
        path: the file.
        encoding: of its text.
        ends: give every line, blank ones too, with its line end.

    Raises:
        BadInputError: unreadable or truncated, a line over `MAX_LINE` bytes, a NUL byte, or broken text; names the
            line.
    """
    with readable(path), open_binary(path) as stream:
        number = 0
        while line := stream.readline(MAX_LINE + 1):
            number += 1
            if number % BLOCK == 0:
                rows_read(BLOCK)
            if len(line) > MAX_LINE:
                raise BadInputError(f"{path}: line {number} is longer than {MAX_LINE:,} bytes; is this a text file?")
            if b"\0" in line:
                raise BadInputError(f"{path}: a NUL byte in line {number}; is this a text file, in {encoding}?")
            try:
                text = line.decode(encoding)
            except UnicodeDecodeError:
                raise BadInputError(f"{path}: broken {encoding.upper()} in line {number}") from None
            if number == 1:
                text = text.removeprefix("\ufeff")
            if ends:
                yield number, text
            elif text := text.rstrip("\r\n"):
                yield number, text


def json_object(text: str) -> dict[str, Any] | None:
    """The JSON object that `text` is; None for anything else, however deep or long."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def encodable(text: str) -> bool:
    """Whether UTF-8 can hold it: JSON can spell halves of characters."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def content_hash(options: str, files: Iterable[Path | None]) -> str:
    """Hash of a source's options and of what its files hold, in this order; None stands for an absent one.

    Where the files lie does not matter; how they are compressed does.
    """
    digest = hashlib.sha256(options.encode())
    for path in files:
        digest.update(f"\n{format_suffix(path) if path else None}\n".encode())
        if path is not None:
            with readable(path), path.open("rb") as stream:
                digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()


class Dropped:
    """What a source leaves out, counted by reason, with the first lines of each.

    Example:
        >>> dropped = Dropped()
        >>> dropped.add("no category", 7)
        >>> dropped.report()
        {'no category': {'rows': 1, 'first_lines': [7]}}
    """

    def __init__(self) -> None:
        self._rows: dict[str, int] = {}
        self._lines: dict[str, list[int]] = {}

    def add(self, reason: str, line: int | None = None, rows: int = 1) -> None:
        """`rows` more rows were left out for `reason`, the first of them on `line`."""
        if rows:
            self._rows[reason] = self._rows.get(reason, 0) + rows
            lines = self._lines.setdefault(reason, [])
            if line is not None and len(lines) < SHOWN_LINES:
                lines.append(line)

    def add_lines(self, reason: str, lines: Sequence[int], rows: int) -> None:
        """`rows` rows were left out for `reason`; the first few stand on `lines`."""
        self.add(reason, rows=rows)
        if rows:
            self._lines[reason] = [*self._lines[reason], *lines][:SHOWN_LINES]

    @property
    def total(self) -> int:
        """Rows left out for any reason."""
        return sum(self._rows.values())

    def reasons(self) -> str:
        """``reason: rows; ...`` for the error where nothing is left; ``""`` where nothing was left out."""
        return "; ".join(f"{reason}: {rows:,}" for reason, rows in self._rows.items())

    def report(self) -> dict[str, dict[str, Any]]:
        """``{reason: {"rows": count, "first_lines": [...]}}`` for the report of a log."""
        return {
            reason: {"rows": rows} | ({"first_lines": self._lines[reason]} if self._lines[reason] else {})
            for reason, rows in self._rows.items()
        }


class TableBuilder:
    """Rows collected one by one into an Arrow table, a block of Python objects at a time.

    Args:
        schema: columns and types; a dictionary type stores each distinct text once per block.
    """

    def __init__(self, schema: pa.Schema) -> None:
        self._schema, self._chunks = schema, [[] for _ in schema]  # type: tuple[pa.Schema, list[list[pa.Array]]]
        self._rows: list[tuple[Any, ...]] = []

    def add(self, *row: Any) -> None:
        """One row, its values in the order of the schema."""
        self._rows.append(row)
        if len(self._rows) == BLOCK:
            self._flush()

    def table(self) -> pa.Table:
        """All rows."""
        self._flush()
        return pa.table(
            [pa.chunked_array(chunks, field.type) for chunks, field in zip(self._chunks, self._schema, strict=True)],
            schema=self._schema,
        )

    def _flush(self) -> None:
        if self._rows:
            columns = zip(*self._rows, strict=True)
            for chunks, values, field in zip(self._chunks, columns, self._schema, strict=True):
                chunks.append(pa.array(values, field.type))
            self._rows = []
