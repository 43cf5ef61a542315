"""InfoNCE between the two views of a user, as the paper writes it (the released code computes something else)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from gensr.fusion.contrastive.base import check_above_zero, same_group, unit


def info_nce(a: Tensor, b: Tensor, group: Tensor | None = None, *, temperature: float = 0.07) -> Tensor:
    """Symmetric InfoNCE on cosine with negatives across and within the views (GenSR eq. 10).

    With sim = cosine / temperature, the loss of row u in view a is
    ``-log exp(sim(a_u, b_u)) / (exp(sim(a_u, b_u)) + sum_{v != u} exp(sim(a_u, b_v)) + exp(sim(a_u, a_v)))``;
    view b likewise with the roles swapped; the result is the mean over both views and all rows.

    Args:
        a: [B, d] one view of each row, any float type; computed in float32 (also under autocast).
        b: [B, d] the other view of the same rows.
        group: int [B]; rows of one group (of one user) are no negatives of each other. None: every row is its own.
        temperature: tau > 0.

    Returns:
        Float32 scalar, >= 0. About ln(2B - 1) for unrelated views; exactly 0, with zero gradient, where no row has a
        negative.
    """
    with torch.autocast(a.device.type, enabled=False):
        a, b = unit(a), unit(b)
        same = same_group(group, a)  # [B, B]
        cross = a @ b.T / temperature  # [B, B]
        positive = cross.diagonal()
        losses = []
        for across, within in ((cross, a @ a.T / temperature), (cross.T, b @ b.T / temperature)):
            negatives = torch.cat([across, within], 1).masked_fill(same.repeat(1, 2), float("-inf"))  # [B, 2B]
            options = torch.cat([positive.unsqueeze(1), negatives], 1)  # [B, 1 + 2B]
            losses.append(options.logsumexp(1) - positive)
        return torch.cat(losses).mean()


class InfoNCE(nn.Module):
    """Align a user's CF view with the same user's semantic view (GenSR section 4.2.2, eq. 10).

    Args:
        temperature: tau, as in `info_nce`, whose inputs and output ``forward(a, b, group)`` has.

    Views are user-level vectors: pooled before any candidate is looked at.

    Relations: without the negatives within the views it is `SymmetricInfoNCE`.
    """

    def __init__(self, *, temperature: float = 0.07) -> None:
        super().__init__()
        self.temperature = check_above_zero("temperature", temperature)

    def forward(self, a: Tensor, b: Tensor, group: Tensor | None = None) -> Tensor:
        """See `info_nce`."""
        return info_nce(a, b, group, temperature=self.temperature)
