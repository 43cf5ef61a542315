"""The networks on top: from a representation to one logit."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import cast

from torch import Tensor, nn


class Tower(nn.Module):
    """An MLP with ReLU and dropout after every layer but the last, which gives a logit.

    Args:
        dim: width of the input.
        hidden: widths between.
        dropout: in training.

    Input: [..., dim]. Output: [...]. Logits and not probabilities: in float32 a sigmoid makes large logits equal.
    """

    def __init__(self, dim: int, hidden: Sequence[int], *, dropout: float = 0.0) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for width, following in pairwise((dim, *hidden)):
            layers += [nn.Linear(width, following), nn.ReLU(), nn.Dropout(dropout)]
        self.layers = nn.Sequential(*layers, nn.Linear((dim, *hidden)[-1], 1))

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        return cast(Tensor, self.layers(x)).squeeze(-1)
