"""Several vectors as one."""

from __future__ import annotations

from torch import Tensor


def masked_mean(x: Tensor, mask: Tensor, dim: int) -> Tensor:
    """Mean of `x` over `dim` where `mask`; zero, not NaN, where nothing is.

    Args:
        x: [..., N, ..., d].
        mask: bool, of the shape of `x` without the last dimension.
        dim: the dimension N, counted from the front or, negative, from the back of `x`.
    """
    counted = mask.unsqueeze(-1)
    return x.masked_fill(~counted, 0).sum(dim) / counted.sum(dim).clamp(min=1)
