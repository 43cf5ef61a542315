"""The paper's soft filter: what a candidate makes of a history depends on the candidate, and on the query."""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gensr.fusion.soft_filter.base import Filtered, SoftFilter

Output = Literal["pooled", "sequence"]


def masked_softmax(scores: Tensor, mask: Tensor) -> Tensor:
    """Softmax over the last dimension that gives masked positions exactly 0, and a row without real ones all 0.

    Args:
        scores: [..., L] finite.
        mask: bool, broadcastable to `scores`, True = real.

    Returns:
        Float32 [..., L].
    """
    scores = scores.float()
    # The lowest finite value and not -inf: a fully masked row would be NaN, in the backward pass as well.
    weights = scores.masked_fill(~mask, torch.finfo(scores.dtype).min).softmax(-1)
    return weights.masked_fill(~mask, 0.0)


def importance(query: Tensor, key: Tensor, mask: Tensor, *, heads: int) -> Tensor:
    """Mean over heads of scaled dot-product attention (GenSR eq. 5).

    Args:
        query: [B, C, d] projected candidates.
        key: [B, L, d] projected history.
        mask: bool [B, L].
        heads: heads; divides d.

    Returns:
        Float32 [B, C, L]; rows sum to 1, or are all 0 for an empty history.
    """
    split = query.shape[-1] // heads
    q = query.reshape(*query.shape[:2], heads, split).transpose(1, 2)  # [B, H, C, d/H]
    k = key.reshape(*key.shape[:2], heads, split).permute(0, 2, 3, 1)  # [B, H, d/H, L]
    scores = (q @ k) / math.sqrt(split)  # [B, H, C, L]
    return masked_softmax(scores, mask[:, None, None, :]).mean(1)


class CrossAttentionFilter(SoftFilter):
    """Weigh history items by their relevance to each candidate (GenSR, eq. 5-6).

    Args:
        dim: width d of history and candidate vectors.
        heads: attention heads; divides `dim`.
        output: ``"pooled"`` gives the weighted sum, one vector (K = 1); ``"sequence"`` one vector per item (K = L).
        dropout: chance of dropping a weight in training; the returned weights are the undropped ones.

    Inputs: history ``[B, L, dim]``, candidate ``[B, C, dim]``, mask ``[B, L]`` (True = real), context ``[B, dim]`` or
    None. Output: tokens ``[B, C, K, dim]``, weights ``[B, C, L]``.

    The context (the query, in search) is added to the candidate before the query projection, through a map without
    bias, so that a zero context is no context. W_c stays within the view; the view's projection to the backbone is
    `SlotProjection`.

    In ``"sequence"`` eq. 6 is multiplied by the number of real items: weights sum to 1, so every slot would otherwise
    be about 1/n of the size of the other inputs of the backbone.

    Starting values: W_c is the identity, so that a filtered history begins in the space in which the candidate stands
    (both go through one projection afterwards); W_K starts equal to W_Q, so that the first weights already grow with
    the similarity of item and candidate. All three are free from then on.

    Relations: with equal weights it is `MeanFilter`.

    Raises:
        ValueError: `heads` does not divide `dim`, or `output` is unknown.
    """

    def __init__(self, dim: int, *, heads: int = 2, output: Output = "pooled", dropout: float = 0.0) -> None:
        super().__init__()
        if dim % heads:
            raise ValueError(f"heads={heads} does not divide dim={dim}: every head gets the same share of the width")
        if output not in ("pooled", "sequence"):
            raise ValueError(f"output={output!r}: expected 'pooled' or 'sequence'")
        self.heads, self.output, self.dropout = heads, output, dropout
        self.query = nn.Linear(dim, dim, bias=False)
        self.key = nn.Linear(dim, dim, bias=False)
        self.value = nn.Linear(dim, dim, bias=False)
        self.context = nn.Linear(dim, dim, bias=False)
        nn.init.xavier_uniform_(self.query.weight)
        nn.init.eye_(self.value.weight)
        nn.init.xavier_uniform_(self.context.weight)
        with torch.no_grad():
            self.key.weight.copy_(self.query.weight)

    def forward(self, history: Tensor, candidate: Tensor, mask: Tensor, context: Tensor | None = None) -> Filtered:
        """See `SoftFilter.forward`."""
        history = history.masked_fill(~mask.unsqueeze(-1), 0.0)  # whatever stands under the mask, NaN included
        if context is not None:
            candidate = candidate + self.context(context).unsqueeze(1)
        weights = importance(self.query(candidate), self.key(history), mask, heads=self.heads)  # [B, C, L]
        value = self.value(history)  # [B, L, d]
        used = F.dropout(weights, self.dropout, self.training).to(value.dtype)
        if self.output == "pooled":
            return Filtered((used @ value).unsqueeze(2), weights)  # [B, C, 1, d]
        scaled = used * mask.sum(1).to(value.dtype)[:, None, None]
        return Filtered(scaled.unsqueeze(-1) * value.unsqueeze(1), weights)  # [B, C, L, d]

    def tokens(self, length: int) -> int:
        """See `SoftFilter.tokens`."""
        return 1 if self.output == "pooled" else length
