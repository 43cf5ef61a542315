"""Preparation as a whole: interrupted anywhere, done by two at once, and used from end to end."""

from __future__ import annotations

import json
import threading
from typing import ClassVar

import pytest
from click.testing import CliRunner

from gensr.cache import StageCache
from gensr.cli.main import cli
from gensr.data.config import UniformConfig
from gensr.data.prepare import prepare
from gensr.data.sources.config import AppendConfig
from gensr.errors import BadInputError
from gensr.spec import DataSpec
from tests.data.logs import MemorySource, data_spec, recs, searches

ROWS = recs("u", "1 2 3 4") + searches("u", "5 6 7", start=9) + recs("v", "2 3 4", start=2)


class CountedSource(MemorySource):
    reads: ClassVar[list[str]] = []

    def read(self):
        self.reads.append(self.identity())
        return super().read()


@pytest.fixture
def spec():
    """Something appended, so that rows are numbered anew; its two logs count how often they are read."""
    CountedSource.reads.clear()
    base, new = CountedSource(rows=tuple(ROWS)), CountedSource(rows=tuple(recs("a", "1 2 3", start=20)))
    return DataSpec(source=AppendConfig(base=base, new=new), candidates=(UniformConfig(count=2),))


STAGES = (
    "arrange", "_split", "_save", "CandidateList.draw", "CandidateList.save", "renumber", "audit", "measure_floors",
)  # fmt: skip


@pytest.mark.parametrize("stage", STAGES)
def test_an_interruption_leaves_nothing_and_the_next_try_starts_from_the_log(stage, spec, tmp_path, monkeypatch):
    cache = StageCache(tmp_path / "runs" / ".cache")

    def interrupt(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(f"gensr.data.prepare.{stage}", interrupt)
        with pytest.raises(KeyboardInterrupt):
            cache.data(spec)
    assert [entry.name.split("-")[0] for entry in cache.folder.iterdir()] == ["log", "log"]
    assert cache.data(spec).num_events == len(ROWS) + 3
    assert len(CountedSource.reads) == 2


def test_an_interrupted_reading_leaves_no_trace(tmp_path):
    class Interrupted(MemorySource):
        def read(self):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        StageCache(tmp_path / "runs" / ".cache").data(DataSpec(source=Interrupted(rows=tuple(ROWS))))
    assert list(tmp_path.iterdir()) == []


def test_two_at_once_read_and_prepare_once(spec, tmp_path):
    found, start = [], threading.Barrier(4)

    def work():
        start.wait()
        found.append(StageCache(tmp_path / ".cache").data(spec).fingerprint)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [found[0]] * 4
    assert len(CountedSource.reads) == 2
    assert sorted(entry.name.split("-")[0] for entry in (tmp_path / ".cache").iterdir()) == ["data", "log", "log"]


def test_what_a_sample_of_users_leaves_out_is_counted(tmp_path):
    report = prepare(data_spec(ROWS, users=1), tmp_path / "d").manifest["source"]["sample"]
    assert report["users_left_out"] == 1
    assert report["events_left_out"] in (3, 7)


def test_a_list_that_the_spec_does_not_name_is_named_where_it_cannot_be_drawn(tmp_path):
    spec = DataSpec(source=MemorySource(rows=tuple(ROWS)), candidates="full")
    message = (
        r"data\.candidates: uniform-99 \(one uniform list is always drawn; the spec may say which\): too few items"
    )
    with pytest.raises(BadInputError, match=message + ".* Ask for at most 5, or bring more items"):
        prepare(spec, tmp_path / "d")


def test_several_lists_go_from_a_log_to_compared_runs(tmp_path, monkeypatch):
    """Also the whole catalogue, whose rows are made on demand, and sessions with several clicks."""
    monkeypatch.chdir(tmp_path)
    rows = ["user_id,item_id,timestamp,task,query,session"]
    for user in range(12):
        for at in range(4):
            start = 1_700_000_000 + 90_000 * at + user
            rows += [f"u{user},i{(user + at) % 20},{start},recommendation,,"]
            rows += [f"u{user},i{(user + 5 * k) % 20},{start + 60 + k},search,red shoe,s{at}" for k in range(2)]
    (tmp_path / "log.csv").write_text("\n".join(rows) + "\n")
    (tmp_path / "items.csv").write_text(
        "item_id,title,categories\n" + "".join(f"i{n},shoe {n},Shop|Kind {n % 3}\n" for n in range(20))
    )
    lists = [{"type": "uniform", "count": 5}, {"type": "same_category", "count": 5}, "full"]
    names = ["uniform-5", "same_category-5", "full"]
    spec = {
        "data": {"source": {"type": "table", "path": "log.csv", "items": "items.csv"}, "candidates": lists},
        "ranker": "popularity",
        "evaluation": {"floors": ["random", "in_history", "cf"], "bootstrap": 0},
    }
    (tmp_path / "spec.json").write_text(json.dumps(spec))

    def call(*args):
        result = CliRunner().invoke(cli, [*args], catch_exceptions=False)
        assert result.exit_code == 0, result.stderr
        return result.stdout

    call("build", "spec.json")
    call("build", "spec.json", "--set", "ranker=lexical")
    one, other = sorted(path.parent for path in (tmp_path / "runs").glob("*/metrics.json"))
    metrics = json.loads((one / "metrics.json").read_text())
    assert list(metrics["candidates"]) == names
    assert "2023-11-" in (one / "report.md").read_text()
    measured = json.loads(call("evaluate", str(one), "--candidates", "full", "--json"))
    assert measured["candidates"]["full"] == metrics["candidates"]["full"]
    compared = call("compare", str(one), str(other))
    assert all(f"candidates {name}" in compared for name in names)
    assert "2023-11-" in call("data", "show", "spec.json")
