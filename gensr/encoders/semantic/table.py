"""Item vectors that are computed once: what frozen semantic encoders are made of."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from gensr.encoders.semantic.base import SemanticEncoder
from gensr.errors import BadInputError
from gensr.files import new_file, undamaged

FILE = "table.safetensors"
Encode = Callable[[Sequence[str], torch.device], Tensor]
"""Vectors float32 [n, d] of texts, computed on a device, for an encoder of width d; an empty text is zero."""


class TextTable(NamedTuple):
    """Frozen vectors of a catalogue.

    Attributes:
        items: float32 [I+1, d], row 0 zero.
        state: what the method needs to encode further texts, by name.
    """

    items: Tensor
    state: dict[str, Tensor]

    def save(self, path: Path) -> None:
        """Write to a safetensors file, atomically.

        Raises:
            FullDiskError: the disk is full; nothing is left.
        """
        from safetensors.torch import save_file

        tensors = {"items": self.items, **{f"state.{name}": value for name, value in self.state.items()}}
        with new_file(path, needs=sum(tensor.nbytes for tensor in tensors.values())) as temporary:
            save_file({name: tensor.cpu().contiguous() for name, tensor in tensors.items()}, temporary)

    @classmethod
    def load(cls, path: Path) -> TextTable:
        """Read what `save` wrote.

        Raises:
            DamagedFileError: the file cannot be read.
        """
        from safetensors.torch import load_file

        with undamaged(path, "Delete it; the next command that needs it computes it again"):
            tensors = load_file(path)
            items = tensors.pop("items")
            return cls(items, {name.removeprefix("state."): tensor for name, tensor in tensors.items()})


class FrozenTableEncoder(SemanticEncoder):
    """Looks item vectors up in a table that nothing trains.

    Args:
        table: the catalogue's vectors, and the method's state, which is saved with them.
        encode: the method, for texts that came later.
    """

    table: Tensor

    def __init__(self, table: TextTable, encode: Encode) -> None:
        super().__init__()
        self.register_buffer("table", table.items, persistent=False)
        self._state, self._encode = table.state, encode

    @property
    def width(self) -> int:
        """Width of the vectors: the table's."""
        return self.table.shape[1]

    def forward(self, items: Tensor) -> Tensor:
        """Vectors [..., width] of item rows [...]."""
        return F.embedding(items, self.table)

    def encode_text(self, texts: Sequence[str]) -> Tensor:
        """Vectors [n, width] of texts, whether or not the catalogue has them.

        Raises:
            BadInputError: the method knows the catalogue only, cannot be loaded, or is not what made the table.
        """
        if not texts:
            return self.table[:0]
        vectors = self._encode(texts, self.table.device).to(self.table)
        if vectors.shape[1] != self.width:
            raise BadInputError(
                f"new text became vectors of width {vectors.shape[1]}, and the catalogue's are {self.width} wide: "
                "the model is not the one that encoded the catalogue"
            )
        return vectors

    def save(self, folder: Path) -> None:
        """Write table and state."""
        TextTable(self.table, self._state).save(folder / FILE)


def require_table(table: TextTable | None, name: str) -> TextTable:
    """`table`, which a new frozen encoder cannot do without."""
    if table is None:
        raise ValueError(f"a new {name!r} encoder needs the table that its config computes: build(..., table=...)")
    return table
