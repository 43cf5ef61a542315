"""No history encoder: what remains when the slot is dropped."""

from __future__ import annotations

from torch import Tensor

from gensr.encoders.history.base import HistoryEncoder


class NoHistory(HistoryEncoder):
    """Every event is its item's vector, whatever came before or after it.

    Inputs, output and arguments: `HistoryEncoder`. Neither order nor task type matters; the vector of an empty history
    is its only parameter.
    """

    def encode(self, x: Tensor, mask: Tensor, task: Tensor | None) -> Tensor:
        """See `HistoryEncoder.encode`."""
        return x
