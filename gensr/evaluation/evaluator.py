"""From a ranker and batches of requests to ranks, and from ranks to the numbers of `metrics.json`."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from gensr.data.batch import Batch
from gensr.data.tasks import Task
from gensr.errors import BadInputError
from gensr.evaluation.metrics import Ranks, Ties, metric, rank_truth
from gensr.evaluation.significance import bootstrap_interval
from gensr.rankers.base import Ranker
from gensr.rankers.config import RankerConfig
from gensr.training.prefetch import prefetched

Scores = NDArray[np.float32]
Progress = Callable[[int], None]
"""Called after each batch with the number of requests just scored, as `gensr.progress.Bar.advance` wants it."""


def score_batches(
    ranker: Ranker, batches: Iterable[Batch], *, device: torch.device | str = "cpu"
) -> Iterator[tuple[Batch, Scores]]:
    """Score batches lazily in evaluation mode, without gradients.

    Requests of tasks the ranker does not do are left out. The ranker's mode is restored at the end.

    Yields:
        The batch (on its own device) and its scores, float32 [B, C].
    """
    was_training = ranker.training
    ranker.to(device).eval()
    able = torch.tensor(sorted(ranker.tasks))
    try:
        for batch in prefetched(batches, device=device):
            rows = torch.isin(batch.task, able.to(batch.task.device))
            asked = batch if bool(rows.all()) else batch.select(rows)
            if len(asked) == 0:
                continue
            with torch.inference_mode():
                scores = ranker.score(asked.to(device))
            yield asked, scores.float().cpu().numpy()
    finally:
        ranker.train(was_training)


def rank_requests(
    ranker: Ranker,
    batches: Iterable[Batch],
    *,
    device: torch.device | str = "cpu",
    progress: Progress | None = None,
    on_scores: Callable[[Batch, Scores], None] | None = None,
) -> Ranks:
    """Rank the truth of every request among its candidates.

    Args:
        ranker: what is evaluated; requests of tasks it does not do are left out.
        batches: requests whose `label` names one truth each.
        device: where to score.
        progress: called after each batch with the number of requests just scored.
        on_scores: receives each batch with its scores, as `TrecExport.add` wants them.
    """
    parts: list[Ranks] = []
    for batch, scores in score_batches(ranker, batches, device=device):
        ranked = rank_truth(scores, batch.label.cpu().numpy(), batch.cand_mask.cpu().numpy())
        parts.append(Ranks(batch.request.cpu().numpy(), batch.task.cpu().numpy(), *ranked))
        if on_scores is not None:
            on_scores(batch, scores)
        if progress is not None:
            progress(len(batch))
    return Ranks.concatenate(parts)


def summarise(
    ranks: Ranks, *, metrics: Sequence[str], ties: Ties = "expected", bootstrap: int = 1000, seed: int = 0
) -> dict[str, dict[str, Any]]:
    """Means and 95 % bootstrap intervals, for each task that `ranks` holds.

    Returns:
        ``{task label: {"requests": n, metric: {"value": mean, "low": ..., "high": ...}}}``; low and high are None
        where `bootstrap` is 0.
    """
    result: dict[str, dict[str, Any]] = {}
    for code in np.unique(ranks.task):
        rows = ranks.select(ranks.task == code)
        values = np.stack([metric(rows, name, ties) for name in metrics], axis=1)  # [R, M]
        means = values.mean(axis=0)
        summary: dict[str, Any] = {"requests": len(rows)}
        ends = bootstrap_interval(values, resamples=bootstrap, seed=seed) if bootstrap else None
        for m, name in enumerate(metrics):
            low, high = (float(ends[0][m]), float(ends[1][m])) if ends is not None else (None, None)
            summary[name] = {"value": float(means[m]), "low": low, "high": high}
        result[Task(code).label] = summary
    return result


def shuffled_queries(batches: Iterable[Batch], seed: int) -> Iterator[Batch]:
    """The same requests, each search request with the query of another one of its batch (an ablation).

    What a ranker loses by it is what the query was worth. No request keeps its own position's query; a lone search
    request in a batch takes one of the batch before, if there was one.
    """
    rng = np.random.default_rng(seed)
    spare: torch.Tensor | None = None
    for batch in batches:
        rows = batch.is_search.nonzero().squeeze(1)
        count = len(rows)
        if count == 0:
            yield batch
            continue
        own = batch.query[rows]
        # Everyone takes the query of the next one in a random circle: random, yet nobody gets their own.
        circle = torch.from_numpy(rng.permutation(count)).to(rows.device)
        query = batch.query.clone()
        query[rows[circle]] = own[circle.roll(1)] if count > 1 or spare is None else spare
        spare = own[:1]
        yield batch.with_queries(query)


def no_query(batches: Iterable[Batch]) -> Iterator[Batch]:
    """The same requests asked without words: what a search model does when it must guess from the history."""
    return (batch.with_queries(torch.zeros_like(batch.query)) for batch in batches)


def no_history(batches: Iterable[Batch]) -> Iterator[Batch]:
    """The same requests, asked by users without a past (an ablation)."""
    return (batch.without_history() for batch in batches)


def floor_names(floors: Sequence[RankerConfig]) -> list[str]:
    """A name for each floor: its type, and its options where a type occurs more than once.

    Example:
        ``[CFRankerConfig(), CFRankerConfig(cf=LightGCNConfig())]`` -> ``["cf", "cf(cf=lightgcn)"]``
    """
    types = [floor.type for floor in floors]
    names = []
    for floor in floors:
        options = []
        if types.count(floor.type) > 1:
            plain = type(floor).model_validate({"type": floor.type})
            changed = [name for name in type(floor).model_fields if getattr(floor, name) != getattr(plain, name)]
            # A component is named by its type; the run's spec has its options.
            options = [f"{name}={getattr(value := getattr(floor, name), 'type', value)}" for name in changed]
        names.append(f"{floor.type}({', '.join(options)})" if options else floor.type)
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise BadInputError(f"evaluation.floors holds {twice!r} twice")
    return names


@dataclass
class Evaluation:
    """What an evaluation found: ranks by (candidate list, name), from which all numbers are derived.

    Attributes:
        main: name of the ranker that the run trained.
        candidates: sha256 of each candidate list, by name; the first list is the one tables lead with.
        ranks: rankers' ranks by (list, ranker).
        ablations: the main ranker's ranks under an ablation by (list, ablation): ``shuffled_query``,
            ``no_query``, ``no_history``.
        missing: floors that could not be measured, with the reason.
    """

    main: str
    candidates: dict[str, str]
    ranks: dict[tuple[str, str], Ranks] = field(default_factory=dict)
    ablations: dict[tuple[str, str], Ranks] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)

    def metrics(
        self, *, metrics: Sequence[str], ties: Ties = "expected", bootstrap: int = 1000, seed: int = 0
    ) -> dict[str, Any]:
        """The content of ``metrics.json``; its structure is described in `gensr.evaluation.report`."""

        def numbers(group: dict[tuple[str, str], Ranks], listed: str) -> dict[str, Any]:
            return {
                name: summarise(ranks, metrics=metrics, ties=ties, bootstrap=bootstrap, seed=seed)
                for (of, name), ranks in group.items()
                if of == listed
            }

        lists = {
            name: {"sha256": sha256, "rankers": numbers(self.ranks, name)} for name, sha256 in self.candidates.items()
        }
        ablations = {name: numbers(self.ablations, name) for name in self.candidates}
        return {
            "main": self.main,
            "metrics": list(metrics),
            "ties": ties,
            "bootstrap": bootstrap,
            "candidates": lists,
            "ablations": {name: found for name, found in ablations.items() if found},
            "missing": dict(self.missing),
        }

    def save(self, folder: Path) -> None:
        """Write ``<list>.<name>.npz`` for every ranker, and ``<list>.<main>.<ablation>.npz``, into `folder`."""
        folder.mkdir(parents=True, exist_ok=True)
        for (listed, name), ranks in self.ranks.items():
            ranks.save(folder / f"{listed}.{file_name(name)}.npz")
        for (listed, name), ranks in self.ablations.items():
            ranks.save(folder / f"{listed}.{file_name(self.main)}.{name}.npz")


def file_name(ranker: str) -> str:
    """A ranker's name as part of a file name: its options may hold anything, a path for example."""
    return re.sub(r"[^\w(=)+,-]+", "-", ranker)
