"""The evaluation of a run on held-out requests: the trained ranker, the floors beside it, and its ablations."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from gensr.data.batch import Batch
from gensr.data.candidates import CandidateList
from gensr.data.dataset import Dataset
from gensr.data.loader import RequestLoader
from gensr.data.split import Split
from gensr.data.tasks import Task, parse_task
from gensr.errors import BadInputError, DamagedFileError, MissingExtraError
from gensr.evaluation.evaluator import (
    Evaluation,
    Scores,
    file_name,
    floor_names,
    no_history,
    no_query,
    rank_requests,
    shuffled_queries,
)
from gensr.evaluation.metrics import Ranks, metric
from gensr.evaluation.trec import TrecExport
from gensr.rankers.base import Ranker, Resources

if TYPE_CHECKING:
    from gensr.cache import StageCache
    from gensr.progress import Progress
    from gensr.rankers.config import RankerConfig
    from gensr.spec import PipelineSpec


@dataclass
class Speed:
    """How fast the trained ranker scored; exports not counted."""

    requests: int = 0
    candidates: int = 0
    seconds: float = 0.0

    def summary(self) -> dict[str, float | int | None]:
        """For the manifest; rates are None where nothing was scored."""
        return {
            "requests": self.requests,
            "seconds": round(self.seconds, 3),
            "requests_per_second": round(self.requests / self.seconds, 1) if self.seconds else None,
            "candidates_per_second": round(self.candidates / self.seconds, 1) if self.seconds else None,
        }


class Measurement:
    """Asks the held-out requests of a spec's evaluation section.

    Args:
        spec: its `evaluation` says which tasks, how many requests and which floors.
        dataset: the prepared data.
        lists: names of the candidate lists; the first one leads.
        device: where to score.
        progress: where bars go.
    """

    def __init__(
        self, spec: PipelineSpec, dataset: Dataset, *, lists: Iterable[str], device: str, progress: Progress
    ) -> None:
        self.spec, self.dataset, self.device, self.progress = spec, dataset, device, progress
        self.loader = RequestLoader(dataset, spec.data.max_history)
        self.lists: dict[str, CandidateList] = {name: dataset.candidates(name) for name in lists}
        self.tasks = tuple(parse_task(name) for name in spec.evaluation.tasks)

    def validate(self, ranker: Ranker) -> dict[str, dict[str, float]]:
        """Means by metric and task on the validation requests of the first list: what selects weights."""
        listed, spec = next(iter(self.lists.values())), self.spec
        able = ranker.tasks & set(self.tasks)
        batches = self._batches(listed, Split.VALID, able, spec.training.validation_requests)
        ranks = rank_requests(ranker, batches, device=self.device)
        found: dict[str, dict[str, float]] = {}
        for name in dict.fromkeys((spec.training.selection, *spec.evaluation.metrics)):
            values = metric(ranks, name, spec.evaluation.ties)
            found[name] = {Task(code).label: float(values[ranks.task == code].mean()) for code in np.unique(ranks.task)}
        return found

    def test(
        self, ranker: Ranker, resources: Resources, cache: StageCache, *, predictions: Path | None = None
    ) -> tuple[Evaluation, Speed]:
        """Rank the test requests of every list with everything that a report shows.

        Args:
            ranker: the trained ranker.
            resources: for building the floors.
            cache: keeps the floors' ranks.
            predictions: folder for TREC runs and qrels of the trained ranker; none where absent.
        """
        floors = [floor for floor in self.spec.evaluation.floors if floor != self.spec.ranker]
        main, *names = floor_names([self.spec.ranker, *floors])
        evaluation = Evaluation(main=main, candidates={name: found.sha256 for name, found in self.lists.items()})
        for name, floor in zip(names, floors, strict=True):
            try:
                found = self._floor(floor, name, resources, cache)
            except DamagedFileError:  # the same command goes on once the file is deleted; a finished run would not
                raise
            except (MissingExtraError, BadInputError) as error:
                evaluation.missing[name] = f"not measured: {error}"
            else:
                evaluation.ranks |= {(listed, name): ranks for listed, ranks in found.items()}
        speed = Speed()
        for listed in self.lists.values():
            evaluation.ranks[listed.name, main] = self._main(ranker, listed, main, speed, predictions)
        if self.spec.evaluation.ablations:
            evaluation.ablations |= self._ablations(ranker)
        return evaluation, speed

    def _floor(self, floor: RankerConfig, name: str, resources: Resources, cache: StageCache) -> dict[str, Ranks]:
        """Ranks of a floor by list, from the cache where they are; the floor is built at most once."""
        options = self.spec.evaluation
        asked = [options.max_requests, sorted(self.tasks), self.spec.data.seed, resources.seed]
        paths = {
            listed: cache.ranks_path(floor, self.dataset, [candidates.sha256, *asked])
            for listed, candidates in self.lists.items()
        }
        with ExitStack() as locks:
            # In one order everywhere, so that no two processes wait for each other.
            for path in sorted(set(paths.values())):
                locks.enter_context(cache.alone(path))
            absent = [listed for listed, path in paths.items() if not path.exists()]
            if absent:
                ranker = floor.build(resources)
                for listed in absent:
                    self._rank(ranker, self.lists[listed], self.tasks, title=name).save(paths[listed])
            return {listed: _cached(path) for listed, path in paths.items()}

    def _main(self, ranker: Ranker, listed: CandidateList, name: str, speed: Speed, predictions: Path | None) -> Ranks:
        """Ranks of the trained ranker on one list, timed, its ranking exported."""
        exported = 0.0
        with ExitStack() as stack:
            export: TrecExport | None = None
            if predictions is not None:
                run, qrels = f"{listed.name}.{file_name(name)}.trec.gz", f"{listed.name}.qrels.gz"
                ids = self.dataset.catalogue.item_ids
                export = stack.enter_context(TrecExport(predictions / run, predictions / qrels, ids, tag=name))

            def on_scores(batch: Batch, scores: Scores) -> None:
                nonlocal exported
                start = time.perf_counter()
                speed.requests += len(batch)
                speed.candidates += int(batch.cand_mask.sum())
                if export is not None:
                    export.add(batch, scores)
                exported += time.perf_counter() - start

            start = time.perf_counter()
            ranks = self._rank(ranker, listed, self.tasks, title=name, on_scores=on_scores)
            speed.seconds += time.perf_counter() - start - exported
        return ranks

    def _ablations(self, ranker: Ranker) -> dict[tuple[str, str], Ranks]:
        """The trained ranker on the first list with each other's queries, without queries, and without histories."""
        listed = next(iter(self.lists.values()))
        found: dict[tuple[str, str], Ranks] = {}
        able = ranker.tasks & set(self.tasks)
        if Task.SEARCH in able:
            shuffle = partial(shuffled_queries, seed=self.spec.data.seed)
            for name, change in (("shuffled_query", shuffle), ("no_query", no_query)):
                title = name.replace("_", " ")
                found[listed.name, name] = self._rank(ranker, listed, (Task.SEARCH,), title=title, change=change)
        if Task.RECOMMENDATION in able:
            found[listed.name, "no_history"] = self._rank(
                ranker, listed, (Task.RECOMMENDATION,), title="no history", change=no_history
            )
        return found

    def _rank(
        self,
        ranker: Ranker,
        listed: CandidateList,
        tasks: Iterable[Task],
        *,
        title: str,
        change: Callable[[Iterable[Batch]], Iterable[Batch]] = iter,
        on_scores: Callable[[Batch, Scores], None] | None = None,
    ) -> Ranks:
        able = ranker.tasks & set(tasks)
        limit = self.spec.evaluation.max_requests
        task = self.dataset.task[listed.lists[Split.TEST][0]]
        counts = [int((task == code).sum()) for code in able]
        batches = change(self._batches(listed, Split.TEST, able, limit))
        with self.progress.bar(title, sum(count if limit is None else min(count, limit) for count in counts)) as bar:
            return rank_requests(ranker, batches, device=self.device, progress=bar.advance, on_scores=on_scores)

    def _batches(
        self, listed: CandidateList, split: Split, tasks: Iterable[Task], limit: int | None
    ) -> Iterator[Batch]:
        size = self.spec.evaluation.batch_size
        return self.loader.evaluation(
            listed, split, tasks=tasks, batch_size=size, limit=limit, seed=self.spec.data.seed
        )


def _cached(path: Path) -> Ranks:
    try:
        return Ranks.load(path)
    except BadInputError as error:
        raise DamagedFileError(f"{error}. Delete it; the next evaluation ranks the floor again") from None
