from __future__ import annotations

import gzip

import pytest

from gensr.data.sources import delimited, parquet, text
from gensr.data.sources.formats import open_table
from gensr.data.sources.text import Dropped, format_suffix, json_object, names_in, text_lines


@pytest.mark.parametrize("broken", ["{", "[1]", '"a"', "[" * 100_000, '{"n": ' + "1" * 5000 + "}", ""])
def test_what_is_no_json_object_is_nothing(broken):
    assert json_object(broken) is None


def test_a_json_object_is_itself():
    assert json_object(' {"a": [1]} ') == {"a": [1]}


def test_names_in_a_folder_are_those_of_the_unpacked_files(tmp_path):
    for name in ("a.csv.gz", "B.tsv", "c.zst", "d.gz.txt"):
        (tmp_path / name).write_text("")
    assert names_in(tmp_path) == {"a.csv", "B.tsv", "c", "d.gz.txt"}
    assert {format_suffix(tmp_path / name) for name in ("a.csv.gz", "a.CSV", "a.csv.ZST")} == {".csv"}
    assert names_in(tmp_path / "B.tsv") == names_in(tmp_path / "nowhere") == set()


def test_reasons_are_told_with_their_rows():
    dropped = Dropped()
    assert dropped.reasons() == ""
    dropped.add("too long", 7)
    dropped.add("too short", rows=2000)
    assert dropped.reasons() == "too long: 1; too short: 2,000"


def test_whoever_watches_is_told_of_rows_while_they_are_read(tmp_path, monkeypatch):
    told = []
    for module in (text, delimited, parquet):
        monkeypatch.setattr(module, "rows_read", told.append)
    monkeypatch.setattr(text, "BLOCK", 2)
    (tmp_path / "a.txt.gz").write_bytes(gzip.compress(b"1\n2\n\n4\n5\n"))
    assert [line for line, _ in text_lines(tmp_path / "a.txt.gz")] == [1, 2, 4, 5]
    assert told == [2, 2]
    (tmp_path / "a.csv").write_text("n\n1\n2\n3\n")
    table = open_table(tmp_path / "a.csv").read(["n"])
    assert told[2:] == [3]
    parquet.pq.write_table(table, tmp_path / "a.parquet")
    open_table(tmp_path / "a.parquet").read(["n"])
    assert told[3:] == [3]
