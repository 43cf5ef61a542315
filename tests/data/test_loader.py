from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings

import gensr.data.loader as loader_module
from gensr.data.dataset import Split
from gensr.data.examples import Examples
from gensr.data.loader import RequestLoader
from gensr.data.tasks import Task
from gensr.errors import BadInputError
from tests.data.logs import prepared, random_rows, recs, searches

FIELDS = ("task", "user", "time", "query", "hist_item", "hist_task", "hist_query", "hist_time", "cand", "request")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    rng = np.random.default_rng(0)
    rows = []
    for n in range(12):
        items = " ".join(map(str, rng.choice(np.arange(1, 31), 7, replace=False)))
        rows += recs(f"u{n}", items) + searches(f"u{n}", "1 2 3 4", f"q{n % 3}", 50)
    return prepared(rows, tmp_path_factory.mktemp("data") / "d", items=30, count=5)


def stream(data, **options):
    settings = {"seed": 1, "epoch": 0, "batch_size": 8, "negatives": 3, **options}
    return list(RequestLoader(data, 4).epoch(**settings))


def same(one, other):
    return all(torch.equal(getattr(one, name), getattr(other, name)) for name in (*FIELDS, "cand_mask", "label"))


@settings(max_examples=25, deadline=None)
@given(rows=random_rows())
def test_history_is_the_newest_of_the_strict_past_oldest_first(rows, tmp_path_factory):
    data = prepared(rows, tmp_path_factory.mktemp("data") / "d")
    events = np.arange(data.num_events)
    batch = RequestLoader(data, 3).batch(events, data.item[:, None])
    for event in events:
        past = [e for e in events if data.user[e] == data.user[event] and data.time[e] < data.time[event]][-3:]
        for name, column in (("item", data.item), ("task", data.task), ("query", data.query), ("time", data.time)):
            expected = [int(column[e]) for e in past] + [0] * (3 - len(past))
            assert getattr(batch, f"hist_{name}")[event].tolist() == expected


def test_batches_have_the_shapes_and_types_of_the_contract(data):
    batch = RequestLoader(data, 4).batch(np.array([3, 5]), np.array([[1, 2, 0], [4, 5, 6]], np.int32))
    for name in FIELDS:
        assert getattr(batch, name).dtype == torch.int64
    assert batch.hist_item.shape == (2, 4)
    assert batch.label.dtype == torch.float32
    assert batch.cand_mask.tolist() == [[True, True, False], [True, True, True]]
    assert batch.request.tolist() == [3, 5]
    assert len(batch) == 2


def test_label_marks_the_truth_and_never_padding(data):
    event = 3
    truth = int(data.item[event])
    batch = RequestLoader(data, 4).batch(np.array([event]), np.array([[0, truth, 0]], np.int32))
    assert batch.label.tolist() == [[0, 1, 0]]


def test_an_epoch_asks_every_training_request_once(data):
    batches = stream(data)
    requests = torch.cat([batch.request for batch in batches]).tolist()
    assert sorted(requests) == data.requests(Split.TRAIN).tolist()
    assert requests != sorted(requests)
    assert len(batches) == RequestLoader(data, 4).steps_per_epoch(8)
    assert {len(batch) for batch in batches[:-1]} == {8}
    assert len(batches[-1]) == len(requests) % 8
    assert {Task.SEARCH, Task.RECOMMENDATION} <= set(torch.cat([batch.task for batch in batches]).tolist())


def test_training_negatives_are_distinct_and_untouched_in_training(data):
    for batch in stream(data):
        assert (batch.label.sum(1) == 1).all()
        for user, candidates, label in zip(batch.user.tolist(), batch.cand.tolist(), batch.label.tolist(), strict=True):
            touched = set(data.item[(data.user == user) & (data.split == Split.TRAIN)].tolist())
            negatives = {item for item, truth in zip(candidates, label, strict=True) if not truth}
            assert len(negatives) == 3
            assert not negatives & touched


def test_held_out_items_may_be_training_negatives(data):
    drawn = set()
    for epoch in range(40):
        for batch in stream(data, epoch=epoch):
            drawn |= {(u, i) for u, row in zip(batch.user.tolist(), batch.cand.tolist(), strict=True) for i in row}
    test = data.requests(Split.TEST)
    assert set(zip(data.user[test].tolist(), data.item[test].tolist(), strict=True)) <= drawn


def test_epochs_and_seeds_differ_and_repeat_exactly(data):
    first = stream(data)
    assert all(same(one, other) for one, other in zip(first, stream(data), strict=True))
    assert not same(first[0], stream(data, epoch=1)[0])
    assert not same(first[0], stream(data, seed=2)[0])


@pytest.mark.parametrize("block", [5, 8, 8192])
def test_skipping_batches_gives_exactly_the_rest_of_the_stream(data, monkeypatch, block):
    monkeypatch.setattr(loader_module, "BLOCK", block)
    whole = stream(data)
    for skip in range(len(whole) + 2):
        rest = stream(data, skip=skip)
        assert len(rest) == max(0, len(whole) - skip)
        assert all(same(one, other) for one, other in zip(whole[skip:], rest, strict=True))


def test_the_stream_does_not_depend_on_the_batch_size(data, monkeypatch):
    monkeypatch.setattr(loader_module, "BLOCK", 5)

    def candidates(size):
        return torch.cat([batch.cand for batch in stream(data, batch_size=size)])

    assert torch.equal(candidates(3), candidates(7))


def test_negatives_that_a_user_leaves_no_room_for_are_an_error(data):
    with pytest.raises(BadInputError, match="too few items for 28 negatives"):
        stream(data, negatives=28)


def test_evaluation_asks_the_stored_lists_in_order(data):
    lists = data.candidates("uniform-5")
    batches = list(RequestLoader(data, 4).evaluation(lists, Split.TEST, batch_size=7))
    events, items = lists.lists[Split.TEST]
    assert torch.cat([batch.request for batch in batches]).tolist() == events.tolist()
    assert torch.cat([batch.cand for batch in batches]).tolist() == items.tolist()
    assert all((batch.label.sum(1) == 1).all() for batch in batches)


def test_evaluation_can_ask_one_task_and_a_fixed_draw(data):
    lists, loader = data.candidates("uniform-5"), RequestLoader(data, 4)

    def asked(**options):
        batches = list(loader.evaluation(lists, Split.VALID, batch_size=4, **options))
        return torch.cat([b.request for b in batches]).tolist(), torch.cat([b.task for b in batches]).tolist()

    assert set(asked(tasks=[Task.SEARCH])[1]) == {Task.SEARCH}
    assert set(asked(tasks=iter(Task))[1]) == set(Task)
    requests, tasks = asked(limit=3, seed=5)
    assert sorted(tasks) == [1, 1, 1, 2, 2, 2]
    assert requests == sorted(requests)
    assert asked(limit=3, seed=5)[0] == requests
    assert asked(limit=3, seed=6)[0] != requests
    assert asked(limit=3, seed=5, tasks=[Task.SEARCH])[0] == [
        r for r, task in zip(requests, tasks, strict=True) if task == Task.SEARCH
    ]


def test_examples_of_one_task_leave_the_other_out(data):
    loader = RequestLoader(data, 4)
    for task in Task:
        examples = Examples(tasks=frozenset({task}))
        batches = stream(data, examples=examples)
        asked = sorted(event for batch in batches for event in batch.request.tolist())
        assert asked == data.requests(Split.TRAIN, task).tolist()
        assert len(batches) == loader.steps_per_epoch(8, examples)


SEQUENCES = Examples("sequences", frozenset({Task.RECOMMENDATION}), negatives=2)


def test_a_sequence_is_a_users_last_training_event_with_negatives_for_those_before_it(data):
    batches = stream(data, examples=SEQUENCES)
    recommendations = data.requests(Split.TRAIN, Task.RECOMMENDATION)
    asked = sorted(event for batch in batches for event in batch.request.tolist())
    assert asked == [max(e for e in recommendations if data.user[e] == user) for user in range(1, data.num_users + 1)]
    for batch in batches:
        assert batch.cand.shape == (len(batch), 3)
        assert batch.hist_negatives.shape == (len(batch), 4, 2)
        positions, real = data.history(batch.request.numpy(), 4)
        own = (data.split[positions] == Split.TRAIN) & (data.task[positions] == Task.RECOMMENDATION)
        trains = torch.from_numpy(real & own)
        assert torch.equal(batch.hist_negatives.bool().all(-1), trains)
        assert not batch.hist_negatives[~trains].any()
        assert batch.num_scored == batch.cand.numel() + 3 * int(trains.sum())
        for row, user in enumerate(batch.user.tolist()):
            touched = data.item[(data.user == user) & (data.split == Split.TRAIN)].tolist()
            assert not set(touched) & set(batch.hist_negatives[row].flatten().tolist())


def test_a_stream_of_sequences_can_be_entered_anywhere_and_differs_between_epochs(data):
    whole = stream(data, examples=SEQUENCES, batch_size=5)
    rest = stream(data, examples=SEQUENCES, batch_size=5, skip=1)
    for one, other in zip(whole[1:], rest, strict=True):
        assert same(one, other)
        assert torch.equal(one.hist_negatives, other.hist_negatives)
    later = stream(data, examples=SEQUENCES, batch_size=5, epoch=1)
    assert not torch.equal(whole[0].hist_negatives, later[0].hist_negatives)


def test_sequences_with_kept_negatives_are_refused(data):
    with pytest.raises(BadInputError, match="fresh_negatives is false, but this ranker is trained on whole sequences"):
        stream(data, examples=SEQUENCES, fresh=False)


def test_a_rankers_number_of_negatives_wins_over_the_data_sections(data):
    assert stream(data, examples=Examples(negatives=5))[0].cand.shape[1] == 6
    assert stream(data, examples=Examples())[0].cand.shape[1] == 4
