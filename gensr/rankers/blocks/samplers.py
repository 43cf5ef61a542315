"""Drawing rows in proportion to powers of counts: shared negatives of a batch, and words."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class PowerSampler(nn.Module):
    """Draws rows 1..n with replacement, each in proportion to ``max(count, 1) ** power``; row 0 never.

    Args:
        counts: int64 [n+1]; row 0 is padding.
        power: 0 is uniform.

    Draws come from torch's global generator, which the trainer seeds at every update.
    """

    cumulative: Tensor
    log_chance: Tensor

    def __init__(self, counts: Tensor, *, power: float) -> None:
        super().__init__()
        weights = counts.double().clamp(min=1).pow(power)
        weights[0] = 0
        chances = weights / weights.sum()
        # A table to search in rather than torch.multinomial, which passes over all rows at every draw.
        self.register_buffer("cumulative", chances.cumsum(0), persistent=False)
        self.register_buffer("log_chance", chances.log().float(), persistent=False)

    def draw(self, *shape: int) -> Tensor:
        """Rows int64 [shape]."""
        dice = torch.rand(shape, dtype=torch.float64, device=self.cumulative.device)
        return torch.searchsorted(self.cumulative, dice * self.cumulative[-1], right=True).clamp(
            max=len(self.cumulative) - 1
        )
