"""A sequence that reads another one: the decoder layer of the transformer, without causality."""

from __future__ import annotations

from typing import cast

import torch.nn.functional as F
from torch import Tensor, nn

from gensr.rankers.blocks.transformer import Attention, FeedForward, Rows


class CrossFusion(nn.Module):
    """Self-attention, attention to a memory, then a feed-forward network, each with residual, dropout and layer norm.

    The decoder layer of Vaswani et al. (2017) with norms behind, in which every token sees every other.

    Args:
        dim: width in and out.
        heads: attention heads; divides `dim`.
        hidden: width of the feed-forward part.
        dropout: in training, on attention weights, within the feed-forward part and on the output of every part.
    """

    def __init__(self, dim: int, *, heads: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.dropout = dropout
        self.within = Attention(dim, heads=heads, dropout=dropout)
        self.across = Attention(dim, heads=heads, dropout=dropout)
        self.feed_forward = FeedForward(dim, hidden=hidden, activation="relu", dropout=dropout)
        self.norm1, self.norm2, self.norm3 = nn.LayerNorm(dim), nn.LayerNorm(dim), nn.LayerNorm(dim)

    def forward(self, x: Tensor, memory: Tensor, rows: Rows) -> Tensor:
        """Fuse two descriptions of the same tokens.

        Args:
            x: packed tokens [N, dim].
            memory: packed [N, dim], what else is known of these tokens.
            rows: their places.

        Returns:
            Packed [N, dim].
        """
        attend = rows.mask.unsqueeze(1)  # [B, 1, L]
        x = self.norm1(x + self._drop(self.within(x, x, attend, rows=rows, source_rows=rows)))
        x = self.norm2(x + self._drop(self.across(x, memory, attend, rows=rows, source_rows=rows)))
        return cast(Tensor, self.norm3(x + self._drop(self.feed_forward(x))))

    def _drop(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.dropout, self.training)
