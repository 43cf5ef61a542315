"""What may be wrong with a prepared data set, counted before anybody believes a metric.

Leaks are looked for in the times themselves, not in the ordinals by which the past was cut, so that a fault in the
cutting cannot hide itself.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np

from gensr.data.split import HELD_OUT, Split
from gensr.data.tasks import Task
from gensr.errors import GensrError

if TYPE_CHECKING:
    from gensr.data.dataset import Dataset

CHUNK = 65536

MEANING = {
    "requests": "Events of this split and task; each asks for its own item.",
    "first_time": "Earliest time of these requests, in the log's units.",
    "last_time": "Latest time of these requests; leave-one-out splits by user, so splits overlap in time.",
    "target_in_history": "Share of requests whose answer stands in the visible history; in-history rankers get it.",
    "genuine_repeats": "Requests whose answer the user had already met at an earlier time: allowed.",
    "twin_leaks": "Requests that see their answer at their own time (the other face of the same event): must be 0.",
    "future_events": "Requests that see an event of their own time or later, or another user's: must be 0.",
    "empty_history": "Requests of users without an earlier event.",
    "held_out_in_history": "Training requests that see a held-out event of the other task as past, as input only.",
    "cold_items": "Requests whose item has no training event of either task: counts and CF vectors know nothing of it.",
    "cold_users": "Requests of users without a training event.",
    "cold_queries": "Search requests whose query has no training event.",
    "query_in_title": "Share of search requests whose query stands in the title, or the title in it, word by word.",
    "query_in_text": "Share of search requests whose query stands in the item's text, word by word: lexical ease.",
    "duplicate_events": "Events equal to an earlier one in user, item, time, task and query; kept.",
    "twins": "Events that another event of the same user, time and item accompanies.",
    "unused": "Training events dropped because a twin is held out.",
    "items_without_text": "Catalogue items whose text is empty.",
    "items_without_events": "Catalogue items that no event names; they still serve as negatives.",
    "users_with_one_event": "Users with a single event of any task; they only train.",
    "users_only_training_recommendation": "Users with one or two recommendation events: too few to hold one out.",
    "users_only_training_search": "Users with one or two search events: too few to hold one out.",
}


def audit(dataset: Dataset, max_history: int) -> dict[str, Any]:
    """Count what `MEANING` names, per split and task and for the whole log.

    Args:
        dataset: the prepared data.
        max_history: newest events that a request sees.

    Returns:
        ``{"log": {...}, "splits": {split: {task: {...}}}, "meaning": {name: sentence}}``, ready for JSON.

    Raises:
        GensrError: a request sees its own time, the future or another user: a fault in the preparation.
    """
    sights = {
        f"{split.label} {task.label}": (split, task, dataset.requests(split, task))
        for split in (Split.TRAIN, *HELD_OUT)
        for task in Task
    }
    splits: dict[str, dict[str, Any]] = {}
    for where, (split, task, events) in sights.items():
        found = _requests(dataset, events, task, max_history) if len(events) else {"requests": 0}
        if found.get("twin_leaks") or found.get("future_events"):
            raise GensrError(
                f"the prepared data leak: of {len(events):,} {where} requests {found['twin_leaks']:,} see their answer "
                f"at their own time and {found['future_events']:,} see an event that is not past"
            )
        splits.setdefault(split.label, {})[task.label] = found
    return {"log": _log(dataset), "splits": splits, "meaning": MEANING}


def _requests(dataset: Dataset, events: np.ndarray, task: Task, max_history: int) -> dict[str, Any]:
    """The entries of one split and task."""
    sees = {name: 0 for name in ("answer", "twin_leaks", "future_events", "empty_history", "held_out_in_history")}
    for start in range(0, len(events), CHUNK):
        for name, count in _histories(dataset, events[start : start + CHUNK], max_history).items():
            sees[name] += count
    answers, times = sees.pop("answer"), dataset.time[events]
    if dataset.split[events[0]] != Split.TRAIN:  # a test request may see what validates
        del sees["held_out_in_history"]
    trained = dataset.requests(Split.TRAIN)
    found: dict[str, Any] = {
        "requests": len(events),
        "first_time": int(times.min()),
        "last_time": int(times.max()),
        "target_in_history": answers / len(events),
        "genuine_repeats": answers - sees["twin_leaks"],
        **sees,
        "cold_items": _unseen(dataset.item, events, trained),
        "cold_users": _unseen(dataset.user, events, trained),
    }
    if task is Task.SEARCH:
        found["cold_queries"] = _unseen(dataset.query, events, trained)
        found |= _lexical(dataset, events)
    return found


def _histories(dataset: Dataset, events: np.ndarray, max_history: int) -> dict[str, int]:
    """How many requests [R] see what they should or should not, in their windows [R, L]."""
    user, end = dataset.user[events], dataset.past[events]
    start = np.maximum(dataset.offsets[user], end - max_history)
    slots = start[:, None] + np.arange(max_history)
    real = slots < end[:, None]
    slots = np.where(real, slots, 0)
    time = dataset.time[slots]
    now = dataset.time[events][:, None]
    answer = real & (dataset.item[slots] == dataset.item[events][:, None])
    future = real & ((time >= now) | (dataset.user[slots] != user[:, None]))
    held_out = real & np.isin(dataset.split[slots], HELD_OUT)
    return {
        "answer": int(answer.any(axis=1).sum()),
        "twin_leaks": int((answer & (time == now)).any(axis=1).sum()),
        "future_events": int(future.any(axis=1).sum()),
        "empty_history": int((~real.any(axis=1)).sum()),
        "held_out_in_history": int(held_out.any(axis=1).sum()),
    }


def _unseen(rows: np.ndarray, events: np.ndarray, trained: np.ndarray) -> int:
    """How many of `events` have a row that no event of `trained` has."""
    return int((~np.isin(rows[events], np.unique(rows[trained]))).sum())


def _lexical(dataset: Dataset, events: np.ndarray) -> dict[str, float]:
    """Word overlap of queries with their targets, by shares of `events`."""
    catalogue = dataset.catalogue
    queries, titles, texts = (
        [frozenset(re.findall(r"\w+", text.lower())) for text in column]
        for column in (catalogue.queries, catalogue.titles, catalogue.text)
    )
    in_title = in_text = 0
    for query, item in zip(dataset.query[events].tolist(), dataset.item[events].tolist(), strict=True):
        words, title = queries[query], titles[item]
        in_title += words <= title or (bool(title) and title <= words)
        in_text += words <= texts[item]
    return {"query_in_title": in_title / len(events), "query_in_text": in_text / len(events)}


def _log(dataset: Dataset) -> dict[str, int]:
    """The entries of the whole log."""
    user, item, task, past = (np.asarray(column) for column in (dataset.user, dataset.item, dataset.task, dataset.past))
    keys = np.stack([past, item, task, np.asarray(dataset.query)])  # `past` is one per user and moment
    faces = past * (dataset.num_items + 1) + item
    _, face, sizes = np.unique(faces, return_inverse=True, return_counts=True)
    found = {
        "duplicate_events": dataset.num_events - np.unique(keys, axis=1).shape[1],
        "twins": int((sizes[face] > 1).sum()),
        "unused": len(dataset.requests(Split.UNUSED)),
        "items_without_text": sum(not text for text in dataset.catalogue.text[1:]),
        "items_without_events": dataset.num_items - len(np.unique(item)),
        "users_with_one_event": int((np.bincount(user)[1:] == 1).sum()),
    }
    for code in Task:
        counts = np.bincount(user[task == code], minlength=1)
        found[f"users_only_training_{code.label}"] = int(((counts > 0) & (counts < 3)).sum())
    return found
