"""What every soft filter takes and gives, and the few steps that several of them share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn


class Filtered(NamedTuple):
    """Result of a soft filter.

    Attributes:
        tokens: [B, C, K, d] history as seen by each candidate.
        weights: [B, C, L] importance of each history item; >= 0, 0 on padding, all 0 for an empty history.
    """

    tokens: Tensor
    weights: Tensor


class SoftFilter(nn.Module, ABC):
    """Weigh a history by its relevance to each candidate."""

    uses_context: bool = True
    """Whether `forward` reads `context`; where not, nobody needs to prepare it."""

    @abstractmethod
    def forward(self, history: Tensor, candidate: Tensor, mask: Tensor, context: Tensor | None = None) -> Filtered:
        """Filter histories for all candidates at once.

        Args:
            history: [B, L, d] encoded history.
            candidate: [B, C, d] candidate vectors of the same view.
            mask: bool [B, L], True = real.
            context: [B, d] the query in the view's width (zeros where the request has none), or None.
        """

    def tokens(self, length: int) -> int:
        """How many vectors K it returns for a history of `length` slots."""
        return 1


class QueryContext(nn.Linear):
    """The query's way into a filter: added to the candidate, so that relevance is relevance to both.

    A square map without bias, so that a zero context (a request without a query) is no context.

    Args:
        dim: width of context and candidate.
    """

    def __init__(self, dim: int) -> None:
        super().__init__(dim, dim, bias=False)

    def add(self, candidate: Tensor, context: Tensor | None) -> Tensor:
        """Candidates [B, C, d] as a request with this context [B, d], or None, asks for them."""
        return candidate if context is None else candidate + cast(Tensor, self(context)).unsqueeze(1)


def real_only(history: Tensor, mask: Tensor) -> Tensor:
    """History [B, L, d] with zeros in place of whatever stands under the mask [B, L], NaN included."""
    return history.masked_fill(~mask.unsqueeze(-1), 0.0)


def masked_softmax(scores: Tensor, mask: Tensor) -> Tensor:
    """Softmax over the last dimension that gives masked positions exactly 0, and a row without real ones all 0.

    Args:
        scores: [..., L] finite.
        mask: bool, broadcastable to `scores`, True = real.

    Returns:
        Float32 [..., L].
    """
    scores = scores.float()
    # The lowest finite value and not -inf: a fully masked row would be NaN, in the backward pass as well.
    weights = scores.masked_fill(~mask, torch.finfo(scores.dtype).min).softmax(-1)
    return weights.masked_fill(~mask, 0.0)


def pooled(weights: Tensor, value: Tensor) -> Tensor:
    """Weighted sums of the history, one vector a candidate: weights [B, C, L], value [B, L, d] -> [B, C, 1, d]."""
    return (weights.to(value.dtype) @ value).unsqueeze(2)
