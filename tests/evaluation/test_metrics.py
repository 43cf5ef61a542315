from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import pytrec_eval
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from gensr.errors import BadInputError
from gensr.evaluation.metrics import Ranks, check_metric_consistency, metric, rank_truth
from gensr.evaluation.names import parse_metric

METRICS = ("recall@1", "recall@5", "recall@10", "ndcg@1", "ndcg@5", "ndcg@10", "mrr")


def ranks_of(better, equal, candidates=None):
    size = len(better)
    return Ranks(np.arange(size), np.ones(size), better, equal, candidates or np.full(size, 100))


def rank_scores(scores, truth):
    label = np.zeros(scores.shape)
    label[np.arange(len(scores)), truth] = 1
    return Ranks(np.arange(len(scores)), np.ones(len(scores)), *rank_truth(scores, label))


def gain(name, rank):
    kind, cut = parse_metric(name)
    if cut is not None and rank > cut:
        return 0.0
    return {"recall": 1.0, "ndcg": 1 / math.log2(rank + 1), "mrr": 1 / rank}[kind]


def test_a_constant_scorer_gets_chance_level():
    ranks = rank_scores(np.zeros((3, 100)), [0, 50, 99])
    for name, chance in {"recall@5": 0.05, "recall@10": 0.1, "ndcg@5": 0.02948, "ndcg@10": 0.04544}.items():
        np.testing.assert_allclose(metric(ranks, name), chance, atol=5e-6)


def test_optimistic_ties_flatter_a_constant_scorer_and_pessimistic_ones_do_not():
    ranks = rank_scores(np.zeros((1, 100)), [0])
    assert metric(ranks, "ndcg@5", "optimistic") == 1
    assert metric(ranks, "ndcg@5", "pessimistic") == 0


def test_metrics_equal_pytrec_eval_where_nothing_is_tied():
    rng = np.random.default_rng(0)
    scores = np.stack([rng.permutation(100) for _ in range(200)]).astype(np.float32)
    truth = rng.integers(0, 100, len(scores))
    ranks = rank_scores(scores, truth)
    run = {f"q{q}": {f"d{d}": float(s) for d, s in enumerate(row)} for q, row in enumerate(scores)}
    qrels = {f"q{q}": {f"d{d}": 1} for q, d in enumerate(truth)}
    measures = {"recall.1,5,10", "ndcg_cut.1,5,10", "recip_rank"}
    theirs = pytrec_eval.RelevanceEvaluator(qrels, measures).evaluate(run)
    for name in METRICS:
        kind, cut = parse_metric(name)
        key = {"recall": f"recall_{cut}", "ndcg": f"ndcg_cut_{cut}", "mrr": "recip_rank"}[kind]
        np.testing.assert_allclose(metric(ranks, name), [theirs[f"q{q}"][key] for q in range(len(truth))], atol=1e-12)


@given(arrays(np.float32, 6, elements=st.integers(0, 3)), st.integers(0, 5))
def test_metrics_equal_the_expectation_over_all_orders_of_tied_scores(scores, truth):
    ranks = rank_scores(scores[None], [truth])
    orders = [order for order in itertools.permutations(range(6)) if all(np.diff(scores[list(order)]) <= 0)]
    places = [order.index(truth) + 1 for order in orders]
    for name in ("recall@2", "recall@5", "ndcg@2", "ndcg@5", "mrr"):
        values = [gain(name, place) for place in places]
        assert metric(ranks, name)[0] == pytest.approx(np.mean(values))
        assert metric(ranks, name, "optimistic")[0] == pytest.approx(max(values))
        assert metric(ranks, name, "pessimistic")[0] == pytest.approx(min(values))


@given(arrays(np.float32, (4, 9), elements=st.floats(width=32) | st.integers(0, 2)), st.permutations(range(9)))
def test_ranks_do_not_depend_on_candidate_order(scores, order):
    label = np.zeros((4, 9))
    label[:, 3] = 1
    order = list(order)
    for one, other in zip(rank_truth(scores, label), rank_truth(scores[:, order], label[:, order]), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("broken", [np.nan, np.inf, -np.inf])
def test_a_truth_without_finite_score_is_worst_even_among_its_like(broken):
    for others in (0.0, broken):
        scores = np.full((1, 100), others)
        scores[0, 7] = broken
        better, equal, _ = rank_truth(scores, np.eye(100)[[7]])
        assert (better[0], equal[0]) == (99, 1)


def rank_one_by_one(scores, label, mask):
    """The definition, in loops."""
    better, equal, candidates = [], [], []
    for row, marks, real in zip(scores, label, mask, strict=True):
        truth = next(c for c, mark in enumerate(marks) if mark > 0 and real[c])
        rivals = [row[c] for c in range(len(row)) if real[c] and c != truth]
        lost = not math.isfinite(row[truth])
        better.append(len(rivals) if lost else sum(bool(score > row[truth]) for score in rivals))
        equal.append(1 if lost else 1 + sum(bool(score == row[truth]) for score in rivals))
        candidates.append(len(rivals) + 1)
    return better, equal, candidates


@st.composite
def scored_requests(draw):
    shape = draw(st.tuples(st.integers(0, 5), st.integers(1, 9)))
    dtype = draw(st.sampled_from([np.float16, np.float32, np.float64]))
    special = st.sampled_from([np.nan, np.inf, -np.inf, 0.0, -0.0])
    scores = draw(arrays(dtype, shape, elements=special | st.integers(-2, 2), fill=st.nothing()))
    label = np.zeros(shape, draw(st.sampled_from([np.float32, np.int64, bool])))
    truth = [draw(st.integers(0, shape[1] - 1)) for _ in range(shape[0])]
    label[np.arange(shape[0]), truth] = 1
    mask = draw(arrays(bool, shape))
    mask[np.arange(shape[0]), truth] = True
    return scores, label, mask


def assert_ranks(found, expected):
    for one, other in zip(found, expected, strict=True):
        assert one.dtype == np.int32
        np.testing.assert_array_equal(one, other)


@given(scored_requests(), st.sampled_from([1, 20, 1 << 16]))
def test_ranks_equal_their_definition_for_any_scores_ties_and_padding(requests, block):
    scores, label, mask = requests
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("gensr.evaluation.metrics.CACHED", block)
        assert_ranks(rank_truth(scores, label, mask), rank_one_by_one(scores, label, mask))
        every = np.ones_like(mask)
        assert_ranks(rank_truth(scores, label), rank_one_by_one(scores, label, every))
        assert_ranks(rank_truth(scores, label, every), rank_one_by_one(scores, label, every))


@given(scored_requests())
def test_how_scores_lie_in_memory_does_not_matter(requests):
    expected = rank_truth(*requests)
    turned = [np.asfortranarray(part) for part in requests]
    sparse = [np.repeat(part, 2, axis=1)[:, ::2] for part in requests]
    backwards = [part[::-1, ::-1] for part in requests]
    assert_ranks(rank_truth(*turned), expected)
    assert_ranks(rank_truth(*sparse), expected)
    assert_ranks(rank_truth(*backwards), [part[::-1] for part in expected])


@pytest.mark.parametrize("width", [255, 256, 70_000])
def test_counts_of_many_candidates_do_not_overflow(width):
    scores = np.ones((2, width), np.float32)
    scores[1, 1:] = 2
    label = np.zeros_like(scores)
    label[:, 0] = 1
    better, equal, candidates = rank_truth(scores, label)
    assert better.tolist() == [0, width - 1]
    assert equal.tolist() == [width, 1]
    assert candidates.tolist() == [width, width]


def test_ranking_leaves_its_input_as_it_was():
    scores, label, mask = np.array([[1.0, 2.0]]), np.array([[1.0, 0.0]]), np.array([[True, False]])
    before = [part.copy() for part in (scores, label, mask)]
    rank_truth(scores, label, mask)
    for one, other in zip((scores, label, mask), before, strict=True):
        np.testing.assert_array_equal(one, other)


def test_candidates_without_a_number_are_never_better():
    better, equal, _ = rank_truth(np.array([[0.0, np.nan, np.nan, 1.0]]), np.array([[1, 0, 0, 0]]))
    assert (better[0], equal[0]) == (1, 1)


def test_padding_candidates_do_not_count():
    scores = np.array([[1.0, 5.0, 1.0, 9.0]])
    mask = np.array([[True, True, False, False]])
    better, equal, candidates = rank_truth(scores, np.array([[1, 0, 0, 0]]), mask)
    assert (better[0], equal[0], candidates[0]) == (1, 1, 2)


@pytest.mark.parametrize("label", [[[0, 0, 0]], [[1, 1, 0]], [[0, 0, 1]]])
def test_a_request_needs_exactly_one_real_truth(label):
    with pytest.raises(ValueError, match=r"request 0 of the batch has \d truths"):
        rank_truth(np.zeros((1, 3)), np.array(label), np.array([[True, True, False]]))


@pytest.mark.parametrize("shape", [(2, 0), (2, 3)])
def test_a_request_without_a_truth_is_named_in_any_width(shape):
    with pytest.raises(ValueError, match="request 0 of the batch has 0 truths"):
        rank_truth(np.zeros(shape), np.zeros(shape))


def test_of_several_requests_the_first_wrong_one_is_named():
    label = np.eye(3)
    label[1] = [1, 1, 0]
    label[2] = 0  # as many truths as requests, but not one each
    with pytest.raises(ValueError, match="request 1 of the batch has 2 truths"):
        rank_truth(np.zeros((3, 3)), label)


@pytest.mark.parametrize(
    ("label", "mask"), [((1, 4), (1, 3)), ((1, 3), (1, 4)), ((1, 3), (3,)), ((3,), (1, 3))], ids=str
)
def test_shapes_that_differ_are_refused(label, mask):
    with pytest.raises(ValueError, match="must be one"):
        rank_truth(np.zeros((1, 3)), np.zeros(label), np.ones(mask, bool))


def test_a_cut_off_beyond_the_candidates_counts_every_truth():
    ranks = ranks_of([0, 2], [3, 1], [3, 3])
    np.testing.assert_allclose(metric(ranks, "recall@50"), 1)


@pytest.mark.parametrize("name", ["ndgc@5", "recall", "recall@0", "recall@x", "mrr@5", ""])
def test_an_unknown_metric_is_named(name):
    with pytest.raises(BadInputError, match="no metric named"):
        metric(ranks_of([0], [1]), name)


def test_a_misspelt_metric_gets_a_hint():
    with pytest.raises(BadInputError, match=r"did you mean 'ndcg@5'\?"):
        parse_metric("ndgc@5")


def test_no_requests_give_no_values():
    assert metric(Ranks.concatenate([]), "ndcg@5").shape == (0,)


def test_ranks_survive_a_round_trip(tmp_path):
    ranks = ranks_of([0, 5], [1, 4])
    ranks.save(tmp_path / "ranks.npz")
    back = Ranks.load(tmp_path / "ranks.npz")
    for name in ("request", "task", "better", "equal", "candidates"):
        one, other = getattr(ranks, name), getattr(back, name)
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(one, other)
    assert [path.name for path in tmp_path.iterdir()] == ["ranks.npz"]


def test_a_damaged_or_missing_rank_file_is_named(tmp_path):
    path = tmp_path / "ranks.npz"
    with pytest.raises(BadInputError, match="no ranks at"):
        Ranks.load(path)
    ranks_of([0], [1]).save(path)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(BadInputError, match="holds no ranks"):
        Ranks.load(path)


def test_arrays_of_different_lengths_are_no_ranks():
    with pytest.raises(ValueError, match="one length"):
        Ranks(np.zeros(2), np.zeros(2), np.zeros(3), np.zeros(2), np.zeros(2))


AMAZON_SEARCH = (0.9782, 0.9853, 0.9664, 0.9687)


def test_the_log_order_of_the_published_amazon_row_is_the_only_possible_one():
    possible = [row for row in itertools.permutations(AMAZON_SEARCH) if not check_metric_consistency(*row)]
    assert possible == [AMAZON_SEARCH]


def test_an_impossible_published_row_is_explained():
    assert check_metric_consistency(0.7661, 0.8372, 0.7564, 0.7655) == [
        "ndcg@10 - ndcg@5 is 0.0091; these recalls allow 0.0206 to 0.0253"
    ]


def test_recall_that_falls_with_the_cut_off_is_impossible():
    assert "recall@10 0.4 is below recall@5 0.5" in check_metric_consistency(0.5, 0.4, 0.3, 0.3)


@given(
    arrays(np.int32, 50, elements=st.integers(0, 20)),
    st.tuples(st.integers(1, 10), st.integers(1, 10)),
    st.integers(2, 5),
)
def test_metrics_of_real_ranks_are_always_consistent(better, cuts, digits):
    k1, k2 = cuts[0], cuts[0] + cuts[1]
    ranks = ranks_of(better, np.ones(50))
    row = [round(float(metric(ranks, f"{kind}@{k}").mean()), digits) for kind in ("recall", "ndcg") for k in (k1, k2)]
    assert check_metric_consistency(*row, k1=k1, k2=k2, digits=digits) == []


def test_cut_offs_must_rise():
    with pytest.raises(ValueError, match="k1 < k2"):
        check_metric_consistency(0, 0, 0, 0, k1=10, k2=5)
