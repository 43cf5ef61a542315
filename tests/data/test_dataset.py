from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gensr.data.config import UniformConfig
from gensr.data.dataset import SCHEMA, Dataset, Split
from gensr.data.prepare import data_fingerprint, prepare
from gensr.data.tasks import Task
from gensr.errors import BadInputError
from tests.data.logs import ColumnedSource, data_spec, prepared, random_rows, recs, searches

ROWS = recs("zoe", "3 1 2 5") + searches("adam", "7 8 9", query="red  thing ") + searches("zoe", "2", "blue", start=2)


def test_rows_are_numbered_by_raw_id_the_shorter_first(tmp_path):
    data = prepared(ROWS, tmp_path / "d")
    assert data.user_ids == ["", "zoe", "adam"]
    assert data.catalogue.queries == ["", "blue", "red thing"]
    assert data.catalogue.item_ids == ["", *(f"i{n}" for n in range(1, 13))]
    assert (data.num_users, data.num_items, data.num_queries, data.num_events) == (2, 12, 2, 8)
    assert data.offsets.tolist() == [0, 0, 5, 8]
    assert data.item.tolist() == [3, 1, 2, 2, 5, 7, 8, 9]
    assert data.ordinal.tolist() == [0, 1, 2, 2, 3, 0, 1, 2]
    assert data.query.tolist() == [0, 0, 0, 1, 0, 2, 2, 2]


@settings(max_examples=25, deadline=None)
@given(rows=random_rows())
def test_raw_ids_round_trip(rows, tmp_path_factory):
    data = prepared(rows, tmp_path_factory.mktemp("data") / "d")
    items, queries = data.catalogue.item_ids, data.catalogue.queries
    stored = [
        (data.user_ids[u], items[i], int(t), "src" if task == Task.SEARCH else "rec", queries[q])
        for u, i, t, task, q in zip(data.user, data.item, data.time, data.task, data.query, strict=True)
    ]
    assert sorted(stored) == sorted(rows)


def test_arrays_are_memory_mapped_and_typed(tmp_path):
    data = prepared(ROWS, tmp_path / "d")
    kinds = dict(
        user="i4", item="i4", task="i1", query="i4", time="i8", ordinal="i4", split="i1", past="i8", offsets="i8"
    )
    for name, kind in kinds.items():
        array = getattr(data, name)
        assert isinstance(array.base, np.memmap)
        assert array.dtype == np.dtype(kind)
    for array in data.candidates("uniform-2").lists[Split.TEST]:
        assert isinstance(array, np.memmap)


def test_equal_specs_give_equal_bytes(tmp_path):
    first, second = prepared(ROWS, tmp_path / "a"), prepared(ROWS, tmp_path / "b")
    for path in [*sorted(first.folder.rglob("*.npy")), first.folder / "manifest.json"]:
        assert path.read_bytes() == (second.folder / path.relative_to(first.folder)).read_bytes()


def test_equal_events_of_several_splits_are_ordered_whatever_the_file_s_order(tmp_path):
    rows = (*recs("u", "1 2 3"), *recs("u", "4") * 2)
    splits = []
    for name, codes in (("one", (0, 0, 1, 0, 2)), ("other", (0, 0, 1, 2, 0))):
        source = ColumnedSource(rows=rows, splits=codes)
        spec = data_spec(ROWS, split="given").model_copy(update={"source": source})
        splits.append(prepare(spec, tmp_path / name).split.tolist())
    assert splits[0] == splits[1]


@settings(max_examples=20, deadline=None)
@given(rows=random_rows(), random=st.randoms(use_true_random=False))
def test_shuffled_rows_give_the_same_data(rows, random, tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    one = prepared(rows, folder / "a")
    other = prepared(random.sample(rows, len(rows)), folder / "b")
    for path in sorted(one.folder.rglob("*")):
        if path.is_file() and path.name != "manifest.json":
            assert path.read_bytes() == (other.folder / path.relative_to(one.folder)).read_bytes(), path.name
    for part in ("counts", "candidates", "audit", "time", "split"):
        assert one.manifest[part] == other.manifest[part]


@settings(max_examples=40, deadline=None)
@given(rows=random_rows())
def test_no_request_sees_an_event_of_its_own_ordinal_or_later_and_no_candidate_was_touched(rows, tmp_path_factory):
    data = prepared(rows, tmp_path_factory.mktemp("data") / "d")
    events = np.arange(data.num_events)
    positions, real = data.history(events, 50)
    seen, asked = np.nonzero(real)[0], positions[real]
    assert (data.user[asked] == data.user[seen]).all()
    assert (data.ordinal[asked] < data.ordinal[seen]).all()
    assert (data.time[asked] < data.time[seen]).all()
    past = [int(((data.user == data.user[e]) & (data.time < data.time[e])).sum()) for e in events]
    assert real.sum(axis=1).tolist() == past
    for requests, candidates in data.candidates("uniform-2").lists.values():
        for event, row in zip(requests, candidates, strict=True):
            touched = set(data.item[data.user == data.user[event]])
            assert set(row) & touched == {data.item[event]}


def test_matrices_hold_training_events_only(tmp_path):
    data = prepared(recs("u", "1 1 2 3 4") + searches("u", "5 5 6 7", start=9), tmp_path / "d")
    ones = data.user_items()
    assert ones.shape == (2, 13)
    assert ones.dtype == np.float32
    assert sorted(zip(*ones.nonzero(), strict=True)) == [(1, 1), (1, 2)]
    assert ones.max() == 1
    assert data.query_clicks()[1, 5] == 2
    assert data.query_clicks().sum() == 2
    assert data.item_counts(Task.RECOMMENDATION).tolist()[:4] == [0, 2, 1, 0]


def test_requests_partition_the_events(tmp_path):
    data = prepared(ROWS, tmp_path / "d")
    parts = [data.requests(split) for split in Split]
    assert sorted(np.concatenate(parts).tolist()) == list(range(data.num_events))
    searches_only = data.requests(Split.TEST, Task.SEARCH)
    assert (data.task[searches_only] == Task.SEARCH).all()


def test_users_are_drawn_before_queries_and_keep_the_whole_catalogue(tmp_path):
    rows = [row for n in range(20) for row in recs(f"u{n}", "1 2 3 4") + searches(f"u{n}", "5 6 7", f"query {n}")]
    data = prepared(rows, tmp_path / "d", users=5)
    assert data.num_users == 5
    assert data.num_items == 12
    assert sorted(data.catalogue.queries[1:]) == sorted(f"query {raw[1:]}" for raw in data.user_ids[1:])
    assert data.user_ids == prepared(rows, tmp_path / "same", users=5).user_ids
    assert data.user_ids != prepared(rows, tmp_path / "other", users=5, seed=7).user_ids


def test_asking_for_more_users_than_the_log_has_is_an_error(tmp_path):
    with pytest.raises(BadInputError, match=r"data\.users: 3 users asked for, the log has 2"):
        prepared(ROWS, tmp_path / "d", users=3)


def test_fingerprint_moves_with_the_log_and_the_options_that_matter():
    spec = data_spec(ROWS)
    base = data_fingerprint(spec)
    assert data_fingerprint(data_spec(ROWS)) == base
    assert data_fingerprint(spec.model_copy(update={"train_negatives": 9})) == base
    changes = [
        {"source": data_spec(ROWS[:-1]).source},
        {"item_text": ("title",)},
        {"seed": 1},
        {"users": 2},
        {"max_history": 5},
        {"candidates": (UniformConfig(count=3),)},
    ]
    moved = {data_fingerprint(spec.model_copy(update=change)) for change in changes}
    assert len(moved | {base}) == len(changes) + 1


def test_an_existing_folder_is_opened_again_and_never_overwritten(tmp_path):
    first = prepared(ROWS, tmp_path / "d")
    written = (first.folder / "manifest.json").stat().st_mtime_ns
    assert prepared(ROWS, tmp_path / "d").fingerprint == first.fingerprint
    assert (first.folder / "manifest.json").stat().st_mtime_ns == written
    with pytest.raises(BadInputError, match="prepared from another spec"):
        prepared(ROWS[:-1], tmp_path / "d")
    (tmp_path / "mine").mkdir()
    with pytest.raises(BadInputError, match="holds no prepared data"):
        prepared(ROWS, tmp_path / "mine")


def test_nothing_half_written_stays_when_preparing_fails(tmp_path, monkeypatch):
    def fail(*_):
        raise OSError("disk gone")

    monkeypatch.setattr("gensr.data.prepare.audit", fail)
    with pytest.raises(OSError, match="disk gone"):
        prepared(ROWS, tmp_path / "d")
    assert list(tmp_path.iterdir()) == []


def test_another_layout_must_be_prepared_anew(tmp_path):
    folder = prepared(ROWS, tmp_path / "d").folder
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps(manifest | {"schema": 99}))
    with pytest.raises(BadInputError, match=f"has layout 99, this version reads {SCHEMA}: prepare the data again"):
        Dataset.open(folder)


def test_an_unknown_candidate_list_names_the_nearest(tmp_path):
    data = prepared(ROWS, tmp_path / "d")
    with pytest.raises(BadInputError, match="no candidate list 'uniform-3'; did you mean 'uniform-2'"):
        data.candidates("uniform-3")


def test_progress_goes_to_stderr(tmp_path, capsys):
    prepare(data_spec(ROWS), tmp_path / "d", progress=True)
    captured = capsys.readouterr()
    assert "drawing candidates uniform-2" in captured.err
    assert captured.out == ""


@pytest.mark.parametrize("name", ["past.npy", "users.parquet", "catalogue/queries.parquet", "catalogue/catalogue.json"])
def test_a_damaged_file_is_named_with_the_cure(tmp_path, name):
    folder = prepared(ROWS, tmp_path / "d").folder
    path = folder / name
    path.write_bytes(path.read_bytes()[:-2])
    named = path if "catalogue" not in name else path.parent
    with pytest.raises(BadInputError, match=f"{named} cannot be read, .* Delete {folder}; the next command"):
        _ = Dataset.open(folder).user_ids
