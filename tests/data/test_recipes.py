from __future__ import annotations

import itertools
import sys
from collections import Counter, defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gensr.data.bm25 import BM25Index
from gensr.data.catalogue import Catalogue
from gensr.data.config import BM25CandidatesConfig, PopularCandidatesConfig, SameCategoryConfig, UniformConfig
from gensr.data.negatives import Pool, Touched
from gensr.data.prepare import prepare
from gensr.data.recipes import Categories
from gensr.data.split import HELD_OUT, Split
from gensr.data.tasks import Task
from gensr.errors import BadInputError, MissingExtraError
from gensr.spec import DataSpec
from gensr.testing.data import tiny_dataset
from tests.data.logs import ColumnedSource, prepared, random_rows, recs, searches


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    return tiny_dataset(tmp_path_factory.mktemp("shop") / "data", users=150, items=300)


def held_out(data):
    return np.concatenate([data.requests(split) for split in HELD_OUT])


def touched_by(data, event):
    return set(data.item[data.user == data.user[event]].tolist())


# Popularity


def drawn_without_replacement(weights, count):
    """Chance of every item to be among `count` successive draws, by going through all of them."""
    chances = np.zeros(len(weights))
    for order in itertools.permutations(range(len(weights)), count):
        chance, left = 1.0, sum(weights)
        for item in order:
            chance, left = chance * weights[item] / left if left else 0.0, left - weights[item]
        chances[list(order)] += chance
    return chances


@pytest.mark.parametrize("crowded", [False, True], ids=["by rejection", "from the rest"])
def test_popular_negatives_are_drawn_by_their_counts_without_replacement(crowded, monkeypatch):
    monkeypatch.setattr(Touched, "_crowded", lambda self, user, count, pool: np.full(len(user), crowded))
    counts = [0, 9, 5, 3, 2, 1, 4]  # of items 1..6; item 6 was touched
    interactions = np.repeat(np.arange(7, dtype=np.int32), counts)
    touched = Touched(np.array([1]), np.array([6]), num_users=1, num_items=6)
    drawn = np.zeros((60_000, 2), np.int32)
    pool = Pool(touched.catalogue.items, interactions)
    touched.fill(drawn, np.ones(len(drawn), np.int64), np.random.default_rng(0), pool)
    shares = np.bincount(drawn.ravel(), minlength=7)[1:6] / len(drawn)
    assert shares == pytest.approx(drawn_without_replacement(counts[1:6], 2), abs=0.01)
    assert all(len(set(row)) == 2 for row in drawn.tolist())


def test_popular_negatives_come_from_training_events_of_both_tasks(tmp_path):
    rows = recs("u", "1 2 3") + searches("v", "4 5 6") + recs("w", "7 8 9")
    data = prepared(rows, tmp_path / "d", items=40)
    config = PopularCandidatesConfig(count=2)
    for event, row in zip(held_out(data), config.draw(data, held_out(data), seed=0).tolist(), strict=True):
        trained = set(data.item[data.split == Split.TRAIN].tolist())  # one item a user
        assert set(row) - {data.item[event]} == trained - touched_by(data, event)


def test_items_nobody_trains_on_fill_up_uniformly(tmp_path):
    data = prepared(recs("u", "1 2 3") + recs("v", "4 5 6"), tmp_path / "d")
    (event,) = data.requests(Split.TEST)[:1]
    trained = set(data.item[data.split == Split.TRAIN].tolist()) - touched_by(data, event)
    drawn = PopularCandidatesConfig(count=3).draw(data, np.full(4000, event), seed=0)
    counts = Counter(drawn.ravel().tolist())
    assert all(counts[item] == 4000 for item in trained)
    others = [counts[item] for item in range(1, 13) if item not in trained | touched_by(data, event)]
    assert len(others) == 8
    assert np.ptp(others) < 250


def test_where_nothing_trains_all_are_equally_popular(tmp_path):
    source = ColumnedSource(rows=tuple(recs("u", "1 2 3 4")), splits=(1, 1, 2, 2))
    spec = DataSpec(source=source, split="given", candidates=(PopularCandidatesConfig(count=2), UniformConfig(count=1)))
    _, candidates = prepare(spec, tmp_path / "d").candidates("popularity-2").lists[Split.TEST]
    assert ((candidates > 4).sum(axis=1) == 2).all()


def test_what_is_popular_is_drawn_more_often(shop):
    popular = np.bincount(shop.item[shop.split == Split.TRAIN], minlength=shop.num_items + 1)
    drawn = PopularCandidatesConfig(count=20).draw(shop, held_out(shop), seed=0)
    times = np.bincount(drawn.ravel(), minlength=shop.num_items + 1)
    assert np.corrcoef(popular[1:], times[1:])[0, 1] > 0.9


# Same category

PATHS = ["A|B|C", "A|B", "A|D||E|F", "", "E|F||A|B|C", "G", "A|B|C||A|B|H", "E"]


def pools_around(paths, item, query):
    """Item sets around an item's category, near ones first, read off the texts."""
    own = [tuple(path.split("|")) for path in paths[item].split("||") if path]
    asked = [path for path in own if " ".join(path).lower() == query]
    path = (asked or own or [()])[0]
    members = defaultdict(set)
    for other, text in paths.items():
        for levels in (text.split("|") for text in text.split("||") if text):
            for depth in range(len(levels) + 1):
                members[tuple(levels[:depth])].add(other)
    return [members[path[:depth]] for depth in range(len(path), 0, -1)] + [set(paths)]


WORDS = {letter: f"{letter.lower()}word" for letter in "ABCDEFGH"}


@settings(max_examples=40, deadline=None)
@given(
    rows=random_rows(),
    shapes=st.lists(st.sampled_from(PATHS), min_size=14, max_size=14),
    query=st.sampled_from(["aword bword cword", "eword fword", "aword", "red"]),
    count=st.integers(1, 6),
)
def test_all_of_the_nearer_categories_come_before_any_of_the_next(tmp_path_factory, rows, shapes, query, count):
    named = ["".join(WORDS.get(sign, sign) for sign in shape) for shape in shapes]
    catalogue = tuple((f"i{n}", "thing", path) for n, path in enumerate(named, start=1))
    rows = [(u, i, t, task, query if text == "red" else text) for u, i, t, task, text in rows]
    data = prepared(rows, tmp_path_factory.mktemp("d") / "d", catalogue=catalogue)
    paths = {row: path for row, path in enumerate(data.catalogue.categories) if row}
    events = held_out(data)
    for event, row in zip(events, SameCategoryConfig(count=count).draw(data, events, seed=0).tolist(), strict=True):
        negatives = set(row) - {data.item[event]}
        assert len(negatives) == count
        near: set[int] = set()
        for pool in pools_around(paths, int(data.item[event]), data.catalogue.queries[data.query[event]]):
            left = pool - touched_by(data, event)
            if len(left) >= count:
                assert near <= negatives <= left
                break
            near = left
        else:
            raise AssertionError("even the whole catalogue is too small")


def test_a_search_means_the_hierarchy_its_query_was_made_from():
    texts = ["", "Toys|Games||Home|Self-Help Books", "Toys|Games", "Home|Self-Help Books", ""]
    queries = ["", "toys games", "home self help books", "home selfhelp books", "something else"]
    categories = Categories(Catalogue(["", *"abcd"], [""] * 5, texts, queries))
    item, query = np.array([1, 1, 1, 1, 1, 2, 4]), np.array([1, 2, 3, 4, 0, 3, 1])
    members = [
        [pool.items.tolist() for pool in categories.around(node)] for node in categories.of_requests(item, query)
    ]
    toys, home = [[1, 2], [1, 2]], [[1, 3], [1, 3]]
    assert members == [toys, home, home, toys, toys, toys, []]


@pytest.mark.parametrize("crowded", [False, True], ids=["by rejection", "from the rest"])
def test_the_rest_is_uniform_over_the_category_that_suffices(crowded, monkeypatch, tmp_path):
    monkeypatch.setattr(Touched, "_crowded", lambda self, user, count, pool: np.full(len(user), crowded))
    catalogue = tuple((f"i{n}", "thing", "A|B" if n <= 5 else "A" if n <= 11 else "C") for n in range(1, 16))
    data = prepared(recs("u", "1 2 3"), tmp_path / "d", catalogue=catalogue)
    (event,) = data.requests(Split.TEST)
    drawn = SameCategoryConfig(count=4).draw(data, np.full(3000, event), seed=0)
    counts = Counter(data.catalogue.item_ids[row] for row in drawn.ravel().tolist())
    assert counts.pop("i3") == counts.pop("i4") == counts.pop("i5") == 3000
    assert set(counts) == {f"i{n}" for n in range(6, 12)}
    assert np.ptp(list(counts.values())) < 250


def test_items_without_categories_compete_with_the_whole_catalogue(tmp_path):
    catalogue = tuple((f"i{n}", "thing", "") for n in range(1, 9))
    data = prepared(recs("u", "1 2 3"), tmp_path / "d", catalogue=catalogue)
    drawn = SameCategoryConfig(count=5).draw(data, data.requests(Split.TEST), seed=0)
    assert sorted(drawn[0].tolist()) == [3, 4, 5, 6, 7, 8]


# BM25


@pytest.mark.parametrize("task", list(Task), ids=lambda task: task.label)
def test_the_best_hits_the_user_left_come_first_and_chance_fills_the_rest(shop, task):
    """Against the scores of the whole catalogue, which tests of the ranker hold against the formula."""
    index = BM25Index(shop.catalogue.text[1:], k1=1.5, b=0.75, purpose="a test")
    events = shop.requests(Split.TEST, task)
    drawn = BM25CandidatesConfig(count=30).draw(shop, events, seed=0)
    short = 0
    for event, row in zip(events, drawn.tolist(), strict=True):
        search = task is Task.SEARCH
        text = shop.catalogue.queries[shop.query[event]] if search else shop.catalogue.text[shop.item[event]]
        scores = np.append(0, index.scores(text))
        left = np.setdiff1d(np.arange(1, shop.num_items + 1), list(touched_by(shop, event)))
        negatives = np.setdiff1d(row, shop.item[event])
        hits = left[scores[left] > 0]
        short += len(hits) < 30
        assert len(negatives) == 30
        if len(hits) < 30:
            assert set(hits) <= set(negatives)
        else:
            assert scores[negatives].min() >= np.sort(scores[left])[-30]
    assert short == 0 or task is Task.SEARCH


def test_ties_do_not_favour_the_first_rows(tmp_path):
    catalogue = tuple((f"i{n}", "red shoe" if n < 30 else "blue hat", "") for n in range(1, 36))
    rows = [row for n in range(5) for row in searches(f"u{n}", "31 32 33", query="red")]
    data = prepared(rows, tmp_path / "d", catalogue=catalogue)
    drawn = [BM25CandidatesConfig(count=8).draw(data, data.requests(Split.TEST), seed=seed) for seed in range(20)]
    chosen = np.setdiff1d(np.stack(drawn), np.arange(30, 36))
    assert len(chosen) == 29


def test_hits_are_cut_and_ordered_by_score_and_then_by_the_order_given():
    index = BM25Index(["red shoe", "red red hat", "blue", "red shoe", "red shoe"], k1=1.5, b=0.75, purpose="a test")
    order = np.array([4, 2, 0, 3, 1])
    best = index.scores("red").argmax()
    assert index.first_hits("red", 9, order).tolist() == [best, 4, 0, 3]
    assert index.first_hits("red", 3, order).tolist() == [best, 4, 0]
    assert index.first_hits("the unheard of", 3, order).tolist() == []


def test_without_bm25s_the_recipe_says_what_to_install(shop, monkeypatch):
    monkeypatch.setitem(sys.modules, "bm25s", None)
    with pytest.raises(MissingExtraError, match="the candidate recipe 'bm25'"):
        BM25CandidatesConfig().draw(shop, shop.requests(Split.TEST), seed=0)


# All


@pytest.mark.parametrize("config", [PopularCandidatesConfig, SameCategoryConfig, BM25CandidatesConfig])
def test_too_small_a_catalogue_is_an_error_with_the_numbers(shop, config):
    with pytest.raises(BadInputError, match="too few items for 299 negatives: the catalogue holds 300 and user"):
        config(count=299).draw(shop, shop.requests(Split.TEST), seed=0)


@pytest.mark.parametrize("config", [PopularCandidatesConfig, SameCategoryConfig, BM25CandidatesConfig])
@settings(max_examples=15, deadline=None)
@given(rows=random_rows(), count=st.integers(1, 5))
def test_no_list_holds_anything_its_user_touched(tmp_path_factory, config, rows, count):
    data = prepared(rows, tmp_path_factory.mktemp("d") / "d")
    events = held_out(data)
    for event, row in zip(events, config(count=count).draw(data, events, seed=1).tolist(), strict=True):
        assert len(set(row)) == count + 1
        assert set(row) & touched_by(data, event) == {data.item[event]}
