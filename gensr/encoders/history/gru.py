"""A recurrent history: what an event means after all that came before it."""

from __future__ import annotations

from typing import cast

import torch.nn.functional as F
from torch import Tensor, nn

from gensr.data.tasks import Task
from gensr.encoders.history.base import HistoryEncoder, reorder


class GRUHistoryEncoder(HistoryEncoder):
    """GRU over the events in time order; an event's vector is the state after it (GRU4Rec, Hidasi et al., ICLR 2016).

    Args:
        dim: width in and out.
        max_length: longest history it will see.
        layers: GRU layers.
        hidden: width of the state, mapped back to `dim`; None: `dim`.
        dropout: in training, on the inputs, between layers, and on the states.
        task_types: learn whether an event was a recommendation or a search.
        residual: add the event's own vector to its state. A state sums up the past, so that without it a soft filter
            hardly tells which item is which.

    Inputs and output: `HistoryEncoder`. Causal: an event knows nothing of later ones. Padding is never stepped over,
    wherever it stands. The cell is PyTorch's, which applies the reset gate after the matrix product.

    Starting values: Xavier-uniform for each gate's matrix, biases 0.
    """

    def __init__(
        self,
        dim: int,
        *,
        max_length: int,
        layers: int = 1,
        hidden: int | None = None,
        dropout: float = 0.1,
        task_types: bool = True,
        residual: bool = True,
    ) -> None:
        super().__init__(dim, max_length=max_length)
        self.dropout, self.residual = dropout, residual
        self.task_types = nn.Embedding(max(Task) + 1, dim, padding_idx=0) if task_types else None
        between = dropout if layers > 1 else 0.0
        self.gru = nn.GRU(dim, hidden or dim, num_layers=layers, dropout=between, batch_first=True)
        self.out = nn.Linear(hidden or dim, dim)
        if self.task_types is not None:
            nn.init.normal_(self.task_types.weight[1:], std=0.02)
        for name, weight in self.gru.named_parameters():
            if name.startswith("bias"):
                nn.init.zeros_(weight)
            else:
                for gate in weight.chunk(3):
                    nn.init.xavier_uniform_(gate)
        nn.init.xavier_uniform_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def encode(self, x: Tensor, mask: Tensor, task: Tensor | None) -> Tensor:
        """See `HistoryEncoder.encode`."""
        inputs = x
        if self.task_types is not None and task is not None:
            inputs = inputs + self.task_types(task)
        # Events first, padding last: a state that steps over padding drifts, even where the inputs are 0.
        order = (~mask).int().argsort(dim=1, stable=True)
        states, _ = self.gru(reorder(self._drop(inputs), order))  # [B, L, hidden]
        states = cast(Tensor, self.out(self._drop(reorder(states, order.argsort(dim=1)))))  # [B, L, dim]
        return x + states if self.residual else states

    def _drop(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.dropout, self.training)
