"""What every CF source returns."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from gensr.files import new_file, undamaged


class CFTable(NamedTuple):
    """Collaborative vectors. Row 0 is zero, and every row nothing is known about.

    Unless they come from a file, those are the rows without a training interaction.

    Attributes:
        users: float32 [U+1, d].
        items: float32 [I+1, d].
    """

    users: Tensor
    items: Tensor

    @property
    def dim(self) -> int:
        """Width d of the vectors."""
        return self.items.shape[1]

    def save(self, path: Path) -> None:
        """Write both tables to a safetensors file, atomically.

        Raises:
            FullDiskError: the disk is full; nothing is left.
        """
        from safetensors.torch import save_file

        with new_file(path, needs=self.users.nbytes + self.items.nbytes) as temporary:
            save_file({"users": self.users.contiguous(), "items": self.items.contiguous()}, temporary)

    @classmethod
    def load(cls, path: Path) -> CFTable:
        """Read what `save` wrote.

        Raises:
            DamagedFileError: the file cannot be read.
        """
        from safetensors.torch import load_file

        with undamaged(path, "Delete it; the next command that needs it computes it again"):
            tensors = load_file(path)
            return cls(tensors["users"], tensors["items"])


def zero_untouched(table: Tensor, touched: Tensor) -> Tensor:
    """Zero the rows of `table` [N, d] whose `touched` [N] bool is False: they hold no collaborative signal."""
    return torch.where(touched.unsqueeze(1), table, torch.zeros((), dtype=table.dtype))
