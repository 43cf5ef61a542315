from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings

from gensr.data.audit import MEANING, audit
from gensr.errors import GensrError
from tests.data.logs import prepared, random_rows, recs, searches


@settings(max_examples=25, deadline=None)
@given(rows=random_rows())
def test_no_prepared_log_leaks(rows, tmp_path_factory):
    found = prepared(rows, tmp_path_factory.mktemp("data") / "d").manifest["audit"]
    for tasks in found["splits"].values():
        for entry in tasks.values():
            assert entry.get("twin_leaks", 0) == 0
            assert entry.get("future_events", 0) == 0


def test_repeats_are_counted_apart_from_leaks_and_only_inside_the_window(tmp_path):
    data = prepared(recs("u", "1 2 3 4 5 1") + recs("v", "1 2 3 2"), tmp_path / "d")
    test = audit(data, max_history=20)["splits"]["test"]["recommendation"]
    assert (test["requests"], test["genuine_repeats"], test["target_in_history"]) == (2, 2, 1.0)
    test = audit(data, max_history=3)["splits"]["test"]["recommendation"]
    assert (test["genuine_repeats"], test["target_in_history"]) == (1, 0.5)


def test_a_leaking_past_is_an_error(tmp_path):
    data = prepared([*recs("u", "1 2 3 4"), ("u", "i4", 3, "src", "q")], tmp_path / "d")
    data.past = np.asarray(data.past) + 1  # every event now sees itself
    with pytest.raises(GensrError, match="2 train recommendation requests 2 see their answer at their own time"):
        audit(data, max_history=20)


def test_cold_rows_empty_histories_and_held_out_inputs_are_counted(tmp_path):
    rows = recs("u", "1 2 3 4", start=10) + searches("u", "5 6 7", "late") + searches("v", "8", "q", start=15)
    found = prepared(rows, tmp_path / "d").manifest["audit"]["splits"]
    assert found["test"]["recommendation"]["cold_items"] == 1
    assert found["test"]["search"]["cold_items"] == 1
    assert found["test"]["search"]["cold_queries"] == 0
    assert found["train"]["search"]["empty_history"] == 2
    assert found["train"]["recommendation"]["held_out_in_history"] == 2
    assert "held_out_in_history" not in found["test"]["recommendation"]


def test_lexical_overlap_is_measured_on_words(tmp_path):
    catalogue = [
        ("i1", "Red Kettle", "Kitchen|Kettles"),
        ("i2", "Mat", ""),
        ("i3", "", ""),
        ("i4", "x", ""),
        ("i5", "y", ""),
    ]
    rows = searches("u", "1", "kettle, red!") + searches("u", "1", "kitchen red", start=1) + recs("u", "3 2 1")
    rows += (
        searches("v", "2", "soft mat") + searches("v", "3", "kettle", start=1) + searches("v", "1 2 3", "z", start=2)
    )
    found = prepared(rows, tmp_path / "d", catalogue=tuple(catalogue))
    train = found.manifest["audit"]["splits"]["train"]["search"]
    assert train["requests"] == 5
    assert train["query_in_title"] == 1 / 5  # "kettle, red!"
    assert train["title_in_query"] == 2 / 5  # "kettle, red!" and "soft mat"
    assert train["query_in_text"] == 2 / 5  # "kettle, red!" and "kitchen red"
    assert found.manifest["audit"]["log"]["items_without_text"] == 1


def test_the_log_as_a_whole_is_counted(tmp_path):
    rows = [*recs("u", "1 2 3"), *recs("u", "1"), ("u", "i2", 1, "src", "q"), *recs("v", "4"), *searches("w", "5 6")]
    log = prepared(rows, tmp_path / "d").manifest["audit"]["log"]
    assert log == {
        "duplicate_events": 1,
        "twins": 4,
        "unused": 1,
        "items_without_text": 0,
        "items_without_events": 6,
        "users_with_one_event": 1,
        "users_only_training_recommendation": 1,
        "users_only_training_search": 2,
    }


def test_every_entry_has_a_sentence_that_says_what_it_means(tmp_path):
    data = prepared(recs("u", "1 2 3") + searches("u", "1 2 3"), tmp_path / "d")
    found = json.loads((data.folder / "manifest.json").read_text())
    entries = {name for tasks in found["audit"]["splits"].values() for entry in tasks.values() for name in entry}
    assert entries | set(found["audit"]["log"]) | {"floors", "session_clicks"} == set(MEANING)
    assert found["audit"]["meaning"] == MEANING
    assert all(sentence.endswith(".") for sentence in MEANING.values())
