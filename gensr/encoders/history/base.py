"""What every history encoder takes and gives, and what they all do about padding and empty histories."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn


class HistoryEncoder(nn.Module, ABC):
    """Contextual vectors of a user's past.

    Inputs: x ``[B, L, dim]`` oldest event first, mask bool ``[B, L]`` (True = real), task int64 ``[B, L]`` (0 =
    padding) or None. Output ``[B, L, dim]``: 0 on padding; for an empty history one learned vector at every position,
    so that position 0 can be read without asking. It starts at 0 where an encoder does not say otherwise.

    Args:
        dim: width in and out.
        max_length: longest history L it will see.
    """

    def __init__(self, dim: int, *, max_length: int) -> None:
        super().__init__()
        self.max_length = max_length
        self.empty = nn.Parameter(torch.zeros(dim))

    def forward(self, x: Tensor, mask: Tensor, task: Tensor | None = None) -> Tensor:
        """Encode histories.

        Raises:
            ValueError: a history is longer than `max_length`.
        """
        if x.shape[1] > self.max_length:
            raise ValueError(f"history of {x.shape[1]} slots; the encoder was built for max_length={self.max_length}")
        real = mask.unsqueeze(-1)  # [B, L, 1]
        x = x.masked_fill(~real, 0.0)  # whatever stands under the mask, NaN included
        x = self.encode(x, mask, task).masked_fill(~real, 0.0)
        return torch.where(mask.any(1)[:, None, None], x, self.empty.to(x.dtype))

    @abstractmethod
    def encode(self, x: Tensor, mask: Tensor, task: Tensor | None) -> Tensor:
        """Vectors [B, L, dim] of events.

        What it gives on padding, and for rows without events, is replaced, but must be finite.

        Args:
            x: [B, L, dim], 0 on padding.
            mask: bool [B, L].
            task: int64 [B, L] or None.
        """


def reorder(x: Tensor, order: Tensor) -> Tensor:
    """Events [B, L, d] in the order that `order`, int64 [B, L], names them by row; ``order.argsort(1)`` undoes it."""
    return x.gather(1, order.unsqueeze(-1).expand_as(x))
