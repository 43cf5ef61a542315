from __future__ import annotations

import gzip
import json
import re

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gensr.data.prepare import data_fingerprint, prepare
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


def zstd(data):
    return pa.compress(data, codec="zstd", asbytes=True)


CANONICAL = [("u1", "b", 3, 1, ""), ("u1", "a", 1, 2, "red, big kettle"), ("u2", "a", 2, 1, "")]


def test_a_folder_of_csv_is_read_in_file_order(folder):
    assert rows(folder) == CANONICAL
    assert read(folder).items.to_pylist() == [
        {"item_id": "a", "title": 'Kettle "One"', "categories": "Home|Kitchen||Gifts"},
        {"item_id": "b", "title": "Mat", "categories": ""},
    ]


@pytest.mark.parametrize(
    "suffix", ["csv.gz", "csv.zst", "tsv", "tsv.gz", "jsonl", "jsonl.gz", "jsonl.zst", "ndjson", "parquet"]
)
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
        compress = {"gz": gzip.compress, "zst": zstd}.get(suffix.split(".")[-1], bytes)
        target.write_bytes(compress(text.encode()))
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
    assert log.report["columns"]["events"] == {
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
        ("1700000000.0", 1_700_000_000),
        ("1.5e9", 1_500_000_000),
        ("9007199254740993", 9_007_199_254_740_993),
        ("2024-05-01T12:00:00Z", 1_714_564_800),
        ("2024-05-01T14:00:00+02:00", 1_714_564_800),
        ("2024-05-01 12:00:00.900", 1_714_564_800_900),
        ("2024-05-01", 1_714_521_600),
    ],
)
def test_timestamps_are_numbers_as_they_are_or_iso_times_in_unix_seconds_or_milliseconds(folder, written, expected):
    with_events(folder, f"user,item,ts\nu1,b,{written}\n")
    assert [row[2] for row in rows(folder)] == [expected]


def test_fractions_of_numbers_are_rounded_down_and_counted(folder):
    with_events(folder, "user,item,ts\nu1,b,1.75\nu1,a,2\nu1,a,-0.5\n")
    log = read(folder, time_unit="none")
    assert log.events["timestamp"].to_pylist() == [1, 2, -1]
    assert log.report["timestamps_rounded_down"] == 2


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
    assert failure(folder) == f"{name}: broken UTF-8 in line 3"


def test_broken_utf8_in_a_header_and_in_json_is_named(folder):
    (folder / "items.csv").write_bytes(b"item_id,t\xfftle\na,x\n")
    assert failure(folder) == "items.csv: broken UTF-8 in line 1"
    (folder / "items.csv").unlink()
    (folder / "items.jsonl").write_bytes(b'{"item_id": "a"}\n{"item_id": "\xff"}\n')
    assert failure(folder) == "items.jsonl: broken UTF-8 in line 2"


def test_broken_json_is_named_by_line(folder):
    (folder / "items.csv").unlink()
    (folder / "items.jsonl").write_text('{"item_id": "a"}\n\n{"item_id": \n[1]\n')
    assert failure(folder) == "items.jsonl: not one JSON object a line: line 3, line 4"


@pytest.mark.parametrize(
    "name", ["items.csv.gz", "items.csv.zst", "items.jsonl.gz", "items.jsonl.zst", "items.parquet"]
)
def test_truncated_files_are_an_error(folder, name):
    (folder / "items.csv").unlink()
    text = b"item_id,title\n" + b"".join(b"a%d,b\n" % n for n in range(99))
    whole = {"gz": gzip.compress, "zst": zstd}.get(name.split(".")[-1], lambda _: b"PAR1 and then nothing")(text)
    (folder / name).write_bytes(whole[: len(whole) // 2])
    assert f"cannot read {name}: " in failure(folder) or "items.parquet is no valid Parquet file" in failure(folder)


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


# ---- several files


PARTS = [
    ("interactions-1.csv", "interactions-2.csv", "interactions-10.csv"),
    ("events-00000-of-00003.jsonl", "events-00001-of-00003.jsonl", "events-00002-of-00003.jsonl"),
    ("interactions/part-0.csv.gz", "interactions/part-1.csv.gz", "interactions/part-2.csv.gz"),
    ("interactions.parquet/part-0.parquet", "interactions.parquet/part-1.parquet", "interactions.parquet/b.parquet"),
]


def write_parts(folder, names):
    for name, (user, item, time, task, query) in zip(names, CANONICAL, strict=True):
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        record = {"user_id": user, "item_id": item, "timestamp": time, "task": ["", "rec", "src"][task], "query": query}
        text = ",".join(record) + "\n" + ",".join(f'"{value}"' for value in record.values()) + "\n"
        if name.endswith("parquet"):
            pq.write_table(pa.Table.from_pylist([record]), path)
        else:
            data = (json.dumps(record) if name.endswith("jsonl") else text).encode()
            path.write_bytes(gzip.compress(data) if name.endswith("gz") else data)


@pytest.mark.parametrize("names", PARTS, ids=lambda names: names[0])
def test_parts_of_a_table_are_read_in_the_order_of_their_numbers(folder, names):
    (folder / "interactions.csv").unlink()
    write_parts(folder, names)
    expected = CANONICAL if "b.parquet" not in names[-1] else [CANONICAL[2], *CANONICAL[:2]]
    assert rows(folder) == expected
    assert read(folder).report["files"] == {name.split("/")[-1]: 1 for name in sorted(names)} | {"items.csv": 2}


def test_a_list_of_files_is_read_in_its_order(folder):
    write_parts(folder, ("x.csv", "y.jsonl", "z.parquet"))
    config = TableConfig(path=[str(folder / name) for name in ("y.jsonl", "x.csv", "z.parquet")])
    assert [tuple(event.values()) for event in config.read().events.to_pylist()] == [CANONICAL[n] for n in (1, 0, 2)]
    with pytest.raises(ValueError, match="path"):
        TableConfig(path=[])


def test_parts_without_a_number_of_their_own_are_refused(folder):
    write_parts(folder, ("interactions-1.csv", "interactions-01.csv", "interactions-2.csv"))
    (folder / "interactions.csv").unlink()
    assert "holds several interactions.* or events.*: interactions-01.csv, interactions-1.csv" in failure(folder)


def test_parts_with_other_columns_are_refused(folder):
    (folder / "interactions.csv").unlink()
    write_parts(folder, ("interactions-1.csv", "interactions-2.csv", "interactions-3.csv"))
    (folder / "interactions-2.csv").write_text("user_id,item_id,timestamp,task\nu,a,1,rec\n")
    message = failure(folder)
    assert message == (
        "interactions-2.csv has no column 'query', which interactions-1.csv has: they are read as one table"
    )


def test_bad_rows_of_parts_are_named_by_their_own_file_and_line(folder):
    (folder / "interactions.csv").unlink()
    for part, body in enumerate(("u,a,1,rec,\n", "u,a,1,rec,\nu,,1,rec,\n", ",a,1,rec,\nu,,1,rec,\nu,,1,rec,\n")):
        (folder / f"interactions-{part}.csv").write_text(HEAD + body)
    assert failure(folder) == "interactions-2.csv: empty user_id: line 2"
    (folder / "interactions-2.csv").write_text(HEAD + "u,a,1,rec,\nu,,1,rec,\nu,,1,rec,\n")
    assert failure(folder).strip() == "interactions-1.csv: empty item_id: line 3. 2 more in other files."


def two_tables(folder):
    with_events(folder, "user,item,ts\nu1,b,3\nu2,a,2\n")
    (folder / "searches.csv").write_text("user,item,ts,search_query,session_id\nu1,a,1,kettle,s7\n")
    return folder


def test_searches_and_interactions_may_be_two_tables(folder):
    log = read(two_tables(folder))
    events = [tuple(event.values()) for event in log.events.to_pylist()]
    assert events == [("u1", "b", 3, 1, "", ""), ("u2", "a", 2, 1, "", ""), ("u1", "a", 1, 2, "kettle", "s7")]
    assert log.report["columns"]["searches"]["query"] == "search_query"
    assert log.report["files"] == {"interactions.csv": 2, "searches.csv": 1, "items.csv": 2}
    paths = {"searches": str(folder / "searches.csv"), "items": str(folder / "items.csv")}
    assert read(folder / "interactions.csv", **paths).events.equals(log.events)


def test_searches_alone_are_a_log(folder):
    (two_tables(folder) / "interactions.csv").unlink()
    assert rows(folder) == [("u1", "a", 1, 2, "kettle", "s7")]


def test_queries_of_interactions_beside_searches_are_dropped_unless_a_task_column_says_otherwise(folder):
    two_tables(folder)
    with_events(folder, "user,item,ts,query\nu1,b,3,mats\n")
    log = read(folder)
    assert log.events["task"].to_pylist() == [1, 2]
    assert log.report["queries_dropped_from_recommendation_events"] == 1
    with_events(folder, "user,item,ts,query,task\nu1,b,3,mats,search\n")
    assert read(folder).events["task"].to_pylist() == [2, 2]


def test_searches_need_a_query(folder):
    (two_tables(folder) / "searches.csv").write_text("user,item,ts\nu1,a,1\n")
    assert (
        "searches.csv has no column 'query'; did you mean 'user'? Columns: user, item, ts. Say which it is"
        in failure(folder)
    )
    (folder / "searches.csv").write_text("user,item,ts,query\nu1,a,1, \n")
    assert failure(folder) == "searches.csv: search events without a query: line 2"


def test_column_names_may_be_meant_for_one_of_the_tables(folder):
    two_tables(folder)
    (folder / "searches.csv").write_text("who,item,ts,words\nu1,a,1,kettle\n")
    (folder / "interactions.csv").write_text("user,item,ts\nu1,b,3\n")
    assert len(rows(folder, columns={"query": "words", "user_id": "who"})) == 2
    message = failure(folder, columns={"query": "wrds", "user_id": "who"})
    assert "has no column 'wrds' for query" in message


def test_titles_named_without_a_file_of_items_are_refused(folder):
    message = failure(folder / "interactions.csv", columns={"title": "name"})
    assert message == "data.source.columns.title: the items have no file; name it as data.source.items"


# ---- optional columns


def test_session_order_and_split_are_read_where_they_are(folder):
    with_events(
        folder,
        "user,item,ts,query,search_session_id,order,split\nu1,a,1,red,9,2,Train\nu1,b,1,red,9,1,dev\nu1,b,5,,,3,test\n",
    )
    assert [tuple(event.values())[5:] for event in read(folder).events.to_pylist()] == [
        ("9", 2, 0),
        ("9", 1, 1),
        ("", 3, 2),
    ]


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("order", "A17", "interactions.csv: an order that is no whole number: line 2 ('A17'). To ignore that column, "),
        ("order", "", "interactions.csv: an order that is no whole number: line 2 ('')"),
        ("split", "trian", "interactions.csv: unknown split: line 2 ('trian'), line 3 ('trian'). Known: train, "),
    ],
)
def test_columns_that_mean_something_else_are_refused_and_can_be_left_out(folder, column, value, message):
    with_events(folder, f"user,item,ts,{column}\nu1,b,3,{value}\nu1,b,3,{value}\n")
    found = failure(folder)
    assert found.startswith(message)
    assert found.endswith(f'To ignore that column, set data.source.columns: {{"{column}": null}}')
    assert rows(folder, columns={column: None}) == [("u1", "b", 3, 1, "")] * 2


def test_an_order_that_only_one_table_has_is_refused(folder):
    two_tables(folder)
    with_events(folder, "user,item,ts,order\nu1,b,3,1\n")
    assert failure(folder) == (
        "searches.csv has no column 'order', which interactions.csv has: give both or neither. "
        'To ignore that column, set data.source.columns: {"order": null}'
    )
    assert len(rows(folder, columns={"order": None})) == 2


@pytest.mark.parametrize("name", ["user_id", "query", "session", "split"])
def test_a_column_of_times_is_no_text_as_well(folder, name):
    message = failure(folder, columns={name: "timestamp"})
    assert message == f"interactions.csv: column 'timestamp' is taken for both timestamp and {name}"


def test_long_values_are_cut_in_complaints(folder):
    assert len(failure(with_events(folder, f"user,item,ts\nu,{'x' * 10_000},1\n"))) < 500


# ---- ids


def test_ids_that_look_like_numbers_stay_text(folder):
    with_events(folder, "user,item,ts\n007,b,1\n7,b,1\n7.0,a,1\n")
    assert [row[0] for row in rows(folder)] == ["007", "7", "7.0"]


@pytest.mark.parametrize(
    "kind", [pa.int64(), pa.uint8(), pa.float64(), pa.string(), pa.dictionary(pa.int8(), pa.int64())]
)
def test_numbers_as_ids_of_parquet_become_decimal_text(folder, kind):
    (folder / "interactions.csv").unlink()
    ids = pa.array([12, 7]).cast(kind) if not pa.types.is_dictionary(kind) else pa.array([12, 7]).dictionary_encode()
    pq.write_table(pa.table({"user": ids, "item": ["a", "b"], "ts": [1, 2]}), folder / "events.parquet")
    assert [row[0] for row in rows(folder)] == ["12", "7"]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"user": [1.0, 2.5]}, "events.parquet: bad user: row 2 (2.5). Expected text or a whole number"),
        ({"user": [1.0, None]}, "events.parquet: empty user_id: row 2"),
        (
            {"user": [[1], [2]]},
            "events.parquet: column 'user' holds list<element: int64>; expected text or whole numbers",
        ),
        ({"item": [True, False]}, "events.parquet: column 'item' holds bool; expected text or whole numbers"),
        ({"item": [{"a": 1}] * 2}, "events.parquet: column 'item' holds struct<a: int64>; expected text or whole num"),
        ({"ts": [True, False]}, "events.parquet: column 'ts' holds bool; expected numbers, ISO 8601 texts or times"),
        ({"ts": [{"s": 1}] * 2}, "events.parquet: column 'ts' holds struct<s: int64>; expected numbers, ISO 8601"),
        ({"ts": [[1], [2]]}, "events.parquet: column 'ts' holds list<element: int64>; expected "),
        ({"ts": [1, None]}, "events.parquet: bad timestamp: row 2 (None). Expected a number"),
        ({"query": [{"q": 1}] * 2}, "events.parquet: column 'query' holds struct<q: int64>; expected text"),
        ({"order": [0.5, 1.0]}, "events.parquet: an order that is no whole number: row 1 (0.5)"),
    ],
)
def test_parquet_with_wrong_types_is_refused(folder, columns, message):
    (folder / "interactions.csv").unlink()
    table = {"user": ["u", "v"], "item": ["a", "b"], "ts": [1, 2]} | columns
    pq.write_table(pa.table(table), folder / "events.parquet")
    assert failure(folder).startswith(message)


def test_lists_of_words_are_queries_and_bars_in_level_names_are_no_levels(folder):
    (folder / "interactions.csv").unlink()
    (folder / "items.csv").unlink()
    table = pa.table({"user": ["u"], "item": [1], "ts": [1], "query": [[12, 7, 99]]})
    pq.write_table(table, folder / "events.parquet")
    (folder / "items.jsonl").write_text('{"item_id": 1, "categories": ["TV | Audio", "Hi-Fi"]}')
    assert rows(folder) == [("u", "1", 1, 2, "12 7 99")]
    assert read(folder).items["categories"].to_pylist() == ["TV   Audio|Hi-Fi"]


# ---- times


def test_the_report_tells_columns_rows_and_unit(folder):
    with_events(folder, "reviewerID,asin,unixReviewTime\nu1,b,1714564800123\n")
    assert read(folder).report == {
        "files": {"interactions.csv": 1, "items.csv": 2},
        "columns": {
            "events": {"user_id": "reviewerID", "item_id": "asin", "timestamp": "unixReviewTime"},
            "items": {"item_id": "item_id", "title": "title", "categories": "categories"},
        },
        "dropped": {},
        "time_unit": "ms",
    }


def test_iso_times_without_a_zone_are_of_the_given_one(folder):
    with_events(folder, "user,item,ts\nu1,b,2024-05-01 12:00\nu1,b,2024-01-01\n")
    log = read(folder, time_zone="Asia/Shanghai")
    assert log.events["timestamp"].to_pylist() == [1_714_564_800 - 8 * 3600, 1_704_067_200 - 8 * 3600]
    assert (log.time.unit, log.time.zone) == ("s", "Asia/Shanghai")
    with pytest.raises(ValueError, match=r"no time zone 'Europe/Berln'.*did you mean 'Europe/Berlin'"):
        TableConfig(path="x", time_zone="Europe/Berln")


def test_one_fraction_of_a_second_makes_all_iso_times_milliseconds(folder):
    with_events(folder, "user,item,ts\nu1,b,2024-05-01T12:00:00Z\nu1,b,2024-05-01T12:00:00.0015+00:00\n")
    log = read(folder)
    assert log.events["timestamp"].to_pylist() == [1_714_564_800_000, 1_714_564_800_001]
    assert (log.time.unit, log.report["timestamps_rounded_down"]) == ("ms", 1)
    assert read(folder, time_unit="us").events["timestamp"].to_pylist()[1] == 1_714_564_800_001_500
    assert read(folder, time_unit="s").events["timestamp"].to_pylist()[1] == 1_714_564_800
    assert 'use "auto"' in failure(folder, time_unit="none")


@pytest.mark.parametrize(
    ("times", "options", "message"),
    [
        (["1714564800", "1714564801", "1714564800000"], {}, "interactions.csv: mixed time units, s and ms: line 4"),
        (["1714564800", "-5"], {}, "interactions.csv: negative timestamps: line 3 (-5)"),
        (["1714564800", "1714564800", "99999999999"], {}, "interactions.csv: "),
        (["2024-05-01", "2924-05-01"], {}, "interactions.csv: timestamps that are no times: line 3"),
        (["1714564800000"], {"time_unit": "s"}, "interactions.csv: mixed time units, s and ms: line 2"),
        (["2024-05-01", "17"], {}, "interactions.csv: bad timestamp: line 3 ('17'). Expected an ISO 8601 time"),
    ],
)
def test_times_that_cannot_be_are_refused_with_their_lines(folder, times, options, message):
    with_events(folder, "user,item,ts\n" + "".join(f"u,b,{time}\n" for time in times))
    assert failure(folder, **options).startswith(message)


# ---- identity


def test_the_identity_follows_options_and_what_each_file_is_for(folder, tmp_path):
    two_tables(folder)
    plain = TableConfig(path=str(folder))
    assert plain.identity() == TableConfig(path=str(folder), searches=str(folder / "searches.csv")).identity()
    assert plain.identity() != TableConfig(path=str(folder), time_zone="Asia/Shanghai").identity()
    assert plain.identity() != TableConfig(path=str(folder), columns={"order": None}).identity()
    both = [str(folder / "interactions.csv"), str(folder / "searches.csv")]
    items = str(folder / "items.csv")
    assert TableConfig(path=both, items=items).identity() != plain.identity()


def test_a_folder_with_the_usual_names_is_recognised_and_others_are_not(folder, tmp_path_factory):
    assert TableConfig.recognise(folder) == TableConfig(path=str(folder))
    empty = tmp_path_factory.mktemp("empty")
    for path in (folder / "interactions.csv", folder / "none", empty):
        assert TableConfig.recognise(path) is None
