"""A user's events of one task as a sequence of items: what sequential recommenders read."""

from __future__ import annotations

from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gensr.data.batch import Batch
from gensr.data.tasks import Task
from gensr.errors import BadInputError
from gensr.rankers.floors import known_rows


class Events(NamedTuple):
    """Where the history slots of one kind lie, oldest first, padded on the right to the longest of the batch.

    Attributes:
        slots: int64 [B, n], history slots; 0 on padding.
        mask: bool [B, n], True = real.
    """

    slots: Tensor
    mask: Tensor

    def take(self, values: Tensor) -> Tensor:
        """Values [B, L] or [B, L, k] of the history at these slots, 0 on padding: [B, n] or [B, n, k]."""
        if not values.shape[1]:  # a history of no slots at all
            values = values.new_zeros(len(values), 1, *values.shape[2:])
        shape = (*self.slots.shape, *values.shape[2:])
        slots, mask = (part.reshape(*part.shape, *[1] * (values.ndim - 2)).expand(shape) for part in self)
        return values.gather(1, slots).masked_fill(~mask, 0)


def newest(chosen: Tensor, length: int) -> Tensor:
    """The newest `length` of the slots that each row of `chosen` has, both bool [B, L]."""
    following = chosen.flip(1).cumsum(1).flip(1)  # chosen slots from here on
    return chosen & (following <= length)


def newest_events(chosen: Tensor, length: int) -> Events:
    """The newest `length` history slots of each row of `chosen`, bool [B, L]; n is 1 at least."""
    chosen = newest(chosen, length)
    counts = chosen.sum(1)
    longest = max(1, int(counts.max())) if len(chosen) else 1
    order = (~chosen).int().argsort(dim=1, stable=True)[:, :longest]
    if order.shape[1] < longest:  # a history of no slots at all
        order = F.pad(order, (0, longest - order.shape[1]))
    mask = torch.arange(longest, device=chosen.device) < counts.unsqueeze(1)
    return Events(order.masked_fill(~mask, 0), mask)


def events_of(batch: Batch, task: Task, length: int) -> Events:
    """The newest `length` events of `task` in each history."""
    return newest_events(batch.hist_task == task, length)


def newest_state(states: Tensor, mask: Tensor) -> Tensor:
    """The state of the newest event, [B, n, d] -> [B, d]; 0 where there is none.

    Args:
        states: [B, n, d], right-padded.
        mask: bool [B, n].
    """
    last = (mask.sum(1) - 1).clamp(min=0)
    found = states[torch.arange(len(states), device=states.device), last]
    return found.masked_fill(~mask.any(1, keepdim=True), 0.0)


class UserState(NamedTuple):
    """Requests that a sequence model has read.

    Attributes:
        user: float32 [B, d], to be multiplied with item vectors.
    """

    user: Tensor


class NextItems(NamedTuple):
    """What a causal model has to predict at each position of a sequence.

    Attributes:
        items: int64 [B, n], the sequence itself; 0 on padding.
        mask: bool [B, n], True = real.
        target: int64 [B, n], the item that came next.
        negatives: int64 [B, n, N], items to set against it.
        trains: bool [B, n]: whether there is a target, and it is a training event.
    """

    items: Tensor
    mask: Tensor
    target: Tensor
    negatives: Tensor
    trains: Tensor


def next_items(batch: Batch, task: Task, length: int) -> NextItems:
    """The sequence of `task` with what follows each position: the next event, and the request's truth at the end.

    Raises:
        BadInputError: `batch` is no batch of sequences.
    """
    if batch.hist_negatives is None:
        raise BadInputError(
            "this ranker is trained on sequences: draw the batch with `RequestLoader.epoch(examples=ranker.examples)`"
        )
    events = events_of(batch, task, length)
    items, negatives = events.take(batch.hist_item), events.take(batch.hist_negatives)
    last = batch.cand.gather(1, batch.label.argmax(1, keepdim=True))  # [B, 1]
    others = batch.cand[batch.label < 0.5].view(len(batch), 1, -1)  # [B, 1, N]
    at_end = F.pad(events.mask[:, 1:], (0, 1)) != events.mask  # the newest real position
    target = torch.where(at_end, last, F.pad(items[:, 1:], (0, 1)))
    against = torch.where(at_end.unsqueeze(-1), others, F.pad(negatives[:, 1:], (0, 0, 0, 1)))
    return NextItems(items, events.mask, target, against, events.mask & (against > 0).all(-1))


class ItemEmbedding(nn.Embedding):
    """Item vectors, row 0 zero and kept zero; items beyond the table, which came after the training, are row 0.

    Args:
        num_items: I.
        dim: width d.
        std: standard deviation of the normal distribution that rows start from.
    """

    def __init__(self, num_items: int, dim: int, *, std: float = 0.02) -> None:
        super().__init__(num_items + 1, dim, padding_idx=0)
        nn.init.normal_(self.weight, std=std)
        with torch.no_grad():
            self.weight[0].zero_()

    def forward(self, items: Tensor) -> Tensor:
        """Vectors of items [...]: [..., d]."""
        return super().forward(known_rows(items, self.num_embeddings))


class SequenceEmbedding(nn.Module):
    """Items and learned positions, layer norm or not, dropout: the first layer of SASRec and FMLP-Rec.

    Positions count from the newest event. That is the published left padding with a row a column, in another order of
    rows: the newest event has the same row in every sequence, and cropping the padding changes nothing.

    Args:
        length: rows of the position table.
        dim: width d.
        dropout: in training.
        norm: layer norm before the dropout.
        eps: of the layer norm.
        scale: factor on item vectors.
    """

    def __init__(
        self, length: int, dim: int, *, dropout: float, norm: bool = True, eps: float = 1e-12, scale: float = 1.0
    ) -> None:
        super().__init__()
        self.dropout, self.scale = dropout, scale
        self.positions = nn.Parameter(torch.empty(length, dim))
        nn.init.normal_(self.positions, std=0.02)
        self.norm = nn.LayerNorm(dim, eps=eps) if norm else nn.Identity()

    def forward(self, items: Tensor, position: Tensor) -> Tensor:
        """First layer of item vectors [..., d] at `position` int64 [...], 0 = newest."""
        x = items * self.scale + self.positions[position]
        return F.dropout(cast(Tensor, self.norm(x)), self.dropout, self.training)
