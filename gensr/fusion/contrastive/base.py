"""What the contrastive losses share: who is whose negative, unit rows, the cross-view form, and what costs nothing.

A loss is called as ``loss(a [B, d], b [B, d], group [B] or None) -> float32 scalar``, B >= 1: row u of both views is
one user, or whatever else two tensors describe twice. Rows of one group are never negatives of each other. A batch in
which all rows are one group (one row, one user) compares nobody with anybody: it costs exactly 0, with zero gradient.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def unit(x: Tensor) -> Tensor:
    """Rows of length 1, float32; a zero row stays zero, with a gradient of ordinary size."""
    x = x.float()
    norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    return x / torch.where(norm > 0, norm, torch.ones_like(norm))


def same_group(group: Tensor | None, a: Tensor) -> Tensor:
    """Bool [B, B]: which rows of `a` [B, d] are one user; where `group` is None, every row is its own."""
    if group is None:
        group = torch.arange(len(a), device=a.device)
    return group.unsqueeze(1) == group.unsqueeze(0)


def zero_for_one_group(value: Tensor, group: Tensor | None, rows: int) -> Tensor:
    """`value`, or 0 with zero gradient where the `rows` of the batch are all one group."""
    return value * ((group != group[0]).any() if group is not None else float(rows > 1))


def cross_view_nce(similarity: Tensor, same: Tensor) -> Tensor:
    """Mean of the two cross-entropies that find each row's own counterpart among those of other groups.

    Args:
        similarity: float32 [B, B], rows of one view against rows of the other, temperature applied.
        same: bool [B, B] as from `same_group`; such pairs off the diagonal are left out.
    """
    own = torch.arange(len(same), device=same.device)
    options = similarity.masked_fill(same & (own.unsqueeze(1) != own), float("-inf"))
    return (F.cross_entropy(options, own) + F.cross_entropy(options.T, own)) / 2


def check_above_zero(name: str, value: float) -> float:
    """`value`.

    Raises:
        ValueError: it is not above 0.
    """
    if not value > 0:
        raise ValueError(f"{name}={value}: expected a number above 0")
    return value
