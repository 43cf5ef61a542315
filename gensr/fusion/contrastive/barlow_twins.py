"""Alignment without negatives: features of the two views must agree, and each say something of its own."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from gensr.fusion.contrastive.base import zero_for_one_group

EPSILON = 1e-5
"""Added to a feature's variance, as in the batch normalisation of the released code: a dead feature has gradients."""


def barlow_twins(a: Tensor, b: Tensor, group: Tensor | None = None, *, redundancy: float = 5e-3) -> Tensor:
    """How far the views' cross-correlation is from the identity (Zbontar et al., ICML 2021, eq. 1-2).

    ``(sum_i (1 - C_ii)^2 + lambda sum_i sum_{j != i} C_ij^2) / d``, where C [d, d] correlates the features of `a` with
    those of `b` over the rows. The published loss is the sum; divided by the width, its size does not depend on it.

    Args:
        a: [B, d] one view of each row, any float type; computed in float32 (also under autocast).
        b: [B, d] the other view of the same rows.
        group: int [B] or None. There are no negatives, so it matters only where all rows are one group.
        redundancy: lambda >= 0.

    Returns:
        Float32 scalar, >= 0. About 1 + (1 + lambda (d - 1)) / (B - 1) for unrelated views; exactly 0, with zero
        gradient, where all rows are one group (nothing varies in one row).
    """
    with torch.autocast(a.device.type, enabled=False):
        correlation = _standardised(a).T @ _standardised(b) / len(a)  # [d, d]
        diagonal = correlation.diagonal()
        agreement = (1 - diagonal).square().sum()
        overlap = correlation.square().sum() - diagonal.square().sum()
        return zero_for_one_group((agreement + redundancy * overlap) / len(diagonal), group, len(a))


def _standardised(x: Tensor) -> Tensor:
    """Columns of mean 0 and variance 1 over the rows, float32."""
    centred = x.float() - x.float().mean(0)
    return centred / (centred.square().mean(0) + EPSILON).sqrt()


class BarlowTwins(nn.Module):
    """Align two views feature by feature (Zbontar et al., ICML 2021).

    Args:
        redundancy: lambda, as in `barlow_twins`, whose inputs and output ``forward(a, b, group)`` has.

    Relations: none of its siblings' negatives, so small batches do it less harm, but features need rows to be
    correlated over. `MMD` has no negatives either, and does not look at who is who.
    """

    def __init__(self, *, redundancy: float = 5e-3) -> None:
        super().__init__()
        if not redundancy >= 0:
            raise ValueError(f"redundancy={redundancy}: expected a number not below 0")
        self.redundancy = redundancy

    def forward(self, a: Tensor, b: Tensor, group: Tensor | None = None) -> Tensor:
        """See `barlow_twins`."""
        return barlow_twins(a, b, group, redundancy=self.redundancy)
