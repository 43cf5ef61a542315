from __future__ import annotations

import pyarrow as pa
import pytest

from gensr.data.log import EVENTS, ITEMS, Origin, check_log
from gensr.errors import BadInputError


def events(*rows):
    users, items, times, tasks, queries = zip(*rows, strict=True)
    return pa.table([users, items, times, pa.array(tasks, pa.int8()), queries], schema=EVENTS)


def items(*ids):
    return pa.table([list(ids), ["t"] * len(ids), ["c"] * len(ids)], schema=ITEMS)


def test_nulls_become_empty_texts_and_other_columns_are_left_out():
    log = pa.table({"item_id": ["a"], "title": pa.array([None], pa.string()), "categories": pa.nulls(1), "price": [3]})
    checked = check_log(events(("u", "a", 1, 1, None)), log, {})
    assert checked.items.to_pylist() == [{"item_id": "a", "title": "", "categories": ""}]
    assert checked.events["query"].to_pylist() == [""]
    assert checked.items.schema.equals(ITEMS)


def test_checking_twice_changes_nothing():
    once = check_log(events(("u", "a", 1, 2, " x  y ")), items("a"), {"rows": 1})
    twice = check_log(once.events, once.items, once.report)
    assert twice.events.equals(once.events)
    assert twice.report == once.report


@pytest.mark.parametrize(
    ("rows", "ids", "message"),
    [
        ([("u", "a", 1, 1, "")], ["a", "a"], "items: duplicate item_id: row 2 ('a')"),
        ([("u", "a", 1, 1, ""), ("u", "a", None, 1, "")], ["a"], "events: no timestamp: row 2"),
        ([("u", "a", 1, 1, "")], ["a", " "], "items: empty item_id: row 2"),
        ([("", "a", 1, 1, "")], ["a"], "events: empty user_id: row 1"),
        ([("u", "b", 1, 1, "")], ["a"], r"events: items that items lacks: row 1 \('b'\)"),
        ([("u", "a", 1, 2, "")], ["a"], "events: search events without a query: row 1"),
        ([("u", "a", 1, 3, "")], ["a"], r"events: unknown task code: row 1 \(3\)"),
    ],
)
def test_what_a_log_must_not_hold_is_named(rows, ids, message):
    with pytest.raises(BadInputError, match=message.replace("('a')", r"\('a'\)")):
        check_log(events(*rows), items(*ids), {})


def test_a_column_that_cannot_be_read_as_its_type_is_named():
    table = events(("u", "a", 1, 1, "")).set_column(2, "timestamp", pa.array([1.5]))
    with pytest.raises(BadInputError, match="events: column 'timestamp' is double, expected int64"):
        check_log(table, items("a"), {})


def test_an_unknown_split_code_is_refused():
    table = events(("u", "a", 1, 1, "")).append_column("split", pa.array([9]))
    with pytest.raises(BadInputError, match=r"unknown split code: row 1 \(9\)\. Expected 0 \(train\), 1 \(valid\)"):
        check_log(table, items("a"), {})


def test_a_table_without_rows_or_with_a_missing_column_is_named():
    with pytest.raises(BadInputError, match="events is empty"):
        check_log(EVENTS.empty_table(), items("a"), {})
    with pytest.raises(BadInputError, match="items has no column 'title'; its columns: item_id"):
        check_log(events(("u", "a", 1, 1, "")), pa.table({"item_id": ["a"]}), {})


def test_complaints_count_what_they_do_not_show():
    origin = Origin("log.csv", lambda rows: [row + 2 for row in rows])
    error = origin.complaint("bad", list(range(7)), ["x"] * 5, expected="Expected y")
    places = ", ".join(f"line {n} ('x')" for n in range(2, 7))
    assert str(error) == f"log.csv: bad: {places} and 2 more. Expected y"
