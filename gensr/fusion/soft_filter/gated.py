"""A filter whose items do not compete: a history may be relevant as a whole, or not at all."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from gensr.fusion.soft_filter.attention import AttentionFilter, Output, head_scores


def gates(query: Tensor, key: Tensor, mask: Tensor, bias: Tensor) -> Tensor:
    """Mean over heads of the sigmoid of scaled dot products, ``1/H sum_h sigmoid(q_h . k_h / sqrt(d/H) + b_h)``.

    Args:
        query: [B, C, d] projected candidates.
        key: [B, L, d] projected history.
        mask: bool [B, L].
        bias: [H], one for each head; H divides d.

    Returns:
        Float32 [B, C, L] in (0, 1), 0 on padding. The gate of an item does not depend on the other items.
    """
    scores = head_scores(query, key, heads=len(bias)).float() + bias.float()[:, None, None]
    return scores.sigmoid().mean(1).masked_fill(~mask.unsqueeze(1), 0.0)


class GatedFilter(AttentionFilter):
    """Open or close a gate for each history item by its relevance to a candidate (GenSR eq. 5 with a sigmoid).

    The weights are the gates divided by the number n of real items: pooled, a history is the mean of its gated items,
    so its size depends neither on its length nor is it fixed, as under a softmax; it shrinks where nothing is
    relevant. In ``"sequence"`` each item is multiplied by its gate. The gates themselves are ``n * weights``.

    Inputs: history ``[B, L, dim]``, candidate ``[B, C, dim]``, mask ``[B, L]`` (True = real), context ``[B, dim]`` or
    None. Output: tokens ``[B, C, K, dim]``, weights ``[B, C, L]``, each in (0, 1/n). Arguments, starting values and
    errors: `AttentionFilter`. The bias of each head starts at 0: gates start half open, where they learn fastest.

    Relations: with all gates open it is `MeanFilter`; `DINFilter` with ``weights="relu"`` does not compete either, and
    is not bounded.
    """

    def __init__(self, dim: int, *, heads: int = 2, output: Output = "pooled", dropout: float = 0.0) -> None:
        super().__init__(dim, heads=heads, output=output, dropout=dropout)
        self.bias = nn.Parameter(torch.zeros(heads))

    def weigh(self, query: Tensor, key: Tensor, mask: Tensor) -> Tensor:
        """See `AttentionFilter.weigh`."""
        return gates(query, key, mask, self.bias) / mask.sum(1).clamp(min=1)[:, None, None]
