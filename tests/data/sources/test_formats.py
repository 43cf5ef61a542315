from __future__ import annotations

import csv
import gzip
import io
import json
import tracemalloc
from itertools import pairwise

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gensr.data.log import TEXT
from gensr.data.sources.formats import open_table
from gensr.data.sources.text import MAX_LINE
from gensr.errors import BadInputError

MEGABYTE = 1 << 20
TEN_MILLION = b"x" * 10_000_000


@pytest.fixture
def write(tmp_path):
    def write(name, data):
        path = tmp_path / name
        path.write_bytes(data)
        return path

    return write


def table(file, columns, **options):
    return pa.Table.from_batches(file.batches(columns, **options)).to_pydict()


def failure(path, columns=None, **options):
    with pytest.raises(BadInputError) as caught:
        list(open_table(path, **options).batches(columns or {"a": TEXT}))
    return str(caught.value).replace(str(path.parent) + "/", "")


TYPED = {"count": pa.int64(), "user": TEXT, "share": pa.float64()}
ROWS = [{"user": "007", "count": 3, "share": 0.5}, {"user": "7", "count": -1, "share": 2.0}]
LINES = {
    "csv": b"user,share,count,unused\n007,0.5,3,x\n7,2,-1,\n",
    "tsv": b"user\tshare\tcount\n007\t0.5\t3\n7\t2\t-1\n",
    "jsonl": "\n".join(map(json.dumps, ROWS)).encode(),
}


@pytest.mark.parametrize("compression", ["", ".gz", ".zst"])
@pytest.mark.parametrize("kind", [*LINES, "parquet"])
def test_chosen_columns_come_in_chosen_types(write, tmp_path, kind, compression):
    if kind == "parquet":
        path = tmp_path / "t.parquet"
        pq.write_table(pa.Table.from_pylist(ROWS), path)
    else:
        data = LINES[kind]
        data = {".gz": gzip.compress(data), ".zst": pa.compress(data, codec="zstd", asbytes=True)}.get(
            compression, data
        )
        path = write(f"t.{kind}{compression}", data)
    (batch,) = open_table(path).batches(TYPED)
    assert batch.schema.equals(pa.schema(TYPED.items()))
    assert batch.to_pydict() == {"count": [3, -1], "user": ["007", "7"], "share": [0.5, 2.0]}
    assert open_table(path).read(["count", "user"])["count"].to_pylist() == ["3", "-1"]


def test_columns_left_as_they_are_keep_the_type_of_the_file(write, tmp_path):
    pq.write_table(pa.Table.from_pylist(ROWS), tmp_path / "t.parquet")
    assert table(open_table(tmp_path / "t.parquet"), {"share": None}) == {"share": [0.5, 2.0]}
    assert table(open_table(write("t.jsonl", LINES["jsonl"])), {"share": None}) == {"share": ["0.5", "2.0"]}
    assert table(open_table(write("t.csv", LINES["csv"])), {"share": None}) == {"share": ["0.5", "2"]}


def test_files_without_header_and_in_other_encodings_are_read(write):
    path = write("u.item", '1|Amélie\n2|"Crow\n'.encode("latin-1"))
    file = open_table(path, delimiter="|", header=("id", "title"), encoding="latin-1", quotes=False)
    assert table(file, {"title": TEXT, "id": pa.int64()}) == {"title": ["Amélie", '"Crow'], "id": [1, 2]}
    assert failure(write("u.data", b"1\t2\n3\tx\n"), {"i": pa.int64()}, delimiter="\t", header=("u", "i")) == (
        "u.data: bad i: line 2 ('x'). Expected int64"
    )


@pytest.mark.parametrize("delimiter", ["\t", ";", "|"])
def test_a_csv_without_commas_in_its_header_is_cut_at_what_is_there(write, delimiter):
    path = write("t.csv", f'a{delimiter}b\n"1,5"{delimiter}2\n'.encode())
    assert table(open_table(path), {"a": TEXT, "b": TEXT}) == {"a": ["1,5"], "b": ["2"]}


cells = st.text(st.characters(codec="utf-8", exclude_characters="\0\r", exclude_categories=["Cs"]), max_size=6)


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(st.tuples(cells, cells), min_size=1, max_size=8), ends=st.sampled_from(["\n", "\r\n"]))
def test_quotes_delimiters_and_line_ends_inside_cells_survive(tmp_path, rows, ends):
    stream = io.StringIO()
    writer = csv.writer(stream, quoting=csv.QUOTE_ALL, lineterminator=ends)
    writer.writerows([("a", "b"), *rows])
    path = tmp_path / "t.csv"
    path.write_bytes(stream.getvalue().encode())
    assert table(open_table(path), {"b": pa.string(), "a": TEXT}) == {
        "b": [b for _, b in rows],
        "a": [a for a, _ in rows],
    }
    starts = open_table(path).lines(range(len(rows)))
    for (first, second), row in zip(pairwise(starts), rows, strict=False):
        assert second - first == 1 + "".join(row).count("\n")


# ---- bad input


def test_duplicate_names_in_a_header_are_refused(write, tmp_path):
    expected = "has two columns named 'a', columns 1 and 3; rename or remove one"
    assert failure(write("t.csv", b"a,b,a\n1,2,3\n")) == f"t.csv {expected}"
    names = ["a", "b", "a"]
    pq.write_table(pa.Table.from_arrays([pa.array([1])] * 3, names=names), tmp_path / "t.parquet")
    assert failure(tmp_path / "t.parquet") == f"t.parquet {expected}"
    assert table(open_table(write("t.csv", b",b,\n1,2,3\n")), {"b": TEXT}) == {"b": ["2"]}


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("t.csv", b"a,b\n1,2\n1\n1,2,3\n", "t.csv: rows without the header's 2 cells: line 3 ('1 cells'), line 4"),
        ("t.csv", b"a,b\n1,\0\n", "t.csv: a NUL byte in line 2; is this a text file, in utf-8?"),
        ("t.csv", b"a,\0b\n1,2\n", "t.csv: a NUL byte in line 1"),
        ("t.jsonl", b'{"a": 1}\n{"a": "\0"}\n', "t.jsonl: a NUL byte in line 2"),
        ("t.csv", b"b,a\n1,\xff\n", "t.csv: broken UTF-8 in line 2"),
        ("t.jsonl", b'{"a": "\xff"}\n', "t.jsonl: broken UTF-8 in line 1"),
        ("t.csv", b'a,b\n1,2\n3,"4\n5,6\n', "t.csv: a quote in the row on line 3 is never closed"),
        ("t.csv", b'a,b\n"3,4\n5,6', "t.csv: a quote in the row on line 2 is never closed"),
        ("t.csv", b'a,b\n1,x"y\n3,"4\n5,6\n', "t.csv: a quote in the row on line 3 is never closed"),
        ("t.csv", b'"a,b\n1,2\n', "t.csv: a quote in the row on line 1 is never closed"),
        ("t.csv", b"a,b\r1,2\r", "t.csv: no valid row on line 1: a carriage return without a line feed"),
        ("t.csv", b"a,b\n1,2\n3,\xff,4\n", "t.csv: broken UTF-8 in line 3"),
        ("t.csv", b"", "t.csv is empty"),
        ("t.csv", b"\n\n", "t.csv is empty: it holds no header"),
        ("t.csv.gz", gzip.compress(b""), "t.csv.gz is empty"),
        ("t.csv", b"b,c\n1,2\n", "t.csv has no column 'a'. Columns: b, c"),
        ("t.csv.gz", b"a,b\n1,2\n", "cannot read t.csv.gz: Not a gzipped file"),
        ("t.csv.zst", b"a,b\n1,2\n", "cannot read t.csv.zst: ZSTD decompress failed"),
        ("t.jsonl", b'{"a": [1]}\n', "t.jsonl: bad a: line 1 ([1]). Expected text or a whole number"),
        ("t.jsonl", b'{}\n\n{"a": {}}\n', "t.jsonl: bad a: line 3 ({}). Expected text or a whole number"),
        ("t.jsonl", b'{"a": true}\n', "t.jsonl: bad a: line 1 (True)"),
        ("t.jsonl", b'{"a": 1.5}\n', "t.jsonl: bad a: line 1 (1.5)"),
        ("t.jsonl", b'{"a": "\\ud800"}\n', "t.jsonl: bad a: line 1 ('\\ud800'). Expected text without lone surrogates"),
        ("t.jsonl", b'{"a": 1}\n[1]\n' + b"[" * 100_000, "t.jsonl: not one JSON object a line: line 2, line 3"),
        ("t.jsonl", b'{"a": 1}\n{"a": 1, "a": 2}', "t.jsonl: a key twice: line 2"),
        ("t.jsonl", b'{"a": ' + b"9" * 5000 + b"}", "t.jsonl: not one JSON object a line: line 1"),
        ("t.parquet", b"PAR1", "t.parquet is no valid Parquet file"),
    ],
)
def test_broken_files_are_named_with_their_line(write, name, data, message):
    assert failure(write(name, data)).startswith(message)


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("t.csv", b'b,a\n"x\ny",1\n\nz,1.5\n', "t.csv: bad a: line 5 ('1.5'). Expected int64"),
        ("t.csv", b"a\n1\n99999999999999999999\n", "t.csv: bad a: line 3 ('99999999999999999999'). Expected int64"),
        ("t.jsonl", b'{"a": 1}\n\n{"a": "one"}\n', "t.jsonl: bad a: line 3 ('one'). Expected int64"),
        ("t.jsonl", b'{"a": 1}\n{"a": null}\n{"a": true}\n', "t.jsonl: bad a: line 3 ('true'). Expected int64"),
    ],
)
def test_values_that_do_not_fit_are_named_with_line_column_and_type(write, name, data, message):
    assert failure(write(name, data), {"a": pa.int64()}) == message


def test_a_quote_inside_a_cell_is_a_quote(write):
    path = write("t.csv", b'a,b\n5" disk,1\nx"y,2\n"5"" disk",3\n')
    assert table(open_table(path), {"a": TEXT})["a"] == ['5" disk', 'x"y', '5" disk']


def test_a_complaint_about_a_long_or_wide_file_stays_short(write):
    head = b",".join(b"column%d" % n + b"x" * 400 for n in range(5000))
    message = failure(write("t.csv", head + b"\n"))
    assert message.startswith("t.csv has no column 'a'. Columns: column0xxx")
    assert message.endswith(" and 4,950 more")
    assert len(message) < 12_000
    assert "has two columns named 'column0x" in failure(write("t.csv", b",".join([head[:4000]] * 2)))
    assert "has more than 10,000 columns" in failure(write("t.csv", b"," * 10_000))


def test_a_long_cell_is_no_open_quote(write):
    path = write("t.csv", b'a,b\n1,"' + b"x" * 1_000_000 + b'"\nsoon,2\n')
    assert failure(path, {"a": pa.int64()}) == "t.csv: bad a: line 3 ('soon'). Expected int64"


def test_broken_utf8_in_parquet_is_named(tmp_path):
    def broken(*texts):
        data = pa.array(texts, pa.binary())
        return pa.Array.from_buffers(pa.string(), len(texts), data.buffers())

    path = tmp_path / "t.parquet"
    pq.write_table(pa.table({"a": broken(b"good", b"\xff")}), path)
    assert failure(path) == "t.parquet: bad a: row 2 (b'\\xff'). Expected text or a whole number"
    pq.write_table(pa.table({"a": pa.ListArray.from_arrays([0, 1, 2], broken(b"good", b"\xff"))}), path)
    with pytest.raises(BadInputError, match=r"is no valid Parquet file: .*UTF8"):
        list(open_table(path).batches({"a": TEXT}, lists={"a": " "}))


def test_a_bad_value_far_down_is_found(write, tmp_path):
    lines = [b"%d,%d" % (n, n) for n in range(200_000)]
    lines[150_000] = b"x" * 1000 + b",1"
    message = failure(write("t.csv", b"a,b\n" + b"\n".join(lines)), {"a": pa.int64(), "b": TEXT})
    assert message == f"t.csv: bad a: line 150002 ('{'x' * 200}'). Expected int64"
    pq.write_table(pa.table({"a": [*map(str, range(150_000)), "x"]}), tmp_path / "t.parquet")
    assert failure(tmp_path / "t.parquet", {"a": pa.int64()}) == "t.parquet: bad a: row 150001 ('x'). Expected int64"


def test_absent_values_are_null_but_empty_text_in_delimited_files(write):
    assert table(open_table(write("t.csv", b"a,b\n,\n")), {"a": TEXT, "b": pa.int64()}) == {"a": [""], "b": [None]}
    rows = table(open_table(write("t.jsonl", b'{"a": null}\n{"b": 1}')), {"a": TEXT, "b": pa.int64()})
    assert rows == {"a": [None, None], "b": [None, 1]}


def test_unknown_formats_are_read_only_with_a_delimiter(write):
    path = write("ratings.dat", b"a;b\n1;2\n")
    assert "unknown format; gensr reads .csv" in failure(path)
    assert table(open_table(path, delimiter=";"), {"a": TEXT}) == {"a": ["1"]}


# ---- memory


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("t.csv", b"a,b\n1,2\n3," + TEN_MILLION + b"\n"),
        ("t.csv", b'a,b\n1,2\n3,"' + TEN_MILLION + b'"\n'),
        ("t.jsonl", b'{"a": 1}\n\n{"a": "' + TEN_MILLION + b'"}\n'),
        ("t.csv.gz", gzip.compress(b"a,b\n1,2\n" + 5 * TEN_MILLION, compresslevel=1)),
        ("t.csv.zst", pa.compress(b"a,b\n1,2\n" + 5 * TEN_MILLION, codec="zstd", asbytes=True)),
        ("t.csv", TEN_MILLION),
    ],
    ids=["csv", "quoted", "jsonl", "gz", "zst", "header"],
)
def test_an_endless_line_is_refused_before_it_fills_the_memory(write, name, data):
    path = write(name, data)
    line = 1 if data is TEN_MILLION else 3
    tracemalloc.start()
    message = failure(path)
    assert tracemalloc.get_traced_memory()[1] < 40 * MEGABYTE
    tracemalloc.stop()
    assert message == f"{name}: line {line} is longer than {MAX_LINE:,} bytes; is this a text file?"


def test_a_quote_left_open_in_a_long_file_is_refused_before_it_fills_the_memory(write):
    path = write("t.csv", b'a,b\n1,2\n3,"4\n' + b"5,6\n" * 3_000_000)
    before = pa.total_allocated_bytes()
    message = failure(path)
    assert message.startswith("t.csv: no valid row on line 3: ")
    assert message.endswith("is a quote left open?")
    assert pa.total_allocated_bytes() - before < MEGABYTE


@pytest.mark.parametrize("kind", ["csv.gz", "jsonl.gz", "parquet"])
def test_batches_hold_a_bounded_part_of_the_file(write, tmp_path, kind):
    rows = 600_000 if kind == "csv.gz" else 150_000
    path = tmp_path / f"t.{kind}"
    if kind == "parquet":
        pq.write_table(pa.table({"a": [f"{n:030}" for n in range(rows)]}), path, row_group_size=50_000)
    else:
        line = b'{"a": "%030d"}\n' if kind == "jsonl.gz" else b"%030d\n"
        head = b"" if kind == "jsonl.gz" else b"a\n"
        path.write_bytes(gzip.compress(head + b"".join(line % n for n in range(rows)), compresslevel=1))
    before, sizes, most = pa.total_allocated_bytes(), [], 0
    for batch in open_table(path).batches({"a": pa.string()}):
        sizes.append(batch.num_rows)
        most = max(most, pa.total_allocated_bytes() - before)
    assert sum(sizes) == rows
    assert len(sizes) > 2
    assert max(sizes) < rows / 2
    assert most < 40 * MEGABYTE
