"""From a log to arrays: which users and items stay, which rows they get, and in which order events stand.

Nothing here depends on the order of the file's rows: rows are numbered by raw id, and events that neither time nor an
`order` column tells apart are put in an order that their content decides. So shuffled input gives the same data.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gensr.data.arrays import count_distinct
from gensr.data.log import EventLog, codes_of
from gensr.data.sessions import entries, joined_moments
from gensr.data.split import Split, strict_past
from gensr.data.tasks import Task
from gensr.errors import BadInputError

if TYPE_CHECKING:
    from gensr.spec import CoreSpec, DataSpec


@dataclass(frozen=True)
class Arranged:
    """A log as arrays, rows numbered by raw id.

    Attributes:
        users: raw ids of rows 1..U, string array.
        items: `ITEMS` of rows 1..I.
        queries: texts of rows 1..Q, string array.
        arrays: the arrays of `Dataset` except its split, by name; and ``given``, int8 [E], where the log has it.
        report: what was left out, as counts.
        generations: how the rows are numbered in the end, per kind (``users``, ``items``, ``queries``): final row of
            each row here, int64 [n+1]; empty unless something was appended to the log.
    """

    users: pa.Array
    items: pa.Table
    queries: pa.Array
    arrays: dict[str, np.ndarray]
    report: dict[str, Any]
    generations: dict[str, np.ndarray]


@dataclass(frozen=True)
class _Coded:
    """Events by the codes of their texts: parallel arrays, `item` being the row in the log's items table from 0."""

    user: np.ndarray
    item: np.ndarray
    task: np.ndarray
    query: np.ndarray
    generation: np.ndarray

    def at(self, chosen: np.ndarray) -> _Coded:
        return _Coded(*(getattr(self, name)[chosen] for name in ("user", "item", "task", "query", "generation")))


def arrange(log: EventLog, spec: DataSpec) -> Arranged:
    """Filter, number and sort the log.

    Raises:
        BadInputError: nothing is left, or `spec.users` cannot be drawn.
    """
    coded, texts = _code(log)
    item_generation = _generation(log.items)
    kept = stable_core(coded.user, coded.item, coded.task, spec.core)
    report = _core_report(coded, kept, log, spec.core)
    _require_some(kept, spec.core, len(kept))
    if spec.users is not None:
        kept, report["sample"] = _sample_users(kept, coded, texts["user"], spec.users, spec.seed)
    rows = np.flatnonzero(kept)
    events = coded.at(rows)
    numbers = {
        "users": _number(events.user, texts["user"]),
        "items": _number_items(events.item, log, spec.core),
        "queries": _number(events.query, texts["query"], skip_empty=True),
    }
    generations = _generations(coded, item_generation, numbers, spec) if _appended(coded, item_generation) else {}
    arrays, moved = _sort(log, rows, events, numbers, texts["user"])
    if moved:
        report["session_clicks_moved_to_the_first"] = moved
    return Arranged(
        texts["user"].take(pa.array(numbers["users"].members)),
        log.items.take(pa.array(numbers["items"].members)).select(["item_id", "title", "categories"]),
        texts["query"].take(pa.array(numbers["queries"].members)),
        arrays,
        report,
        generations,
    )


def _code(log: EventLog) -> tuple[_Coded, dict[str, pa.Array]]:
    (user, users), (item, items), (query, queries) = (
        codes_of(log.events[name]) for name in ("user_id", "item_id", "query")
    )
    in_table = pc.index_in(items, value_set=log.items["item_id"].combine_chunks()).fill_null(-1).to_numpy()
    coded = _Coded(user, in_table[item], log.events["task"].to_numpy(), query, _generation(log.events))
    return coded, {"user": users, "query": queries}


def _generation(table: pa.Table) -> np.ndarray:
    if "generation" in table.column_names:
        return np.asarray(table["generation"].to_numpy())
    return np.zeros(table.num_rows, np.int16)


def _appended(coded: _Coded, item_generation: np.ndarray) -> bool:
    return bool(max(coded.generation.max(initial=0), item_generation.max(initial=0)) > 0)


def stable_core(user: np.ndarray, item: np.ndarray, task: np.ndarray, core: CoreSpec) -> np.ndarray:
    """Which events bool [E] remain when too rare users and items, and one-task users, go until none is left to go.

    Args:
        user: codes [E].
        item: codes [E].
        task: `Task` codes [E]; events of both count alike.
        core: the least counts.
    """
    left = np.arange(len(user))
    while len(left):
        users, items = user[left], item[left]
        stay = np.bincount(users)[users] >= core.users
        stay &= np.bincount(items)[items] >= core.items
        if core.both_tasks:
            has = [np.bincount(users[task[left] == code], minlength=int(users.max()) + 1) > 0 for code in Task]
            stay &= np.logical_and(*has)[users]
        if stay.all():
            break
        left = left[stay]
    kept = np.zeros(len(user), bool)
    kept[left] = True
    return kept


def _core_report(coded: _Coded, kept: np.ndarray, log: EventLog, core: CoreSpec) -> dict[str, Any]:
    if kept.all() and not core.items:
        return {}
    return {
        "core": {
            "events_left_out": int((~kept).sum()),
            "users_left_out": count_distinct(coded.user) - count_distinct(coded.user[kept]),
            "items_left_out": log.items.num_rows - count_distinct(coded.item[kept]) if core.items else 0,
        }
    }


def _require_some(kept: np.ndarray, core: CoreSpec, events: int) -> None:
    if not kept.any():
        both = " with events of both tasks" if core.both_tasks else ""
        raise BadInputError(
            f"data.core leaves nothing: of {events:,} events none belongs to users{both} with at least {core.users} "
            f"events and items with at least {core.items}, counted until stable. Lower data.core"
        )


def _sample_users(
    kept: np.ndarray, coded: _Coded, ids: pa.Array, users: int, seed: int
) -> tuple[np.ndarray, dict[str, int]]:
    """`kept` less the events of all but `users` users, drawn with `seed`; and what that leaves out."""
    members = _number(coded.user[kept], ids).members
    if users > len(members):
        raise BadInputError(f"data.users: {users:,} users asked for, the log has {len(members):,}")
    drawn = np.random.default_rng([seed, 0]).choice(len(members), users, replace=False)
    chosen = np.zeros(len(ids), bool)
    chosen[members[drawn]] = True
    sample = kept & chosen[coded.user]
    left_out = {"events_left_out": int(kept.sum() - sample.sum()), "users_left_out": len(members) - users}
    return np.asarray(sample), left_out


@dataclass(frozen=True)
class _Numbers:
    """Rows given out: codes of rows 1..n in `members`, and the row of every code in `row`, 0 = none."""

    members: np.ndarray
    row: np.ndarray

    @classmethod
    def of(cls, members: np.ndarray, codes: int) -> _Numbers:
        row = np.zeros(codes, np.int32)
        row[members] = np.arange(1, len(members) + 1)
        return cls(members, row)


def _number(codes: np.ndarray, texts: pa.Array, *, skip_empty: bool = False) -> _Numbers:
    """Rows for the texts that occur in `codes`, by length and then by text: numbers come in order of size."""
    present = np.zeros(len(texts), bool)
    present[codes] = True
    if skip_empty and (empty := texts.index("").as_py()) >= 0:
        present[empty] = False
    return _Numbers.of(_by_text(np.flatnonzero(present), texts), len(texts))


def _number_items(codes: np.ndarray, log: EventLog, core: CoreSpec) -> _Numbers:
    """As `_number` for rows of the items table: all of them, unless `core` asks for events."""
    ids = log.items["item_id"].combine_chunks()
    ids = pa.concat_arrays(ids.chunks) if isinstance(ids, pa.ChunkedArray) else ids
    return _number(codes if core.items else np.arange(len(ids)), ids)


def _by_text(codes: np.ndarray, texts: pa.Array) -> np.ndarray:
    """`codes` in the order of their texts: shorter ones first."""
    chosen = texts.take(pa.array(codes))
    if pc.all(pc.match_substring_regex(chosen, r"^(0|[1-9]\d{0,17})$")).as_py():
        return np.asarray(codes[np.argsort(chosen.cast(pa.int64()).to_numpy(), kind="stable")])  # the same, quicker
    table = pa.table({"length": pc.binary_length(chosen), "text": chosen})
    return np.asarray(codes[pc.sort_indices(table, [("length", "ascending"), ("text", "ascending")]).to_numpy()])


def _generations(
    coded: _Coded, item_generation: np.ndarray, numbers: dict[str, _Numbers], spec: DataSpec
) -> dict[str, np.ndarray]:
    """Final rows: those that the log before an append had come first, in its order.

    Raises:
        BadInputError: the prepared data are a sample of users, which more users would change.
    """
    if spec.users is not None:
        raise BadInputError(
            "data.users draws a sample from all users, so appending new ones would change it: append to the whole log"
        )
    final = {kind: np.zeros(len(found.members) + 1, np.int64) for kind, found in numbers.items()}
    for generation in range(int(max(coded.generation.max(), item_generation.max())) + 1):
        then = coded.at(np.flatnonzero(coded.generation <= generation))
        then = then.at(np.flatnonzero(stable_core(then.user, then.item, then.task, spec.core)))
        items = then.item if spec.core.items else np.flatnonzero(item_generation <= generation)
        for kind, codes in (("users", then.user), ("items", items), ("queries", then.query)):
            rows = np.unique(numbers[kind].row[codes])
            new = rows[(rows > 0) & (final[kind][rows] == 0)]
            final[kind][new] = np.count_nonzero(final[kind]) + np.arange(1, len(new) + 1)
    return final


def _sort(
    log: EventLog, rows: np.ndarray, events: _Coded, numbers: dict[str, _Numbers], users: pa.Array
) -> tuple[dict[str, np.ndarray], int]:
    """The arrays, events sorted by user, time, order, and then by content; and how many clicks were moved to others."""
    columns = log.events
    user, item = numbers["users"].row[events.user], numbers["items"].row[events.item]
    query = numbers["queries"].row[events.query]
    keys = [user, columns["timestamp"].to_numpy()[rows]]
    if "order" in columns.column_names:
        keys.append(columns["order"].to_numpy()[rows])
    order, moved = _lexsort_by_rank(keys), 0
    session = None
    if "session" in columns.column_names:
        session = np.where(events.task == Task.SEARCH, _sessions(columns, rows), 0)
        keys, moved = _join_pages(keys, order, session, query)
        order = _lexsort_by_rank(keys) if moved else order
    given = columns["split"].to_numpy()[rows] if "split" in columns.column_names else None
    keys = [key[order] for key in keys]
    changed = _changes(keys)
    moment = np.cumsum(changed)
    tied = np.flatnonzero(~changed | ~np.append(changed[1:], True))  # events that share all keys with a neighbour
    if len(tied):  # few: what content has to decide
        some = order[tied]
        finer = [moment[tied]]
        if session is not None:  # the clicks of one page stand together
            page = session[some]
            finer += [page, np.where(page > 0, query[some], 0)]
        pair = _hashes(events.user[some], users, events.item[some], log.items["item_id"])
        finer += [pair, item[some], events.task[some], query[some]]
        if given is not None:  # of equal events the unused first, then as they were split: what was exported comes back
            finer.append((given[some] + 1) % len(Split))
        order[tied] = some[np.lexsort(finer[::-1])]
    user, query = keys[0], query[order]
    arrays = {
        "user": user,
        "item": item[order],
        "task": events.task[order].astype(np.int8),
        "query": query,
        "time": keys[1].astype(np.int64),
    }
    arrays["ordinal"], arrays["past"] = strict_past(user, moment)
    arrays["offsets"] = np.searchsorted(user, np.arange(len(numbers["users"].members) + 2)).astype(np.int64)
    if session is not None:
        starts = _changes([moment, session[order], query]) | (session[order] == 0)
        arrays |= entries(starts)
    if len(keys) == 3:
        arrays["order"] = keys[2].astype(np.int64)
    if given is not None:
        arrays["given"] = given[order].astype(np.int8)
    return arrays, moved


def _join_pages(
    keys: list[np.ndarray], order: np.ndarray, session: np.ndarray, query: np.ndarray
) -> tuple[list[np.ndarray], int]:
    """User, time and perhaps order of events with each page at its first click; and how many clicks that moved.

    Args:
        keys: user, time and perhaps order [E].
        order: positions [E] that sort them.
        session: [E], 0 = none.
        query: [E].
    """
    moment = np.cumsum(_changes([key[order] for key in keys])) - 1
    joined = joined_moments(keys[0][order], moment, session[order], query[order])
    late = np.flatnonzero(joined != moment)
    if not len(late):
        return keys, 0
    source = order[np.searchsorted(moment, joined[late])]
    moved = [key.copy() for key in keys]
    for old, new in zip(keys, moved, strict=True):
        new[order[late]] = old[source]
    return moved, len(late)


def _sessions(columns: pa.Table, rows: np.ndarray) -> np.ndarray:
    """Session of each event as a number that orders like its text, 0 = none."""
    codes, names = codes_of(columns["session"])
    return np.asarray(_number(codes[rows], names, skip_empty=True).row[codes[rows]])


def _lexsort_by_rank(keys: list[np.ndarray]) -> np.ndarray:
    """`np.lexsort` with the first key as the primary one; one sort where two keys fit into 63 bits."""
    user, time = keys[0].astype(np.int64), keys[1]
    low, high = int(time.min()), int(time.max())
    if len(keys) == 2 and (int(user.max()) + 1) * (high - low + 1) < 2**63:
        return np.argsort(user * (high - low + 1) + (time - low), kind="stable")
    return np.lexsort(keys[::-1])


def _changes(keys: list[np.ndarray]) -> np.ndarray:
    """True [E] where any of the sorted keys differs from the event before; true for the first."""
    changed = np.ones(len(keys[0]), bool)
    if len(changed):
        changed[1:] = np.any([key[1:] != key[:-1] for key in keys], axis=0)
    return changed


def _hashes(user: np.ndarray, users: pa.Array, item: np.ndarray, items: pa.ChunkedArray) -> np.ndarray:
    """A number per event that the raw ids of its user and item decide, uint64 [E].

    Were it the item's alone, the same items would come last for all users and be held out again and again.
    """
    mixed = _checksums(user, users) * np.uint64(0x9E3779B97F4A7C15) + _checksums(item, items)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    return np.asarray(mixed ^ (mixed >> np.uint64(27)))


def _checksums(codes: np.ndarray, texts: pa.Array | pa.ChunkedArray) -> np.ndarray:
    distinct, which = np.unique(codes, return_inverse=True)
    sums = [zlib.crc32(text.encode()) for text in texts.take(pa.array(distinct)).to_pylist()]
    return np.array(sums, np.uint64)[which.reshape(-1)]
