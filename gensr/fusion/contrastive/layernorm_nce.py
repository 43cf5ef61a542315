"""The contrastive loss that GenSR's released code computes, which is not the one of the paper (see `InfoNCE`)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gensr.fusion.contrastive.base import check_above_zero, cross_view_nce, same_group, unit

Affine = tuple[Tensor, Tensor]


def layernorm_nce(
    a: Tensor,
    b: Tensor,
    group: Tensor | None = None,
    *,
    affine_a: Affine | None = None,
    affine_b: Affine | None = None,
    temperature: float = 0.07,
) -> Tensor:
    """Symmetric cross-view InfoNCE on dot products of unit rows that a LayerNorm has stretched again.

    The LayerNorm (epsilon 1e-5) undoes the scaling to length 1: rows get the length sqrt(d), so dot products over
    temperature span +-d / temperature, and unrelated views cost about sqrt(d) / temperature times the expected largest
    of B - 1 standard normals: a thousand at d = 768 and B = 200, against ln B = 5.3 for cosine.

    Args:
        a: [B, d] one view of each row, any float type; computed in float32 (also under autocast).
        b: [B, d] the other view of the same rows.
        group: int [B]; rows of one group (of one user) are no negatives of each other. None: every row is its own, as
            in the released code, which takes a user's other rows for negatives.
        affine_a: gain [d] and shift [d] of the LayerNorm of `a`; 1 and 0 where absent.
        affine_b: those of `b`.
        temperature: tau > 0.

    Returns:
        Float32 scalar, >= 0; exactly 0, with zero gradient, where all rows are one group.
    """
    with torch.autocast(a.device.type, enabled=False):
        a, b = _stretched(a, affine_a), _stretched(b, affine_b)
        return cross_view_nce(a @ b.T / temperature, same_group(group, a))


def _stretched(x: Tensor, affine: Affine | None) -> Tensor:
    gain, shift = (part.float() for part in affine) if affine else (None, None)
    return F.layer_norm(unit(x), x.shape[-1:], gain, shift)


class LayerNormNCE(nn.Module):
    """Align two views as GenSR's released code does: unit rows, a learnable LayerNorm per view, dot products.

    Args:
        dim: width d of the views.
        temperature: tau, as in `layernorm_nce`, whose inputs and output ``forward(a, b, group)`` has.

    The released code feeds it candidate-conditioned vectors; which vectors it gets is the caller's choice here.

    Relations: `SymmetricInfoNCE` with a temperature about `dim` times smaller, as long as the LayerNorms are at rest.
    """

    def __init__(self, dim: int, *, temperature: float = 0.07) -> None:
        super().__init__()
        self.temperature = check_above_zero("temperature", temperature)
        self.norm_a, self.norm_b = nn.LayerNorm(dim), nn.LayerNorm(dim)

    def forward(self, a: Tensor, b: Tensor, group: Tensor | None = None) -> Tensor:
        """See `layernorm_nce`."""
        return layernorm_nce(
            a,
            b,
            group,
            affine_a=(self.norm_a.weight, self.norm_a.bias),
            affine_b=(self.norm_b.weight, self.norm_b.bias),
            temperature=self.temperature,
        )
