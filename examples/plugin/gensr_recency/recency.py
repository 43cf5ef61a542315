"""How long ago, in events, as the only relevance: the control that a content-based soft filter has to beat."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gensr.fusion import Filtered, SoftFilter


def recency_weights(mask: Tensor, rate: Tensor) -> Tensor:
    """``exp(-rate * age)``, normalised over a history; the age of an item is how many real ones follow it.

    Args:
        mask: bool [B, L], True = real, oldest first.
        rate: scalar >= 0; 0 is the plain mean.

    Returns:
        Float32 [B, L]; rows sum to 1, all 0 for an empty history.
    """
    real = mask.float()
    age = real.flip(1).cumsum(1).flip(1) - real  # [B, L]
    decay = torch.exp(-rate.float() * age) * real
    return decay / decay.sum(1, keepdim=True).clamp(min=1.0)  # the newest item counts 1, so no real row is below


class RecencyFilter(SoftFilter):
    """Weigh history items by how recent they are, the same for all candidates (after Ding and Li, CIKM 2005).

    Args:
        half_life: events after which an item weighs half as much, at the start; the rate is learnt, and stays > 0.

    Inputs and output as `SoftFilter.forward`, pooled (K = 1); candidate and context are not looked at.

    Relations: `MeanFilter` where the rate is 0.
    """

    uses_context = False

    def __init__(self, *, half_life: float = 5.0) -> None:
        super().__init__()
        if not half_life > 0:
            raise ValueError(f"half_life={half_life}: expected a number above 0")
        rate = math.log(2) / half_life
        self.raw_rate = nn.Parameter(torch.tensor(math.log(math.expm1(rate))))  # softplus of it is the rate

    @property
    def rate(self) -> Tensor:
        """Decay an event, > 0."""
        return F.softplus(self.raw_rate)

    def forward(self, history: Tensor, candidate: Tensor, mask: Tensor, context: Tensor | None = None) -> Filtered:
        """See `SoftFilter.forward`."""
        history = history.masked_fill(~mask.unsqueeze(-1), 0.0)  # whatever stands under the mask, NaN included
        weights = recency_weights(mask, self.rate)  # [B, L]
        pooled = weights.to(history.dtype).unsqueeze(1) @ history  # [B, 1, d]
        many = candidate.shape[1]
        return Filtered(pooled.unsqueeze(1).expand(-1, many, -1, -1), weights.unsqueeze(1).expand(-1, many, -1))
