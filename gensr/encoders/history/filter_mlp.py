"""A history through learned frequency filters: every event hears of all others without attention."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gensr.data.tasks import Task
from gensr.encoders.history.base import HistoryEncoder, reorder
from gensr.rankers.blocks.frequency import EPS, FilterBlock


class FilterMLPHistoryEncoder(HistoryEncoder):
    """Filter-enhanced MLP over a history (FMLP-Rec, Zhou et al., WWW 2022).

    Args:
        dim: width in and out.
        max_length: length of the filters; a history is filtered at this length however short it is, so this, and not
            the length of a batch, is what a call costs.
        layers: blocks.
        dropout: in training, on the inputs and on the output of every part.
        positions: learn positions, counted from the newest event.
        task_types: learn whether an event was a recommendation or a search.

    Inputs and output: `HistoryEncoder`. Not causal. Order matters with or without positions: a filter is a convolution
    over time.

    Events are moved to the right end of a buffer of `max_length`, so that the filters, which are tied to a length, meet
    the newest event at the same place whatever the padding. The rest of the buffer is 0 before every block, as if
    nothing had happened then; FMLP-Rec has no mask, and its padding carries the positions' vectors instead. For a full
    history both compute the same.

    Starting values: N(0, 0.02) for matrices, tables and filters, biases 0; a new block is close to its residual path.
    """

    def __init__(
        self,
        dim: int,
        *,
        max_length: int,
        layers: int = 2,
        dropout: float = 0.1,
        positions: bool = True,
        task_types: bool = True,
    ) -> None:
        super().__init__(dim, max_length=max_length)
        self.dropout = dropout
        self.positions = nn.Parameter(torch.empty(max_length, dim)) if positions else None
        self.task_types = nn.Embedding(max(Task) + 1, dim, padding_idx=0) if task_types else None
        self.norm = nn.LayerNorm(dim, eps=EPS)
        self.blocks = nn.ModuleList(FilterBlock(dim, length=max_length, dropout=dropout) for _ in range(layers))
        if self.positions is not None:
            nn.init.normal_(self.positions, std=0.02)
        if self.task_types is not None:
            nn.init.normal_(self.task_types.weight[1:], std=0.02)

    def encode(self, x: Tensor, mask: Tensor, task: Tensor | None) -> Tensor:
        """See `HistoryEncoder.encode`."""
        if self.task_types is not None and task is not None:
            x = x + self.task_types(task)
        order = mask.int().argsort(dim=1, stable=True)  # padding first, then the events as they came
        spare = self.max_length - x.shape[1]
        x = F.pad(reorder(x, order), (0, 0, spare, 0))  # [B, max_length, d]
        nothing = ~F.pad(mask.gather(1, order), (spare, 0)).unsqueeze(-1)
        if self.positions is not None:
            x = x + self.positions
        x = F.dropout(self.norm(x), self.dropout, self.training)
        for block in self.blocks:
            x = block(x.masked_fill(nothing, 0.0))
        return reorder(x[:, spare:], order.argsort(dim=1))
