"""The paper's soft filter: what a candidate makes of a history depends on the candidate, and on the query."""

from __future__ import annotations

from torch import Tensor

from gensr.fusion.soft_filter.attention import AttentionFilter, head_scores
from gensr.fusion.soft_filter.base import masked_softmax


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
    return masked_softmax(head_scores(query, key, heads=heads), mask[:, None, None, :]).mean(1)


class CrossAttentionFilter(AttentionFilter):
    """Weigh history items by their relevance to each candidate (GenSR, eq. 5-6).

    Inputs: history ``[B, L, dim]``, candidate ``[B, C, dim]``, mask ``[B, L]`` (True = real), context ``[B, dim]`` or
    None. Output: tokens ``[B, C, K, dim]``, weights ``[B, C, L]``, rows sum to 1. Arguments, starting values and
    errors: `AttentionFilter`. W_c stays within the view; the view's projection to the backbone is `SlotProjection`.

    Relations: with equal weights it is `MeanFilter`; `GatedFilter` lets items not compete, `TopKFilter` cuts the
    weights off; with one head and W_c = identity it is `BilinearFilter` with ``W_K^T W_Q / sqrt(dim)`` as its form.
    """

    def weigh(self, query: Tensor, key: Tensor, mask: Tensor) -> Tensor:
        """See `AttentionFilter.weigh`."""
        return importance(query, key, mask, heads=self.heads)
