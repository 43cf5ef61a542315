"""Every broken log through `gensr data check` and `gensr data prepare`: exit code 2, words, and nothing left behind."""

from __future__ import annotations

import gzip
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

TIME = 1_714_564_800
HEAD = b"user_id,item_id,timestamp,query\n"
ROW = b"u,a,%d,tea\n"
GOOD = HEAD + b"".join(ROW % (TIME + n) for n in range(20))
LINE = b'{"user_id": "u", "item_id": "a", "timestamp": 1}\n'
LONG = b"x" * 10_000_000


def zstd(data):
    return pa.compress(data, codec="zstd", asbytes=True)


def parquet(**columns):
    def write(path):
        known = {"user_id": ["u", "v"], "item_id": ["a", "b"], "timestamp": [TIME, TIME + 1]}
        pq.write_table(pa.table(known | columns), path)

    return write


BROKEN = {
    "truncated.csv.gz": (gzip.compress(GOOD)[:-3], "cannot read truncated.csv.gz"),
    "truncated.csv.zst": (zstd(GOOD)[:-3], "cannot read truncated.csv.zst"),
    "truncated.jsonl.gz": (gzip.compress(LINE * 99)[:-3], "cannot read truncated.jsonl.gz"),
    "not-packed.csv.gz": (GOOD, "cannot read not-packed.csv.gz"),
    "packed.csv": (gzip.compress(GOOD), "packed.csv: "),
    "units.csv": (GOOD + ROW % (TIME * 1000), "mixed time units, s and ms: line 22"),
    "negative.csv": (GOOD + ROW % -5, "negative timestamps: line 22 (-5)"),
    "far.csv": (GOOD + ROW % 99_999_999_999, "timestamps that are no times: line 22 (99999999999)"),
    "huge.csv": (GOOD + ROW % 10**30, "bad timestamp: line 22"),
    "open.csv": (GOOD + b'u,a,1,"tea\nu,a,1,\n', "a quote in the row on line 22 is never closed"),
    "ragged.csv": (GOOD + b"u,a,1,\xff\n", "broken UTF-8 in line 22"),
    "nul.csv": (GOOD + b"u,\0,1,\n", "a NUL byte in line 22"),
    "nul.jsonl": (LINE + b"\0\n", "a NUL byte in line 2"),
    "twice.csv": (b"user_id,item_id,item_id,timestamp\nu,a,b,1\n", "two columns named 'item_id', columns 2 and 3"),
    "twice.jsonl": (LINE + b'{"item_id": "a", "item_id": "b"}\n', "a key twice: line 2"),
    "wide.csv": (b",".join(b"c%d" % n for n in range(10_001)) + b"\n", "more than 10,000 columns"),
    "wide.jsonl": (b"\n".join(b'{"c%d": 1}' % n for n in range(10_001)), "more than 10,000 columns"),
    "long.csv": (GOOD + LONG, "line 22 is longer than 4,194,304 bytes"),
    "long.jsonl": (LINE + b'{"user_id": "' + LONG, "line 2 is longer than 4,194,304 bytes"),
    "deep.jsonl": (LINE + b"[" * 100_000, "not one JSON object a line: line 2"),
    "empty.csv": (b"", "empty.csv is empty"),
    "mac.csv": (GOOD.replace(b"\n", b"\r"), "line 1: a carriage return without a line feed"),
    "fractions.parquet": (parquet(user_id=[1.5, 2.0]), "bad user_id: row 1 (1.5)"),
    "structs.parquet": (parquet(item_id=[{"a": 1}] * 2), "holds struct<a: int64>; expected text or whole numbers"),
    "flags.parquet": (parquet(timestamp=[True, False]), "holds bool; expected numbers, ISO 8601 texts or times"),
    "year-146000.parquet": (parquet(timestamp=pa.array([0, 2**62], pa.timestamp("us"))), "bad timestamp: row 2"),
    "text.parquet": (GOOD, "text.parquet is no valid Parquet file"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_log_is_refused_in_words_and_leaves_nothing(call, tmp_path, name):
    data, message = BROKEN[name]
    path = tmp_path / name
    data(path) if callable(data) else path.write_bytes(data)
    source = {"type": "table", "path": name, "time_zone": "Asia/Shanghai"}
    (tmp_path / "shop.json").write_text(json.dumps({"data": {"source": source}}))
    for command in (("check", "shop.json"), ("prepare", "shop.json", "-q")):
        told = call("data", *command, code=2).stderr
        assert told.startswith("gensr: ")
        assert message in told
        assert len(told) < 2000
    assert sorted(left.name for left in tmp_path.iterdir()) == sorted([name, "shop.json"])
