"""What every CF source returns."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor


class CFTable(NamedTuple):
    """Collaborative vectors. Row 0, and every row without a training interaction, is zero.

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
        """Write both tables to a safetensors file, atomically."""
        from safetensors.torch import save_file

        temporary = path.with_name(path.name + ".tmp")
        save_file({"users": self.users.contiguous(), "items": self.items.contiguous()}, temporary)
        temporary.replace(path)

    @classmethod
    def load(cls, path: Path) -> CFTable:
        """Read what `save` wrote."""
        from safetensors.torch import load_file

        tensors = load_file(path)
        return cls(tensors["users"], tensors["items"])


def zero_untouched(table: Tensor, touched: Tensor) -> Tensor:
    """Zero the rows of `table` [N, d] whose `touched` [N] bool is False: they hold no collaborative signal."""
    return torch.where(touched.unsqueeze(1), table, torch.zeros((), dtype=table.dtype))
