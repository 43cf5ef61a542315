"""What GenSR knows about requests before it sees a candidate."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from gensr.nested import map_tensors, nbytes
from gensr.rankers.views import ViewState


class RequestState(NamedTuple):
    """B requests that have been read: histories, queries and prompts, but no candidate.

    Attributes:
        task: int64 [B] task codes.
        events: bool [B, L] where the history holds an event.
        views: state of each view's history.
        prompt: the backbone's state.
        fold: [B] as in `CFVectors`; None outside training.
    """

    task: Tensor
    events: Tensor
    views: dict[str, ViewState]
    prompt: Any
    fold: Tensor | None = None

    @property
    def nbytes(self) -> int:
        """Memory it keeps alive."""
        return nbytes(self)

    def to(self, device: torch.device | str) -> RequestState:
        """The same state on another device."""
        return map_tensors(lambda tensor: tensor.to(device), self)

    def select(self, rows: Tensor) -> RequestState:
        """The requests at `rows`, int64 [n]."""
        return map_tensors(lambda tensor: tensor.index_select(0, rows), self)
