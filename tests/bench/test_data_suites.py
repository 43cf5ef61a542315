"""Suites that time what surrounds the model compare things that give the same."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.utils.data import default_collate

from gensr.bench import run as bench
from gensr.bench.suites.cf import Size, long_tailed
from gensr.data.loader import RequestLoader
from gensr.data.split import Split
from gensr.evaluation.metrics import Ranks, metric, rank_truth
from tests.bench.toys import quick_context
from tests.data.logs import prepared, recs, searches


def baseline(name):
    return bench.baselines_in(bench.BASELINES)(name)


@pytest.mark.parametrize("name", ["cf", "ranks", "loading"])
def test_every_case_runs_beside_one_baseline(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # where prepared data are kept
    groups = list(bench.groups(bench.suite(name)(quick_context())))
    assert groups
    for group in groups:
        assert [case.baseline for case in group].count(True) == 1
        assert {case.suite for case in group} == {name}
        for case in group:
            case.run()
            assert case.units > 0


def test_a_fresh_interpreter_is_measured_against_importing_torch():
    cases = {case.name: case for case in bench.suite("imports")(quick_context())}
    assert [name for name, case in cases.items() if case.baseline] == ["import torch"]
    cases["import gensr"].run()
    cases["gensr --help"].run()


def test_a_made_up_graph_has_its_edges_and_long_tails():
    size = Size("toy", users=2000, items=800, edges=10_000)
    graph = long_tailed(size)
    assert graph.shape == (2001, 801)
    assert graph.nnz == size.edges
    assert set(graph.data) == {1.0}
    assert graph[0].nnz == graph[:, 0].nnz == 0
    for axis in (0, 1):
        counts = np.sort(graph.getnnz(axis=axis))[::-1]
        assert counts[: len(counts) // 10].sum() > size.edges / 4  # of an even spread, a tenth
    assert (graph != long_tailed(size)).nnz == 0


def test_sorted_ranks_and_metrics_equal_counted_ones():
    generator = np.random.default_rng(0)
    scores, truth = generator.integers(0, 8, (50, 20)).astype(np.float32), generator.integers(0, 20, 50)
    label = np.eye(20, dtype=np.float32)[truth]
    usual = baseline("ranks")
    tied = usual.ties_in_order(scores, label)
    better, equal, candidates = rank_truth(scores, label)
    for one, other in zip(usual.better_and_equal(tied), (better, equal), strict=True):
        np.testing.assert_array_equal(one, other)
    ranks = Ranks(np.arange(50), np.ones(50), better, equal, candidates)
    for name, values in usual.metrics(tied, (5, 10)).items():
        np.testing.assert_allclose(metric(ranks, name), values)


def test_the_loop_over_interactions_draws_what_users_did_not_touch():
    graph, usual = long_tailed(Size("toy", users=40, items=30, edges=200)), baseline("lightgcn")
    known = usual.known_items(graph)
    batches = list(usual.epoch(graph, known, 64, np.random.RandomState(0).randint))
    assert [len(users) for users, _, _ in batches] == [64, 64, 64, 8]
    seen = []
    for users, positives, negatives in batches:
        seen += zip(users.tolist(), positives.tolist(), strict=True)
        for user, negative in zip(users.tolist(), negatives.tolist(), strict=True):
            assert graph[user, negative] == 0
    assert sorted(seen) == sorted(zip(*(axis.tolist() for axis in graph.nonzero()), strict=True))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    rows = [row for n in range(6) for row in recs(f"u{n}", "1 2 3 4 5 6 7") + searches(f"u{n}", "1 2 3 4", "q", 50)]
    return prepared(rows, tmp_path_factory.mktemp("data") / "d", items=30, count=5)


def test_requests_put_together_one_by_one_equal_sliced_batches(data):
    listed = data.candidates(data.candidate_names[0])
    events, items = listed.lists[Split.TEST]
    usual = baseline("loading")
    theirs = list(usual.batches(usual.Requests(data, events, max_history=4, candidates=items), 4, shuffle=False))
    ours = list(RequestLoader(data, 4).evaluation(listed, Split.TEST, batch_size=4))
    for one, other in zip(theirs, ours, strict=True):
        for name, values in one.items():
            found = getattr(other, name)
            assert torch.equal(values, found), name
            assert values.dtype == found.dtype, name


def test_training_requests_put_together_one_by_one_have_the_same_shapes(data):
    usual = baseline("loading")
    requests = usual.Requests(data, data.requests(Split.TRAIN), max_history=4, negatives=3)
    theirs = default_collate([requests[place] for place in range(len(requests))])
    ours = next(RequestLoader(data, 4).epoch(seed=0, epoch=0, batch_size=len(requests), negatives=3))
    assert {name: value.shape for name, value in theirs.items()} == {name: getattr(ours, name).shape for name in theirs}
    assert (theirs["label"].sum(1) == 1).all()
    touched = requests.touched
    for user, candidates, label in zip(theirs["user"], theirs["cand"], theirs["label"], strict=True):
        negatives = candidates[label == 0].tolist()
        assert len(set(negatives)) == 3
        assert not touched[int(user)].intersection(negatives)
