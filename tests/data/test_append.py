"""Appending: rows that were given out stay, and everything else is as if prepared at once."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from gensr.data.config import FullConfig, UniformConfig
from gensr.data.dataset import Dataset
from gensr.data.prepare import prepare
from gensr.data.sources.config import AppendConfig
from gensr.data.split import HELD_OUT
from gensr.errors import BadInputError
from gensr.spec import DataSpec
from tests.data.logs import ColumnedSource, MemorySource, random_rows, recs, searches

LISTS = (UniformConfig(count=2), FullConfig())


def spec_of(source, **options):
    return DataSpec(source=source, candidates=LISTS, **options)


def appended(old, new, folder, *, items=(12, 12), **options):
    base, more = (MemorySource(rows=tuple(rows), items=n) for rows, n in zip((old, new), items, strict=True))
    return prepare(spec_of(AppendConfig(base=base, new=more), **options), folder)


def content(data: Dataset):
    """What the data say, by raw ids: per event what it is, what it sees and is for; per request its candidates."""
    users, items, queries = data.user_ids, data.catalogue.item_ids, data.catalogue.queries
    events = [
        (users[data.user[e]], items[data.item[e]], int(data.time[e]), int(data.task[e]), queries[data.query[e]])
        for e in range(data.num_events)
    ]
    seen = [
        [events[at] for at, real in zip(*pair, strict=True) if real]
        for pair in zip(*data.history(np.arange(data.num_events), 50), strict=True)
    ]
    told = sorted(zip(events, data.ordinal.tolist(), data.split.tolist(), map(str, seen), strict=True), key=str)
    lists = {
        (name, split.label, str(events[event]), int(data.ordinal[event])): [items[i] for i in row if i]
        for name in data.candidate_names
        for split in HELD_OUT
        for event, row in zip(
            data.candidates(name).lists[split][0], np.asarray(data.candidates(name).lists[split][1]), strict=True
        )
    }
    if "full" in data.candidate_names:  # in catalogue order, which is a matter of numbers
        lists = {key: sorted(row) if key[0] == "full" else row for key, row in lists.items()}
    texts = sorted(zip(items, data.catalogue.titles, data.catalogue.categories, strict=True))
    return told, lists, texts


@settings(max_examples=15, deadline=None)
@given(old=random_rows(), new=st.lists(random_rows(), max_size=1), core=st.sampled_from([0, 2]))
def test_appending_equals_preparing_everything_at_once(old, new, core, tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    new = [(user, item, time + 3, *rest) for user, item, time, *rest in (new[0] if new else recs("z", "4 5 6"))]
    core = {"users": core}
    try:
        at_once = prepare(spec_of(MemorySource(rows=tuple(old + new)), core=core), folder / "all")
    except BadInputError:  # the core may leave nothing, in both ways alike
        with pytest.raises(BadInputError):
            appended(old, new, folder / "d", core=core)
        return
    grown = appended(old, new, folder / "d", core=core)
    assert content(grown) == content(at_once)
    assert grown.manifest["counts"] == at_once.manifest["counts"]
    audits = [data.manifest["audit"] for data in (grown, at_once)]
    assert audits[0]["splits"] == audits[1]["splits"]
    assert audits[0]["log"] == audits[1]["log"]


@settings(max_examples=12, deadline=None)
@given(old=random_rows(), new=random_rows(), core=st.sampled_from([0, 2, 3]))
def test_rows_that_were_given_out_stay(old, new, core, tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    new = [(f"new {user}" if user > "b" else user, item, time + 9, *rest) for user, item, time, *rest in new]
    core = {"users": core, "items": core}
    try:
        base = prepare(spec_of(MemorySource(rows=tuple(old), items=9), core=core), folder / "base")
        grown = appended(old, new, folder / "d", items=(9, 12), core=core)
    except BadInputError as error:  # a core leaves few items, or nothing
        assume(not any(words in str(error) for words in ("too few items", "leaves nothing", "nothing can be held out")))
        raise
    pairs = (
        (base.user_ids, grown.user_ids),
        (base.catalogue.item_ids, grown.catalogue.item_ids),
        (base.catalogue.queries, grown.catalogue.queries),
    )
    for before, after in pairs:
        assert after[: len(before)] == list(before)
        assert len(set(after)) == len(after)


def entries(data: Dataset):
    """What stands in histories: per user the entries, each as the items, times and orders of its events."""
    items = data.catalogue.item_ids
    events = [(items[data.item[e]], int(data.time[e]), int(data.order[e])) for e in range(data.num_events)]
    parts = [events[start:end] for start, end in itertools.pairwise(data.starts)]
    return sorted((data.user_ids[data.user[start]], part) for start, part in zip(data.starts, parts, strict=False))


def test_sessions_orders_and_given_splits_move_with_their_events(tmp_path):
    def source(rows, splits):
        pages = tuple("p" if task == "src" else "" for *_, task, _ in rows)
        return ColumnedSource(rows=tuple(rows), sessions=pages, orders=tuple(range(len(rows))), splits=splits)

    old = searches("zz", "1 2 3") + recs("zz", "4 5 6 7", start=5)
    new = searches("zz", "8") + searches("a", "1 2", "other") + recs("a", "3 4 5", start=5)
    parts = source(old, (0, 0, 0, 0, 0, 1, 2)), source(new, (0, 0, 0, 0, 1, 2))
    everything = source(old + new, (0, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 1, 2))
    orders = tuple(range(len(old))) + tuple(range(len(new)))
    at_once = prepare(spec_of(everything.model_copy(update={"orders": orders}), split="given"), tmp_path / "all")
    grown = prepare(spec_of(AppendConfig(base=parts[0], new=parts[1]), split="given"), tmp_path / "d")
    assert grown.user_ids == ["", "zz", "a"]
    assert at_once.user_ids == ["", "a", "zz"]
    assert entries(grown) == entries(at_once)
    assert max(len(part) for _, part in entries(grown)) == 4
    assert content(grown) == content(at_once)


def test_new_texts_replace_old_ones_and_the_report_tells(tmp_path):
    old = MemorySource(rows=tuple(recs("u", "1 2 3")), catalogue=(("i1", "old", "A"), ("i2", "", ""), ("i3", "c", "")))
    new = MemorySource(
        rows=tuple(recs("v", "1 2 9", 5)), catalogue=(("i1", "new", ""), ("i2", "b", ""), ("i9", "z", ""))
    )
    spec = DataSpec(source=AppendConfig(base=old, new=new), candidates=(UniformConfig(count=1),))
    data = prepare(spec, tmp_path / "d")
    assert list(data.catalogue.titles) == ["", "new", "b", "c", "z"]
    assert data.catalogue.categories[1] == "A"
    assert data.manifest["source"]["appended"] == {
        "events": 3, "new_items": 1, "items_with_new_text": 2, "items_of_both": 2,
    }  # fmt: skip


def test_appending_twice_keeps_both_generations(tmp_path):
    first, second, third = (
        MemorySource(rows=tuple(recs(user, "1 2 3", at))) for at, user in enumerate(("m", "b", "a"))
    )
    once = AppendConfig(base=first, new=second)
    data = prepare(spec_of(AppendConfig(base=once, new=third)), tmp_path / "d")
    assert data.user_ids == ["", "m", "b", "a"]


def test_a_log_can_grow_every_day_for_months():
    source = MemorySource(rows=tuple(recs("u", "1 2 3")))
    for day in range(130):
        source = AppendConfig(base=source, new=MemorySource(rows=tuple(recs(f"u{day}", "1", day))))
    assert source.read().events["generation"].to_pylist() == [0, 0, 0, *range(1, 131)]


def test_logs_that_count_time_differently_cannot_be_joined(tmp_path):
    unix = MemorySource(rows=tuple(recs("v", "1 2 3", 1_700_000_000)))
    source = AppendConfig(base=MemorySource(rows=tuple(recs("u", "1 2 3"))), new=unix)
    with pytest.raises(BadInputError, match=r"new counts time in s \(UTC\), data\.source\.base in no known unit"):
        source.read()


def test_a_sample_of_users_cannot_grow(tmp_path):
    with pytest.raises(BadInputError, match=r"data\.users draws a sample .* append to the whole log"):
        appended(recs("u", "1 2 3") + recs("v", "1 2 3"), recs("w", "1 2 3"), tmp_path / "d", users=1)


def test_identity_follows_both_logs():
    a, b = (MemorySource(rows=tuple(recs(user, "1 2 3"))) for user in "ab")
    assert AppendConfig(base=a, new=b).identity() != AppendConfig(base=b, new=a).identity()
    assert json.loads(spec_of(AppendConfig(base=a, new=b)).model_dump_json())["source"]["base"]["type"] == "memory"
