"""Rankers that know next to nothing: what a model must beat before its numbers mean anything.

All of them score items and queries that the catalogue lacks (rows beyond its tables) as ones nothing is known about.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from gensr.data.batch import Batch
from gensr.data.tasks import Task
from gensr.rankers.base import Ranker, Resources, mask_padding, require_tasks
from gensr.rankers.weights import read_tensors, write_tensors

if TYPE_CHECKING:
    from gensr.data.dataset import Dataset
    from gensr.rankers.config import CFRankerConfig

TABLES = "floor.safetensors"


def known_rows(rows: Tensor, size: int) -> Tensor:
    """`rows` with everything outside a table of `size` rows sent to its padding row 0."""
    return torch.where(rows < size, rows, 0)


def hash_uniform(seed: int, first: Tensor, second: Tensor) -> Tensor:
    """Uniform float32 in [0, 1) from integers alone: 24 bits of two rounds of splitmix64 (Steele et al., OOPSLA 2014).

    A hash rather than a generator, because a score must not depend on what else is in the batch.

    Args:
        seed: another seed gives unrelated numbers.
        first: int64, broadcast against `second`.
        second: int64.
    """
    return (_mix(_mix(first + _mix(torch.tensor(seed, device=first.device))) + second) & 0xFFFFFF).float() / 2**24


def _mix(x: Tensor) -> Tensor:
    """The finaliser of splitmix64 on int64, which wraps like unsigned; shifts are made logical by a mask."""
    x = x + _signed(0x9E3779B97F4A7C15)
    x = (x ^ ((x >> 30) & ((1 << 34) - 1))) * _signed(0xBF58476D1CE4E5B9)
    x = (x ^ ((x >> 27) & ((1 << 37) - 1))) * _signed(0x94D049BB133111EB)
    return x ^ ((x >> 31) & ((1 << 33) - 1))


def _signed(unsigned: int) -> int:
    return unsigned - (1 << 64) if unsigned >> 63 else unsigned


def visible_items(batch: Batch) -> Tensor:
    """Items of the history [B, N], all clicks of a search session among them; 0 = padding."""
    return batch.clicked.masked_fill(~batch.hist_mask.unsqueeze(2), 0).flatten(1)


class RandomRanker(Ranker):
    """Scores by a hash of the request (of the user, where a request has no number) and the candidate.

    Args:
        seed: another seed gives an unrelated order.
    """

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.seed = seed

    def score(self, batch: Batch, state: None = None) -> Tensor:
        """See `Ranker.score`."""
        request = torch.where(batch.request >= 0, batch.request, -1 - batch.user)
        return mask_padding(hash_uniform(self.seed, request.unsqueeze(1), batch.cand), batch)

    def save(self, folder: Path) -> None:
        """See `Ranker.save`: the seed comes with the resources, so there is nothing to write."""


class InHistoryRanker(Ranker):
    """1 where the candidate stands in the history, else 0.

    No recommender, but an alarm: when items are seldom taken twice, anything above chance means that the answer of a
    request is visible in its past.
    """

    def score(self, batch: Batch, state: None = None) -> Tensor:
        """See `Ranker.score`."""
        ordered = visible_items(batch).sort(dim=1).values
        at = torch.searchsorted(ordered, batch.cand).clamp(max=ordered.shape[1] - 1)
        seen = (ordered.gather(1, at) == batch.cand) & (batch.cand > 0)
        return mask_padding(seen.float(), batch)

    def save(self, folder: Path) -> None:
        """See `Ranker.save`: nothing to write."""


class PopularityRanker(Ranker):
    """log(1 + events of the candidate) in the request's own task: training events, or all where published so.

    Args:
        counts: [3, I+1], events by task code and item; row 0 and column 0 are zero.
    """

    counts: Tensor

    def __init__(self, counts: Tensor) -> None:
        super().__init__()
        self.register_buffer("counts", counts)

    @classmethod
    def build(cls, resources: Resources, *, held_out: bool = False) -> PopularityRanker:
        """Count from ``resources.dataset``, or reopen from ``resources.folder``.

        Args:
            resources: where to count.
            held_out: count the events that validate and test too, which tells a little of the answers.
        """
        if resources.folder is not None:
            return cls(read_tensors(resources.folder / TABLES)["counts"])
        dataset = _dataset(resources)
        counts = np.zeros((3, dataset.num_items + 1), dtype=np.int64)
        for task in Task:
            counts[task] = _all_counts(dataset, task) if held_out else dataset.item_counts(task)
        # A log of one task leaves the other without counts; its neighbour's popularity is the best guess there is.
        for task, other in ((Task.SEARCH, Task.RECOMMENDATION), (Task.RECOMMENDATION, Task.SEARCH)):
            if not counts[task].any():
                counts[task] = counts[other]
        return cls(torch.from_numpy(counts))

    def score(self, batch: Batch, state: None = None) -> Tensor:
        """See `Ranker.score`."""
        counts = self.counts[batch.task.unsqueeze(1), known_rows(batch.cand, self.counts.shape[1])]  # [B, C]
        return mask_padding(counts.float().log1p(), batch)

    def save(self, folder: Path) -> None:
        """See `Ranker.save`."""
        write_tensors(folder / TABLES, {"counts": self.counts})


def _all_counts(dataset: Dataset, task: Task) -> np.ndarray:
    return np.bincount(dataset.item[dataset.task == task], minlength=dataset.num_items + 1)


class QueryPopularityRanker(Ranker):
    """Training clicks of the candidate under this very query; its search popularity breaks ties.

    Clicks are whole numbers and popularity enters as its dense rank squeezed into [0, 1), so that it never outweighs
    a click and stays exact in float32 whatever the counts.

    Args:
        keys: int64 [N], ascending; ``query * (I + 1) + item`` of the pairs with a click.
        clicks: int64 [N], their clicks.
        popularity: int64 [I+1], all training clicks of each item.
    """

    tasks = frozenset({Task.SEARCH})
    keys: Tensor
    clicks: Tensor
    popularity: Tensor
    fraction: Tensor

    def __init__(self, keys: Tensor, clicks: Tensor, popularity: Tensor) -> None:
        super().__init__()
        self.register_buffer("keys", keys)
        self.register_buffer("clicks", clicks)
        self.register_buffer("popularity", popularity)
        levels, level = np.unique(popularity.numpy(), return_inverse=True)
        fraction = torch.from_numpy(level.astype(np.float32) / np.float32(len(levels)))
        self.register_buffer("fraction", fraction, persistent=False)

    @classmethod
    def build(cls, resources: Resources) -> QueryPopularityRanker:
        """Count from ``resources.dataset``, or reopen from ``resources.folder``."""
        if resources.folder is not None:
            return cls(**read_tensors(resources.folder / TABLES))
        dataset = _dataset(resources)
        pairs = dataset.query_clicks().tocoo()
        keys = pairs.row.astype(np.int64) * (dataset.num_items + 1) + pairs.col
        order = np.argsort(keys)
        return cls(
            torch.from_numpy(keys[order]),
            torch.from_numpy(pairs.data[order].astype(np.int64)),
            torch.from_numpy(dataset.item_counts(Task.SEARCH).astype(np.int64)),
        )

    def score(self, batch: Batch, state: None = None) -> Tensor:
        """See `Ranker.score`."""
        require_tasks(self, batch)
        size = len(self.popularity)
        item = known_rows(batch.cand, size)
        return mask_padding(self._clicks(batch.query.unsqueeze(1), item, size) + self.fraction[item], batch)

    def _clicks(self, query: Tensor, item: Tensor, size: int) -> Tensor:
        """Clicks of the pairs, float32 [B, C]; 0 for unknown queries, whose keys lie beyond all known ones."""
        if len(self.keys) == 0:
            return torch.zeros(item.shape, device=item.device)
        key = query * size + item
        place = torch.searchsorted(self.keys, key).clamp(max=len(self.keys) - 1)
        return torch.where(self.keys[place] == key, self.clicks[place], 0).float()

    def save(self, folder: Path) -> None:
        """See `Ranker.save`."""
        write_tensors(folder / TABLES, {"keys": self.keys, "clicks": self.clicks, "popularity": self.popularity})


class CFRanker(Ranker):
    """Mean similarity of the candidate's collaborative vector to those of the history, searches and all.

    An item without a vector is similar to nothing. The mean of dot products is the dot product with the mean, so one
    pass over the history serves all candidates.

    Args:
        items: float32 [I+1, d], row 0 and rows without training events zero.
        similarity: ``dot`` or ``cosine``.
    """

    items: Tensor
    vectors: Tensor

    def __init__(self, items: Tensor, similarity: str) -> None:
        super().__init__()
        self.register_buffer("items", items)
        vectors = F.normalize(items, dim=1) if similarity == "cosine" else items  # zero rows stay zero
        self.register_buffer("vectors", vectors, persistent=False)

    @classmethod
    def build(cls, resources: Resources, config: CFRankerConfig) -> CFRanker:
        """Fit the table on ``resources.dataset``, or reopen it from ``resources.folder``."""
        if resources.folder is not None:
            return cls(read_tensors(resources.folder / TABLES)["items"], config.similarity)
        if resources.cf_table is None:
            raise ValueError("a new CFRanker needs resources.cf_table, which fits its vectors")
        return cls(resources.cf_table(config.cf).items, config.similarity)

    def score(self, batch: Batch, state: None = None) -> Tensor:
        """See `Ranker.score`."""
        size, items = len(self.vectors), visible_items(batch)  # [B, N]
        history = self.vectors[known_rows(items, size)]  # [B, N, d], zeros on padding
        profile = history.sum(dim=1) / (items > 0).sum(dim=1, keepdim=True).clamp(min=1)  # [B, d]
        candidates = self.vectors[known_rows(batch.cand, size)]  # [B, C, d]
        return mask_padding(torch.einsum("bd,bcd->bc", profile, candidates), batch)

    def save(self, folder: Path) -> None:
        """See `Ranker.save`."""
        write_tensors(folder / TABLES, {"items": self.items})


def _dataset(resources: Resources) -> Dataset:
    if resources.dataset is None:
        raise ValueError("a new ranker needs resources.dataset; a saved one resources.folder")
    return resources.dataset
