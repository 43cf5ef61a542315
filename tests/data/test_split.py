from __future__ import annotations

from collections import defaultdict

import numpy as np
import pytest
from hypothesis import given, settings

from gensr.data.dataset import Split
from gensr.data.split import HELD_OUT
from gensr.data.tasks import Task
from gensr.errors import BadInputError
from tests.data.logs import prepared, random_rows, recs, searches


def splits_of(dataset, user="u", task=Task.RECOMMENDATION):
    row = dataset.user_ids.index(user)
    chosen = (dataset.user == row) & (dataset.task == task)
    return [Split(code).label for code in dataset.split[chosen]]


def test_last_event_of_each_task_tests_and_the_one_before_validates(tmp_path):
    data = prepared(recs("u", "1 2 3 4") + searches("u", "5 6 7", start=10), tmp_path / "d")
    assert splits_of(data) == ["train", "train", "valid", "test"]
    assert splits_of(data, task=Task.SEARCH) == ["train", "valid", "test"]


def test_fewer_than_three_events_of_a_task_only_train(tmp_path):
    data = prepared(recs("u", "1 2 3") + searches("u", "4 5", start=10), tmp_path / "d")
    assert splits_of(data, task=Task.SEARCH) == ["train", "train"]


def test_the_twin_of_a_held_out_event_trains_nothing(tmp_path):
    rows = recs("u", "1 2 3 4 5")
    twin = ("u", "i5", 4, "src", "q")  # the only search, so it would train
    data = prepared([*rows, twin], tmp_path / "d")
    assert splits_of(data, task=Task.SEARCH) == ["unused"]
    assert data.manifest["audit"]["log"]["unused"] == 1
    assert data.query_clicks().nnz == 0
    assert data.item_counts(Task.SEARCH).sum() == 0


def test_the_same_item_at_another_time_is_no_twin(tmp_path):
    data = prepared([*recs("u", "1 2 3 4 5"), ("u", "i5", 3, "src", "q")], tmp_path / "d")
    assert splits_of(data, task=Task.SEARCH) == ["train"]


def test_the_unused_twin_still_stands_in_later_histories(tmp_path):
    data = prepared([*recs("u", "1 2 3 4 5"), ("u", "i4", 3, "src", "q")], tmp_path / "d")
    (test,) = data.requests(Split.TEST)
    assert data.past[test] - data.offsets[data.user[test]] == 5


def test_nothing_to_hold_out_is_an_error_that_says_what_users_need(tmp_path):
    with pytest.raises(BadInputError, match="of 2 users none has three events of one task"):
        prepared(recs("u", "1 2") + searches("u", "3 4") + recs("v", "1"), tmp_path / "d")
    assert list(tmp_path.iterdir()) == []


def test_a_user_with_one_event_is_counted_and_trains(tmp_path):
    data = prepared(recs("u", "1 2 3") + recs("lonely", "4"), tmp_path / "d")
    assert splits_of(data, "lonely") == ["train"]
    assert data.manifest["audit"]["log"]["users_with_one_event"] == 1


@settings(max_examples=30, deadline=None)
@given(rows=random_rows())
def test_no_request_sees_its_own_moment_the_future_or_another_user(rows, tmp_path_factory):
    data = prepared(rows, tmp_path_factory.mktemp("data") / "d")
    for event in range(data.num_events):
        user = data.user[event]
        past = slice(data.offsets[user], data.past[event])
        rest = slice(data.past[event], data.offsets[user + 1])
        assert (data.user[past] == user).all()
        assert (data.time[past] < data.time[event]).all()
        assert (data.ordinal[past] < data.ordinal[event]).all()
        assert (data.time[rest] >= data.time[event]).all()


@settings(max_examples=30, deadline=None)
@given(rows=random_rows())
def test_split_equals_a_plain_reading_of_the_rule(rows, tmp_path_factory):
    data = prepared(rows, tmp_path_factory.mktemp("data") / "d")
    streams = defaultdict(list)
    for event in range(data.num_events):
        streams[data.user[event], data.task[event]].append(event)
    expected = {event: Split.TRAIN for event in range(data.num_events)}
    for events in streams.values():
        if len(events) >= 3:
            expected[events[-1]], expected[events[-2]] = Split.TEST, Split.VALID
    face = {e: (data.user[e], data.time[e], data.item[e]) for e in expected}
    held_out = {face[e] for e, split in expected.items() if split in HELD_OUT}
    for event, split in expected.items():
        if split is Split.TRAIN and face[event] in held_out:
            expected[event] = Split.UNUSED
    assert data.split.tolist() == [expected[e] for e in range(data.num_events)]


@settings(max_examples=30, deadline=None)
@given(rows=random_rows())
def test_no_interaction_is_both_trained_and_held_out(rows, tmp_path_factory):
    data = prepared(rows, tmp_path_factory.mktemp("data") / "d")
    faces = np.stack([data.user, data.ordinal, data.item], axis=1)
    trained = {tuple(face) for face in faces[data.split == Split.TRAIN].tolist()}
    held_out = {tuple(face) for face in faces[np.isin(data.split, HELD_OUT)].tolist()}
    assert not trained & held_out
