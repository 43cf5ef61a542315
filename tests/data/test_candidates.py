from __future__ import annotations

import hashlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gensr.data import loader
from gensr.data.candidates import FullRows, hash_lists
from gensr.data.config import FullConfig, UniformConfig
from gensr.data.dataset import Split
from gensr.data.negatives import Touched
from gensr.data.prepare import prepare
from gensr.data.split import HELD_OUT
from gensr.errors import BadInputError, GensrError
from gensr.spec import load_spec
from tests.data.logs import data_spec, prepared, random_rows, recs, searches

ROWS = recs("u", "1 2 3 4 5") + searches("u", "6 7 8", start=9) + recs("v", "9 10 11")


@settings(max_examples=30, deadline=None)
@given(rows=random_rows())
def test_lists_hold_the_truth_once_and_nothing_else_the_user_touched(rows, tmp_path_factory):
    data = prepared(rows, tmp_path_factory.mktemp("data") / "d", count=4)
    for split in HELD_OUT:
        events, items = data.candidates("uniform-4").lists[split]
        assert events.tolist() == data.requests(split).tolist()
        assert items.shape == (len(events), 5)
        for event, row in zip(events, items.tolist(), strict=True):
            touched = set(data.item[data.user == data.user[event]].tolist())
            assert len(set(row)) == 5
            assert set(row) & touched == {data.item[event]}
            assert min(row) >= 1
            assert max(row) <= data.num_items


def test_lists_depend_on_the_data_seed_alone(tmp_path):
    base = prepared(ROWS, tmp_path / "a").manifest["candidates"]
    assert prepared(ROWS, tmp_path / "b", max_history=3).manifest["candidates"] == base
    assert prepared(ROWS, tmp_path / "c", seed=7).manifest["candidates"] != base


def test_the_hash_of_lists_knows_values_and_shapes_but_no_byte_order():
    valid = (np.array([1]), np.array([[1, 2]], np.int32))
    test = (np.array([2, 3]), np.array([[3, 4], [5, 6]], np.int32))
    digest = "cf6a1431eb765144f277180b339db9db173b73256dd0576dde4db0516bf2586e"
    assert hash_lists({Split.VALID: valid, Split.TEST: test}) == digest
    assert hash_lists({Split.TEST: test, Split.VALID: (valid[0], valid[1].astype(">i4"))}) == digest
    assert hash_lists({Split.VALID: test, Split.TEST: valid}) != digest
    assert hash_lists({Split.VALID: valid, Split.TEST: (test[0], test[1].reshape(1, 4))}) != digest


def test_several_lists_are_kept_in_the_order_of_the_spec(tmp_path):
    spec = data_spec(ROWS).model_copy(update={"candidates": (UniformConfig(count=3), UniformConfig(count=2))})
    data = prepare(spec, tmp_path / "d")
    assert data.candidate_names == ["uniform-3", "uniform-2"]
    assert data.candidates("uniform-3").lists[Split.TEST][1].shape == (3, 4)


def test_a_changed_list_is_noticed(tmp_path):
    data = prepared(ROWS, tmp_path / "d")
    path = data.folder / "candidates" / "uniform-2-test-items.npy"
    items = np.load(path)
    items[0, 0] += 1
    np.save(path, items)
    with pytest.raises(GensrError, match=r"'uniform-2' .* is damaged"):
        data.candidates("uniform-2")


def test_too_small_a_catalogue_is_an_error_with_the_numbers(tmp_path):
    message = "too few items for 99 negatives: the catalogue holds 12 and user 'u' touched 8 of them, so 4 are left"
    with pytest.raises(BadInputError, match=message):
        prepared(ROWS, tmp_path / "d", count=99)
    assert list(tmp_path.iterdir()) == []


def test_all_untouched_items_can_be_asked_for(tmp_path):
    data = prepared(ROWS, tmp_path / "d", count=4)
    events, items = data.candidates("uniform-4").lists[Split.TEST]
    row = items[data.user[events] == 1][0]
    assert set(row.tolist()) - {data.item[events[0]]} == {9, 10, 11, 12}


@pytest.mark.parametrize("items", [30, 400], ids=["from the rest", "by rejection"])
def test_every_untouched_item_is_equally_likely_in_every_column(items):
    touched = Touched(np.array([1, 1, 1]), np.array([1, 2, 3]), num_users=1, num_items=items)
    rng = np.random.default_rng(0)
    draws = touched.draw_others(np.ones(40_000, np.int64), 10, rng, user_ids=["", "u"])
    assert all(len(set(row)) == 10 for row in draws[:500].tolist())
    shares = np.bincount(draws.ravel(), minlength=items + 1) / len(draws)
    assert (shares[:4] == 0).all()
    expected = 10 / (items - 3)
    assert np.abs(shares[4:] - expected).max() < 5 * np.sqrt(expected / len(draws))


def test_the_place_of_the_truth_says_nothing(tmp_path):
    rows = [row for n in range(400) for row in recs(f"u{n}", "1 2 3")]
    data = prepared(rows, tmp_path / "d", count=4)
    events, items = data.candidates("uniform-4").lists[Split.TEST]
    places = (items == data.item[events][:, None]).argmax(axis=1)
    assert np.bincount(places, minlength=5).min() > 50


@settings(max_examples=50, deadline=None)
@given(
    pairs=st.lists(st.tuples(st.integers(1, 9), st.integers(1, 30)), max_size=60),
    asked=st.lists(st.tuples(st.integers(0, 9), st.integers(0, 30)), max_size=60),
)
def test_touched_knows_its_pairs_and_no_others(pairs, asked):
    user, item = np.array(pairs, np.int64).reshape(-1, 2).T
    touched = Touched(user, item, num_users=9, num_items=30)
    asked = asked + pairs
    found = touched.contains(*np.array(asked, np.int64).reshape(-1, 2).T)
    assert found.tolist() == [pair in set(pairs) for pair in asked]
    assert touched.counts.tolist() == [len({i for u, i in pairs if u == user}) for user in range(10)]


def test_a_seed_draws_what_it_drew_before_the_bit_table():
    rng = np.random.default_rng(1)
    user, item = rng.integers(1, 301, 4000), rng.integers(1, 5001, 4000)
    touched = Touched(user, item, num_users=300, num_items=5000)
    drawn = touched.draw_others(user[:200], 99, np.random.default_rng(5), user_ids=[""] * 301)
    assert hashlib.sha256(drawn.astype("<i4").tobytes()).hexdigest()[:16] == "a283ece4647f83b6"


# The whole catalogue


@pytest.fixture
def full(tmp_path):
    spec = data_spec(ROWS).model_copy(update={"candidates": (FullConfig(), UniformConfig(count=2))})
    return prepare(spec, tmp_path / "d")


def test_full_rows_are_all_items_but_those_the_user_touched(full):
    for split in HELD_OUT:
        events, items = full.candidates("full").lists[split]
        assert isinstance(items, FullRows)
        assert items.shape == (len(events), 12)
        for event, row in zip(events, items[np.arange(len(events))].tolist(), strict=True):
            touched = set(full.item[full.user == full.user[event]].tolist()) - {int(full.item[event])}
            assert row == [0 if item in touched else item for item in range(1, 13)]


def test_full_rows_are_not_stored_and_their_hash_knows_the_events(full):
    assert not list((full.folder / "candidates").glob("full-*-items.npy"))
    listed = full.candidates("full")
    other = {split: (events, FullRows(full, events[:1])) for split, (events, _) in listed.lists.items()}
    assert hash_lists(listed.lists) == listed.sha256 == full.manifest["candidates"]["full"]
    assert hash_lists(other) != listed.sha256


def test_changed_events_of_full_rows_are_noticed(full):
    path = full.folder / "candidates" / "full-test-events.npy"
    np.save(path, np.load(path)[::-1])
    with pytest.raises(GensrError, match=r"'full' .* is damaged"):
        full.candidates("full")


def test_evaluation_asks_fewer_requests_at_once_where_candidates_are_many(full, monkeypatch):
    monkeypatch.setattr(loader, "MOST_SCORED", 25)
    batches = list(loader.RequestLoader(full, 5).evaluation(full.candidates("full"), Split.TEST, batch_size=64))
    assert [batch.cand.shape for batch in batches] == [(2, 12), (1, 12)]
    assert all((batch.label.sum(1) == 1).all() and (batch.cand_mask == (batch.cand > 0)).all() for batch in batches)


def test_a_renumbered_list_asks_the_same_of_the_same(full):
    place = np.random.default_rng(0).permutation(full.num_events)
    rows = np.append(0, 1 + np.random.default_rng(1).permutation(full.num_items))
    for name in ("uniform-2", "full"):
        listed = full.candidates(name)
        moved = listed.renumbered(place, rows)
        assert moved.sha256 == hash_lists(moved.lists)
        for split, (events, items) in listed.lists.items():
            there, others = moved.lists[split]
            assert (np.diff(there) > 0).all()
            assert sorted(there) == sorted(place[events])
            if name != "full":
                by_event = dict(zip(there.tolist(), others.tolist(), strict=True))
                assert [by_event[place[event]] for event in events] == rows[items].tolist()


# The spec


@pytest.mark.parametrize(
    ("given", "names"),
    [
        ("same_category", ["same_category-99", "uniform-99"]),
        (["full", {"type": "bm25", "count": 9}], ["full", "bm25-9", "uniform-99"]),
        ([{"type": "uniform", "count": 9}, "popularity"], ["uniform-9", "popularity-99"]),
    ],
)
def test_a_uniform_list_is_always_one_of_them(given, names):
    assert [config.name for config in load_spec({"data": {"candidates": given}}).data.candidates] == names


def test_two_lists_of_one_name_are_refused():
    with pytest.raises(BadInputError, match="given more than once: bm25-99"):
        load_spec({"data": {"candidates": ["bm25", {"type": "bm25", "k1": 1.2}]}})
