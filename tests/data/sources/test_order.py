"""The order of a file's rows: what sees what of one time, and that twins never see each other."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gensr.data.arrange import arrange
from gensr.data.sources.config import AppendConfig, TableConfig
from gensr.data.sources.order import shared_rows
from gensr.errors import BadInputError
from gensr.spec import DataSpec

HEAD = "user,item,ts,query\n"
DAY = 1_714_521_600


def orders(rows):
    user, item, time = (np.array(column) for column in zip(*rows, strict=True))
    return shared_rows(user, item, time).tolist()


def test_events_of_one_time_keep_the_order_of_their_rows_and_twins_share_the_smaller_row():
    assert orders([(0, 5, 1), (0, 4, 1), (0, 4, 1), (0, 3, 1)]) == [0, 1, 1, 3]
    assert orders([(0, 4, 1), (1, 4, 1), (0, 4, 1)]) == [0, 1, 0]  # another user's row between them is in nobody's way
    assert orders([(0, 4, 1), (0, 4, 2)]) == [0, 1]


def test_what_stands_between_twins_shares_their_row():
    assert orders([(0, 4, 1), (0, 3, 1), (0, 4, 1), (0, 3, 1), (0, 2, 1)]) == [0, 0, 0, 0, 4]


events = st.lists(st.tuples(st.integers(0, 2), st.integers(0, 3), st.integers(0, 2)), min_size=1, max_size=14)


@given(events)
def test_nothing_sees_a_later_row_or_a_twin_and_all_else_is_seen(rows):
    found = orders(rows)
    for later, (user, _, time) in enumerate(rows):
        assert rows[found[later]][::2] == (user, time)
        for earlier in range(later):
            if rows[earlier][::2] != (user, time):
                continue
            assert found[earlier] <= found[later]
            apart = found[earlier] < found[later]
            # Whatever joins them is a pair of twins around the gap between two rows.
            mine = [row for row in range(len(rows)) if rows[row][::2] == (user, time)]
            gaps = [row for row in mine if earlier < row <= later]
            bridged = all(any(a < gap <= b and rows[a] == rows[b] for a in mine for b in mine) for gap in gaps)
            assert apart is not bridged


def table(path, rows, **options):
    path.write_text(HEAD + "".join(f"{row}\n" for row in rows))
    return TableConfig(path=str(path), file_order=True, **options)


def test_a_request_sees_what_stands_above_it_in_the_file(tmp_path):
    rows = [f"u,{item},{DAY},{query}" for item, query in (("c", ""), ("a", "tea"), ("a", ""), ("d", ""), ("b", ""))]
    config = table(tmp_path / "log.csv", rows)
    log = config.read()
    assert log.events["order"].to_pylist() == [0, 1, 1, 3, 4]
    assert log.report["events_that_share_a_row_number"] == 2
    found = arrange(log, DataSpec(source=config))
    assert found.items["item_id"].take(found.arrays["item"] - 1).to_pylist() == ["c", "a", "a", "d", "b"]
    assert found.arrays["past"].tolist() == [0, 1, 1, 3, 4]
    plain = config.model_copy(update={"file_order": False})
    assert arrange(plain.read(), DataSpec(source=plain)).arrays["past"].tolist() == [0] * 5


def test_the_rows_of_several_files_follow_each_other(tmp_path):
    for part, item in enumerate("bca"):
        (tmp_path / f"interactions-{part}.csv").write_text(HEAD + f"u,{item},{DAY},\n")
    (tmp_path / "items.csv").write_text("item_id\na\nb\nc\n")
    assert TableConfig(path=str(tmp_path), file_order=True).read().events["order"].to_pylist() == [0, 1, 2]


def test_an_order_of_rows_beside_another_order_is_refused(tmp_path):
    (tmp_path / "log.csv").write_text(f"user,item,ts,Order\nu,a,{DAY},1\n")
    config = {"path": str(tmp_path / "log.csv"), "file_order": True}
    with pytest.raises(
        BadInputError, match=r"data.source.file_order: .*log.csv has an order of its own, column 'Order'"
    ):
        TableConfig(**config).read()
    assert TableConfig(**config, columns={"order": None}).read().events["order"].to_pylist() == [0]


def test_two_tables_have_no_common_order_of_rows(tmp_path):
    searches = tmp_path / "searches.csv"
    searches.write_text(HEAD + f"u,a,{DAY},tea\n")
    with pytest.raises(
        BadInputError, match=r"log.csv and .*searches.csv are two tables, whose rows have no common order"
    ):
        table(tmp_path / "log.csv", [f"u,a,{DAY},"], searches=str(searches)).read()


def test_the_option_is_part_of_the_identity(tmp_path):
    config = table(tmp_path / "log.csv", [f"u,a,{DAY},"])
    assert config.identity() != TableConfig(path=config.path).identity()


def test_appended_rows_come_after_the_others_and_find_their_twins_there(tmp_path):
    old = [f"u,c,{DAY},", f"u,b,{DAY},", f"u,a,{DAY},tea"]
    new = [f"u,a,{DAY},", f"u,d,{DAY},"]
    joined = AppendConfig(base=table(tmp_path / "old.csv", old), new=table(tmp_path / "new.csv", new)).read()
    at_once = table(tmp_path / "all.csv", old + new).read()
    assert joined.events["order"].to_pylist() == at_once.events["order"].to_pylist() == [0, 1, 2, 2, 4]
    (tmp_path / "other.csv").write_text(f"user,item,ts,order\nu,d,{DAY},1\n")
    with pytest.raises(BadInputError, match=r"data.source.base has file_order, data.source.new has not"):
        AppendConfig(base=table(tmp_path / "old.csv", old), new=TableConfig(path=str(tmp_path / "other.csv"))).read()


def test_lines_of_json_have_an_order_too(tmp_path):
    (tmp_path / "log.jsonl").write_text("\n".join(json.dumps({"user": "u", "item": item, "ts": DAY}) for item in "ba"))
    assert TableConfig(path=str(tmp_path / "log.jsonl"), file_order=True).read().events["order"].to_pylist() == [0, 1]
