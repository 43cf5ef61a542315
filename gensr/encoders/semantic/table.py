"""Item vectors that are computed once: what frozen semantic encoders are made of."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from gensr.files import new_file, undamaged


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
