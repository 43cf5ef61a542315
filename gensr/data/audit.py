"""What may be wrong with a prepared data set, counted before anybody believes a metric.

Leaks are looked for in the times themselves (and in the order within a time, where a log has one), not in the ordinals
by which the past was cut, so that a fault in the cutting cannot hide itself.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pyarrow.compute as pc

from gensr.data.dataset import CLICKS, Dataset
from gensr.data.split import HELD_OUT, Split
from gensr.data.tasks import Task
from gensr.errors import GensrError

CHUNK = 65536
READ = 20_000
"""Requests per split and task whose words are compared, evenly spread; all where there are fewer."""

MEANING = {
    "requests": "Events of this split and task; each asks for its own item.",
    "first_time": "Earliest time of these requests; worry where it is far from the others': a broken clock.",
    "last_time": "Latest time of these requests; leave-one-out splits by user, so splits overlap in time.",
    "trained_later": "Share of training requests that are later than the first of these: above 0, counts and vectors "
    "know a future that a live system would not; only splits by time have 0.",
    "target_in_history": "Share of requests whose answer stands in the visible history; an in-history ranker gets "
    "these, so worry where it is high and repeats are not what you want to predict.",
    "genuine_repeats": "Requests whose answer the user had already met at an earlier time: allowed.",
    "twin_leaks": "Requests that see their answer at their own time (the other face of the same event): must be 0.",
    "future_events": "Requests that see an event of their own time or later, or another user's: must be 0.",
    "empty_history": "Requests of users without an earlier event; worry where most are: nothing can be personal.",
    "held_out_in_history": "Training requests that see a held-out event of the other task as past, as input only.",
    "cold_items": "Requests whose item has no training event of either task: counts and CF vectors know nothing of it.",
    "cold_users": "Requests of users without a training event; worry where rankers learn a vector per user.",
    "cold_queries": "Search requests whose query has no training event: click counts know nothing of them.",
    "query_in_title": "Share of search requests whose query stands in the title, word by word: near 1, matching words "
    "solves the task.",
    "title_in_query": "Share of search requests whose query holds the whole title: the query names its answer.",
    "query_in_text": "Share of search requests whose query stands in the item's text, word by word: near 1, the text "
    "was what the query was made from; see data.item_text.",
    "duplicate_events": "Events equal to another in user, item, time, task and query; kept; worry where a log was "
    "joined twice.",
    "twins": "Events that another event of the same user, time and item accompanies; where one is held out, the other "
    "does not train.",
    "unused": "Training events dropped because a twin is held out.",
    "session_clicks": "Events that are a further click of a search session: one thing in a history.",
    "items_without_text": "Catalogue items whose text is empty: a text encoder cannot tell them apart.",
    "items_without_events": "Catalogue items that no event names; they still serve as negatives, and easy ones.",
    "users_with_one_event": "Users with a single event of any task; they only train.",
    "users_only_training_recommendation": "Users with recommendation events of which none is held out.",
    "users_only_training_search": "Users with search events of which none is held out.",
    "floors": "Recall@5 and NDCG@5 of rankers without any training; in_history above chance is a leak or genuine "
    "repeats, lexical near 1 means that words alone solve search, popularity near a model means it learnt no more.",
}


def audit(dataset: Dataset, max_history: int) -> dict[str, Any]:
    """Count what `MEANING` names, per split and task and for the whole log.

    Args:
        dataset: the prepared data.
        max_history: newest entries that a request sees.

    Returns:
        ``{"log": {...}, "splits": {split: {task: {...}}}, "meaning": {name: sentence}}``, ready for JSON.

    Raises:
        GensrError: a request sees its own time, the future or another user: a fault in the preparation.
    """
    trained = _Trained(dataset)
    splits: dict[str, dict[str, Any]] = {}
    for split in (Split.TRAIN, *HELD_OUT):
        for task in Task:
            events = dataset.requests(split, task)
            found = _requests(dataset, events, split, task, max_history, trained) if len(events) else {"requests": 0}
            if found.get("twin_leaks") or found.get("future_events"):
                raise GensrError(
                    f"the prepared data leak: of {len(events):,} {split.label} {task.label} requests "
                    f"{found['twin_leaks']:,} see their answer at their own time and {found['future_events']:,} see an "
                    "event that is not past"
                )
            splits.setdefault(split.label, {})[task.label] = found
    return {"log": _log(dataset), "splits": splits, "meaning": MEANING}


class _Trained:
    """What training events know: users, items and queries by row, and their times in order."""

    def __init__(self, dataset: Dataset) -> None:
        events = dataset.requests(Split.TRAIN)
        self.times = np.sort(dataset.time[events])
        self.users = _present(dataset.user[events], dataset.num_users)
        self.items = _present(dataset.item[events], dataset.num_items)
        self.queries = _present(dataset.query[events], dataset.num_queries)

    def later_than(self, time: int) -> float:
        """Share of training events after `time`."""
        after = len(self.times) - int(np.searchsorted(self.times, time, side="right"))
        return after / max(len(self.times), 1)


def _present(rows: np.ndarray, count: int) -> np.ndarray:
    present = np.zeros(count + 1, bool)
    present[rows] = True
    return present


def _requests(
    dataset: Dataset, events: np.ndarray, split: Split, task: Task, max_history: int, trained: _Trained
) -> dict[str, Any]:
    """The entries of one split and task."""
    sees: dict[str, int] = {}
    for start in range(0, len(events), CHUNK):
        for name, count in _histories(dataset, events[start : start + CHUNK], max_history).items():
            sees[name] = sees.get(name, 0) + count
    answers, times = sees.pop("answer"), dataset.time[events]
    first = int(times.min())
    found: dict[str, Any] = {"requests": len(events), "first_time": first, "last_time": int(times.max())}
    if split is Split.TRAIN:
        found["held_out_in_history"] = sees.pop("held_out_in_history")
    else:  # a test request may see what validates
        del sees["held_out_in_history"]
        found["trained_later"] = trained.later_than(first)
    found |= {
        "target_in_history": answers / len(events),
        "genuine_repeats": answers - sees["twin_leaks"],
        **sees,
        "cold_items": int((~trained.items[dataset.item[events]]).sum()),
        "cold_users": int((~trained.users[dataset.user[events]]).sum()),
    }
    if task is Task.SEARCH:
        found["cold_queries"] = int((~trained.queries[dataset.query[events]]).sum())
        found |= _lexical(dataset, events)
    return found


def _histories(dataset: Dataset, events: np.ndarray, max_history: int) -> dict[str, int]:
    """How many requests [R] see what they should or should not, in their windows [R, L]."""
    slots, real = dataset.history(events, max_history)
    time, now = dataset.time[slots], dataset.time[events][:, None]
    later = time >= now
    same_moment = time == now
    if dataset.order is not None:
        order, place = dataset.order[slots], dataset.order[events][:, None]
        later = (time > now) | ((time == now) & (order >= place))
        same_moment &= order == place
    items, wanted = dataset.item[slots], dataset.item[events][:, None]
    answer = items == wanted
    if dataset.starts is not None:
        answer = (dataset.clicks(slots, CLICKS) == wanted[..., None]).any(axis=2)
    answer &= real
    future = real & (later | (dataset.user[slots] != dataset.user[events][:, None]))
    return {
        "answer": int(answer.any(axis=1).sum()),
        "twin_leaks": int((answer & same_moment).any(axis=1).sum()),
        "future_events": int(future.any(axis=1).sum()),
        "empty_history": int((~real.any(axis=1)).sum()),
        "held_out_in_history": int((real & np.isin(dataset.split[slots], HELD_OUT)).any(axis=1).sum()),
    }


def _lexical(dataset: Dataset, events: np.ndarray) -> dict[str, float]:
    """Word overlap of queries with their targets, by shares of `events` (of `READ` of them)."""
    catalogue = dataset.catalogue
    some = events[:: max(1, len(events) // READ)]
    items, which = np.unique(dataset.item[some], return_inverse=True)
    queries, asked = np.unique(dataset.query[some], return_inverse=True)
    titles, texts = _words(catalogue.titles.take(items)), _words(catalogue.text.take(items))
    queried = _words(catalogue.queries.take(queries))
    counts = np.zeros(3)
    for query, item in zip(asked.tolist(), which.tolist(), strict=True):
        words, title = queried[query], titles[item]
        counts += [words <= title, bool(title) and title <= words, words <= texts[item]]
    names = ("query_in_title", "title_in_query", "query_in_text")
    return dict(zip(names, (counts / len(some)).tolist(), strict=True))


def _words(texts: list[str]) -> list[frozenset[str]]:
    return [frozenset(re.findall(r"\w+", text.lower())) for text in texts]


def _log(dataset: Dataset) -> dict[str, int]:
    """The entries of the whole log."""
    user, item, task, split = dataset.user, dataset.item, dataset.task, dataset.split
    faces = dataset.past * (dataset.num_items + 1) + item  # `past` is one per user and moment
    order = np.lexsort([dataset.query, task, faces])
    same = faces[order][1:] == faces[order][:-1]
    twin = np.zeros(len(order), bool)
    twin[1:] |= same
    twin[:-1] |= same
    equal = same & (task[order][1:] == task[order][:-1]) & (dataset.query[order][1:] == dataset.query[order][:-1])
    found = {
        "duplicate_events": int(equal.sum()),
        "twins": int(twin.sum()),
        "unused": int((split == Split.UNUSED).sum()),
        **({"session_clicks": len(user) - len(dataset.starts) + 1} if dataset.starts is not None else {}),
        "items_without_text": int(pc.sum(pc.equal(dataset.catalogue.text.arrow, "")).as_py() or 0),
        "items_without_events": dataset.num_items - int(_present(item, dataset.num_items)[1:].sum()),
        "users_with_one_event": int((np.bincount(user)[1:] == 1).sum()),
    }
    for code in Task:
        have, held = (
            _present(user[(task == code) & chosen], dataset.num_users)
            for chosen in (np.ones(len(user), bool), np.isin(split, HELD_OUT))
        )
        found[f"users_only_training_{code.label}"] = int((have & ~held).sum())
    return found
