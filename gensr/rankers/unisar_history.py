"""UniSAR's history: what events of one kind read among themselves, and from events of the other kind."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn

from gensr.data.tasks import Task
from gensr.rankers.blocks.cross_fusion import CrossFusion
from gensr.rankers.blocks.pooling import masked_mean
from gensr.rankers.blocks.sequence import newest_events
from gensr.rankers.blocks.transformer import Rows, TransformerBlock

if TYPE_CHECKING:
    from gensr.rankers.peers import UniSARConfig


class Transitions(NamedTuple):
    """Events of one kind, oldest first, right padded.

    Attributes:
        within: [B, n, d], each event having read those of its kind (R2R, or S2S); 0 on padding.
        across: [B, n, d], each having read those of the other kind (S2R, or R2S); 0 on padding.
        fused: [B, n, d], both.
        mask: bool [B, n], True = real.
    """

    within: Tensor
    across: Tensor
    fused: Tensor
    mask: Tensor

    def means(self) -> tuple[Tensor, Tensor]:
        """`within` and `across` as one vector a request, [B, d] each; 0 where there is no event."""
        return masked_mean(self.within, self.mask, 1), masked_mean(self.across, self.mask, 1)


class HistoryEncoder(nn.Module):
    """Transitions of both kinds: a transformer over the merged history in which only events of different kinds see each
    other, one over the events of each kind, and for each kind a decoder layer that fuses what the two found.

    Where a history has no event of the other kind, an event knows nothing but itself there, through the residual: so a
    user with one kind of history gets ordinary vectors, never NaN.

    Args:
        config: widths, and the number of events of each kind.

    Inputs: events [B, L, dim] and their kinds, int64 [B, L] `Task` codes, 0 = padding; at most `config.events` of each.
    """

    def __init__(self, config: UniSARConfig) -> None:
        super().__init__()
        self.positions = nn.Parameter(torch.empty(len(Task) * config.events, config.dim))
        self.across = _transformer(config)
        self.kinds = nn.ModuleDict({task.label: _Kind(config) for task in Task})

    def forward(self, events: Tensor, kind: Tensor) -> dict[Task, Transitions]:
        """See the class."""
        merged = self.read_across(events, kind)
        return {task: self._of_kind(task, events, merged, kind) for task in Task}

    def read_across(self, events: Tensor, kind: Tensor) -> Tensor:
        """Each event [B, L, dim] having read those of the other kind; 0 on padding."""
        rows = Rows(kind > 0)
        x = rows.pack(events + self.positions[: events.shape[1]])
        return rows.pad(self.across(x, cross_type(kind), rows))

    def _of_kind(self, task: Task, events: Tensor, merged: Tensor, kind: Tensor) -> Transitions:
        own = newest_events(kind == task, events.shape[1])
        found: Transitions = self.kinds[task.label](own.take(events), own.take(merged), own.mask)
        return found


class _Kind(nn.Module):
    """What is done with the events of one kind."""

    def __init__(self, config: UniSARConfig) -> None:
        super().__init__()
        self.positions = nn.Parameter(torch.empty(config.events, config.dim))
        self.within = _transformer(config)
        self.fusion = CrossFusion(config.dim, heads=config.heads, hidden=config.hidden, dropout=config.dropout)

    def forward(self, events: Tensor, across: Tensor, mask: Tensor) -> Transitions:
        rows = Rows(mask)
        x = rows.pack(events + self.positions[: events.shape[1]])
        within = self.within(x, mask.unsqueeze(1), rows)
        fused = self.fusion(within, rows.pack(across), rows)
        return Transitions(rows.pad(within), across, rows.pad(fused), mask)


def _transformer(config: UniSARConfig) -> TransformerBlock:
    return TransformerBlock(config.dim, heads=config.heads, hidden=config.hidden, dropout=config.dropout)


def cross_type(kind: Tensor) -> Tensor:
    """Who may read whom where only other kinds are seen: bool [B, L, L] of kinds int64 [B, L], 0 = padding."""
    return (kind.unsqueeze(1) > 0) & (kind.unsqueeze(1) != kind.unsqueeze(2))
