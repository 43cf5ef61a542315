"""Contextual history: what an event means beside the others, when it happened, and whether it was a search."""

from __future__ import annotations

from typing import cast

import torch.nn.functional as F
from torch import Tensor, nn

from gensr.data.tasks import Task
from gensr.encoders.history.base import HistoryEncoder
from gensr.rankers.blocks.transformer import TransformerBlock


def positions_from_newest(mask: Tensor) -> Tensor:
    """How many real events follow each event: 0 for the newest, int64 [B, L]; 0 on padding.

    Counted from the newest, an event's position changes neither with the padding nor with how much older past is kept.
    """
    following = mask.flip(1).cumsum(1).flip(1) - 1
    return following.masked_fill(~mask, 0)


class TransformerHistoryEncoder(HistoryEncoder):
    """Transformer encoder over a view of the history, with positions and task types (GenSR eq. 3-4).

    Args:
        dim: width in and out.
        max_length: longest history it will see.
        layers: blocks.
        heads: attention heads; divides `dim`.
        hidden: width of the feed-forward part; None: `dim`, as in the released code.
        dropout: in training, on attention weights and on the output of every part.
        positions: learn positions, counted from the newest event. Off, the order of events does not matter.
        task_types: learn whether an event was a recommendation or a search.

    Inputs and output: `HistoryEncoder`.

    Raises:
        ValueError: `heads` does not divide `dim`.
    """

    def __init__(
        self,
        dim: int,
        *,
        max_length: int,
        layers: int = 1,
        heads: int = 2,
        hidden: int | None = None,
        dropout: float = 0.1,
        positions: bool = True,
        task_types: bool = True,
    ) -> None:
        super().__init__(dim, max_length=max_length)
        if dim % heads:
            raise ValueError(f"heads={heads} does not divide dim={dim}: every head gets the same share of the width")
        self.dropout = dropout
        self.positions = nn.Embedding(max_length, dim) if positions else None
        self.task_types = nn.Embedding(max(Task) + 1, dim, padding_idx=0) if task_types else None
        self.blocks = nn.ModuleList(
            _block(dim, heads=heads, hidden=hidden or dim, dropout=dropout) for _ in range(layers)
        )
        nn.init.normal_(self.empty, std=0.02)
        if self.positions is not None:
            nn.init.normal_(self.positions.weight, std=0.02)
        if self.task_types is not None:
            nn.init.normal_(self.task_types.weight[1:], std=0.02)

    def encode(self, x: Tensor, mask: Tensor, task: Tensor | None) -> Tensor:
        """See `HistoryEncoder.encode`."""
        if self.positions is not None:
            x = x + self.positions(positions_from_newest(mask))
        if self.task_types is not None and task is not None:
            x = x + self.task_types(task)
        x = F.dropout(x, self.dropout, self.training)
        for block in self.blocks:
            x = block(x, mask.unsqueeze(1))
        return x


def _block(dim: int, *, heads: int, hidden: int, dropout: float) -> TransformerBlock:
    """A post-LN block that starts as `torch.nn.TransformerEncoderLayer` does."""
    block = TransformerBlock(dim, heads=heads, hidden=hidden, dropout=dropout)
    nn.init.xavier_uniform_(block.attention.qkv.weight)
    nn.init.zeros_(block.attention.qkv.bias)
    nn.init.zeros_(cast(nn.Linear, block.attention.out).bias)
    return block
