from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from gensr.data.tasks import Task
from gensr.errors import BadInputError
from gensr.evaluation.evaluator import (
    Evaluation,
    floor_names,
    no_history,
    rank_requests,
    shuffled_queries,
    summarise,
)
from gensr.evaluation.metrics import Ranks
from gensr.rankers.config import CFRankerConfig, RandomConfig
from tests.evaluation.batches import ByItem, make_batch

MIXED = [1, 2, 2, 1]


def two_batches():
    return [make_batch(MIXED), make_batch(MIXED, first=4, seed=1)]


def test_ranks_are_those_of_a_plain_count():
    ranks = rank_requests(ByItem(), two_batches())
    expected = []
    for batch in two_batches():
        truth = (batch.cand * batch.label).sum(1, keepdim=True)
        expected.extend((batch.cand > truth).sum(1).tolist())
    assert ranks.better.tolist() == expected
    assert ranks.equal.tolist() == [1] * 8
    assert ranks.request.tolist() == list(range(8))
    assert ranks.task.tolist() == MIXED * 2


def test_a_ranker_meets_only_requests_of_its_tasks():
    ranks = rank_requests(ByItem({Task.SEARCH}), [*two_batches(), make_batch([1, 1])])
    assert ranks.request.tolist() == [1, 2, 5, 6]
    assert set(summarise(ranks, metrics=["mrr"], bootstrap=0)) == {"search"}


def test_the_mode_of_a_ranker_is_restored():
    ranker = ByItem().train()
    rank_requests(ranker, two_batches())
    assert ranker.training


def test_progress_and_scores_are_handed_on():
    done, seen = [], []
    rank_requests(
        ByItem(), two_batches(), progress=done.append, on_scores=lambda batch, scores: seen.append(scores.shape)
    )
    assert done == [4, 4]
    assert seen == [(4, 5), (4, 5)]


def test_a_summary_holds_means_and_intervals_of_each_task():
    size = 60
    ranks = Ranks(np.arange(size), np.repeat([1, 2], 30), np.arange(size) % 12, np.ones(size), np.full(size, 100))
    summary = summarise(ranks, metrics=["recall@5", "mrr"], bootstrap=100, seed=1)
    assert list(summary) == ["recommendation", "search"]
    for numbers in summary.values():
        assert numbers["requests"] == 30
        assert numbers["recall@5"]["low"] < numbers["recall@5"]["value"] < numbers["recall@5"]["high"]
    assert summarise(ranks, metrics=["mrr"], bootstrap=0)["search"]["mrr"]["low"] is None


def test_no_search_request_keeps_its_query_when_queries_are_shuffled():
    batches = [make_batch([2, 1, 2, 2], queries=[1, 0, 2, 3]), make_batch([2, 1], queries=[4, 0])]
    for seed in range(20):
        first, second = shuffled_queries(batches, seed)
        assert sorted(first.query[[0, 2, 3]].tolist()) == [1, 2, 3]
        assert all(one != other for one, other in zip(first.query[[0, 2, 3]].tolist(), [1, 2, 3], strict=True))
        assert first.query[1] == second.query[1] == 0
        assert second.query[0] in (1, 2, 3)
    assert batches[0].query.tolist() == [1, 0, 2, 3]


def test_shuffled_queries_are_repeatable_and_lazy():
    def endless():
        while True:
            yield make_batch([2] * 8, queries=list(range(1, 9)))

    one, other = shuffled_queries(endless(), 3), shuffled_queries(endless(), 3)
    for _ in range(3):
        assert torch.equal(next(one).query, next(other).query)


def test_no_history_empties_histories():
    for batch in no_history(two_batches()):
        assert not batch.hist_mask.any()


def test_floors_are_named_by_type_and_by_options_where_a_type_repeats():
    floors = [RandomConfig(), CFRankerConfig(), CFRankerConfig(similarity="cosine")]
    assert floor_names(floors) == ["random", "cf", "cf(similarity=cosine)"]
    with pytest.raises(BadInputError, match="'cf' twice"):
        floor_names([CFRankerConfig(), CFRankerConfig()])


def test_an_evaluation_becomes_json_and_rank_files(tmp_path):
    ranks = rank_requests(ByItem(), two_batches())
    found = Evaluation("gensr", {"uniform-99": "abc", "hard": "def"}, missing={"lexical": "needs bm25s"})
    found.ranks["uniform-99", "cf(path=a/b)"] = found.ranks["uniform-99", "gensr"] = found.ranks["hard", "gensr"] = (
        ranks
    )
    found.ablations["uniform-99", "no_history"] = ranks
    numbers = found.metrics(metrics=["ndcg@5"], bootstrap=10)
    assert json.loads(json.dumps(numbers)) == numbers
    assert list(numbers["candidates"]["uniform-99"]["rankers"]) == ["cf(path=a/b)", "gensr"]
    assert list(numbers["candidates"]["hard"]["rankers"]) == ["gensr"]
    assert list(numbers["ablations"]) == ["uniform-99"]
    found.save(tmp_path / "predictions")
    assert sorted(path.name for path in (tmp_path / "predictions").iterdir()) == [
        "hard.gensr.npz",
        "uniform-99.cf(path=a-b).npz",
        "uniform-99.gensr.no_history.npz",
        "uniform-99.gensr.npz",
    ]
