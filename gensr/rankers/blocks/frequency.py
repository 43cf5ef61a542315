"""Frequency filters: every event hears of all others without attention (FMLP-Rec, Zhou et al., WWW 2022)."""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

EPS = 1e-12
"""Of the layer norms, as in the authors' code."""


def frequency_filter(x: Tensor, weight: Tensor) -> Tensor:
    """Multiply the spectrum over time by a complex weight, channel by channel: ``irfft(W * rfft(x))``.

    The same as circular convolution over time with the kernel ``irfft(W)``. The imaginary parts of the first bin, and
    for even L of the last, have no effect.

    Args:
        x: [B, L, d].
        weight: [L // 2 + 1, d, 2], real and imaginary parts.

    Returns:
        [B, L, d] in the dtype of x; computed in float32 at least, as half-precision transforms are rarely available.
    """
    dtype = torch.promote_types(x.dtype, torch.float32)
    spectrum = torch.fft.rfft(x.to(dtype), dim=1, norm="ortho")  # [B, L // 2 + 1, d]
    filtered = spectrum * torch.view_as_complex(weight.to(dtype))
    return cast(Tensor, torch.fft.irfft(filtered, n=x.shape[1], dim=1, norm="ortho").to(x.dtype))


def last_filtered(x: Tensor, weight: Tensor) -> Tensor:
    """`frequency_filter` at the last position alone, by its other form, a circular convolution: [B, d].

    Args:
        x: [B, L, d].
        weight: [L // 2 + 1, d, 2].
    """
    dtype = torch.promote_types(x.dtype, torch.float32)
    kernel = torch.fft.irfft(torch.view_as_complex(weight.to(dtype)), n=x.shape[1], dim=0)  # [L, d]
    return torch.einsum("bld,ld->bd", x.to(dtype), kernel.flip(0)).to(x.dtype)


class FilterBlock(nn.Module):
    """One block of FMLP-Rec: a frequency filter, then a GELU network of width 4 dim, both with residual and layer norm.

    Inputs and output ``[B, length, dim]``; the length is fixed.
    """

    def __init__(self, dim: int, *, length: int, dropout: float) -> None:
        super().__init__()
        self.dropout = dropout
        self.filter = nn.Parameter(torch.empty(length // 2 + 1, dim, 2))
        self.norm1 = nn.LayerNorm(dim, eps=EPS)
        self.inner = nn.Linear(dim, 4 * dim)
        self.outer = nn.Linear(4 * dim, dim)
        self.norm2 = nn.LayerNorm(dim, eps=EPS)
        for weight in (self.filter, self.inner.weight, self.outer.weight):
            nn.init.normal_(weight, std=0.02)
        for layer in (self.inner, self.outer):
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the block."""
        return self._combine(x, frequency_filter(x, self.filter))

    def newest(self, x: Tensor) -> Tensor:
        """The block's output at the last position alone, [B, dim]: all that a model needs of its last block."""
        return self._combine(x[:, -1], last_filtered(x, self.filter))

    def _combine(self, x: Tensor, filtered: Tensor) -> Tensor:
        x = self.norm1(x + self._drop(filtered))
        return cast(Tensor, self.norm2(x + self._drop(self.outer(F.gelu(self.inner(x))))))

    def _drop(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.dropout, self.training)
