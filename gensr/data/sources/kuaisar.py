"""KuaiSAR: the one public log of a service with both a feed and a search, as its five CSV files are published.

Its words are anonymised numbers and its files are large: 20 million rows shown, of which about half were clicked. So
every block of rows is reduced at once to what is needed of it, ids stay numbers until the end, and each distinct query
is parsed once.
"""

from __future__ import annotations

from collections import defaultdict
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gensr.data.arrays import distinct
from gensr.data.log import EventLog, check_log, one_dictionary
from gensr.data.sources.kuaisar_files import Blocks, describe_follows, describe_users, joined, read_items, word_ids
from gensr.data.sources.published import KuaiSARConfig
from gensr.data.sources.text import Dropped, content_hash, find_file, find_optional
from gensr.data.tasks import Task
from gensr.errors import BadInputError

FEED, SEARCH, ITEM = "rec_inter.csv", "src_inter.csv", "item_features.csv"
USER, SOCIAL = "user_features.csv", "social_network.csv"
FEED_COLUMNS = {"user_id": pa.int64(), "item_id": pa.int64(), "timestamp": pa.float64(), "click": pa.float64()}
SEARCH_COLUMNS = {
    "user_id": pa.int64(),
    "search_session_id": pa.int64(),
    "search_session_timestamp": pa.float64(),
    "keyword": pa.string(),
    "item_id": pa.int64(),
    "click_cnt": pa.float64(),
    "item_type": pa.string(),
}
ZONE = "Asia/Shanghai"


def read_log(config: KuaiSARConfig) -> EventLog:
    """The clicks in the folder that `config` names, and the items.

    Raises:
        BadInputError: a file is missing or broken, no click is left, or `check_log` refuses the log.
    """
    folder, dropped = Path(config.path), Dropped()
    item_file = find_file(folder, ITEM)
    feed = _read_feed(find_file(folder, FEED), dropped)
    search = _read_search(find_file(folder, SEARCH), config, dropped)
    parts = (feed, search)
    if not any(len(part.user) for part in parts):
        why = dropped.reasons() or "Nothing was clicked"
        raise BadInputError(f"{folder}: no click is left of {sum(part.rows for part in parts):,} rows. {why}")
    shown = _overlap(feed, search)
    events = _events(feed, search)
    items, found = read_items(item_file, distinct(np.concatenate([part.item for part in parts])), config, dropped)
    report = {
        "files": {part.file: part.rows for part in parts} | {item_file.name: found.pop("rows")},
        "recommendation": feed.report,
        "search": search.report,
        "shown": shown,
        "items": found,
    }
    for name, describe in ((USER, describe_users), (SOCIAL, describe_follows)):
        if path := find_optional(folder, name):
            rows, report[name.removesuffix(".csv")] = describe(path, dropped)
            report["files"][path.name] = rows
    return check_log(events, items, report | {"dropped": dropped.report()}, time_unit="ms", time_zone=ZONE)


def identity(config: KuaiSARConfig) -> str:
    """See `SourceConfig.identity`."""
    needed = [find_file(config.path, name) for name in (FEED, SEARCH, ITEM)]
    others = [find_optional(config.path, name) for name in (USER, SOCIAL)]
    return content_hash(config.model_dump_json(exclude={"path"}), [*needed, *others])


def recognise(path: Path) -> Path | None:
    """The folder of the log if `path` is it, or one of its two files of events."""
    with suppress(OSError, BadInputError):
        folder = path if path.is_dir() else path.parent
        events = [find_optional(folder, name) for name in (FEED, SEARCH)]
        if None not in events and path in (folder, *events):
            return folder
    return None


@dataclass(frozen=True)
class _Clicks:
    """What is left of one of the two files of events.

    Attributes:
        file: its name.
        rows: rows read.
        user, item, time: int64 [clicks] each, in file order; times in Unix ms.
        users, items: sorted distinct ids of all shown rows, int64.
        report: counts.
    """

    file: str
    rows: int
    user: np.ndarray
    item: np.ndarray
    time: np.ndarray
    users: np.ndarray
    items: np.ndarray
    report: dict[str, int]


@dataclass(frozen=True)
class _Searches(_Clicks):
    """Clicks on results.

    Attributes:
        query: word ids, dictionary-encoded [clicks].
        session: int64 [clicks].
    """

    query: pa.DictionaryArray
    session: np.ndarray


def _read_feed(path: Path, dropped: Dropped) -> _Clicks:
    blocks, columns = Blocks(path, FEED_COLUMNS, dropped), defaultdict(list)
    for block, rows in blocks:
        user, item = block["user_id"].to_numpy(), block["item_id"].to_numpy()
        clicked = block["click"].to_numpy() == 1
        columns["all_users"].append(distinct(user))
        columns["all_items"].append(item)
        columns["user"].append(user[clicked])
        columns["item"].append(item[clicked])
        columns["time"].append(blocks.times(block["timestamp"].filter(pa.array(clicked)), rows[clicked]))
    filled = joined(columns)
    users, items = distinct(filled.pop("all_users")), distinct(filled.pop("all_items"))
    report = _counts(blocks.rows, users, items) | {"clicks": len(filled["user"])}
    return _Clicks(path.name, blocks.rows, **filled, users=users, items=items, report=report)


def _read_search(path: Path, config: KuaiSARConfig, dropped: Dropped) -> _Searches:
    blocks, columns, texts = Blocks(path, SEARCH_COLUMNS, dropped, optional=("keyword",)), defaultdict(list), []
    for block, rows in blocks:
        clicked, allowed = block["click_cnt"].to_numpy() > 0, _allowed(block, rows, config, blocks)
        columns["row"].append(rows)
        columns["user"].append(block["user_id"].to_numpy())
        columns["item"].append(block["item_id"].to_numpy())
        columns["session"].append(block["search_session_id"].to_numpy())
        columns["time"].append(blocks.times(block["search_session_timestamp"], rows))
        columns["clicked"].append(clicked)
        columns["allowed"].append(allowed)
        texts.append(pc.fill_null(block["keyword"], "").dictionary_encode())
    filled = joined(columns)
    row, clicked, allowed = (filled.pop(name) for name in ("row", "clicked", "allowed"))
    keyword = one_dictionary(pa.chunked_array(texts)).chunk(0)
    words = word_ids(keyword.dictionary)
    readable = words.is_valid().to_numpy(zero_copy_only=False)[keyword.indices.to_numpy()]
    blocks.drop("keyword is no list of word ids", row[~readable & (allowed | ~clicked)])  # the others are counted
    users, items = distinct(filled["user"]), distinct(filled["item"])
    group = _session_numbers(filled["session"], filled["user"])
    has_click = np.zeros(group.max(initial=-1) + 1, bool)
    has_click[group[clicked]] = True
    report = _counts(blocks.rows, users, items) | {
        "queries": pc.count_distinct(words).as_py(),
        "sessions": len(has_click),
        "sessions_with_a_click": int(has_click.sum()),
    }
    chosen = np.flatnonzero(clicked & allowed & readable)
    if config.unclicked_sessions == "first":
        first = _first_of_each(group, np.flatnonzero(allowed & readable & ~has_click[group]))
        report["sessions_given_a_click"] = len(first)
        chosen = np.union1d(chosen, first)
    if config.max_clicks is not None:
        late = _beyond(group[chosen], config.max_clicks)
        blocks.drop(f"clicked after the first {config.max_clicks} of its session", row[chosen[late]])
        chosen = chosen[~late]
    kept = {name: column[chosen] for name, column in filled.items()}
    query = pa.DictionaryArray.from_arrays(keyword.indices.take(pa.array(chosen)), pc.fill_null(words, ""))
    report["clicks"] = len(chosen)
    return _Searches(path.name, blocks.rows, **kept, query=query, users=users, items=items, report=report)


def _allowed(block: pa.RecordBatch, rows: np.ndarray, config: KuaiSARConfig, blocks: Blocks) -> np.ndarray:
    """Which rows show an item of a type that is kept, bool [rows]; clicks on others are counted as dropped."""
    if config.item_types is None:
        return np.ones(len(rows), bool)
    kinds = block["item_type"].dictionary_encode()
    code, names = kinds.indices.to_numpy(), kinds.dictionary.to_pylist()
    clicked = block["click_cnt"].to_numpy() > 0
    kept = np.array([name in config.item_types for name in names], bool)
    for kind in np.flatnonzero(~kept):
        blocks.drop(f"clicked, but of type {names[kind] or '(none)'}", rows[clicked & (code == kind)])
    allowed: np.ndarray = kept[code]
    return allowed


def _session_numbers(session: np.ndarray, user: np.ndarray) -> np.ndarray:
    """Number of each row's session, from 0 in order of first appearance: int32 [rows]."""
    codes = pa.array(user).dictionary_encode()
    pairs = _codes(session).astype(np.int64) * max(len(codes.dictionary), 1) + codes.indices.to_numpy()
    return _codes(pairs)


def _codes(values: np.ndarray) -> np.ndarray:
    codes: np.ndarray = pa.array(values).dictionary_encode().indices.to_numpy()
    return codes


def _first_of_each(group: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """The first of the ascending `rows` of every group that has one."""
    return rows[np.unique(group[rows], return_index=True)[1]]


def _beyond(group: np.ndarray, limit: int) -> np.ndarray:
    """Which rows come after the first `limit` of their group, bool [rows]."""
    order = np.argsort(group, kind="stable")
    ordered = group[order]
    late = np.zeros(len(group), bool)
    late[order[limit:]] = ordered[limit:] == ordered[: len(ordered) - limit]  # the row `limit` before is of the group
    return late


def _events(feed: _Clicks, search: _Searches) -> pa.Table:
    """Columns of `EVENTS` and the session, the feed first."""
    shown = len(feed.user)
    texts = search.query.dictionary
    query = pa.concat_arrays([pa.array(np.full(shown, len(texts), np.int32)), search.query.indices])
    session = pa.array(search.session).dictionary_encode()
    none = pa.array(np.full(shown, len(session.dictionary), np.int32))
    task = np.repeat(np.array([Task.RECOMMENDATION, Task.SEARCH], np.int8), [shown, len(search.user)])
    return pa.table(
        {
            "user_id": _as_text(np.concatenate([feed.user, search.user])),
            "item_id": _as_text(np.concatenate([feed.item, search.item])),
            "timestamp": np.concatenate([feed.time, search.time]),
            "task": task,
            "query": pa.DictionaryArray.from_arrays(query, pa.concat_arrays([texts, pa.array([""])])),
            "session": pa.DictionaryArray.from_arrays(
                pa.concat_arrays([none, session.indices]),
                pa.concat_arrays([session.dictionary.cast(pa.string()), pa.array([""])]),
            ),
        }
    )


def _as_text(ids: np.ndarray) -> pa.DictionaryArray:
    encoded = pa.array(ids).dictionary_encode()
    return pa.DictionaryArray.from_arrays(encoded.indices, encoded.dictionary.cast(pa.string()))


def _overlap(feed: _Clicks, search: _Clicks) -> dict[str, int]:
    """Users and items in either file: the sizes that papers print, before any filter."""
    return {
        "users": len(np.union1d(feed.users, search.users)),
        "items": len(np.union1d(feed.items, search.items)),
        "users_with_clicks_in_both": len(np.intersect1d(feed.user, search.user)),
    }


def _counts(rows: int, users: np.ndarray, items: np.ndarray) -> dict[str, int]:
    return {"rows": rows, "users": len(users), "items": len(items)}
