"""The released code's soft filter: one bilinear form, one pooled vector, no projection of the items."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from gensr.fusion.soft_filter.base import Filtered, QueryContext, SoftFilter, masked_softmax, pooled, real_only


def bilinear_scores(history: Tensor, candidate: Tensor, form: Tensor) -> Tensor:
    """Scores ``r_i = c_i^T W e_v``.

    Args:
        history: [B, L, d], the items c_i.
        candidate: [B, C, d], the candidates e_v.
        form: [d, d], W.

    Returns:
        [B, C, L].
    """
    return (candidate @ form.mT) @ history.mT


class BilinearFilter(SoftFilter):
    """Bilinear target attention, pooled: ``softmax_i(c_i^T W e_v)`` over the items themselves (GenSR's released code).

    Args:
        dim: width d of history and candidate vectors.
        context: add the query to the candidate, through a map without bias. The released code has no query here.

    Inputs: history ``[B, L, dim]``, candidate ``[B, C, dim]``, mask ``[B, L]`` (True = real), context ``[B, dim]`` or
    None. Output: tokens ``[B, C, 1, dim]``, weights ``[B, C, L]``, rows sum to 1. W starts Xavier-uniform.

    The released code masks scores with -1e16, which leaves an empty history with equal weights on its padding; here
    its weights are 0.

    Relations: `CrossAttentionFilter` factors W into W_Q and W_K, scales the scores, has heads, and projects the items.
    """

    def __init__(self, dim: int, *, context: bool = True) -> None:
        super().__init__()
        self.form = nn.Parameter(torch.empty(dim, dim))
        nn.init.xavier_uniform_(self.form)
        self.uses_context = context
        self.context = QueryContext(dim) if context else None
        if self.context is not None:
            nn.init.xavier_uniform_(self.context.weight)

    def forward(self, history: Tensor, candidate: Tensor, mask: Tensor, context: Tensor | None = None) -> Filtered:
        """See `SoftFilter.forward`."""
        history = real_only(history, mask)
        if self.context is not None:
            candidate = self.context.add(candidate, context)
        weights = masked_softmax(bilinear_scores(history, candidate, self.form), mask.unsqueeze(1))  # [B, C, L]
        return Filtered(pooled(weights, history), weights)
