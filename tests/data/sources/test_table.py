from __future__ import annotations

import gzip
import json
import re

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gensr.data.dataset import data_fingerprint, prepare
from gensr.data.sources.config import SOURCES, TableConfig
from gensr.errors import BadInputError
from gensr.spec import DataSpec

EVENTS = """user_id,item_id,timestamp,task,query
u1,b,3,rec,
u1,a,1,src,"red, big kettle"
u2,a,2,rec,
"""
ITEMS = '''item_id,title,categories
a,"Kettle ""One""",Home|Kitchen||Gifts
b,Mat,
'''


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "interactions.csv").write_text(EVENTS, encoding="utf-8")
    (tmp_path / "items.csv").write_text(ITEMS, encoding="utf-8")
    return tmp_path


def read(path, **options):
    return TableConfig(path=str(path), **options).read()


def rows(path, **options):
    return [tuple(event.values()) for event in read(path, **options).events.to_pylist()]


def failure(path, **options):
    with pytest.raises(BadInputError) as caught:
        read(path, **options)
    assert caught.value.exit_code == 2
    return str(caught.value).replace(str(path) + "/", "")


def with_events(folder, text):
    (folder / "interactions.csv").write_text(text, encoding="utf-8")
    return folder


CANONICAL = [("u1", "b", 3, 1, ""), ("u1", "a", 1, 2, "red, big kettle"), ("u2", "a", 2, 1, "")]


def test_a_folder_of_csv_is_read_in_file_order(folder):
    assert rows(folder) == CANONICAL
    assert read(folder).items.to_pylist() == [
        {"item_id": "a", "title": 'Kettle "One"', "categories": "Home|Kitchen||Gifts"},
        {"item_id": "b", "title": "Mat", "categories": ""},
    ]


@pytest.mark.parametrize("suffix", ["csv.gz", "tsv", "tsv.gz", "jsonl", "jsonl.gz", "ndjson", "parquet"])
def test_every_format_gives_the_same_log(folder, suffix):
    expected = read(folder)
    tasks = {1: "rec", 2: "src"}
    names = ("user_id", "item_id", "timestamp", "task", "query")
    events = [dict(zip(names, (*row[:3], tasks[row[3]], row[4]), strict=True)) for row in CANONICAL]
    for name, records in (("interactions", events), ("items", expected.items.to_pylist())):
        path = folder / f"{name}.csv"
        text = path.read_text(encoding="utf-8")
        path.unlink()
        target = folder / f"{name}.{suffix}"
        if suffix == "parquet":
            pq.write_table(pa.Table.from_pylist(records), target)
            continue
        if suffix.startswith("tsv"):
            cells = [list(records[0]), *([str(value) for value in record.values()] for record in records)]
            text = "\n".join("\t".join('"' + c.replace('"', '""') + '"' for c in line) for line in cells) + "\n"
        elif not suffix.startswith("csv"):
            text = "\n".join(json.dumps(record) for record in records)
        target.write_bytes(gzip.compress(text.encode()) if suffix.endswith("gz") else text.encode())
    found = read(folder)
    assert found.events.equals(expected.events)
    assert found.items.equals(expected.items)


def test_a_file_of_events_alone_brings_items_without_text(folder):
    log = read(folder / "interactions.csv")
    assert log.items.to_pylist() == [{"item_id": i, "title": "", "categories": ""} for i in "ba"]
    assert rows(folder / "interactions.csv", items=str(folder / "items.csv")) == CANONICAL


def test_usual_column_names_are_understood(folder):
    with_events(folder, "userId,parent_asin,unixReviewTime\nu1,b,3\nu2,a,1\n")
    (folder / "items.csv").write_text("ASIN,Name,genres\na,Kettle,Home\nb,Mat,\n")
    log = read(folder)
    assert [event["task"] for event in log.events.to_pylist()] == [1, 1]
    assert log.items.to_pylist()[0] == {"item_id": "a", "title": "Kettle", "categories": "Home"}
    assert log.report["events"]["columns"] == {
        "user_id": "userId",
        "item_id": "parent_asin",
        "timestamp": "unixReviewTime",
    }


def test_other_column_names_are_given_once_for_both_files(folder):
    with_events(folder, "who,sku,ts\nu1,b,3\n")
    assert rows(folder, columns={"user_id": "who", "item_id": "sku"}) == [("u1", "b", 3, 1, "")]
    (folder / "items.csv").write_text("sku,item_id\nb,x\n")
    assert read(folder, columns={"user_id": "who", "item_id": "sku"}).items["item_id"].to_pylist() == ["b"]


def test_without_a_task_column_a_query_makes_a_search(folder):
    with_events(folder, "user,item,ts,query\nu1,b,3,\nu1,a,4,kettle\n")
    assert [row[3] for row in rows(folder)] == [1, 2]


def test_the_query_of_a_recommendation_event_is_dropped_and_counted(folder):
    with_events(folder, "user,item,ts,task,query\nu1,b,3,recommendation,mats\nu1,a,4,search, big   kettle \n")
    log = read(folder)
    assert log.events["query"].to_pylist() == ["", "big kettle"]
    assert log.report["queries_dropped_from_recommendation_events"] == 1


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("7", 7),
        ("-7", -7),
        ("1700000000.0", 1_700_000_000),
        ("1.5e9", 1_500_000_000),
        ("9007199254740993", 9_007_199_254_740_993),
        ("2024-05-01T12:00:00Z", 1_714_564_800),
        ("2024-05-01T14:00:00+02:00", 1_714_564_800),
        ("2024-05-01 12:00:00.900", 1_714_564_800),
        ("2024-05-01", 1_714_521_600),
        ("1969-12-31T23:59:59.5Z", -1),
    ],
)
def test_timestamps_are_numbers_as_they_are_or_iso_times_in_unix_seconds(folder, written, expected):
    with_events(folder, f"user,item,ts\nu1,b,{written}\n")
    assert [row[2] for row in rows(folder)] == [expected]


def test_fractions_of_numbers_are_rounded_down_and_counted(folder):
    with_events(folder, "user,item,ts\nu1,b,1.75\nu1,a,2\nu1,a,-0.5\n")
    log = read(folder)
    assert log.events["timestamp"].to_pylist() == [1, 2, -1]
    assert log.report["events"]["timestamps_rounded_down"] == 2


@pytest.mark.parametrize(
    "kind", [pa.timestamp("ms"), pa.timestamp("ns", "Europe/Berlin"), pa.date32(), pa.int32(), pa.float64()]
)
def test_typed_timestamps_of_parquet_are_read(folder, kind):
    (folder / "interactions.csv").unlink()
    days = pa.array([19844, 19845], pa.int32())
    typed = days.cast(pa.date32()).cast(kind) if pa.types.is_temporal(kind) else days.cast(kind)
    pq.write_table(pa.table({"user": [1, 2], "item": ["a", "b"], "ts": typed}), folder / "events.parquet")
    unit = 86_400 if pa.types.is_temporal(kind) else 1
    assert [row[:3] for row in rows(folder)] == [("1", "a", 19844 * unit), ("2", "b", 19845 * unit)]


def test_lists_in_json_become_levels_and_hierarchies(folder):
    (folder / "items.csv").unlink()
    lines = [
        {"item_id": "a", "categories": [["Home", "Kitchen"], ["Gifts"]]},
        {"item_id": "b", "title": None, "categories": ["Home", "Mats"]},
    ]
    (folder / "items.jsonl").write_text("\n\n".join(map(json.dumps, lines)))
    assert [item["categories"] for item in read(folder).items.to_pylist()] == ["Home|Kitchen||Gifts", "Home|Mats"]


def test_a_bom_and_windows_line_ends_do_no_harm(folder):
    (folder / "interactions.csv").write_bytes(b"\xef\xbb\xbf" + EVENTS.replace("\n", "\r\n").encode())
    assert rows(folder) == CANONICAL


# ---- bad input


def test_missing_files_are_named_with_what_is_there(tmp_path, folder):
    assert re.search(r"no file or folder '.*itms\.csv' in .*; did you mean 'items\.csv'", failure(folder / "itms.csv"))
    (folder / "items.csv").rename(folder / "products.csv")
    assert "no items.* (.csv, .tsv, .jsonl, .ndjson, .parquet) in" in failure(folder)
    assert "it holds interactions.csv, products.csv" in failure(folder)
    assert "did you mean 'products.csv'" in failure(folder, items=str(folder / "product.csv"))


def test_several_files_to_choose_from_are_an_error(folder):
    (folder / "events.csv").write_text(EVENTS)
    assert "holds several interactions.* or events.*: events.csv, interactions.csv" in failure(folder)


def test_unknown_formats_are_named(folder):
    (folder / "interactions.xlsx").write_text("x")
    assert "unknown format; gensr reads .csv" in failure(folder / "interactions.xlsx")


@pytest.mark.parametrize("text", ["", "user_id,item_id,timestamp\n"])
def test_empty_files_are_named(folder, text):
    assert failure(with_events(folder, text)).startswith("interactions.csv is empty")


def test_a_missing_column_lists_what_is_there_and_the_nearest(folder):
    message = failure(with_events(folder, "user_id,item_id,timestmp\nu,a,1\n"))
    assert message == (
        "interactions.csv has no column 'timestamp'; did you mean 'timestmp'? Columns: user_id, item_id, timestmp. "
        'Say which it is in data.source.columns: {"timestamp": "..."}'
    )
    message = failure(with_events(folder, EVENTS), columns={"query": "qery"})
    assert "no column 'qery' for query; did you mean 'query'?" in message


def test_unknown_columns_of_the_mapping_are_refused():
    with pytest.raises(ValueError, match="itemid"):
        SOURCES.parse({"type": "table", "path": "x", "columns": {"itemid": "sku"}})


HEAD = "user_id,item_id,timestamp,task,query\n"


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("u,a,1,rec,\nu,a,soon,rec,\n", "bad timestamp: line 3 ('soon'). Expected a number, or ISO 8601 in all rows"),
        ("u,a,,rec,\n", "bad timestamp: line 2 (''). Expected a number"),
        ("u,a,nan,rec,\n", "bad timestamp: line 2 ('nan')"),
        ("u,a,1e300,rec,\n", "bad timestamp: line 2 ('1e300')"),
        (
            "u,a,2024-01-01,rec,\nu,a,17,rec,\n",
            "bad timestamp: line 3 ('17'). Expected an ISO 8601 time, as in the first",
        ),
        ("u,a,1,serach,x\n", "unknown task: line 2 ('serach'). Known: recommendation, "),
        ("u,a,1,,\n", "unknown task: line 2 ('')"),
        ("u,a,1,rec,\nu,a,1,src,\nu,a,1,src,  \n", "search events without a query: line 3, line 4"),
        ("u,a,1,rec,\nu,zzz,1,rec,\n", "items that items.csv lacks: line 3 ('zzz')"),
        ("u,a,1,rec,\n,a,1,rec,\n", "empty user_id: line 3"),
        ("u,,1,rec,\n", "empty item_id: line 2"),
        (
            "u,a,1,rec,\nu,a,1,rec\nu,a,1,rec,,\n",
            "rows without the header's 5 cells: line 3 ('4 cells'), line 4 ('6 cells')",
        ),
    ],
)
def test_bad_rows_are_named_by_file_and_line(folder, body, message):
    assert failure(with_events(folder, HEAD + body)).startswith(f"interactions.csv: {message}")


def test_the_first_five_bad_rows_are_named_and_the_rest_counted(folder):
    message = failure(with_events(folder, HEAD + "u,a,1,rec,\n" + "u,a,bad,rec,\n" * 1207))
    places = ", ".join(f"line {n} ('bad')" for n in range(3, 8))
    assert message.startswith(f"interactions.csv: bad timestamp: {places} and 1,202 more. Expected")


def test_unknown_tasks_get_a_hint(folder):
    message = failure(with_events(folder, HEAD + "u,a,1,serach,x\n"))
    assert message.endswith("(did you mean 'search'?)")


def test_line_numbers_count_blank_lines_and_quoted_line_breaks(folder):
    body = 'u,a,1,src,"two\nlines"\n\nu,a,bad,rec,\n'
    assert "bad timestamp: line 5 ('bad')" in failure(with_events(folder, HEAD + body))


def test_duplicate_items_are_named(folder):
    (folder / "items.csv").write_text("item_id,title\na,x\nb,y\na,z\n")
    assert failure(folder).startswith("items.csv: duplicate item_id: line 4 ('a'). Every item may occur once")


@pytest.mark.parametrize("name", ["interactions.csv", "items.csv"])
def test_broken_utf8_is_named_by_line(folder, name):
    path = folder / name
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(lines[0] + lines[1] + lines[2][:-1] + b"\xff\n")
    assert failure(folder) == f"{name}: broken UTF-8: line 3"


def test_broken_utf8_in_a_header_and_in_json_is_named(folder):
    (folder / "items.csv").write_bytes(b"item_id,t\xfftle\na,x\n")
    assert failure(folder) == "items.csv: broken UTF-8: line 1"
    (folder / "items.csv").unlink()
    (folder / "items.jsonl").write_bytes(b'{"item_id": "a"}\n{"item_id": "\xff"}\n')
    assert failure(folder) == "items.jsonl: broken UTF-8: line 2"


def test_broken_json_is_named_by_line(folder):
    (folder / "items.csv").unlink()
    (folder / "items.jsonl").write_text('{"item_id": "a"}\n\n{"item_id": \n[1]\n')
    assert failure(folder) == "items.jsonl: not one JSON object a line: line 3, line 4"


@pytest.mark.parametrize("name", ["items.csv.gz", "items.jsonl.gz", "items.parquet"])
def test_truncated_files_are_an_error(folder, name):
    (folder / "items.csv").unlink()
    whole = gzip.compress(b"item_id,title\n" + b"a,b\n" * 99) if name.endswith("gz") else b"PAR1 and then nothing"
    (folder / name).write_bytes(whole[: len(whole) // 2])
    assert name in failure(folder)


def test_parquet_complains_by_row(folder):
    (folder / "interactions.csv").unlink()
    pq.write_table(pa.table({"user": ["u", None], "item": ["a", "a"], "ts": [1, 2]}), folder / "events.parquet")
    assert failure(folder) == "events.parquet: empty user_id: row 2"


def test_the_fingerprint_follows_the_content_and_not_the_place(folder, tmp_path_factory):
    def fingerprint(path):
        return data_fingerprint(DataSpec(source=TableConfig(path=str(path))))

    copy = tmp_path_factory.mktemp("copy")
    for name in ("interactions.csv", "items.csv"):
        (copy / name).write_bytes((folder / name).read_bytes())
    assert fingerprint(folder) == fingerprint(copy)
    (copy / "items.csv").write_text(ITEMS.replace("Mat", "Rug"))
    assert fingerprint(folder) != fingerprint(copy)


def test_bad_input_leaves_nothing_behind(folder, tmp_path_factory):
    target = tmp_path_factory.mktemp("out")
    with_events(folder, HEAD + "u,a,bad,rec,\n")
    with pytest.raises(BadInputError):
        prepare(DataSpec(source=TableConfig(path=str(folder))), target / "data")
    assert list(target.iterdir()) == []
