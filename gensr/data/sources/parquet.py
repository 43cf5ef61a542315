"""Apache Parquet: columns have types of their own, and complaints name rows, for it has no lines."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import pyarrow as pa
import pyarrow.parquet as pq

from gensr.data.log import Origin
from gensr.data.sources.formats import TEXTS, Misfit, TableFile, convert, text_of
from gensr.data.sources.text import BLOCK, readable
from gensr.errors import BadInputError
from gensr.progress import rows_read


class ParquetFile(TableFile):
    """A Parquet file, a batch of a row group at a time."""

    @property
    def origin(self) -> Origin:
        """See `TableFile.origin`."""
        return Origin(str(self.path))

    def _names(self) -> list[str]:
        with self._valid():
            return list(pq.read_schema(self.path).names)

    def _batches(self, columns: Mapping[str, pa.DataType | None], lists: Mapping[str, str]) -> Iterator[pa.RecordBatch]:
        done = 0
        with self._valid(), pq.ParquetFile(self.path) as file:
            for name, kind in columns.items():
                self._require_type(name, file.schema_arrow.field(name).type, kind, lists)
            for batch in file.iter_batches(BLOCK, columns=list(columns)):
                arrays = []
                for name, kind in columns.items():
                    found = _column(_valid_text(batch.column(name)), kind, lists.get(name))
                    if isinstance(found, Misfit):
                        raise self.misfit(done + found.row, name, found.value, found.expected)
                    arrays.append(found)
                yield pa.record_batch(arrays, names=list(columns))
                done += batch.num_rows
                rows_read(batch.num_rows)

    def _require_type(self, name: str, has: pa.DataType, kind: pa.DataType | None, lists: Mapping[str, str]) -> None:
        """Refuse a column none of whose values could fit."""
        inner = has.value_type if pa.types.is_dictionary(has) else has
        if _is_list(has):
            fits = name in lists
        else:
            odd = pa.types.is_nested(inner) or pa.types.is_boolean(inner) or pa.types.is_temporal(inner)
            fits = kind is None or kind == inner or not odd
        if not fits:
            expected = "text or whole numbers" if kind in TEXTS else str(kind)
            raise BadInputError(f"{self.path}: column {name!r} holds {has}; expected {expected}")

    @contextmanager
    def _valid(self) -> Iterator[None]:
        try:
            with readable(self.path):
                yield
        except (pa.ArrowException, UnicodeDecodeError) as error:
            raise BadInputError(f"{self.path} is no valid Parquet file: {error}") from None

    def _starts(self) -> Iterator[int]:
        raise NotImplementedError("rows of a Parquet file stand on no line")


def _is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind))


def _valid_text(column: pa.Array) -> pa.Array:
    """The column; one with broken UTF-8, which no writer need check, as bytes.

    Raises:
        pa.ArrowInvalid: its lists hold broken UTF-8.
    """
    try:
        column.validate(full=True)
    except pa.ArrowInvalid:
        if not pa.types.is_string(column.type):
            raise
        return column.cast(pa.binary())
    return column


def _column(column: pa.Array, kind: pa.DataType | None, separator: str | None) -> pa.Array | Misfit:
    if kind is None:
        return column
    if not _is_list(column.type):
        return convert(column, kind)
    texts = []
    for row, value in enumerate(column.to_pylist()):
        try:
            texts.append(text_of(value, separator))
        except ValueError as error:
            return Misfit(row, value, str(error))
    return convert(pa.array(texts, pa.string()), kind)
