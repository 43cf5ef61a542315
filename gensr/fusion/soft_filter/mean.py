"""Masked mean pooling as a soft filter: what remains when the filter is dropped."""

from __future__ import annotations

from torch import Tensor

from gensr.fusion.soft_filter.base import Filtered, SoftFilter


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
        history = history.masked_fill(~mask.unsqueeze(-1), 0.0)  # whatever stands under the mask, NaN included
        weights = mean_weights(mask)
        pooled = (weights.to(history.dtype).unsqueeze(1) @ history).unsqueeze(2)  # [B, 1, 1, d]
        many = candidate.shape[1]
        return Filtered(pooled.expand(-1, many, -1, -1), weights.unsqueeze(1).expand(-1, many, -1))
