"""A hard filter: a candidate sees the few items that matter most to it, and nothing of the rest."""

from __future__ import annotations

import torch
from torch import Tensor

from gensr.fusion.soft_filter.attention import AttentionFilter
from gensr.fusion.soft_filter.cross_attention import importance


def straight_through_top_k(soft: Tensor, mask: Tensor, k: int) -> Tensor:
    """Equal weights on the k largest of each row, with the gradient of the rows themselves.

    Args:
        soft: float [B, C, L] >= 0.
        mask: bool [B, L].
        k: how many to keep; all of a row that has fewer real items. Among equals the later (newer) item is kept.

    Returns:
        [B, C, L]: forward 1/min(k, n) on the selection and exactly 0 elsewhere; backward as if it were `soft`.
    """
    real = mask.unsqueeze(1)
    # -1 on padding: an item whose weight has underflowed to 0 still goes before it. Ascending and stable, so that the
    # last k places hold the later ones of equals.
    order = soft.detach().masked_fill(~real, -1.0).argsort(dim=-1, stable=True)[..., -k:]
    chosen = torch.zeros_like(soft, dtype=torch.bool).scatter(-1, order, True) & real
    hard = chosen.to(soft.dtype) / chosen.sum(-1, keepdim=True).clamp(min=1)
    return hard + (soft - soft.detach())


class TopKFilter(AttentionFilter):
    """Keep the k history items most relevant to each candidate (by eq. 5), and pool those with equal weights.

    Relevance is learned through the cut by the straight-through estimator (Bengio et al., 2013): forward the selection
    is hard, backward the gradient is that of `CrossAttentionFilter`'s weights, of dropped items as well.

    Args:
        dim: width of history and candidate vectors.
        k: items kept; a history with fewer keeps all of them.
        heads: attention heads; divides `dim`.

    Inputs: history ``[B, L, dim]``, candidate ``[B, C, dim]``, mask ``[B, L]`` (True = real), context ``[B, dim]`` or
    None. Output: tokens ``[B, C, 1, dim]``, weights ``[B, C, L]`` with at most k non-zeros. Starting values and errors:
    `AttentionFilter`; also ValueError for k < 1.

    A selection is not continuous: where two items are equally relevant up to rounding, which one is kept may depend on
    the device.

    Relations: with k of the history's length it pools like `MeanFilter` and learns like `CrossAttentionFilter`.
    """

    def __init__(self, dim: int, *, k: int = 5, heads: int = 2) -> None:
        super().__init__(dim, heads=heads)
        if k < 1:
            raise ValueError(f"k={k}: a filter keeps at least 1 item")
        self.k = k

    def weigh(self, query: Tensor, key: Tensor, mask: Tensor) -> Tensor:
        """See `AttentionFilter.weigh`."""
        return straight_through_top_k(importance(query, key, mask, heads=self.heads), mask, self.k)
