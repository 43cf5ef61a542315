"""JSON lines: one object a row, read line by line, for objects may lack keys and hold lists."""

from __future__ import annotations

import json
from array import array
from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from typing import Any, NoReturn

import pyarrow as pa

from gensr.data.log import Origin
from gensr.data.sources.formats import TEXTS, Misfit, TableFile, convert, text_of
from gensr.data.sources.text import BLOCK, encodable, json_object, text_lines
from gensr.errors import BadInputError

Row = dict[str, Any]


class JsonLinesFile(TableFile):
    """One JSON object a line; a column is a key that any of them has."""

    def _names(self) -> list[str]:
        names: dict[str, None] = {}
        for _, row in self._rows(_with_each_key_once):
            names.update(dict.fromkeys(row))
            self._refuse_too_many(names)
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

    def _rows(self, parse: Callable[[str], Row | None] = json_object) -> Iterator[tuple[int, Row]]:
        """Line and object of every line that is not blank."""
        for number, text in text_lines(self.path):
            if text.strip():
                row = parse(text)
                if row is None:
                    self._refuse_bad_lines()
                else:
                    yield number, row

    def _refuse_bad_lines(self) -> NoReturn:
        for problem, parse in (("not one JSON object a line", json_object), ("a key twice", _with_each_key_once)):
            bad = array("q", (n for n, text in text_lines(self.path) if text.strip() and parse(text) is None))
            if bad:
                raise Origin(str(self.path), lambda lines: list(lines)).complaint(problem, bad)
        raise BadInputError(f"{self.path} changed while it was read")

    def _starts(self) -> Iterator[int]:
        return (number for number, _ in self._rows())


def _with_each_key_once(text: str) -> Row | None:
    """As `json_object`; None also where a key has two values, of which that would keep the last."""
    try:
        found = json.loads(text, object_pairs_hook=_unique)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _unique(pairs: list[tuple[str, Any]]) -> Row:
    row = dict(pairs)
    if len(row) < len(pairs):
        raise ValueError
    return row


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
        row = next(row for row, text in enumerate(texts) if text is not None and not encodable(text))
        return Misfit(row, values[row], "text without lone surrogates")
    return column if kind is None or kind == pa.string() else convert(column, kind)


def _written(value: Any) -> str | None:
    """A value as it stands in the file, strings without their quotes."""
    return value if value is None or isinstance(value, str) else json.dumps(value)
