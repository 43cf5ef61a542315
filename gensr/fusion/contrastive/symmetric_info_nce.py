"""InfoNCE with cross-view negatives only: the form CLIP made common."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from gensr.fusion.contrastive.base import check_above_zero, cross_view_nce, same_group, unit


def symmetric_info_nce(a: Tensor, b: Tensor, group: Tensor | None = None, *, temperature: float = 0.07) -> Tensor:
    """Mean of two cross-entropies on cosine: find b_u given a_u, and a_u given b_u (Radford et al., ICML 2021, fig. 3).

    Args:
        a: [B, d] one view of each row, any float type; computed in float32 (also under autocast).
        b: [B, d] the other view of the same rows.
        group: int [B]; rows of one group (of one user) are no negatives of each other. None: every row is its own.
        temperature: tau > 0.

    Returns:
        Float32 scalar, >= 0. About ln B for unrelated views; exactly 0, with zero gradient, where all rows are one
        group.
    """
    with torch.autocast(a.device.type, enabled=False):
        return cross_view_nce(unit(a) @ unit(b).T / temperature, same_group(group, a))


class SymmetricInfoNCE(nn.Module):
    """Align two views of a user against the other users of the other view (Radford et al., ICML 2021).

    Args:
        temperature: tau, as in `symmetric_info_nce`, whose inputs and output ``forward(a, b, group)`` has.

    Relations: `InfoNCE` also pushes users of one view apart; `LayerNormNCE` compares by something wider than cosine.
    """

    def __init__(self, *, temperature: float = 0.07) -> None:
        super().__init__()
        self.temperature = check_above_zero("temperature", temperature)

    def forward(self, a: Tensor, b: Tensor, group: Tensor | None = None) -> Tensor:
        """See `symmetric_info_nce`."""
        return symmetric_info_nce(a, b, group, temperature=self.temperature)
