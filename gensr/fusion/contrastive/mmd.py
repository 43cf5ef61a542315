"""Alignment of two clouds of vectors as wholes: the weakest request, that the views live in the same place."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from gensr.fusion.contrastive.base import check_above_zero, zero_for_one_group

BANDWIDTHS = (0.25, 0.5, 1.0, 2.0, 4.0)


def mmd(a: Tensor, b: Tensor, group: Tensor | None = None, *, bandwidths: Sequence[float] = BANDWIDTHS) -> Tensor:
    """Squared maximum mean discrepancy between the rows of `a` and those of `b` (Gretton et al., JMLR 2012, eq. 5).

    The biased V-statistic: ``mean k(a_u, a_v) + mean k(b_u, b_v) - 2 mean k(a_u, b_v)`` over all u and v, u = v
    included. Unlike the unbiased estimate it is a squared distance, never below 0, and least, 0, where the views are
    equal. The kernel is the mean of ``exp(-|x - y|^2 / (m s))`` over the bandwidths m; s is the mean squared distance
    between two of the 2B rows, without gradient, so the scale of the views does not matter.

    Args:
        a: [B, d] rows of one view, any float type; computed in float32 (also under autocast).
        b: [B, d] rows of the other; which row belongs to which does not matter.
        group: int [B] or None. There are no negatives, so it matters only where all rows are one group.
        bandwidths: multiples m > 0 of s; small ones see detail, large ones the means.

    Returns:
        Float32 scalar in [0, 2]. At most about 2 / B for samples of one distribution; exactly 0, with zero gradient,
        where all rows are one group (one user is no distribution).
    """
    with torch.autocast(a.device.type, enabled=False):
        rows = torch.cat([a.float(), b.float()])  # [2B, d]
        rows = rows - rows.mean(0).detach()  # distances stay as they are, and lose fewer digits below
        squares = rows.square().sum(1)
        distance = (squares.unsqueeze(1) + squares - 2 * rows @ rows.T).clamp(min=0)  # [2B, 2B]
        mean = distance.detach().sum() / (len(rows) * (len(rows) - 1))
        mean = torch.where(mean > 0, mean, torch.ones_like(mean))
        kernel = torch.stack([torch.exp(-distance / (m * mean)) for m in bandwidths]).mean(0)
        sign = torch.ones_like(squares) / len(a)
        sign[len(a) :] *= -1
        return zero_for_one_group((sign @ kernel @ sign).clamp(min=0), group, len(a))


class MMD(nn.Module):
    """Bring the distributions of two views together (Gretton et al., JMLR 2012).

    Args:
        bandwidths: as in `mmd`, whose inputs and output ``forward(a, b, group)`` has.

    Relations: it asks that users as a whole look alike in both views, not that each one does; all its siblings do.
    """

    def __init__(self, *, bandwidths: Sequence[float] = BANDWIDTHS) -> None:
        super().__init__()
        if not bandwidths:
            raise ValueError("bandwidths=(): expected at least one number above 0")
        self.bandwidths = tuple(check_above_zero("bandwidth", m) for m in bandwidths)

    def forward(self, a: Tensor, b: Tensor, group: Tensor | None = None) -> Tensor:
        """See `mmd`."""
        return mmd(a, b, group, bandwidths=self.bandwidths)
