"""Objectives that rankers are trained with; all take logits.

Positives come as `positive` [...], negatives as `negatives` [..., N].
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint


def bce(positive: Tensor, negatives: Tensor, *, beta: float = 1.0) -> Tensor:
    """``-beta log sigmoid(s+) - sum_n log(1 - sigmoid(s_n))`` of each positive.

    Args:
        positive: [...].
        negatives: [..., N].
        beta: exponent on the positive's probability; see `gbce_beta`.

    Returns:
        [...]; 2 ln 2 at all-zero logits with one negative.
    """
    return beta * F.softplus(-positive) + F.softplus(negatives).sum(-1)


def gbce_beta(negatives: int, num_items: int, calibration: float) -> float:
    """The exponent of gBCE (Petrov, Macdonald, RecSys 2023, eq. 12): alpha (t (1 - 1/alpha) + 1/alpha).

    Args:
        negatives: N of each positive.
        num_items: I; alpha = N / (I - 1) is the sampling rate.
        calibration: t; 0 gives 1, plain BCE, and 1 gives alpha.
    """
    alpha = min(1.0, negatives / max(1, num_items - 1))
    return alpha * (calibration * (1 - 1 / alpha) + 1 / alpha)


def softmax(states: Tensor, items: Tensor, target: Tensor, *, chunk: int = 4096) -> Tensor:
    """Cross-entropy over the whole catalogue of dot products.

    Args:
        states: [n, d].
        items: [I+1, d]; row 0, the padding, is no option.
        target: int64 [n], rows of `items`.
        chunk: states compared at once. Logits are computed again in the backward pass, so no more than chunk x I of
            them are held.

    Returns:
        [n]; ln I for equal scores.
    """

    def losses(some: Tensor, goal: Tensor) -> Tensor:
        return F.cross_entropy(some @ items[1:].T, goal - 1, reduction="none")

    pieces = zip(torch.split(states, chunk), torch.split(target, chunk), strict=True)
    found: list[Tensor] = [checkpoint(losses, *piece, use_reentrant=False) for piece in pieces]
    return torch.cat(found)


def sampled_softmax(states: Tensor, items: Tensor, target: Tensor, samples: Tensor, log_chance: Tensor) -> Tensor:
    """Cross-entropy of the target among itself and `samples`, corrected for how they were drawn (logQ).

    Args:
        states: [n, d].
        items: [I+1, d].
        target: int64 [n].
        samples: int64 [S], shared by all states; one that equals a state's target is left out for it.
        log_chance: [I+1], log of (a multiple of) the chance of an item to be drawn, subtracted from its logit.

    Returns:
        [n].
    """
    positive = (states * items[target]).sum(-1) - log_chance[target]  # [n]
    others = states @ items[samples].T - log_chance[samples]  # [n, S]
    others = others.masked_fill(target.unsqueeze(1) == samples, -math.inf)
    return torch.cat([positive.unsqueeze(1), others], dim=1).logsumexp(1) - positive
