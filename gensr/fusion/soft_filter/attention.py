"""What the filters built on dot-product attention share; they differ in how scores become weights."""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gensr.fusion.soft_filter.base import Filtered, QueryContext, SoftFilter, pooled, real_only

Output = Literal["pooled", "sequence"]


def head_scores(query: Tensor, key: Tensor, *, heads: int) -> Tensor:
    """Scaled dot products of every candidate with every history item, by head.

    Args:
        query: [B, C, d] projected candidates.
        key: [B, L, d] projected history.
        heads: heads; divides d.

    Returns:
        [B, heads, C, L], divided by the square root of d / heads.
    """
    split = query.shape[-1] // heads
    q = query.reshape(*query.shape[:2], heads, split).transpose(1, 2)  # [B, H, C, d/H]
    k = key.reshape(*key.shape[:2], heads, split).permute(0, 2, 3, 1)  # [B, H, d/H, L]
    return (q @ k) / math.sqrt(split)


class AttentionFilter(SoftFilter):
    """Base of filters that score items by ``(W_Q (candidate + context)) . (W_K item)`` and weigh ``W_c item``.

    Args:
        dim: width d of history and candidate vectors.
        heads: attention heads; divides `dim`.
        output: ``"pooled"`` gives the weighted sum, one vector (K = 1); ``"sequence"`` one vector per item (K = L).
        dropout: chance of dropping a weight in training; the returned weights are the undropped ones.
        context: whether the query, in search, decides with the candidate.

    A subclass says in `weigh` how scores become weights, at most 1 in sum. In ``"sequence"`` they are multiplied by
    the number of real items: every slot would otherwise be about 1/n of the size of the backbone's other inputs.

    Starting values: W_c is the identity, so that a filtered history begins in the space in which the candidate stands
    (both go through one projection afterwards); W_K starts equal to W_Q, so that the first weights already grow with
    the similarity of item and candidate. All three are free from then on.

    Raises:
        ValueError: `heads` does not divide `dim`, or `output` is unknown.
    """

    def __init__(
        self, dim: int, *, heads: int = 2, output: Output = "pooled", dropout: float = 0.0, context: bool = True
    ) -> None:
        super().__init__()
        if dim % heads:
            raise ValueError(f"heads={heads} does not divide dim={dim}: every head gets the same share of the width")
        if output not in ("pooled", "sequence"):
            raise ValueError(f"output={output!r}: expected 'pooled' or 'sequence'")
        self.heads, self.output, self.dropout, self.uses_context = heads, output, dropout, context
        self.query = nn.Linear(dim, dim, bias=False)
        self.key = nn.Linear(dim, dim, bias=False)
        self.value = nn.Linear(dim, dim, bias=False)
        self.context = QueryContext(dim) if context else None
        nn.init.xavier_uniform_(self.query.weight)
        nn.init.eye_(self.value.weight)
        if self.context is not None:
            nn.init.xavier_uniform_(self.context.weight)
        with torch.no_grad():
            self.key.weight.copy_(self.query.weight)

    @abstractmethod
    def weigh(self, query: Tensor, key: Tensor, mask: Tensor) -> Tensor:
        """Float32 weights [B, C, L] of projected candidates [B, C, d] and history [B, L, d], mask bool [B, L]."""

    def forward(self, history: Tensor, candidate: Tensor, mask: Tensor, context: Tensor | None = None) -> Filtered:
        """See `SoftFilter.forward`."""
        history = real_only(history, mask)
        if self.context is not None:
            candidate = self.context.add(candidate, context)
        weights = self.weigh(self.query(candidate), self.key(history), mask)  # [B, C, L]
        value = self.value(history)  # [B, L, d]
        used = F.dropout(weights, self.dropout, self.training)
        if self.output == "pooled":
            return Filtered(pooled(used, value), weights)
        scaled = used.to(value.dtype) * mask.sum(1).to(value.dtype)[:, None, None]
        return Filtered(scaled.unsqueeze(-1) * value.unsqueeze(1), weights)  # [B, C, L, d]

    def tokens(self, length: int) -> int:
        """See `SoftFilter.tokens`."""
        return 1 if self.output == "pooled" else length
