"""Search requests by hand."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from gensr.data.batch import Batch, Extra
from gensr.data.tasks import Task


def asking(
    query: Sequence[int],
    *,
    cand: Sequence[Sequence[int]] | None = None,
    truth: int = 0,
    history: Sequence[Sequence[tuple[int, int]]] | None = None,
    queries: tuple[str, ...] = (),
) -> Batch:
    """Searches for `query` [B] over `cand` [B, C], of which the one at `truth` is right.

    Args:
        query: rows of the catalogue's queries.
        cand: items; 0 is padding.
        truth: place of the right ones.
        history: (item, task) of each user, oldest first.
        queries: texts beyond the catalogue.
    """
    one, items = torch.tensor(query), torch.tensor(cand or [[0]] * len(query))
    past = [list(events) for events in history or [[]] * len(query)]
    longest = max(1, *map(len, past))
    events = torch.tensor([row + [(0, 0)] * (longest - len(row)) for row in past])
    return Batch(
        task=torch.full_like(one, Task.SEARCH),
        user=torch.zeros_like(one),
        time=torch.zeros_like(one),
        query=one,
        hist_item=events[..., 0],
        hist_task=events[..., 1],
        hist_query=torch.zeros_like(events[..., 0]),
        hist_time=torch.zeros_like(events[..., 0]),
        cand=items,
        cand_mask=items > 0,
        label=(torch.arange(items.shape[1]) == truth).float().expand(items.shape),
        request=torch.full_like(one, -1),
        extra=Extra(queries=queries) if queries else None,
    )
