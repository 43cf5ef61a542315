"""Masked mean pooling as a soft filter: what remains when the filter is dropped."""

from __future__ import annotations

from torch import Tensor

from gensr.fusion.soft_filter.base import Filtered, SoftFilter, pooled, real_only


def mean_weights(mask: Tensor) -> Tensor:
    """Float32 [B, L]: 1/n on the n real positions of a row, 0 elsewhere; all 0 where n = 0."""
    return mask.float() / mask.sum(1, keepdim=True).clamp(min=1)


class MeanFilter(SoftFilter):
    """Every history item weighs the same, whatever the candidate (GenSR section 6.3, "w/o soft filtering").

    Inputs and output as `SoftFilter.forward`; candidate and context are not looked at. Has no parameters.

    Relations: `CrossAttentionFilter` with equal weights and W_c = identity.
    """

    uses_context = False

    def forward(self, history: Tensor, candidate: Tensor, mask: Tensor, context: Tensor | None = None) -> Filtered:
        """See `SoftFilter.forward`."""
        weights = mean_weights(mask).unsqueeze(1)  # [B, 1, L]
        tokens = pooled(weights, real_only(history, mask))  # [B, 1, 1, d]
        many = candidate.shape[1]
        return Filtered(tokens.expand(-1, many, -1, -1), weights.expand(-1, many, -1))
