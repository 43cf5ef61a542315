"""DIN's activation unit as a soft filter: relevance by a small network instead of a dot product."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn

from gensr.fusion.soft_filter.base import Filtered, QueryContext, SoftFilter, masked_softmax, pooled, real_only

Activation = Literal["sigmoid", "prelu", "dice"]
Weights = Literal["softmax", "relu"]


class Dice(nn.Module):
    """DIN's activation, ``p s + (1 - p) alpha s`` with ``p = sigmoid((s - mean) / sqrt(var + eps))``, unit by unit.

    Args:
        units: width u of the input.
        eps: keeps the root off 0.
        momentum: share of the newest batch in the running statistics.

    Inputs and output ``[n, units]``, rows are examples. Mean and variance are those of the rows in training and running
    statistics in eval mode, so that a score never depends on its batch mates. Alpha starts at 0.
    """

    mean: Tensor
    var: Tensor

    def __init__(self, units: int, *, eps: float = 1e-9, momentum: float = 0.1) -> None:
        super().__init__()
        self.eps, self.momentum = eps, momentum
        self.alpha = nn.Parameter(torch.zeros(units))
        self.register_buffer("mean", torch.zeros(units))
        self.register_buffer("var", torch.ones(units))

    def forward(self, s: Tensor) -> Tensor:
        """Apply the activation."""
        mean, var = self.mean, self.var
        if self.training and len(s):
            var, mean = torch.var_mean(s.float(), dim=0, correction=0)
            self.mean.lerp_(mean.detach().to(self.mean.dtype), self.momentum)
            self.var.lerp_(var.detach().to(self.var.dtype), self.momentum)
        p = ((s.float() - mean) / (var + self.eps).sqrt()).sigmoid().to(s.dtype)
        return p * s + (1 - p) * self.alpha * s


def first_layer(item: Tensor, candidate: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """``W [q; e; q - e; q * e] + b`` for every pair of candidate q and item e, without the concatenation.

    With ``W = [A|C|D|P]`` it is ``(A + D) q + (C - D) e + P (q * e) + b``: only the last product is made for pairs.

    Args:
        item: [B, L, d].
        candidate: [B, C, d].
        weight: [u, 4d].
        bias: [u].

    Returns:
        [B, C, L, u].
    """
    a, c, d, p = weight.chunk(4, dim=1)
    alone = (candidate @ (a + d).mT + bias).unsqueeze(2) + (item @ (c - d).mT).unsqueeze(1)
    if item.shape[1] <= len(p):
        return alone + (candidate.unsqueeze(2) * item.unsqueeze(1)) @ p.mT
    # A history longer than the layer is wide (tokens): the same product with fewer numbers in between, [B, C, u, d].
    return alone + ((candidate.unsqueeze(2) * p) @ item.mT.unsqueeze(1)).mT


class DINFilter(SoftFilter):
    """Weigh history items by the activation unit of the Deep Interest Network (Zhou et al., KDD 2018).

    ``a_j = MLP([q; e_j; q - e_j; q * e_j])`` and ``u(q) = sum_j alpha_j e_j``, where q is the candidate, plus the
    mapped query where there is one.

    Args:
        dim: width d of history and candidate vectors.
        hidden: widths of the hidden layers, at least one.
        activation: of the hidden layers: ``"sigmoid"``, ``"prelu"`` (one slope a layer) or ``"dice"``.
        weights: ``"softmax"``: alpha is the softmax of ``a / sqrt(dim)``, as in the authors' repository. ``"relu"``:
            alpha is ``max(a, 0)``, which does not sum to 1, so that the intensity of an interest is kept.

    Inputs: history ``[B, L, dim]``, candidate ``[B, C, dim]``, mask ``[B, L]`` (True = real), context ``[B, dim]`` or
    None. Output: tokens ``[B, C, 1, dim]``, weights ``[B, C, L]``.

    Deviations: the paper's text uses the signed ``a_j`` themselves as weights. A soft filter's weights are importances,
    never negative, so ``"relu"`` cuts them at 0; for positive a_j the two are equal. DIN's prediction network after the
    pooling is not part of a filter.

    Starting values: Xavier-uniform, biases 0. With ``"relu"`` the last layer starts near 0 with bias 1, so that every
    item counts about once (sum pooling, DIN's base model) and none starts where the rectifier has no gradient.

    Padding passes neither through the hidden layers nor into the statistics of ``"dice"``.

    Relations: `GatedFilter` with a network in place of a dot product, or `CrossAttentionFilter` so, by `weights`.

    Raises:
        ValueError: `hidden` is empty or holds a width below 1, or `activation` or `weights` is unknown.
    """

    def __init__(
        self,
        dim: int,
        *,
        hidden: Sequence[int] = (80, 40),
        activation: Activation = "sigmoid",
        weights: Weights = "softmax",
    ) -> None:
        super().__init__()
        if not hidden or min(hidden) < 1:
            raise ValueError(f"hidden={tuple(hidden)}: expected at least one hidden layer, each of width 1 or more")
        if weights not in ("softmax", "relu"):
            raise ValueError(f"weights={weights!r}: expected 'softmax' or 'relu'")
        self.weights = weights
        self.first = nn.Linear(4 * dim, hidden[0])
        between = [nn.Linear(width, following) for width, following in pairwise(hidden)]
        last = nn.Linear(hidden[-1], 1, bias=weights == "relu")  # b_3 shifts all scores alike: no softmax sees it
        self.rest = nn.Sequential()
        for width, layer in zip(hidden, (*between, last), strict=True):
            self.rest.extend((_activation(activation, width), layer))
        self.context = QueryContext(dim)
        nn.init.xavier_uniform_(self.context.weight)
        for layer in (self.first, *between, last):
            nn.init.xavier_uniform_(layer.weight)
        for layer in (self.first, *between):
            nn.init.zeros_(layer.bias)
        if last.bias is not None:
            nn.init.normal_(last.weight, std=0.02)
            nn.init.ones_(last.bias)

    def forward(self, history: Tensor, candidate: Tensor, mask: Tensor, context: Tensor | None = None) -> Filtered:
        """See `SoftFilter.forward`."""
        history = real_only(history, mask)
        scores = self._scores(history, self.context.add(candidate, context), mask)
        if self.weights == "softmax":
            weights = masked_softmax(scores / math.sqrt(history.shape[-1]), mask.unsqueeze(1))
        else:
            weights = scores.relu()  # 0 on padding, as the scores are
        return Filtered(pooled(weights, history), weights)

    def _scores(self, history: Tensor, candidate: Tensor, mask: Tensor) -> Tensor:
        """The unit's output a, float32 [B, C, L], 0 on padding."""
        pairs = mask.unsqueeze(1).expand(-1, candidate.shape[1], -1)  # [B, C, L]
        inner = first_layer(history, candidate, self.first.weight, self.first.bias)[pairs]  # [n, u]
        scores = torch.zeros(pairs.shape, device=inner.device)
        return scores.masked_scatter(pairs, self.rest(inner).float())


def _activation(name: str, units: int) -> nn.Module:
    if name == "sigmoid":
        return nn.Sigmoid()
    if name == "prelu":
        return nn.PReLU()
    if name == "dice":
        return Dice(units)
    raise ValueError(f"activation={name!r}: expected 'sigmoid', 'prelu' or 'dice'")
