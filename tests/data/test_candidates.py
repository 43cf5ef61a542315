from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings

from gensr.data.candidates import Touched, hash_lists
from gensr.data.config import UniformConfig
from gensr.data.dataset import Split, prepare
from gensr.data.split import HELD_OUT
from gensr.errors import BadInputError, GensrError
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
