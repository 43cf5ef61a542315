"""What every semantic encoder gives: vectors of items, and of texts nobody has seen."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn


class SemanticEncoder(nn.Module, ABC):
    """Item vectors from item text.

    A candidate is always one vector. A history item is `units` vectors: one, or one for each of its first tokens.
    """

    units: int = 1
    """Vectors of a history item."""

    @property
    @abstractmethod
    def width(self) -> int:
        """Width of the vectors."""

    @abstractmethod
    def forward(self, items: Tensor) -> Tensor:
        """Vectors [..., width] of item rows, int64 [...]; row 0, the padding, is zero."""

    @abstractmethod
    def encode_text(self, texts: Sequence[str]) -> Tensor:
        """Vectors [n, width] of texts, whether or not the catalogue has them.

        Raises:
            BadInputError: this encoder knows the catalogue only.
        """

    def parts(self, items: Tensor) -> tuple[Tensor, Tensor]:
        """The vectors [..., units, width] that stand for history items [...], and which of them exist."""
        vectors = self(items).unsqueeze(-2)
        return vectors, torch.ones(vectors.shape[:-1], dtype=torch.bool, device=vectors.device)

    def text_parts(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """`parts` of texts: [n, units, width] and bool [n, units]."""
        vectors = self.encode_text(texts).unsqueeze(-2)
        return vectors, torch.ones(vectors.shape[:-1], dtype=torch.bool, device=vectors.device)

    def refresh(self) -> None:
        """Forget what was computed from weights that have changed since: nothing, unless a subclass says so."""

    def save(self, folder: Path) -> None:
        """Write what `SemanticConfig.open` needs beside trained weights: nothing, unless a subclass says so."""
