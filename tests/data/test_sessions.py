"""Clicks of one page: joined where nothing interrupts them, and never at the cost of the strict past."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gensr.data.arrange import arrange
from gensr.data.prepare import prepare
from gensr.data.sources.config import AppendConfig
from gensr.spec import DataSpec
from tests.data.logs import ColumnedSource, data_spec, recs, searches


def arranged(rows, sessions, orders=None):
    source = ColumnedSource(rows=tuple(rows), sessions=tuple(name.strip("-") for name in sessions), orders=orders)
    found = arrange(source.read(), DataSpec())
    return found.arrays, found.report


def test_clicks_that_nothing_interrupts_happen_at_the_first():
    found, report = arranged(searches("u", "1 2 3", start=10) + recs("u", "4", start=20), "sss-")
    assert found["time"].tolist() == [10, 10, 10, 20]
    assert found["starts"].tolist() == [0, 3, 4]
    assert report == {"session_clicks_moved_to_the_first": 2}


def test_clicks_of_a_page_do_not_see_each_other_whatever_their_order():
    found, _ = arranged(searches("u", "1") + searches("u", "2") + recs("u", "3", start=5), "ss-", (1, 2, 3))
    assert found["order"].tolist() == [1, 1, 3]
    assert found["past"].tolist() == [0, 0, 2]
    assert found["starts"].tolist() == [0, 2, 3]


def test_what_the_user_did_between_two_clicks_does_not_see_the_later_one():
    rows = searches("u", "1", start=10) + recs("u", "9", start=15) + searches("u", "2 3", start=20)
    found, _ = arranged(rows, "s-ss")
    assert found["time"].tolist() == [10, 15, 20, 20]
    assert found["past"].tolist() == [0, 1, 2, 2]
    assert found["starts"].tolist() == [0, 1, 2, 4]


def test_a_later_click_stays_with_its_twin():
    rows = [*searches("u", "1 2", start=10), ("u", "i2", 11, "rec", "")]
    found, _ = arranged(rows, "ss-")
    assert found["time"].tolist() == [10, 11, 11]
    assert found["past"].tolist() == [0, 1, 1]


def test_other_users_interrupt_nobody():
    found, _ = arranged(searches("u", "1 2", start=10) + recs("v", "9", start=11), "ss-")
    assert found["time"].tolist() == [10, 10, 11]


EVENT = st.tuples(st.sampled_from("ab"), st.integers(1, 5), st.integers(0, 5), st.sampled_from(["", "s", "t"]))


@settings(max_examples=150, deadline=None)
@given(st.lists(EVENT, min_size=1, max_size=14), st.booleans())
def test_nobody_sees_a_click_that_was_not_past_when_it_happened(events, ordered):
    rows = [
        (user, f"i{at}", time, *(("src", "q") if page else ("rec", "")))
        for at, (user, _, time, page) in enumerate(events, 1)
    ]
    orders = tuple(order for _, order, *_ in events) if ordered else None
    when = {f"i{at}": (time, order if ordered else 0) for at, (_, order, time, _) in enumerate(events, 1)}
    source = ColumnedSource(
        rows=tuple(rows), items=len(rows), sessions=tuple(page for *_, page in events), orders=orders
    )
    found = arrange(source.read(), DataSpec())
    names = found.items["item_id"].to_pylist()
    moments = [when[names[item - 1]] for item in found.arrays["item"]]
    for event, past in enumerate(found.arrays["past"]):
        first = found.arrays["offsets"][found.arrays["user"][event]]
        assert all(seen < moments[event] for seen in moments[first:past])


@pytest.mark.parametrize("late", [True, False])
def test_an_append_that_interrupts_a_page_gives_what_all_at_once_gives(tmp_path, late):
    """The log that is kept tells the times as they were, not as a page put them."""
    old, new = searches("u", "1 2", start=10), recs("u", "3 4 5", start=11 if late else 20)
    at_once = ColumnedSource(rows=tuple(old + new), sessions=("s", "s", "", "", ""))
    source = AppendConfig(
        base=ColumnedSource(rows=tuple(old), sessions=("s", "s")),
        new=ColumnedSource(rows=tuple(new), sessions=("", "", "")),
    )
    one, other = (
        prepare(data_spec([]).model_copy(update={"source": source}), tmp_path / name)
        for name, source in (("one", at_once), ("other", source))
    )
    assert one.time.tolist() == other.time.tolist()
    assert (one.time[1] == 11) == late
