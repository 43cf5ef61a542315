"""The one batch every ranker reads: requests with their strict past and their candidates."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from gensr.data.tasks import Task


@dataclass(frozen=True)
class Extra:
    """Texts of items and queries that the catalogue does not hold, for serving.

    Item ``num_items + 1 + k`` of a batch is ``items[k]``; query ``num_queries + 1 + k`` is ``queries[k]``.
    """

    items: tuple[str, ...] = ()
    queries: tuple[str, ...] = ()


@dataclass(frozen=True)
class Batch:
    """B requests with L history slots and C candidates each. Row 0 of every table is padding.

    History is oldest first, cut on the left, padded on the right; `hist_task` 0 is the only mask source.
    Candidates are shuffled: the truth is known by `label` alone. Fields are int64 unless said otherwise.
    """

    task: Tensor  # [B] gensr.data.tasks.Task
    user: Tensor  # [B] 0 = unknown
    time: Tensor  # [B] in the log's own units, 0 = unknown
    query: Tensor  # [B] row of the query catalogue, 0 = none
    hist_item: Tensor  # [B, L]
    hist_task: Tensor  # [B, L] 0 = padding
    hist_query: Tensor  # [B, L] 0 = none
    hist_time: Tensor  # [B, L]
    cand: Tensor  # [B, C]
    cand_mask: Tensor  # [B, C] bool
    label: Tensor  # [B, C] float32
    request: Tensor  # [B] position of the target event in the dataset, -1 = none
    hist_clicks: Tensor | None = None  # [B, L, K] items clicked in one search, 0 = padding; where a log has several
    hist_negatives: Tensor | None = None  # [B, L, N] in training on sequences: items to set against the slot's own, 0 =
    # the slot's event trains nothing
    extra: Extra | None = None

    def __len__(self) -> int:
        return self.task.shape[0]

    @property
    def hist_mask(self) -> Tensor:
        """True where the history holds an event, bool [B, L]."""
        return self.hist_task > 0

    @property
    def is_search(self) -> Tensor:
        """Bool [B]."""
        return self.task == Task.SEARCH

    @property
    def clicked(self) -> Tensor:
        """Items of each history entry [B, L, K]: those that a search session clicked, else the entry's own, K = 1."""
        return self.hist_item.unsqueeze(2) if self.hist_clicks is None else self.hist_clicks

    @property
    def num_scored(self) -> int:
        """(context, candidate) pairs that a training on this batch scores, padding included."""
        pairs = self.cand.numel()
        if self.hist_negatives is None:
            return pairs
        trained = self.hist_negatives[..., 0].count_nonzero()
        return pairs + int(trained) * (1 + self.hist_negatives.shape[2])

    def to(self, device: torch.device | str) -> Batch:
        """The same batch on another device."""
        # Towards the host, a copy that nobody waits for would be read before it has come.
        freely = torch.device(device).type != "cpu"
        return self.replace(**{name: value.to(device, non_blocking=freely) for name, value in self._tensors()})

    def pinned(self) -> Batch:
        """The same batch in page-locked memory, from which `to` copies to a GPU without waiting."""
        return self.replace(**{name: value.pin_memory() for name, value in self._tensors()})

    def replace(self, **changes: Any) -> Batch:
        """A copy with some fields changed."""
        return replace(self, **changes)

    def select(self, rows: Tensor) -> Batch:
        """The requests at `rows` (int64 or bool index)."""
        return self.replace(**{name: value[rows] for name, value in self._tensors()})

    def padded(self, length: int) -> Batch:
        """The same requests with `length` >= C candidates, those behind the real ones padding."""
        more = (0, length - self.cand.shape[1])
        cand, mask, label = (F.pad(value, more) for value in (self.cand, self.cand_mask, self.label))
        return self.replace(cand=cand, cand_mask=mask, label=label)

    def without_history(self) -> Batch:
        """The same requests asked by users without a past (the no-history ablation)."""
        empty = torch.zeros_like(self.hist_item)
        clicks = None if self.hist_clicks is None else torch.zeros_like(self.hist_clicks)
        return replace(self, hist_item=empty, hist_task=empty, hist_query=empty, hist_time=empty, hist_clicks=clicks)

    def with_queries(self, query: Tensor) -> Batch:
        """The same requests with other queries [B]: the shuffled-query ablation."""
        return replace(self, query=query)

    def _tensors(self) -> Iterator[tuple[str, Tensor]]:
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, Tensor):
                yield field.name, value
