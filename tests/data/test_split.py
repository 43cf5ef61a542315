from __future__ import annotations

import json
from collections import defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gensr.data.config import SPLITS, ByDayConfig, ByTimeConfig, GivenConfig, LeaveOneOutConfig, RatioConfig
from gensr.data.dataset import Split
from gensr.data.split import HELD_OUT, strict_past, unused_twins
from gensr.data.tasks import Task, parse_task
from gensr.data.times import PER_SECOND, TimeScale
from gensr.errors import BadInputError
from gensr.spec import load_spec
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
    with pytest.raises(
        BadInputError, match=r"2 users' events by data.split 'leave_one_out'\. .* need three events of one task"
    ):
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


# Splits beside leave-one-out, on arrays

UNIX = TimeScale("s", "Asia/Shanghai")
NIGHT = 1_686_326_400  # 2023-06-10 00:00:00 in Shanghai
HOUR, DAY = 3600, 86_400


def assign(config, rows, scale=UNIX, given=None):
    """Split labels of rows (user, item, time, task) in sorted order."""
    user, item, time, task = (np.array(column) for column in zip(*sorted(rows, key=lambda row: row[::2]), strict=True))
    codes = config.assign(
        user=user, item=item, task=task, time=time, past=strict_past(user, time)[1], given=given, scale=scale
    )
    return [Split(code).label for code in codes]


def at(*times, user=1, task=Task.RECOMMENDATION):
    return [(user, n, time, task) for n, time in enumerate(times, start=1)]


def test_users_with_fewer_events_than_asked_for_only_train():
    rows = at(1, 2, 3, 4) + at(1, 2, 3, 4, 5, user=2)
    assert assign(LeaveOneOutConfig(min_events=5), rows) == ["train"] * 4 + ["train"] * 3 + ["valid", "test"]


def test_a_calendar_day_ends_at_midnight_of_the_log_s_zone():
    rows = at(NIGHT - DAY - 1, NIGHT - DAY, NIGHT - 1, NIGHT, NIGHT + 9 * HOUR)
    assert assign(ByDayConfig(), rows) == ["train", "valid", "valid", "test", "test"]
    assert assign(ByDayConfig(), rows, TimeScale("s", "UTC")) == ["train", "train", "valid", "valid", "test"]


def test_a_rolling_day_is_24_hours_back_from_the_last_event():
    last = NIGHT + 9 * HOUR
    rows = at(last - 2 * DAY, last - 2 * DAY + 1, last - DAY, last - DAY + 1, last)
    assert assign(ByDayConfig(day="rolling24h"), rows) == ["train", "valid", "valid", "test", "test"]


def test_days_without_events_count_as_days():
    rows = at(NIGHT - 3 * DAY, NIGHT - 2 * DAY, NIGHT + 1)
    assert assign(ByDayConfig(), rows) == ["train", "train", "test"]
    assert assign(ByDayConfig(test_days=2, valid_days=1), rows) == ["train", "valid", "test"]


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
def test_the_boundaries_of_days_are_told_in_the_log_s_zone(unit):
    time = np.array([NIGHT + 9 * HOUR + 30 * 60]) * PER_SECOND[unit]
    told = ByDayConfig().boundaries(time=time, scale=TimeScale(unit, "Asia/Shanghai"))
    assert told == {
        "day": "calendar",
        "valid_from": "2023-06-09 00:00:00+08:00",
        "test_from": "2023-06-10 00:00:00+08:00",
    }
    rolling = ByDayConfig(day="rolling24h").boundaries(time=time, scale=TimeScale(unit, "Asia/Shanghai"))
    assert rolling["test_from"].startswith("2023-06-09 09:30:0")


def test_a_calendar_day_may_have_23_hours():
    spring = TimeScale("s", "Europe/Berlin")
    noon = 1_711_882_800  # 2024-03-31 13:00 in Berlin, where the clock went forward at 2
    assert ByDayConfig().boundaries(time=np.array([noon + DAY]), scale=spring) == {
        "day": "calendar",
        "valid_from": "2024-03-31 00:00:00+01:00",
        "test_from": "2024-04-01 00:00:00+02:00",
    }


@pytest.mark.parametrize("day", ["calendar", "rolling24h"])
def test_positions_have_no_days(day):
    with pytest.raises(BadInputError, match="no Unix times"):
        assign(ByDayConfig(day=day), at(1, 2, 3), TimeScale())


def test_cut_offs_may_be_numbers_of_any_log():
    config = ByTimeConfig(valid_from=3, test_from="5")
    assert assign(config, at(1, 2, 3, 4, 5, 6), TimeScale()) == ["train"] * 2 + ["valid"] * 2 + ["test"] * 2
    assert config.boundaries(time=np.array([1]), scale=TimeScale()) == {"valid_from": "3", "test_from": "5"}


def test_cut_offs_without_offset_are_of_the_log_s_zone():
    rows = at(NIGHT - 1, NIGHT, NIGHT + 8 * HOUR - 1, NIGHT + 8 * HOUR)
    config = ByTimeConfig(valid_from="2023-06-10", test_from="2023-06-10T00:00:00Z")
    assert assign(config, rows) == ["train", "valid", "valid", "test"]


@pytest.mark.parametrize(
    ("valid_from", "test_from", "scale", "message"),
    [
        (
            "June",
            5,
            UNIX,
            "data.split.valid_from: 'June' is no point in time; expected a number .* or an ISO 8601 time",
        ),
        ("2023-06-10", 5, TimeScale(), "data.split.valid_from: .* no Unix times, so '2023-06-10' means nothing in it"),
        (6, 5, TimeScale(), "valid_from 6 is later than test_from 5; validation comes before test"),
    ],
)
def test_cut_offs_that_make_no_sense_are_refused(valid_from, test_from, scale, message):
    with pytest.raises(BadInputError, match=message):
        assign(ByTimeConfig(valid_from=valid_from, test_from=test_from), at(1, 2, 3), scale)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"type": "by_time", "valid_from": 3}, "valid_from and test_from are given together or not at all"),
        ({"type": "by_time", "valid_from": 3, "test_from": 4, "test": 0.3}, "or as shares, not both"),
        ({"type": "by_time", "valid": 0.5, "test": 0.5}, "valid 0.5 and test 0.5 leave nothing for training"),
        ({"type": "ratio", "valid": 0.6, "test": 0.5}, "leave nothing for training: their sum must be below 1"),
        ({"type": "leave_one_out", "min_events": 2}, "greater than or equal to 3"),
        ("by_dya", "no split named 'by_dya'; did you mean 'by_day'?"),
    ],
)
def test_options_that_contradict_each_other_are_refused_with_the_spec(options, message):
    with pytest.raises(BadInputError) as error:
        load_spec({"data": {"split": options}})
    assert message in str(error.value)


@pytest.mark.parametrize("name", SPLITS.names())
def test_a_filled_spec_reads_back_whatever_the_split(name):
    spec = load_spec({"data": {"split": name}})
    assert load_spec(json.loads(spec.to_json())) == spec
    cut = load_spec({"data": {"split": {"type": "by_time", "valid_from": "2020-01-01", "test_from": 7}}})
    assert load_spec(json.loads(cut.to_json())) == cut


def test_shares_are_of_all_events_together():
    rows = at(1, 2, 3, 4, 5) + at(6, 7, 8, 9, 10, user=2)
    config = ByTimeConfig(valid=0.2, test=0.3)
    assert assign(config, rows, TimeScale()) == ["train"] * 5 + ["valid"] * 2 + ["test"] * 3
    assert config.boundaries(time=np.arange(1, 11), scale=TimeScale()) == {"valid_from": "6", "test_from": "8"}


@given(
    times=st.lists(st.integers(0, 12), min_size=1, max_size=60),
    valid=st.floats(0.01, 0.49),
    test=st.floats(0.01, 0.49),
)
def test_shares_are_the_largest_that_divide_no_time_and_hold_out_no_more(times, valid, test):
    split = np.array(assign(ByTimeConfig(valid=valid, test=test), at(*times), TimeScale()))
    time = np.sort(times)
    for labels, share in ((("test",), test), (("test", "valid"), valid + test)):
        held_out = np.isin(split, labels)
        assert held_out.mean() <= share + 1e-6
        assert not set(time[held_out]) & set(time[~held_out])
        if not held_out.all():  # the next moment would be too much
            assert (time >= time[~held_out].max()).mean() > share - 1e-6


@given(rows=random_rows(), valid=st.sampled_from([0.1, 0.2, 0.25, 0.5]), test=st.sampled_from([0.1, 0.3, 0.45]))
def test_ratio_equals_a_plain_reading_of_the_rule(rows, valid, test):
    users = {name: n for n, name in enumerate(sorted({row[0] for row in rows}), start=1)}
    events = [(users[u], int(i[1:]), t, int(parse_task(task))) for u, i, t, task, _ in rows]
    events.sort(key=lambda row: row[::2])
    streams = defaultdict(list)
    for number, (user, _, time, task) in enumerate(events):
        streams[user, task].append((time, number))
    expected = ["train"] * len(events)
    for stream in streams.values():
        n = len(stream)
        tests = min(int(test * n + 0.5), n - 1)
        valids = min(int(valid * n + 0.5), n - 1 - tests)
        for time, number in stream:
            # Its moment is held out where all of it is: where few enough events come after the first of it.
            after = sum(other >= time for other, _ in stream)
            if after <= tests + valids:
                expected[number] = "test" if after <= tests else "valid"
    assert assign(RatioConfig(valid=valid, test=test), events, TimeScale()) == expected


def test_a_ratio_leaves_something_to_train_on_and_skips_users_too_small():
    assert assign(RatioConfig(), at(1, 2, 3, 4)) == ["train"] * 4
    assert assign(RatioConfig(), at(1, 2, 3, 4, 5)) == ["train"] * 3 + ["valid", "test"]
    assert assign(RatioConfig(valid=0.45, test=0.5), at(1)) == ["train"]


def test_a_given_split_is_taken_as_it_is():
    codes = np.array([0, 1, 2, 0, 3], np.int8)
    assert assign(GivenConfig(), at(1, 2, 3, 4, 5), given=codes) == ["train", "valid", "test", "train", "unused"]


def test_a_given_split_without_validation_gets_a_share_of_its_training_interactions():
    rows = at(*range(100)) + at(*range(100), task=Task.SEARCH)  # every event has a twin
    given = np.where(np.arange(200) % 10 < 2, Split.TEST, Split.TRAIN).astype(np.int8)
    split = np.array(assign(GivenConfig(valid_share=0.25), rows, given=given))
    assert (split[given == Split.TEST] == "test").all()
    assert (split == "valid").sum() == 2 * 20
    assert (split[::2] == split[1::2]).all()
    assert split.tolist() == assign(GivenConfig(valid_share=0.25), rows, given=given)
    assert split.tolist() != assign(GivenConfig(valid_share=0.25, seed=1), rows, given=given)


def test_one_training_interaction_is_kept_for_training():
    given = np.array([Split.TRAIN, Split.TEST], np.int8)
    assert assign(GivenConfig(), at(1, 2), given=given) == ["train", "test"]


def test_a_log_without_a_split_of_its_own_cannot_give_one():
    with pytest.raises(BadInputError, match=r"does not come divided .* own: by_day, by_time, leave_one_out, ratio"):
        assign(GivenConfig(), at(1, 2, 3))


@pytest.mark.parametrize("split", ["ratio", "by_time"])
def test_a_prepared_log_has_the_split_of_its_spec_and_no_trained_twins(split, tmp_path):
    rows = [row for n in range(20) for row in recs("u", str(n % 12 + 1), n) + searches("u", str(n % 12 + 1), start=n)]
    data = prepared(rows, tmp_path / "d", split=split, items=40)
    held_out = np.isin(data.split, HELD_OUT)
    assert held_out.sum() == 8
    assert data.time[held_out].min() == 16
    assert "unused" not in splits_of(data)
    assert set(data.manifest["split"]) == ({"valid_from", "test_from"} if split == "by_time" else set())


def test_nothing_held_out_is_an_error_that_says_what_the_split_needs(tmp_path):
    with pytest.raises(BadInputError, match=r"data.split 'ratio'\. A share of a user's events must come to at least"):
        prepared(recs("u", "1 2 3"), tmp_path / "d", split="ratio")


@given(rows=random_rows(), codes=st.lists(st.integers(0, 2), min_size=200, max_size=200))
def test_twins_become_unused_whatever_the_split(rows, codes):
    events = sorted((u, t, i) for u, i, t, _, _ in rows)
    user = np.unique([row[0] for row in events], return_inverse=True)[1] + 1
    past = strict_past(user, np.array([row[1] for row in events]))[1]
    split = np.array(codes[: len(events)], np.int8)
    item = np.array([int(row[2][1:]) for row in events])
    held_out = {row for row, code in zip(events, split, strict=True) if code}
    expected = [code or (Split.UNUSED if row in held_out else 0) for row, code in zip(events, split, strict=True)]
    found = unused_twins(split, past=past, item=item)
    assert found.tolist() == expected
    assert np.array_equal(unused_twins(found, past=past, item=item), found)
