"""`gensr data`: what `check` finds out, what `show` draws, what `export` writes and what `append` adds."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from gensr.data.dataset import Dataset
from gensr.data.sources.config import TableConfig
from gensr.spec import load_spec
from tests.cli.conftest import as_json

DAY = 86_400
START = 1_700_000_000


def events(users, *, start=0, sku="item_id", days=5):
    """A CSV of recommendations and searches, one of each a day and user."""
    rows = [f"user_id,{sku},timestamp,task,query"]
    for number, user in enumerate(users):
        for day in range(start, start + days):
            time = START + day * DAY + number
            rows += [
                f"{user},i{day + number},{time},rec,",
                f"{user},i{day + number + 1},{time + 60},search,tea for {day}",
            ]
    return "\n".join(rows) + "\n"


@pytest.fixture
def log(tmp_path):
    folder = tmp_path / "log"
    folder.mkdir()
    (folder / "interactions.csv").write_text(events(["a", "b", "c"]))
    (folder / "items.csv").write_text("item_id,title\n" + "".join(f"i{n},thing {n}\n" for n in range(40)))
    (tmp_path / "shop.json").write_text(
        json.dumps(
            {"data": {"source": {"type": "table", "path": str(folder)}, "candidates": {"type": "uniform", "count": 5}}}
        )
    )
    return folder


# check


def test_check_tells_source_counts_times_and_the_first_events(call, log):
    text = call("data", "check", log).stdout
    assert text.startswith(f"{log}: ok\n  read as table")
    for expected in (
        "    recommendation events               15\n",
        "    users with both tasks               3\n",
        "items without title and categories",
        "Unix time in s, UTC",
        "2023-11-14 22:13:20+00:00",
        "user_id  item_id  timestamp   task            query",
        "left out\n    nothing",
        f'"source": {{"type": "table", "path": "{log}"}}',
    ):
        assert expected in text
    found = as_json(call("data", "check", log, "--json"))[str(log)]
    assert found["counts"]["events"] == 30
    assert found["first_events"][1]["query"] == "tea for 0"
    assert found["time"]["unit"] == "s"


def test_what_check_prints_for_a_spec_is_a_source_that_reads_the_log(call, log):
    found = as_json(call("data", "check", log, "--json"))[str(log)]
    source = json.loads("{" + found["spec"] + "}")["source"]
    assert load_spec({"data": {"source": source}}).data.source.read().report == found["report"]


def test_check_reads_a_table_with_columns_of_other_names_when_told_them(call, tmp_path):
    path = tmp_path / "clicks.csv"
    path.write_text(events(["a"], sku="sku"))
    assert "has no column 'item_id'" in call("data", "check", path, code=2).stderr
    text = call("data", "check", path, "--set", "columns.item_id=sku").stdout
    assert '"columns": {"item_id": "sku"}' in text
    assert call("data", "check", path, "--set", "data.source.columns.item_id=sku").stdout == text


def test_check_refuses_changes_that_are_no_option_of_the_source(call, log):
    message = call("data", "check", log, "--set", "pth=x", code=2).stderr
    assert "no option 'data.source.pth'; did you mean 'path'?" in message


def test_check_says_everything_wrong_in_json_too(call, log, tmp_path):
    (tmp_path / "bad.csv").write_text(events(["a"]) + "a,i1,yesterday,rec,\n")
    found = as_json(call("data", "check", log, tmp_path / "bad.csv", "--json", code=2))
    assert [entry["ok"] for entry in found.values()] == [True, False]
    assert "line 12" in found[str(tmp_path / "bad.csv")]["problem"]


def test_check_recognises_published_files_and_counts_what_it_would_drop(call, tmp_path):
    folder = tmp_path / "ml"
    folder.mkdir()
    (folder / "ratings.csv").write_text(
        "userId,movieId,rating,timestamp\n" + "".join(f"{u},{m},4.0,{START + m}\n" for u in (1, 2) for m in range(1, 6))
    )
    (folder / "movies.csv").write_text("movieId,title,genres\n" + "".join(f"{m},Film {m},Drama\n" for m in range(1, 6)))
    (folder / "tags.csv").write_text(f"userId,movieId,tag,timestamp\n1,1,dull,{START}\n2,2,In Netflix queue,{START}\n")
    text = call("data", "check", folder).stdout
    assert "read as movielens" in text
    assert "1 rows" in text.partition("left out\n")[2].partition("\n")[0]
    assert "goes with a file of events" in call("data", "check", folder, "--items", "x.csv", code=2).stderr


def test_check_shows_reasons_with_the_first_lines(call, log, monkeypatch):
    dropped = {"no category": {"rows": 1200, "first_lines": [3, 7]}, "too old": {"rows": 1}}
    read = TableConfig.read
    monkeypatch.setattr(
        TableConfig, "read", lambda self: replace(log := read(self), report=log.report | {"dropped": dropped})
    )
    text = call("data", "check", log).stdout
    assert "    no category  1,200 rows  first on lines 3, 7\n    too old      1 rows\n" in text


# show


def test_show_tells_how_the_numbers_are_spread(call, log):
    told = call("data", "prepare", "shop.json").stderr
    assert "data: reading table\n" in told
    assert "data: ready after " in told
    text = call("data", "show", "shop.json").stdout
    assert "| uniform-5 | search         | in_history |" in text
    assert "| events of a user          | recommendation |     3 |  5.0 |" in text
    spread = as_json(call("data", "show", "shop.json", "--json"))["distributions"]
    assert spread["words of a query"]["search"]["median"] == 3
    assert spread["events of a day"]["search"]["count"] == 5
    assert spread["history of a test request"]["search"]["largest"] == 9


@pytest.mark.parametrize("name", ["spread.png", "spread.svg"])
def test_show_draws_the_distributions(call, log, tmp_path, name):
    pytest.importorskip("matplotlib")
    call("data", "prepare", "shop.json", "-q")
    call("data", "show", "shop.json", "--plot", name)
    assert (tmp_path / name).read_bytes()[:4] in (b"\x89PNG", b"<?xm")


def test_a_figure_needs_a_known_format_and_matplotlib(call, log, monkeypatch):
    assert "no figure format '.jpg'" in call("data", "show", "shop.json", "--plot", "spread.jpg", code=2).stderr
    monkeypatch.setattr("gensr.evaluation.figures.find_spec", lambda name: None)
    message = call("data", "show", "shop.json", "--plot", "spread.png", code=2).stderr
    assert "pip install 'gensr[plots]'" in message


# export


@pytest.mark.parametrize(
    ("form", "file"), [("parquet", "items.parquet"), ("recbole", "out.inter"), ("trec", "corpus.jsonl")]
)
def test_export_prepares_writes_and_says_what(call, log, tmp_path, form, file):
    text = call("data", "export", "shop.json", "--format", form, "--to", "out", "-q").stdout
    assert text.startswith("wrote out\n")
    assert f"  {file} " in text
    assert (tmp_path / "out" / file).is_file()
    assert "out exists" in call("data", "export", "shop.json", "--to", "out", code=2).stderr


def test_what_export_prints_prepares_the_export_again(call, log):
    text = call("data", "export", "shop.json", "--to", "out", "-q").stdout
    section = json.loads("{" + text.partition("in a spec\n")[2] + "}")
    candidates = as_json(call("data", "export", "shop.json", "--to", "json", "-q", "--json"))["candidates"]
    open("again.json", "w").write(json.dumps(section))
    assert as_json(call("data", "prepare", "again.json", "-q", "--json"))["candidates"] == candidates


def test_export_writes_nothing_in_a_dry_run_and_knows_near_misses(call, log, tmp_path):
    assert (
        "would write out from runs/.cache/data-"
        in call("data", "export", "shop.json", "--to", "out", "--dry-run").stdout
    )
    message = call("data", "export", "shop.json", "--to", "out", "--format", "recbol", code=2).stderr
    assert "no format 'recbol'; did you mean 'recbole'" in message
    assert sorted(path.name for path in tmp_path.iterdir()) == ["log", "shop.json"]


# append


def test_append_writes_a_spec_prepares_it_and_says_what_is_new(call, log, tmp_path):
    (tmp_path / "june.csv").write_text(events(["c", "d"], start=5))
    text = call("data", "append", "shop.json", "june.csv", "-q").stdout
    assert text.startswith("wrote shop-appended.json\n")
    assert "  users                  3       4      +1\n" in text
    assert "  events                 30      50     +20\n" in text
    spec = load_spec("shop-appended.json")
    assert (spec.data.source.type, spec.data.source.new.path) == ("append", "june.csv")
    assert spec.data.candidates == load_spec("shop.json").data.candidates
    (folder,) = [line.removeprefix("prepared in ") for line in text.splitlines() if line.startswith("prepared in ")]
    assert list(Dataset.open(folder).user_ids) == ["", "a", "b", "c", "d"]


def test_append_reads_a_table_as_the_table_before_it_was_read(call, tmp_path):
    for name, start in (("may.csv", 0), ("june.csv", 5), ("july.csv", 10)):
        (tmp_path / name).write_text(events(["a", "b", "c"], sku="sku", start=start))
    source = {"type": "table", "path": "may.csv", "columns": {"item_id": "sku"}}
    (tmp_path / "shop.json").write_text(
        json.dumps({"data": {"source": source, "candidates": {"type": "uniform", "count": 2}}})
    )
    call("data", "append", "shop.json", "june.csv", "-q")
    found = as_json(call("data", "append", "shop-appended.json", "july.csv", "--to", "all.json", "-q", "--json"))
    assert found["before_and_after"]["events"] == [60, 90]
    assert load_spec("all.json").data.source.new.columns == {"item_id": "sku"}


def test_append_overwrites_no_spec_and_leaves_none_where_the_log_is_bad(call, log, tmp_path):
    (tmp_path / "june.csv").write_text(events(["d"], start=5))
    (tmp_path / "bad.csv").write_text("user_id,item_id,timestamp\n")
    assert "empty" in call("data", "append", "shop.json", "bad.csv", "-q", code=2).stderr
    assert not (tmp_path / "shop-appended.json").exists()
    assert "would write shop-appended.json" in call("data", "append", "shop.json", "june.csv", "--dry-run").stdout
    (tmp_path / "shop-appended.json").write_text("mine")
    message = call("data", "append", "shop.json", "june.csv", "-q", code=2).stderr
    assert "shop-appended.json exists; name another file with --to" in message
    assert (tmp_path / "shop-appended.json").read_text() == "mine"
