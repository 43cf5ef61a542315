"""A contrastive loss of independent yes-or-no questions: no sum over the batch that one row's options compete in."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gensr.fusion.contrastive.base import check_above_zero, same_group, unit, zero_for_one_group


def sigmoid_contrast(
    a: Tensor, b: Tensor, group: Tensor | None = None, *, scale: Tensor | float = 10.0, bias: Tensor | float = -10.0
) -> Tensor:
    """SigLIP: is this pair one user? (Zhai et al., ICCV 2023, algorithm 1).

    ``-1/B sum_u sum_v log sigmoid(z_uv (t cos(a_u, b_v) + bias))`` with z = 1 on the diagonal and -1 off it. (The
    paper's equation has the opposite sign before the bias; its algorithm, and its start of -10, mean this one.)

    Args:
        a: [B, d] one view of each row, any float type; computed in float32 (also under autocast).
        b: [B, d] the other view of the same rows.
        group: int [B]; pairs of different rows of one group (of one user) are left out of the sum. None: every row is
            its own.
        scale: t > 0.
        bias: near minus the log of the number of negatives, or below, so that the many negatives cost little at first.

    Returns:
        Float32 scalar, > 0; at the default start about 10 for unrelated views, nearly all of it from the B matching
        pairs. Exactly 0, with zero gradient, where all rows are one group: yes alone would be learnt by the bias.
    """
    with torch.autocast(a.device.type, enabled=False):
        logits = scale * (unit(a) @ unit(b).T) + bias  # [B, B]
        same = same_group(group, a)
        own = torch.eye(len(a), dtype=torch.bool, device=a.device)
        costs = F.softplus(torch.where(own, -logits, logits)).masked_fill(same & ~own, 0.0)
        return zero_for_one_group(costs.sum() / len(a), group, len(a))


class SigmoidContrast(nn.Module):
    """Align two views pair by pair (SigLIP; Zhai et al., ICCV 2023).

    Args:
        scale: t at the start; its logarithm is learnt.
        bias: b at the start; learnt.

    ``forward(a, b, group)`` has the inputs and output of `sigmoid_contrast`.

    Relations: `SymmetricInfoNCE` asks which of B instead of yes or no, and needs neither scale nor bias to be learnt.
    """

    def __init__(self, *, scale: float = 10.0, bias: float = -10.0) -> None:
        super().__init__()
        self.log_scale = nn.Parameter(torch.tensor(math.log(check_above_zero("scale", scale))))
        self.bias = nn.Parameter(torch.tensor(float(bias)))

    def forward(self, a: Tensor, b: Tensor, group: Tensor | None = None) -> Tensor:
        """See `sigmoid_contrast`."""
        return sigmoid_contrast(a, b, group, scale=self.log_scale.float().exp(), bias=self.bias.float())
