"""Texts by row, read from disk when first asked for and kept as one Arrow array: millions of them cost no objects."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property
from typing import overload

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

BLOCK = 65_536


class Texts(Sequence[str]):
    """A read-only column of texts; row 0 is padding and holds ``""``.

    Args:
        load: gives the texts of rows 1..n as a string array; called at most once.
        rows: n.
    """

    def __init__(self, load: Callable[[], pa.Array], rows: int) -> None:
        self._load, self._rows = load, rows

    @classmethod
    def of(cls, texts: Iterable[str]) -> Texts:
        """Texts by row from an iterable whose first is ``""``."""
        if isinstance(texts, Texts):
            return texts
        first, *rest = texts
        if first != "":
            raise ValueError(f"row 0 is padding and must be empty, got {first!r}")
        return cls.of_rows(pa.array(rest, pa.string()))

    @classmethod
    def of_rows(cls, texts: pa.Array | pa.ChunkedArray) -> Texts:
        """Texts of rows 1..n from a string array, which has no row 0."""
        return cls(lambda: texts, len(texts))

    @cached_property
    def arrow(self) -> pa.Array:
        """Rows 1..n, without row 0."""
        array = self._load()
        return pa.concat_arrays(array.chunks) if isinstance(array, pa.ChunkedArray) else array

    def __len__(self) -> int:
        return self._rows + 1

    @overload
    def __getitem__(self, row: int) -> str: ...
    @overload
    def __getitem__(self, row: slice) -> list[str]: ...
    def __getitem__(self, row: int | slice) -> str | list[str]:
        if isinstance(row, slice):
            return self.take(np.arange(*row.indices(len(self))))
        at = range(len(self))[row]
        return str(self.arrow[at - 1]) if at else ""

    def take(self, rows: np.ndarray) -> list[str]:
        """The texts of some rows [n], in that order."""
        wanted = pa.array(rows - 1, mask=np.asarray(rows) == 0, type=pa.int64())
        texts: list[str] = pc.fill_null(self.arrow.take(wanted), "").to_pylist()
        return texts

    def __iter__(self) -> Iterator[str]:
        yield ""
        for start in range(0, self._rows, BLOCK):
            yield from self.arrow.slice(start, BLOCK).to_pylist()

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Texts):
            return bool(self.arrow.equals(other.arrow))
        return list(self) == other

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"Texts({self._rows:,} rows)"
