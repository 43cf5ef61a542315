"""Floors and leak alarms on real logs: the data core must find again what others measured on these files.

All test requests are asked, without a limit; a floor is the same number on every machine, so windows are narrow.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from gensr.data.dataset import Dataset, Split, prepare
from gensr.data.loader import RequestLoader
from gensr.data.sources.config import DemoConfig, TableConfig
from gensr.data.tasks import Task
from gensr.encoders.cf.folds import fit_table
from gensr.evaluation.evaluator import rank_requests
from gensr.evaluation.metrics import Ranks, metric
from gensr.rankers.base import Resources
from gensr.rankers.config import (
    CFRankerConfig,
    InHistoryConfig,
    LexicalConfig,
    PopularityConfig,
    QueryPopularityConfig,
    RankerConfig,
)
from gensr.spec import DataSpec

FOLDER = Path(__file__).parents[3] / "shared" / "data"
LIST = "uniform-99"
CHANCE = 5 / 100
"""Recall@5 among a truth and 99 negatives that a blind ranker reaches."""


@dataclass(frozen=True)
class Log:
    """A prepared log and the rankers that are measured on it."""

    dataset: Dataset
    max_history: int

    def ranks(self, ranker: RankerConfig, task: Task) -> Ranks:
        resources = Resources(
            self.dataset.catalogue,
            max_history=self.max_history,
            dataset=self.dataset,
            cf_table=lambda config, fold=None: fit_table(config, self.dataset, seed=42, fold=fold),
        )
        loader = RequestLoader(self.dataset, self.max_history)
        batches = loader.evaluation(self.dataset.candidates(LIST), Split.TEST, tasks=[task], batch_size=1024)
        return rank_requests(ranker.build(resources), batches)

    def floor(self, ranker: RankerConfig, task: Task) -> tuple[float, float]:
        """Recall@5 and NDCG@5."""
        ranks = self.ranks(ranker, task)
        return float(metric(ranks, "recall@5").mean()), float(metric(ranks, "ndcg@5").mean())


Opener = Callable[[str], Log]


def real(name: str) -> str:
    if not (FOLDER / name).is_dir():
        pytest.skip(f"the log {name} is not in ../shared/data")
    return str(FOLDER / name)


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Opener:
    """Open a log by name; each is prepared once."""
    specs = {
        "demo": lambda: DataSpec(source=DemoConfig(users=400, items=400)),
        "beauty": lambda: DataSpec(source=TableConfig(path=real("beauty")), item_text=("title",)),
        "yelp": lambda: DataSpec(source=TableConfig(path=real("yelp"))),
    }
    logs: dict[str, Log] = {}

    def log(name: str) -> Log:
        if name not in logs:
            spec = specs[name]()
            logs[name] = Log(prepare(spec, tmp_path_factory.mktemp(name) / "data"), spec.max_history)
        return logs[name]

    return log


def met_before(dataset: Dataset, events: np.ndarray) -> np.ndarray:
    """Which requests [R] ask for an item that their user met at an earlier time, from raw times alone."""
    user, item, time = (np.asarray(column).tolist() for column in (dataset.user, dataset.item, dataset.time))
    first: dict[tuple[int, int], int] = {}
    for who, what, when in zip(user, item, time, strict=True):
        first[who, what] = min(when, first.get((who, what), when))
    return np.array([first[user[event], item[event]] < time[event] for event in events.tolist()])


LOGS = ["demo", *(pytest.param(name, marks=pytest.mark.shared) for name in ("beauty", "yelp"))]


@pytest.mark.parametrize("task", list(Task), ids=lambda task: task.label)
@pytest.mark.parametrize("name", LOGS)
def test_in_history_is_at_chance_unless_the_user_really_met_the_truth_before(opened, name, task):
    ranks = opened(name).ranks(InHistoryConfig(), task)
    repeat = met_before(opened(name).dataset, ranks.request)
    recall = metric(ranks, "recall@5")
    assert len(ranks) == len(opened(name).dataset.requests(Split.TEST, task))
    assert recall[~repeat].max() <= CHANCE + 1e-6


@pytest.mark.parametrize("task", list(Task), ids=lambda task: task.label)
@pytest.mark.parametrize("name", LOGS)
def test_the_audit_s_genuine_repeats_explain_all_that_in_history_finds(opened, name, task):
    recall = metric(opened(name).ranks(InHistoryConfig(), task), "recall@5")
    entry = opened(name).dataset.manifest["audit"]["splits"]["test"][task.label]
    share = entry["genuine_repeats"] / entry["requests"]
    assert recall.mean() == pytest.approx(share + (1 - share) * CHANCE, abs=1e-6)
    assert entry["target_in_history"] == pytest.approx(share)


@pytest.mark.shared
@pytest.mark.parametrize(
    ("name", "task", "ranker", "expected", "within"),
    [
        ("beauty", Task.SEARCH, QueryPopularityConfig(), (0.969, 0.843), 0.005),
        ("beauty", Task.RECOMMENDATION, PopularityConfig(), (0.174, 0.114), 0.006),
        ("beauty", Task.RECOMMENDATION, CFRankerConfig(), (0.220, 0.154), 0.01),
        ("yelp", Task.SEARCH, LexicalConfig(), (0.887, 0.697), 0.02),
    ],
    ids=["query_popularity-beauty-search", "popularity-beauty-rec", "als-beauty-rec", "lexical-yelp-search"],
)
def test_a_floor_is_where_others_measured_it_up_to_the_draw_of_negatives(opened, name, task, ranker, expected, within):
    assert opened(name).floor(ranker, task) == pytest.approx(expected, abs=within)
