"""JSON lines: one object a row, read line by line, for objects may lack keys and hold lists."""

from __future__ import annotations

import json
from array import array
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any

import pyarrow as pa

from gensr.data.log import Origin
from gensr.data.sources.formats import TEXTS, Misfit, TableFile, convert, text_of
from gensr.data.sources.text import BLOCK, text_lines

Row = dict[str, Any]


class JsonLinesFile(TableFile):
    """One JSON object a line; a column is a key that any of them has."""

    def _names(self) -> list[str]:
        names: dict[str, None] = {}
        for _, row in self._rows():
            names.update(dict.fromkeys(row))
        return list(names)

    def _batches(self, columns: Mapping[str, pa.DataType | None], lists: Mapping[str, str]) -> Iterator[pa.RecordBatch]:
        rows, done = (row for _, row in self._rows()), 0
        while block := list(islice(rows, BLOCK)):
            arrays = []
            for name, kind in columns.items():
                found = _column([row.get(name) for row in block], kind, lists.get(name))
                if isinstance(found, Misfit):
                    raise self.misfit(done + found.row, name, found.value, found.expected)
                arrays.append(found)
            yield pa.record_batch(arrays, names=list(columns))
            done += len(block)

    def _rows(self) -> Iterator[tuple[int, Row]]:
        """Line and object of every line that is not blank."""
        for number, text in text_lines(self.path):
            if text.strip():
                row = _parsed(text)
                if row is None:
                    self._refuse_bad_lines()
                else:
                    yield number, row

    def _refuse_bad_lines(self) -> None:
        bad = array("q", (n for n, text in text_lines(self.path) if text.strip() and _parsed(text) is None))
        raise Origin(str(self.path), lambda lines: list(lines)).complaint("not one JSON object a line", bad)

    def _starts(self) -> Iterator[int]:
        return (number for number, _ in self._rows())


def _parsed(text: str) -> Row | None:
    try:
        row = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return row if isinstance(row, dict) else None


def _column(values: list[Any], kind: pa.DataType | None, separator: str | None) -> pa.Array | Misfit:
    """Values of one key; texts are read as numbers where `kind` is one."""
    texts = []
    for row, value in enumerate(values):
        try:
            texts.append(text_of(value, separator) if kind in TEXTS else _written(value))
        except (ValueError, OverflowError) as error:
            return Misfit(row, value, str(error))
    try:
        column = pa.array(texts, pa.string())
    except UnicodeEncodeError:
        row = next(row for row, text in enumerate(texts) if text is not None and not _encodes(text))
        return Misfit(row, values[row], "text without lone surrogates")
    return column if kind is None or kind == pa.string() else convert(column, kind)


def _written(value: Any) -> str | None:
    """A value as it stands in the file, strings without their quotes."""
    return value if value is None or isinstance(value, str) else json.dumps(value)


def _encodes(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
