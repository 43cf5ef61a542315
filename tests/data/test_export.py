"""Prepared data in the formats of others: what is written is what was prepared, and gensr reads it back as it was."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal
from urllib.parse import unquote

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings

from gensr.data.config import FullConfig, UniformConfig
from gensr.data.dataset import ARRAYS, SOME_ARRAYS
from gensr.data.export import FORMATS, write_export
from gensr.data.loader import RequestLoader
from gensr.data.log import EVENTS, ITEMS, OPTIONAL, EventLog, check_log
from gensr.data.prepare import prepare
from gensr.data.sources.config import SourceConfig
from gensr.data.split import Split
from gensr.data.tasks import Task
from gensr.errors import BadInputError
from gensr.evaluation.trec import TrecExport
from gensr.spec import DataSpec
from gensr.testing.data import tiny_dataset
from tests.data.logs import prepared, random_rows

ODD = ("007", "7", 'a "b"', "café 100%", "x\u2003y")
"""Item ids that formats stumble over."""


class OddSource(SourceConfig):
    """A log with sessions of several clicks, an order within timestamps, twins, and texts full of separators."""

    type: Literal["odd"] = "odd"
    tabs: bool = False

    def identity(self) -> str:
        return self.model_dump_json()

    def read(self) -> EventLog:
        rows = []
        for user in ("u1", "u 2", "u3"):
            for day in range(8):
                time = 1_700_000_000 + 86_400 * day
                item = ODD[day % 5]
                # Two clicks on one page; a purchase and the search it came from; later that moment, another purchase.
                rows += [
                    (user, item, time, Task.SEARCH, 'tea  "pot"', f"s{user}{day}", 0),
                    (user, ODD[(day + 1) % 5], time + 5, Task.SEARCH, 'tea "pot"', f"s{user}{day}", 0),
                    (user, item, time, Task.RECOMMENDATION, "", "", 0),
                    (user, f"i{day}", time, Task.RECOMMENDATION, "", "", 1),
                ]
        names = ["user_id", "item_id", "timestamp", "task", "query", "session", "order"]
        schema = pa.schema([*EVENTS, OPTIONAL.field("session"), OPTIONAL.field("order")])
        columns = dict(zip(names, zip(*rows, strict=True), strict=True))
        events = pa.table([pa.array(columns[field.name], field.type) for field in schema], schema=schema)
        ids = [*ODD, *(f"i{n}" for n in range(20))] + (["tab\there"] if self.tabs else [])
        titles = [f'Tea\t"pot"\nno. {n}' if n % 2 else "" for n in range(len(ids))]
        categories = ["Home Kitchen|Tea||Gifts"] * len(ids)
        return check_log(events, pa.table([ids, titles, categories], schema=ITEMS), {"made": "odd"})


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    return tiny_dataset(tmp_path_factory.mktemp("demo") / "data")


@pytest.fixture(scope="module")
def odd(tmp_path_factory):
    spec = DataSpec(source=OddSource(), candidates=(UniformConfig(count=3), FullConfig()))
    return prepare(spec, tmp_path_factory.mktemp("odd") / "data")


@pytest.fixture(params=["demo", "odd"])
def dataset(request):
    return request.getfixturevalue(request.param)


def read_cells(path, **options):
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.reader(file, delimiter="\t", **options))


def raw_events(dataset):
    """User, item, time, task, query of every event, as raw ids and texts."""
    return [
        (dataset.user_ids[user], dataset.catalogue.item_ids[item], int(time), Task(task).label, query)
        for user, item, time, task, query in zip(
            dataset.user.tolist(),
            dataset.item.tolist(),
            dataset.time.tolist(),
            dataset.task.tolist(),
            dataset.catalogue.queries.take(dataset.query),
            strict=True,
        )
    ]


# All formats


@pytest.mark.parametrize("form", FORMATS)
def test_the_folder_says_where_it_comes_from(demo, tmp_path, form):
    found = write_export(demo, form, tmp_path / "out")
    assert json.loads((tmp_path / "out" / "export.json").read_text()) == found
    assert found["fingerprint"] == demo.fingerprint
    assert found["candidates"] == demo.manifest["candidates"]
    written = {path.name for path in (tmp_path / "out").iterdir()}
    assert written == {*found["rows"], "export.json"}


@pytest.mark.parametrize("form", FORMATS)
def test_equal_data_give_equal_bytes(demo, tmp_path, form):
    for name in ("one", "other"):
        write_export(demo, form, tmp_path / name / "log")
    for path in (tmp_path / "one" / "log").iterdir():
        if path.name != "export.json":  # it says where the folder lies
            assert path.read_bytes() == (tmp_path / "other" / "log" / path.name).read_bytes()


def test_a_folder_that_exists_and_an_unknown_format_are_refused(demo, tmp_path):
    (tmp_path / "mine").mkdir()
    with pytest.raises(BadInputError, match="mine exists; an export needs a folder of its own"):
        write_export(demo, "parquet", tmp_path / "mine")
    with pytest.raises(BadInputError, match="no format 'parket'; did you mean 'parquet'"):
        write_export(demo, "parket", tmp_path / "new")
    assert not list((tmp_path / "mine").iterdir())


def test_nothing_is_left_of_an_export_that_fails(tmp_path):
    dataset = prepare(DataSpec(source=OddSource(tabs=True), candidates=(UniformConfig(count=3),)), tmp_path / "data")
    with pytest.raises(BadInputError, match=r"item id 'tab\\there' holds a tab or a line end.*use --format parquet"):
        write_export(dataset, "recbole", tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


# Parquet


def test_parquet_reads_back_to_the_same_arrays_texts_and_candidates(dataset, tmp_path):
    found = write_export(dataset, "parquet", tmp_path / "out")
    again = prepare(DataSpec.model_validate(found["read_back"]), tmp_path / "again")
    for name in (*ARRAYS, *SOME_ARRAYS):
        one, other = getattr(dataset, name), getattr(again, name)
        assert (one is None) == (other is None), name
        assert one is None or np.array_equal(one, other), name
    assert list(dataset.user_ids) == list(again.user_ids)
    for name in ("item_ids", "titles", "categories", "queries", "text"):
        assert list(getattr(dataset.catalogue, name)) == list(getattr(again.catalogue, name))
    assert again.manifest["candidates"] == dataset.manifest["candidates"]
    assert again.scale == dataset.scale


@settings(max_examples=8, deadline=None)
@given(random_rows())
def test_any_log_reads_back_to_the_same_arrays(rows):
    with TemporaryDirectory() as folder:
        dataset = prepared(rows, Path(folder) / "data")
        found = write_export(dataset, "parquet", Path(folder) / "out")
        again = prepare(DataSpec.model_validate(found["read_back"]), Path(folder) / "again")
        for name in ARRAYS:
            assert np.array_equal(getattr(dataset, name), getattr(again, name)), name
        assert again.manifest["candidates"] == dataset.manifest["candidates"]


def test_parquet_has_raw_ids_and_words_and_only_the_columns_that_the_log_had(demo, odd, tmp_path):
    for dataset, name, more in ((demo, "demo", []), (odd, "odd", ["session", "order"])):
        write_export(dataset, "parquet", tmp_path / name)
        table = pq.read_table(tmp_path / name / "interactions.parquet")
        assert table.column_names == ["user_id", "item_id", "timestamp", "task", "query", "split", *more]
        rows = zip(*(table[column].to_pylist() for column in table.column_names[:5]), strict=True)
        assert [(*row[:4], row[4] or "") for row in rows] == raw_events(dataset)
        assert table["split"].to_pylist() == [Split(code).label for code in dataset.split]
        assert table.filter(pa.array(dataset.task == Task.RECOMMENDATION))["query"].null_count > 0


# RecBole


def test_recbole_files_hold_all_events_and_survive_quotes_and_separators(dataset, tmp_path):
    write_export(dataset, "recbole", tmp_path / "shop")
    header, *rows = read_cells(tmp_path / "shop" / "shop.inter")
    assert header == ["user_id:token", "item_id:token", "timestamp:float", "task:token", "query:token_seq"]
    assert [(u, i, int(time), task, query) for u, i, time, task, query in rows] == raw_events(dataset)
    header, *rows = read_cells(tmp_path / "shop" / "shop.item")
    assert header == ["item_id:token", "title:token_seq", "categories:token_seq"]
    assert [row[0] for row in rows] == list(dataset.catalogue.item_ids)[1:]
    assert [row[1].split() for row in rows] == [title.split() for title in dataset.catalogue.titles][1:]


def test_the_demo_has_twins_of_held_out_events(demo):
    assert len(demo.requests(Split.UNUSED))


def test_recbole_category_levels_are_tokens(odd, tmp_path):
    write_export(odd, "recbole", tmp_path / "shop")
    assert read_cells(tmp_path / "shop" / "shop.item")[1][2] == "Home_Kitchen Tea Gifts"


def test_recbole_split_files_divide_the_events_and_keep_twins_out_of_training(dataset, tmp_path):
    found = write_export(dataset, "recbole", tmp_path / "shop")
    whole = read_cells(tmp_path / "shop" / "shop.inter")[1:]
    for split in Split:
        file = tmp_path / "shop" / f"shop.{split.label}.inter"
        part = read_cells(file)[1:] if file.exists() else []
        assert part == [whole[event] for event in dataset.requests(split)]
    assert found["benchmark_filename"] == ["train", "valid", "test"]


def test_recbole_files_read_back_to_the_same_events(demo, tmp_path):
    found = write_export(demo, "recbole", tmp_path / "shop")
    again = prepare(DataSpec.model_validate(found["read_back"]), tmp_path / "again")
    for name in ("user", "item", "task", "query", "time", "ordinal", "split", "past", "offsets"):
        assert np.array_equal(getattr(demo, name), getattr(again, name)), name
    assert list(demo.user_ids) == list(again.user_ids)
    assert list(demo.catalogue.item_ids) == list(again.catalogue.item_ids)
    assert again.manifest["candidates"] == demo.manifest["candidates"]


# TREC


def lines(path: Path) -> list[list[str]]:
    return [line.split(" ") for line in path.read_text(encoding="utf-8").splitlines()]


def test_trec_query_ids_documents_and_qrels_are_those_of_run_files(dataset, tmp_path):
    write_export(dataset, "trec", tmp_path / "out")
    listed = dataset.candidates(dataset.candidate_names[0])
    batches = RequestLoader(dataset, 20).evaluation(listed, Split.TEST, batch_size=64)
    with TrecExport(tmp_path / "run", tmp_path / "qrels", dataset.catalogue.item_ids, tag="x") as export:
        for batch in batches:
            export.add(batch, np.zeros(batch.cand.shape, np.float32))
    ours = [line for task in Task for line in lines(tmp_path / "out" / f"qrels-test-{task.label}.txt")]
    assert sorted(ours) == sorted(lines(tmp_path / "qrels"))
    ours = [
        line for task in Task for line in lines(tmp_path / "out" / f"candidates-{listed.name}-test-{task.label}.txt")
    ]
    assert sorted((line[0], line[2]) for line in ours) == sorted((line[0], line[2]) for line in lines(tmp_path / "run"))


def test_trec_candidates_are_the_stored_ones_in_stored_order(odd, tmp_path):
    write_export(odd, "trec", tmp_path / "out")
    events, items = odd.candidates("uniform-3").lists[Split.VALID]
    asked = odd.task[events] == Task.SEARCH
    found = lines(tmp_path / "out" / "candidates-uniform-3-valid-search.txt")
    ids = odd.catalogue.item_ids
    expected = [
        [f"search-{event}", "Q0", ids[item], str(place), "0", "uniform-3"]
        for event, row in zip(events[asked], items[asked], strict=True)
        for place, item in enumerate(row.tolist(), start=1)
    ]
    assert [[unquote(cell) if at == 2 else cell for at, cell in enumerate(line)] for line in found] == expected


def test_trec_leaves_out_lists_that_are_made_on_demand_and_says_so(odd, tmp_path):
    found = write_export(odd, "trec", tmp_path / "out")
    assert found["lists_left_out"] == ["full"]
    assert not list((tmp_path / "out").glob("candidates-full-*"))


def test_trec_topics_are_queries_and_visible_histories(dataset, tmp_path):
    write_export(dataset, "trec", tmp_path / "out")
    for split in (Split.VALID, Split.TEST):
        events = dataset.requests(split, Task.SEARCH)
        topics = [
            line
            for line in read_cells(
                tmp_path / "out" / f"topics-{split.label}-search.tsv", quotechar=None, quoting=csv.QUOTE_NONE
            )
        ]
        queries = dataset.catalogue.queries.take(dataset.query[events])
        assert topics == [[f"search-{event}", query] for event, query in zip(events, queries, strict=True)]
        events = dataset.requests(split, Task.RECOMMENDATION)
        positions, real = dataset.history(events, 20)
        topics = read_cells(
            tmp_path / "out" / f"topics-{split.label}-recommendation.tsv", quotechar=None, quoting=csv.QUOTE_NONE
        )
        for (name, text), event, seen, some in zip(topics, events, positions, real, strict=True):
            assert name == f"recommendation-{event}"
            expected = dataset.catalogue.item_ids.take(dataset.item[seen[some]])
            assert [unquote(word) for word in text.split(" ") if word] == expected


def test_trec_corpus_is_the_item_text(dataset, tmp_path):
    write_export(dataset, "trec", tmp_path / "out")
    corpus = [json.loads(line) for line in (tmp_path / "out" / "corpus.jsonl").read_text().splitlines()]
    assert [unquote(entry["id"]) for entry in corpus] == list(dataset.catalogue.item_ids)[1:]
    assert [entry["contents"] for entry in corpus] == list(dataset.catalogue.text)[1:]
    assert all(len(entry["id"].split()) == 1 for entry in corpus)
