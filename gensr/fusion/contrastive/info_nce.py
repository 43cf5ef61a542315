"""InfoNCE, as the papers of joint models write it: between two views of a row, and of pairs against a pool."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gensr.fusion.contrastive.base import check_above_zero, same_group, unit

Similarity = Callable[[Tensor, Tensor], Tensor]
"""Compares every row of x [..., n, d] with every row of y [..., m, d]: [..., n, m]."""


def cosine(x: Tensor, y: Tensor) -> Tensor:
    """Cosine of every row of x [..., n, d] with every row of y [..., m, d]: float32 [..., n, m]."""
    return unit(x) @ unit(y).mT


def info_nce(
    a: Tensor,
    b: Tensor,
    group: Tensor | None = None,
    *,
    temperature: float | Tensor = 0.07,
    similarity: Similarity = cosine,
) -> Tensor:
    """Symmetric InfoNCE with negatives across and within the views (GenSR eq. 10; UniSAR's history alignment).

    With sim = similarity / temperature, the loss of row u in view a is
    ``-log exp(sim(a_u, b_u)) / (exp(sim(a_u, b_u)) + sum_{v != u} exp(sim(a_u, b_v)) + exp(sim(a_u, a_v)))``;
    view b likewise with the roles swapped; the result is the mean over both views and all rows.

    Args:
        a: [B, d] one view of each row, any float type; computed in float32 (also under autocast).
        b: [B, d] the other view of the same rows.
        group: int [B]; rows of one group (of one user) are no negatives of each other. None: every row is its own.
        temperature: tau > 0; a scalar tensor where it is learnt.
        similarity: of float32 rows; need not be symmetric.

    Returns:
        Float32 scalar, >= 0. About ln(2B - 1) for unrelated views; exactly 0, with zero gradient, where no row has a
        negative.
    """
    with torch.autocast(a.device.type, enabled=False):
        rows = torch.cat([a, b]).float()  # [2B, d]: a row's counterpart lies B rows further
        counterpart = torch.arange(len(rows), device=rows.device).roll(len(a))
        left_out = same_group(group, a).repeat(2, 2)
        left_out = left_out.scatter(1, counterpart.unsqueeze(1), False)
        options = (similarity(rows, rows) / temperature).masked_fill(left_out, float("-inf"))  # [2B, 2B]
        return F.cross_entropy(options, counterpart)


def pool_info_nce(
    a: Tensor,
    b: Tensor,
    pool_a: Tensor,
    pool_b: Tensor,
    *,
    same_a: Tensor | None = None,
    same_b: Tensor | None = None,
    weight: Tensor | None = None,
    temperature: float | Tensor = 0.07,
    similarity: Similarity = cosine,
) -> Tensor:
    """InfoNCE of pairs against pools: tell b_i from the pool of b given a_i, and a_i from the pool of a given b_i.

    The query-item alignment of SESRec (SIGIR 2023) and UniSAR (SIGIR 2024): a are queries, b the items clicked.

    Args:
        a: [n, d] first halves of the pairs, any float type; computed in float32 (also under autocast).
        b: [n, d] second halves.
        pool_a: [P, d] whatever else could stand first.
        pool_b: [Q, d] whatever else could stand second.
        same_a: bool [n, P], pool entries that are a_i itself: no negatives. None: none are.
        same_b: bool [n, Q], likewise for b_i.
        weight: [n], >= 0; how often each pair counts. None: once.
        temperature: tau > 0; a scalar tensor where it is learnt.
        similarity: of float32 rows, the first argument always of kind a.

    Returns:
        Float32 scalar, >= 0: the weighted mean over pairs of the mean of both directions. ln(1 + P) where all is alike.
    """
    with torch.autocast(a.device.type, enabled=False):
        a, b, pool_a, pool_b = (x.float() for x in (a, b, pool_a, pool_b))
        own = similarity(a.unsqueeze(1), b.unsqueeze(1)).squeeze(2) / temperature  # [n, 1]
        losses = []
        for others, same in ((similarity(a, pool_b), same_b), (similarity(pool_a, b).T, same_a)):
            negatives = others / temperature
            if same is not None:  # after the division: -inf would give the temperature no gradient but NaN
                negatives = negatives.masked_fill(same, float("-inf"))
            losses.append(torch.cat([own, negatives], 1).logsumexp(1) - own.squeeze(1))
        loss = (losses[0] + losses[1]) / 2  # [n]
        return loss.mean() if weight is None else (loss * weight).sum() / weight.sum()


class TanhBilinear(nn.Module):
    """The similarity ``tanh(x^T W y)``, between -1 and 1, and a temperature that is learnt with it (SESRec, UniSAR).

    Args:
        dim: width of both rows.
        temperature: tau at the start.
        least: tau is held at or above it: nothing else would keep it from 0.

    W starts Xavier-normal.
    """

    def __init__(self, dim: int, *, temperature: float, least: float = 0.01) -> None:
        super().__init__()
        self.form = nn.Parameter(torch.empty(dim, dim))
        nn.init.xavier_normal_(self.form)
        self.tau = nn.Parameter(torch.tensor(check_above_zero("temperature", temperature)))
        self.least = least

    @property
    def temperature(self) -> Tensor:
        """tau, float32 scalar."""
        return self.tau.clamp(min=self.least)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """See `Similarity`."""
        return torch.tanh(x @ self.form @ y.mT)


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
