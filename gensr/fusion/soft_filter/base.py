"""What every soft filter takes and gives."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import NamedTuple

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
