"""CSV, TSV and their kin: pyarrow reads them fast, Python's csv says on which line a row is broken.

What pyarrow would take without a word is refused: NUL bytes, endless lines, a quote that is never closed.
"""

from __future__ import annotations

import codecs
import csv
import re
from array import array
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, NoReturn

import pyarrow as pa
from pyarrow.csv import ConvertOptions, InvalidRow, ParseOptions, ReadOptions, open_csv

from gensr.data.log import SHOWN_ROWS
from gensr.data.sources.formats import TableFile
from gensr.data.sources.text import MAX_LINE, open_binary, readable, text_lines
from gensr.errors import BadInputError
from gensr.progress import rows_read

BLOCK = 8 << 20
MISFIT = re.compile(r"column #(\d+): Row #(\d+): CSV conversion error to (.+?): invalid value '(.*)'", re.DOTALL)
END = "\x00end"
"""What no file holds, for NUL bytes are refused."""
csv.field_size_limit(max(csv.field_size_limit(), BLOCK))  # so that it explains all that pyarrow reads


class DelimitedFile(TableFile):
    """Cells between delimiters, with or without a header, quoted as spreadsheets do."""

    def __init__(
        self,
        path: Path,
        delimiter: str,
        *,
        header: Sequence[str] | None = None,
        encoding: str = "utf-8",
        quotes: bool = True,
    ) -> None:
        super().__init__(path)
        self.delimiter, self.header, self.encoding, self.quotes = delimiter, header, encoding, quotes

    def _names(self) -> list[str]:
        if self.header is not None:
            return list(self.header)
        names = next(self._records(), (1, []))[1]
        if not names:
            raise BadInputError(f"{self.path} is empty: it holds no header")
        if any("\n" in name for name in names):
            self._refuse_open_quote()
        return names

    def _batches(self, columns: Mapping[str, pa.DataType | None], lists: Mapping[str, str]) -> Iterator[pa.RecordBatch]:
        """See `TableFile.batches`; cells of these files are never lists."""
        kinds = {name: pa.string() if kind is None else kind for name, kind in columns.items()}
        names = None if self.header is None else list(self.header)
        # A row too long for any header: unless a quote left open swallows it, pyarrow asks what to do with it.
        last = END + self.delimiter * len(self.columns)
        ended = []

        def skip_last(row: InvalidRow) -> str:
            if row.text != last:
                return "error"
            ended.append(row)
            return "skip"

        try:
            with readable(self.path), open_binary(self.path) as stream:
                source = CheckedStream(stream, self._refuse_broken_text, encoding=self.encoding, end=f"\n{last}\n")
                reader = open_csv(
                    pa.PythonFile(source, mode="r"),
                    read_options=ReadOptions(
                        block_size=BLOCK, use_threads=False, column_names=names, encoding=self.encoding
                    ),
                    parse_options=ParseOptions(
                        delimiter=self.delimiter,
                        quote_char='"' if self.quotes else False,
                        newlines_in_values=self.quotes,
                        invalid_row_handler=skip_last,
                    ),
                    convert_options=ConvertOptions(include_columns=list(kinds), column_types=kinds),
                )
                for batch in reader:
                    if batch.num_rows:
                        rows_read(batch.num_rows)
                        yield batch
        except pa.ArrowInvalid as error:
            self._explain(error)
        if not ended:
            self._refuse_open_quote()

    def _explain(self, error: pa.ArrowInvalid) -> NoReturn:
        """Say on which line stands what pyarrow could not read."""
        if found := MISFIT.search(str(error)):
            column, record, kind, value = found.groups()
            row = int(record) - (2 if self.header is None else 1)
            raise self.misfit(row, self.columns[int(column)], value, kind) from None
        self._refuse_open_quote()
        self._refuse_ragged_rows()
        raise BadInputError(f"{self.path} is no valid table: {error}") from None

    def _records(self) -> Iterator[tuple[int, list[str]]]:
        """Line and cells of every record, the header included; blank lines are none."""
        lines = (text for _, text in text_lines(self.path, encoding=self.encoding, ends=True))
        yield from self._parsed(lines)

    def _parsed(self, lines: Iterator[str]) -> Iterator[tuple[int, list[str]]]:
        reader = csv.reader(
            lines, delimiter=self.delimiter, quoting=csv.QUOTE_MINIMAL if self.quotes else csv.QUOTE_NONE
        )
        start = 1
        try:
            for cells in reader:
                if cells:
                    yield start, cells
                start = reader.line_num + 1
        except csv.Error as error:
            bare = "new-line character" in str(error)
            reason = "a carriage return without a line feed" if bare else f"{error}; is a quote left open?"
            raise BadInputError(f"{self.path}: no valid row on line {start}: {reason}") from None

    def _starts(self) -> Iterator[int]:
        records = self._records()
        if self.header is None:
            next(records)
        return (line for line, _ in records)

    def _refuse_broken_text(self) -> None:
        for _ in text_lines(self.path, encoding=self.encoding):
            pass

    def _refuse_ragged_rows(self) -> None:
        width, rows, counts = len(self.columns), array("q"), []
        records = self._records()
        if self.header is None:
            next(records)
        for row, (_, cells) in enumerate(records):
            if len(cells) != width:
                rows.append(row)
                counts += [f"{len(cells)} cells"] if len(rows) <= SHOWN_ROWS else []
        if rows:
            raise self.origin.complaint(f"rows without the header's {width} cells", rows, counts)

    def _refuse_open_quote(self) -> None:
        """Raise `BadInputError` where the last record does not end: pyarrow takes the rest of the file as one cell."""

        def with_end() -> Iterator[str]:
            for _, text in text_lines(self.path, encoding=self.encoding, ends=True):
                yield text if text.endswith("\n") else text + "\n"
            yield END

        start, cells = deque(self._parsed(with_end()), maxlen=1)[0]
        if cells != [END]:
            raise BadInputError(f"{self.path}: a quote in the row on line {start} is never closed")


class CheckedStream:
    """The bytes of a text file, checked as pyarrow asks for them.

    Args:
        stream: the bytes.
        refuse: called where a line is over `MAX_LINE` bytes, has a NUL byte or is broken text; raises the error that
            names it.
        encoding: of the text.
        end: what to read after the last byte.
    """

    closed = False

    def __init__(self, stream: IO[bytes], refuse: Callable[[], None], *, encoding: str, end: str) -> None:
        self.stream, self.refuse = stream, refuse
        self._decoder = codecs.getincrementaldecoder(encoding)()
        self._end = end.encode(encoding)
        self._line = 0  # bytes since the last line end

    def read(self, size: int = -1) -> bytes:
        """The next `size` bytes."""
        block = self.stream.read(size)
        if b"\0" in block or self._long(block) or self._broken(block):
            self.refuse()
        if not block:
            block, self._end = self._end, b""
        return block

    def close(self) -> None:
        """Nothing: whoever opened the stream closes it."""

    def _broken(self, block: bytes) -> bool:
        try:
            self._decoder.decode(block, final=not block)
        except UnicodeDecodeError:
            return True
        return False

    def _long(self, block: bytes) -> bool:
        start = -self._line
        while len(block) - start > MAX_LINE:
            end = block.rfind(b"\n", max(start, 0), max(start + MAX_LINE, 0))
            if end < 0:
                return True
            start = end + 1
        self._line = len(block) - 1 - block.rfind(b"\n") if b"\n" in block else self._line + len(block)
        return False


def guess_delimiter(path: Path, encoding: str) -> str:
    """What stands between the cells of the first line: a comma where it has one."""
    first = next(text_lines(path, encoding=encoding), (1, ""))[1]
    return next((delimiter for delimiter in ",\t;|" if delimiter in first), ",")
