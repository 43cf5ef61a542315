"""What trivial rankers reach on the stored candidates: the first thing to know about a data set, before any model.

A ranker that only looks whether an item stands in the history must be at chance (or genuine repeats explain it), or
answers leak; popularity and word overlap tell how much of a metric needs no personalisation at all.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from gensr.data.catalogue import Catalogue
from gensr.data.split import Split
from gensr.data.tasks import Task
from gensr.errors import MissingExtraError

if TYPE_CHECKING:
    from gensr.data.batch import Batch
    from gensr.data.candidates import CandidateList
    from gensr.data.dataset import Dataset
    from gensr.rankers.base import Ranker
    from gensr.spec import DataSpec

REQUESTS = 5000
"""Test requests per task that are asked, drawn with the data seed; all where there are fewer."""
SCORES = 1 << 26
"""Scores of one ranker on one list at most: the list `full` asks fewer requests where the catalogue is big."""
METRICS = ("recall@5", "ndcg@5")
BIG_CATALOGUE = 200_000
"""Items from which on words are counted in the candidates alone: an index of all would take longer than the data."""


def measure_floors(dataset: Dataset, spec: DataSpec) -> dict[str, Any]:
    """Recall@5 and NDCG@5 of `in_history`, `popularity` and `lexical` on every candidate list.

    Args:
        dataset: the prepared data.
        spec: how they were prepared.

    Returns:
        ``{list: {task: {ranker: {metric: mean}}}}``; instead of the metrics, the reason why a ranker was not asked.
    """
    return {
        name: {
            task.label: _of_list(dataset, dataset.candidates(name), task, spec)
            for task in Task
            if len(dataset.requests(Split.TEST, task))
        }
        for name in dataset.candidate_names
    }


def _of_list(dataset: Dataset, listed: CandidateList, task: Task, spec: DataSpec) -> dict[str, Any]:
    from gensr.data.loader import RequestLoader
    from gensr.evaluation.evaluator import rank_requests
    from gensr.evaluation.metrics import metric
    from gensr.rankers.base import Resources
    from gensr.rankers.config import InHistoryConfig, PopularityConfig

    loader = RequestLoader(dataset, spec.max_history)
    limit = max(1, min(REQUESTS, SCORES // listed.lists[Split.TEST][1].shape[1]))

    def batches() -> Iterator[Batch]:
        return loader.evaluation(listed, Split.TEST, tasks=[task], batch_size=512, limit=limit, seed=spec.seed)

    resources = Resources(dataset.catalogue, max_history=spec.max_history, seed=spec.seed, dataset=dataset)
    found: dict[str, Any] = {}

    def measure(name: str, ranker: Ranker, batches: Iterable[Batch]) -> None:
        ranks = rank_requests(ranker, batches)
        found[name] = {kind: round(float(metric(ranks, kind).mean()), 4) for kind in METRICS}

    measure("in_history", InHistoryConfig().build(resources), batches())
    measure("popularity", PopularityConfig().build(resources), batches())
    if task is Task.SEARCH:
        try:
            measure("lexical", *_lexical(dataset.catalogue, batches()))
        except MissingExtraError as error:
            found["lexical"] = f"not measured: {error}"
    return found


def _lexical(catalogue: Catalogue, batches: Iterator[Batch]) -> tuple[Ranker, Iterable[Batch]]:
    """BM25, and the batches to ask it: over the whole catalogue, or over the candidates alone where that is big."""
    import torch

    from gensr.rankers.lexical import LexicalRanker

    if catalogue.num_items <= BIG_CATALOGUE:
        return LexicalRanker(catalogue), batches
    some, scores = [], 0
    for batch in batches:
        some.append(batch)
        scores += batch.cand.numel()
        if scores >= BIG_CATALOGUE:
            break
    rows = torch.unique(torch.cat([batch.cand.flatten() for batch in some]))
    rows = rows[rows > 0]
    kept = np.append(0, rows.numpy())
    columns = (catalogue.item_ids, catalogue.titles, catalogue.categories)
    item_ids, titles, categories = (texts.take(kept) for texts in columns)
    part = Catalogue(item_ids, titles, categories, catalogue.queries, catalogue.item_text)
    moved = [
        batch.replace(cand=(torch.searchsorted(rows, batch.cand) + 1).masked_fill(~batch.cand_mask, 0))
        for batch in some
    ]
    return LexicalRanker(part), moved
