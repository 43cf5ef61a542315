"""Which users and items stay, and in which order events stand."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gensr.data.arrange import arrange, stable_core
from gensr.data.log import check_log
from gensr.errors import BadInputError
from gensr.spec import CoreSpec, DataSpec
from tests.data.logs import MemorySource, data_spec, prepared, recs, searches

pairs = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5), st.sampled_from([1, 2])), max_size=40)


def slow_core(events, core):
    """The definition, word by word."""
    events = list(enumerate(events))
    while True:
        users = [user for _, (user, _, _) in events]
        items = [item for _, (_, item, _) in events]
        tasks = {(user, task) for _, (user, _, task) in events}
        left = [
            (at, (user, item, task))
            for at, (user, item, task) in events
            if users.count(user) >= core.users
            and items.count(item) >= core.items
            and (not core.both_tasks or {(user, 1), (user, 2)} <= tasks)
        ]
        if len(left) == len(events):
            return [at for at, _ in events]
        events = left


@given(pairs, st.integers(0, 4), st.integers(0, 4), st.booleans())
def test_the_core_is_the_largest_log_that_keeps_its_promise(events, users, items, both):
    core = CoreSpec(users=users, items=items, both_tasks=both)
    columns = np.array(events, np.int64).reshape(-1, 3).T
    kept = stable_core(*columns, core)
    assert np.flatnonzero(kept).tolist() == slow_core(events, core)


def test_a_core_leaves_rare_items_out_of_the_catalogue_too_and_says_how_many(tmp_path):
    rows = recs("a", "1 2 3 1") + recs("b", "2 3 4 4") + recs("c", "9")
    data = prepared(rows, tmp_path / "d", core=2, count=1, items=12)
    assert data.user_ids == ["", "a", "b"]
    assert data.catalogue.item_ids == ["", "i1", "i2", "i3", "i4"]
    assert data.manifest["source"]["core"] == {"events_left_out": 1, "users_left_out": 1, "items_left_out": 8}


def test_a_core_that_leaves_nothing_says_so():
    spec = data_spec(recs("a", "1 2 3"), core={"users": 9, "both_tasks": True})
    message = r"data\.core leaves nothing: of 3 events none belongs to users with events of both tasks with at least 9"
    with pytest.raises(BadInputError, match=message):
        arrange(spec.source.read(), spec)


def test_a_number_stands_for_both_sides_of_the_core():
    assert DataSpec(core=5).core == CoreSpec(users=5, items=5)
    with pytest.raises(ValueError, match="no option 'user'; did you mean 'users'"):
        DataSpec(core={"user": 5})


def test_numbers_are_in_order_of_size_not_of_text(tmp_path):
    catalogue = tuple((str(n), "", "") for n in (100, 20, 3, 4))
    rows = [("10", str(n), at, "rec", "") for at, n in enumerate((100, 20, 3))] + [("9", "4", 0, "rec", "")]
    data = prepared(rows, tmp_path / "d", catalogue=catalogue, count=1)
    assert data.user_ids == ["", "9", "10"]
    assert data.catalogue.item_ids == ["", "3", "4", "20", "100"]


def test_leading_zeros_make_another_id(tmp_path):
    rows = [(user, f"i{n}", n, "rec", "") for user in ("7", "07", "007") for n in (1, 2, 3)]
    assert prepared(rows, tmp_path / "d").user_ids == ["", "7", "07", "007"]


def log_with(columns: dict[str, list], rows):
    """The log of `rows` with more columns."""
    log = MemorySource(rows=tuple(rows)).read()
    events = log.events
    for name, values in columns.items():
        events = events.append_column(name, pa.array(values))
    return check_log(events, log.items, log.report)


def test_an_order_column_settles_what_the_time_leaves_open():
    rows = [("u", f"i{n}", 5, "rec", "") for n in (3, 1, 2)] + [("u", "i2", 5, "src", "q")]
    found = arrange(log_with({"order": [30, 10, 20, 20]}, rows), DataSpec()).arrays
    assert found["item"].tolist() == [1, 2, 2, 3]
    assert found["task"].tolist() == [1, 1, 2, 1]
    assert found["ordinal"].tolist() == [0, 1, 1, 2]  # the twins share theirs
    assert found["past"].tolist() == [0, 1, 1, 3]


def test_without_an_order_events_of_one_time_do_not_see_each_other():
    found = arrange(log_with({}, recs("u", "1", 5) + recs("u", "2", 5) + recs("u", "3", 6)), DataSpec()).arrays
    assert found["past"].tolist() == [0, 0, 2]


def test_ties_are_broken_alike_by_no_meaning_of_ids():
    rows = [(f"u{u}", f"i{n}", 5, "rec", "") for u in range(200) for n in (1, 2, 3, 4)]
    items = arrange(log_with({}, rows), DataSpec()).arrays["item"].reshape(-1, 4)
    last = np.bincount(items[:, -1], minlength=5)[1:]
    assert last.sum() == 200
    assert (last > 30).all()  # of 50 in the mean: no item comes last for most users, to be held out again and again


class TestSessions:
    ROWS = searches("u", "1 2 3", "red", start=10) + recs("u", "4", start=20) + searches("u", "5", "blue", start=30)

    def dataset(self, tmp_path, rows=None, sessions=("s", "s", "s", "", "t")):
        log = log_with({"session": list(sessions)}, rows or self.ROWS)

        class Source(MemorySource):
            def read(self):
                return log

        spec = data_spec(self.ROWS)
        from gensr.data.prepare import prepare

        source = Source.model_construct(type="memory", rows=tuple(rows or self.ROWS))
        return prepare(spec.model_copy(update={"source": source}), tmp_path / "d")

    def test_the_clicks_of_a_session_happen_at_the_first_and_are_one_entry(self, tmp_path):
        data = self.dataset(tmp_path)
        assert data.time.tolist() == [10, 10, 10, 20, 30]
        assert data.starts.tolist() == [0, 3, 4, 5]
        assert data.entry.tolist() == [0, 1, 1, 1, 2, 3]
        assert data.manifest["source"]["session_clicks_moved_to_the_first"] == 2
        assert data.manifest["audit"]["log"]["session_clicks"] == 2

    def test_a_history_shows_the_session_once_with_its_clicks(self, tmp_path):
        data = self.dataset(tmp_path)
        last = np.array([4])
        positions, real = data.history(last, 3)
        assert positions[real].tolist() == [0, 3]
        assert sorted(data.clicks(positions, 5)[0, 0].tolist()) == [0, 0, 1, 2, 3]
        assert data.clicks(positions, 5)[0, 1].tolist() == [4, 0, 0, 0, 0]
        assert data.clicks(positions, 2)[0, 0].min() > 0

    def test_a_request_of_a_session_does_not_see_its_session(self, tmp_path):
        data = self.dataset(tmp_path)
        assert not data.history(np.arange(3), 3)[1].any()

    def test_equal_names_with_other_queries_are_other_sessions(self, tmp_path):
        rows = searches("u", "1 2", "red", start=10) + searches("u", "3 4", "blue", start=20)
        data = self.dataset(tmp_path, rows, ["s"] * 4)
        assert data.starts.tolist() == [0, 2, 4]

    def test_batches_carry_the_clicks(self, tmp_path):
        from gensr.data.loader import RequestLoader

        data = self.dataset(tmp_path)
        batch = RequestLoader(data, 3).batch(np.array([3, 4]), np.array([[4, 9], [5, 1]], np.int32))
        assert batch.hist_clicks.shape == (2, 3, 5)
        assert sorted(batch.hist_clicks[0, 0].tolist()) == [0, 0, 1, 2, 3]
        assert batch.hist_task[0].tolist() == [2, 0, 0]
        assert batch.hist_clicks[0, 1:].sum() == 0
        assert batch.without_history().hist_clicks.sum() == 0
        assert batch.select(np.array([1])).hist_clicks.shape == (1, 3, 5)

    def test_the_in_history_ranker_looks_at_every_click(self, tmp_path):
        from gensr.data.loader import RequestLoader
        from gensr.rankers.floors import InHistoryRanker

        data = self.dataset(tmp_path)
        batch = RequestLoader(data, 3).batch(np.array([4]), np.array([[5, 1, 2, 3, 4, 0]], np.int32))
        assert InHistoryRanker().score(batch)[0].tolist() == [0, 1, 1, 1, 1, float("-inf")]


@settings(max_examples=30, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from("ab"), st.integers(1, 5), st.integers(0, 4), st.sampled_from(["", "s", "t"])),
        min_size=1,
        max_size=25,
    )
)
def test_sessions_never_let_a_request_see_its_own_time(rows):
    log = log_with(
        {"session": [name for *_, name in rows]}, [(user, f"i{item}", time, "src", "q") for user, item, time, _ in rows]
    )
    found = arrange(log, DataSpec()).arrays
    events = np.arange(len(found["user"]))
    starts, entry = found["starts"], found["entry"]
    assert starts[0] == 0
    assert starts[-1] == len(events)
    assert (entry[starts[:-1]] == np.arange(len(starts) - 1)).all()
    assert np.isin(found["past"], starts).all()  # no window begins or ends inside a session
    for event in events:
        own = (found["user"] == found["user"][event]) & (found["time"] < found["time"][event])
        assert found["past"][event] - found["offsets"][found["user"][event]] == own.sum()
