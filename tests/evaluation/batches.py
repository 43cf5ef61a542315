"""Batches without a data set: enough for what scores and counts."""

from __future__ import annotations

import torch

from gensr.data.batch import Batch
from gensr.rankers.base import Ranker, mask_padding, require_tasks


def make_batch(tasks, *, candidates=5, queries=None, first=0, seed=0):
    generator = torch.Generator().manual_seed(seed)
    size = len(tasks)
    cand = torch.stack([torch.randperm(20, generator=generator)[:candidates] + 1 for _ in range(size)])
    label = torch.zeros(size, candidates)
    label[torch.arange(size), torch.randint(candidates, (size,), generator=generator)] = 1
    history = torch.ones(size, 3, dtype=torch.long)
    return Batch(
        task=torch.tensor(tasks),
        user=torch.arange(size) + 1,
        time=torch.zeros(size, dtype=torch.long),
        query=torch.tensor(queries if queries is not None else [0] * size),
        hist_item=history,
        hist_task=history,
        hist_query=history,
        hist_time=history,
        cand=cand,
        cand_mask=torch.ones(size, candidates, dtype=torch.bool),
        label=label,
        request=torch.arange(size) + first,
    )


class ByItem(Ranker):
    """Scores an item by its number."""

    def __init__(self, tasks=None):
        super().__init__()
        if tasks is not None:
            self.tasks = frozenset(tasks)

    def score(self, batch, state=None):
        require_tasks(self, batch)
        assert not self.training
        assert torch.is_inference_mode_enabled()
        return mask_padding(batch.cand.float(), batch)

    def save(self, folder):
        raise NotImplementedError
