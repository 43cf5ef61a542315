"""The recipes behind candidate lists: what stands beside the truth of a held-out request.

A list is random, popular or near items, but always: the truth once, items distinct, none that the user touched in
either task and any split, and an order that says nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from itertools import chain
from typing import TYPE_CHECKING, get_args

import numpy as np

from gensr.data.arrays import distinct, spread
from gensr.data.bm25 import BM25Index
from gensr.data.negatives import CHUNK, Pool, Touched
from gensr.data.queries import Wording, hierarchies, topic
from gensr.data.split import Split
from gensr.data.tasks import Task

if TYPE_CHECKING:
    from gensr.data.catalogue import Catalogue
    from gensr.data.dataset import Dataset

CELLS = 1 << 22
"""Cells of a users x items table that are looked at together."""


def draw_uniform(dataset: Dataset, events: np.ndarray, *, count: int, seed: int) -> np.ndarray:
    """The truth and `count` items its user never touched, in either task and any split, in shuffled order.

    Args:
        dataset: the prepared data.
        events: requests, event positions [R].
        count: negatives, drawn uniformly without replacement.
        seed: the lists depend on nothing else.

    Returns:
        int32 [R, count + 1].

    Raises:
        BadInputError: the catalogue, less what a user touched, is too small.
    """
    touched = Touched.of(dataset)
    rng = np.random.default_rng([seed, 1])
    drawn = np.empty((len(events), count + 1), np.int32)
    for start in range(0, len(events), CHUNK):
        some = events[start : start + CHUNK]
        others = touched.draw_others(dataset.user[some], count, rng, user_ids=dataset.user_ids)
        drawn[start : start + CHUNK] = with_truth(dataset.item[some], others, rng)
    return drawn


def with_truth(truth: np.ndarray, negatives: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Truths [R] and negatives [R, C] as lists in shuffled order, int32 [R, C + 1]."""
    return rng.permuted(np.concatenate([truth[:, None], negatives], axis=1, dtype=np.int32), axis=1)


def draw_popular(dataset: Dataset, events: np.ndarray, *, count: int, seed: int) -> np.ndarray:
    """As `draw_uniform`, drawn from the training interactions of both tasks: by popularity, without replacement.

    Items that nothing trains on come last, uniformly, where a user touched almost all that is popular.
    """
    touched, user = Touched.of(dataset), dataset.user[events]
    touched.require(user, count, user_ids=dataset.user_ids)
    rng = np.random.default_rng([seed, 3])
    negatives = np.zeros((len(events), count), np.int32)
    training = dataset.item[dataset.split == Split.TRAIN]
    touched.fill(negatives, user, rng, Pool(touched.catalogue.items, training))
    return with_truth(dataset.item[events], negatives, rng)


def draw_same_category(dataset: Dataset, events: np.ndarray, *, count: int, seed: int) -> np.ndarray:
    """As `draw_uniform`, from the smallest category around the truth that holds enough items the user did not touch.

    All that the next smaller one holds are taken, the others are drawn from it uniformly.
    """
    touched, user = Touched.of(dataset), dataset.user[events]
    touched.require(user, count, user_ids=dataset.user_ids)
    rng = np.random.default_rng([seed, 4])
    categories = Categories(dataset.catalogue)
    nodes = categories.of_requests(dataset.item[events], dataset.query[events])
    negatives = np.zeros((len(events), count), np.int32)
    for node, rows in _groups(nodes):
        near = Pool(np.empty(0, np.int32))
        for pool in (*categories.around(node), touched.catalogue):
            enough = _has_left(touched, user[rows], pool.items, count)
            chosen = rows[enough]
            if len(chosen):
                held = _untouched_first(touched, user[chosen], near.items, count)
                touched.fill(held, user[chosen], rng, pool)
                negatives[chosen] = held
            rows, near = rows[~enough], pool
            if not len(rows):
                break
    return with_truth(dataset.item[events], negatives, rng)


def draw_bm25(dataset: Dataset, events: np.ndarray, *, count: int, seed: int, k1: float, b: float) -> np.ndarray:
    """As `draw_uniform`, from the first BM25 hits of the query; a recommendation asks with the text of its truth.

    Raises:
        MissingExtraError: bm25s is not installed.
    """
    touched, user = Touched.of(dataset), dataset.user[events]
    touched.require(user, count, user_ids=dataset.user_ids)
    index = BM25Index(dataset.catalogue.text[1:], k1=k1, b=b, purpose="the candidate recipe 'bm25'")
    rng = np.random.default_rng([seed, 5])
    order = rng.permutation(dataset.num_items)  # ties by row would favour the items that came first: popular ones
    negatives = np.zeros((len(events), count), np.int32)
    task, query, item = (np.asarray(column)[events] for column in (dataset.task, dataset.query, dataset.item))
    for code, asked, texts in (
        (Task.SEARCH, query, dataset.catalogue.queries),
        (Task.RECOMMENDATION, item, dataset.catalogue.text),
    ):
        at = np.flatnonzero(task == code)
        for row, rows in _groups(asked[at]):
            rows = at[rows]
            hits = index.first_hits(texts[row], count + int(touched.counts[user[rows]].max()), order) + 1
            negatives[rows] = _untouched_first(touched, user[rows], hits.astype(np.int32), count)
    touched.fill(negatives, user, rng, touched.catalogue)
    return with_truth(dataset.item[events], negatives, rng)


class Categories:
    """The hierarchies of a catalogue as one tree: which items stand in a category or below, and what is above it.

    Args:
        catalogue: whose categories are read.
    """

    def __init__(self, catalogue: Catalogue) -> None:
        self.catalogue = catalogue
        self._parent = [0]  # of every node; node 0 is the whole catalogue
        self._node: dict[tuple[str, ...], int] = {(): 0}
        encoded = catalogue.categories.arrow.dictionary_encode()  # items share few category texts
        texts = encoded.dictionary.to_pylist()
        found = [[self._enter(tuple(levels)) for levels in hierarchies(text)] for text in texts]
        sizes = np.array([len(some) for some in found], np.int64)
        nodes = np.fromiter(chain.from_iterable(found), np.int64)
        text = encoded.indices.to_numpy()
        _, at = spread((np.cumsum(sizes) - sizes)[text], sizes[text])
        # Hierarchies of every item, as they stand in its text: those of item i begin at _first[i].
        self._hierarchy = nodes[at]
        self._first = np.concatenate([[0, 0], np.cumsum(sizes[text])])
        self._members, self._begin = self._memberships()

    def _enter(self, levels: tuple[str, ...]) -> int:
        """The node of a path, made with all above it where it is new."""
        node = self._node.get(levels)
        if node is None:
            parent = self._enter(levels[:-1])
            node = self._node[levels] = len(self._parent)
            self._parent.append(parent)
        return node

    def _memberships(self) -> tuple[np.ndarray, np.ndarray]:
        """Items of every node, ascending, one after the other, int32 [M]; and where each node's begin, [N + 1]."""
        size, parent = self.catalogue.num_items + 1, np.array(self._parent)
        node, item = self._hierarchy, np.repeat(np.arange(size), np.diff(self._first))
        keys = [np.empty(0, np.int64)]
        while len(node):
            keys.append(node * size + item)
            node = parent[node]
            node, item = node[node > 0], item[node > 0]  # the whole catalogue needs no list
        members = distinct(np.concatenate(keys))
        return (members % size).astype(np.int32), np.searchsorted(members // size, np.arange(len(parent) + 1))

    def around(self, node: int) -> Iterator[Pool]:
        """The items of a category, of the one above, and so on up to below the whole catalogue."""
        while node:
            yield Pool(self._members[self._begin[node] : self._begin[node + 1]])
            node = self._parent[node]

    def of_requests(self, item: np.ndarray, query: np.ndarray) -> np.ndarray:
        """Nodes [R]: the hierarchy of an item [R] that its query [R] was made from, else its first one, else 0."""
        begin, sizes = self._first[item], self._first[item + 1] - self._first[item]
        node = np.where(sizes > 0, np.append(self._hierarchy, 0)[begin], 0)
        row, at = spread(begin, sizes)
        asked = query[row]
        fits = (asked > 0) & (self._topics[:, self._hierarchy[at]] == asked).any(axis=0)
        rows, first = np.unique(row[fits], return_index=True)
        node[rows] = self._hierarchy[at[fits][first]]
        return node

    @cached_property
    def _topics(self) -> np.ndarray:
        """Rows [2, N] of the queries that the paths make, in either wording; 0 where nobody asked so."""
        made = [[topic(levels, wording=wording) for levels in self._node] for wording in get_args(Wording)]
        return np.array([[self.catalogue.query_row(text) if text else 0 for text in texts] for texts in made], np.int64)


def _groups(values: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """Each distinct value of [R], ascending, with the rows that have it."""
    order = np.argsort(values, kind="stable")
    groups, sizes = np.unique(values, return_counts=True)
    for group, end, size in zip(groups.tolist(), np.cumsum(sizes), sizes, strict=True):
        yield group, order[end - size : end]


def _has_left(touched: Touched, user: np.ndarray, items: np.ndarray, count: int) -> np.ndarray:
    """Whether users [R] left at least `count` of `items`, bool."""
    if len(items) < count:
        return np.zeros(len(user), bool)
    enough = np.asarray(len(items) - touched.counts[user] >= count)
    unsure = np.flatnonzero(~enough)
    for some in _slices(len(unsure), len(items)):
        rows = unsure[some]
        left = len(items) - touched.contains(user[rows, None], items[None]).sum(axis=1)
        enough[rows] = left >= count
    return enough


def _untouched_first(touched: Touched, user: np.ndarray, items: np.ndarray, count: int) -> np.ndarray:
    """The first of `items` [N] that users [R] did not touch, at most `count`, then zeros: int32 [R, count]."""
    held = np.zeros((len(user), count), np.int32)
    for some in _slices(len(user), len(items)):
        kept = ~touched.contains(user[some, None], items[None])  # [r, N]
        place = kept.cumsum(axis=1) - 1
        row, column = np.nonzero(kept & (place < count))
        held[some][row, place[row, column]] = items[column]
    return held


def _slices(rows: int, width: int) -> Iterator[slice]:
    """Parts of `rows` rows of `width` that are small enough to be held at once."""
    step = max(1, CELLS // max(width, 1))
    return (slice(start, start + step) for start in range(0, rows, step))
