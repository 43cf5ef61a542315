"""Requests as tensors: batches sliced from the prepared arrays, without a Python loop over examples."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from gensr.data.batch import Batch
from gensr.data.candidates import CandidateList
from gensr.data.dataset import CLICKS, Dataset
from gensr.data.examples import REQUESTS, Examples
from gensr.data.negatives import Touched
from gensr.data.split import Split
from gensr.data.tasks import Task
from gensr.errors import BadInputError

MOST_SCORED = 1 << 18
"""Most candidates of an evaluation batch, but for a single request: the whole catalogue may be asked for."""
BLOCK = 8192
"""Training requests whose negatives are drawn together; part of what a seed means, whatever the batch size."""


class RequestLoader:
    """Slices batches from a data set. A request sees the newest `max_history` events of its strict past.

    Args:
        dataset: the prepared data.
        max_history: L, history slots of every batch.
    """

    def __init__(self, dataset: Dataset, max_history: int) -> None:
        self.dataset, self.max_history = dataset, max_history
        self._asking: dict[tuple[str, frozenset[Task]], np.ndarray] = {}

    def batch(self, events: np.ndarray, candidates: np.ndarray) -> Batch:
        """Requests at `events` int64 [B] with `candidates` int32 [B, C]; candidate 0 is padding."""
        data = self.dataset
        item = data.item[events]
        positions, real = data.history(events, self.max_history)  # [B, L]

        def history(column: np.ndarray) -> Tensor:
            return _int64(column[positions] * real)

        several = data.starts is not None
        return Batch(
            task=_int64(data.task[events]),
            user=_int64(data.user[events]),
            time=_int64(data.time[events]),
            query=_int64(data.query[events]),
            hist_item=history(data.item),
            hist_task=history(data.task),
            hist_query=history(data.query),
            hist_time=history(data.time),
            cand=_int64(candidates),
            cand_mask=torch.from_numpy(candidates > 0),
            label=torch.from_numpy((candidates == item[:, None]).astype(np.float32)),
            request=_int64(events),
            hist_clicks=_int64(data.clicks(positions, CLICKS) * real[..., None]) if several else None,
        )

    def evaluation(
        self,
        candidates: CandidateList,
        split: Split,
        *,
        tasks: Iterable[Task] | None = None,
        batch_size: int,
        limit: int | None = None,
        seed: int = 0,
    ) -> Iterator[Batch]:
        """Held-out requests of `tasks` (all where absent) with their stored candidates, in stored order.

        Args:
            candidates: a list of the data set.
            split: `Split.VALID` or `Split.TEST`.
            tasks: tasks to ask.
            batch_size: requests per batch; the last one may be shorter, and all are where a request has very many
                candidates.
            limit: at most this many requests per task, drawn with `seed`.
            seed: draws the requests that `limit` keeps.
        """
        events, items = candidates.lists[split]
        task = self.dataset.task[events]
        kept = []
        for code in sorted(Task if tasks is None else set(tasks)):
            rows = np.flatnonzero(task == code)
            if limit is not None and len(rows) > limit:
                rows = np.random.default_rng([seed, code]).choice(rows, limit, replace=False)
            kept.append(rows)
        chosen = np.sort(np.concatenate(kept)) if kept else np.empty(0, np.int64)
        size = max(1, min(batch_size, MOST_SCORED // items.shape[1]))
        for begin in range(0, len(chosen), size):
            rows = chosen[begin : begin + size]
            yield self.batch(events[rows], items[rows])

    def epoch(
        self,
        *,
        seed: int,
        epoch: int,
        batch_size: int,
        negatives: int,
        examples: Examples = REQUESTS,
        fresh: bool = True,
        skip: int = 0,
    ) -> Iterator[Batch]:
        """All training examples in one shuffled stream, each with its truth and negatives.

        Negatives are uniform over the items the user touched in no training event. Held-out items may be drawn: leaving
        them out would tell which they are. Order, negatives and shuffling of the candidates depend on `seed` and
        `epoch` alone (negatives within sequences on `batch_size` as well), so skipping the first `skip` batches gives
        exactly the rest of the stream.

        Args:
            seed: of the stream.
            epoch: number of the pass.
            batch_size: examples per batch; the last one may be shorter.
            negatives: per positive, where `examples` does not say.
            examples: what the ranker is trained on.
            fresh: draw new negatives every epoch. Off, a request keeps the ones of the first.
            skip: batches to leave out at the start.

        Raises:
            BadInputError: `fresh` is off for sequences, whose negatives belong to no request.
        """
        order = np.random.default_rng([seed, epoch]).permutation(self._requests(examples))
        negatives = examples.negatives or negatives
        if examples.kind == "sequences" and not fresh:
            raise BadInputError(
                "training.fresh_negatives is false, but this ranker is trained on whole sequences, whose negatives are "
                "always drawn anew; leave it true"
            )
        if not fresh:
            yield from self._repeated(
                order, examples=examples, seed=seed, batch_size=batch_size, negatives=negatives, skip=skip
            )
            return
        for number, batch in enumerate(
            self._stream(order, [seed, epoch], batch_size=batch_size, negatives=negatives, skip=skip), start=skip
        ):
            if examples.kind == "sequences":
                batch = self._with_negatives(batch, [seed, epoch, number], negatives, examples.tasks)
            yield batch

    def _stream(
        self, order: np.ndarray, key: list[int], *, batch_size: int, negatives: int, skip: int
    ) -> Iterator[Batch]:
        """Batches of the requests at `order` with negatives drawn block by block."""
        blocks: dict[int, np.ndarray] = {}  # the blocks that the current batch reaches into
        for begin in range(skip * batch_size, len(order), batch_size):
            end = min(begin + batch_size, len(order))
            needed = range(begin // BLOCK, (end - 1) // BLOCK + 1)
            blocks = {b: blocks[b] if b in blocks else self._draw(order, b, key, negatives) for b in needed}
            offset = needed.start * BLOCK
            candidates = np.concatenate(list(blocks.values()))[begin - offset : end - offset]
            yield self.batch(order[begin:end], candidates)

    def _repeated(
        self, order: np.ndarray, *, examples: Examples, seed: int, batch_size: int, negatives: int, skip: int
    ) -> Iterator[Batch]:
        """The stream `order` with candidates that depend on `seed` alone."""
        requests = self._requests(examples)
        blocks = range(-(-len(requests) // BLOCK))
        candidates = np.concatenate([self._draw(requests, block, [seed], negatives) for block in blocks])
        for begin in range(skip * batch_size, len(order), batch_size):
            events = order[begin : begin + batch_size]
            yield self.batch(events, candidates[np.searchsorted(requests, events)])

    def _with_negatives(self, batch: Batch, key: list[int], negatives: int, tasks: frozenset[Task]) -> Batch:
        """The batch with negatives for every event of a history that is a training event of `tasks` itself."""
        events = batch.request.numpy()
        positions, real = self.dataset.history(events, self.max_history)  # [B, L]
        trains = real & (self.dataset.split[positions] == Split.TRAIN)
        trains &= np.isin(self.dataset.task[positions], sorted(tasks))
        drawn = np.zeros((*positions.shape, negatives), np.int32)
        users = np.broadcast_to(self.dataset.user[events][:, None], positions.shape)[trains]
        rng = np.random.default_rng([*key, 1])
        drawn[trains] = self._touched.draw_others(users, negatives, rng, user_ids=self.dataset.user_ids)
        return batch.replace(hist_negatives=_int64(drawn))

    def steps_per_epoch(self, batch_size: int, examples: Examples = REQUESTS) -> int:
        """Batches of `epoch` when nothing is skipped."""
        return -(-len(self._requests(examples)) // batch_size)

    def _draw(self, order: np.ndarray, block: int, key: list[int], negatives: int) -> np.ndarray:
        """Shuffled candidates int32 [<= BLOCK, 1 + negatives] of one block of the stream."""
        events = order[block * BLOCK : (block + 1) * BLOCK]
        rng = np.random.default_rng([*key, block])
        user, item = self.dataset.user[events], self.dataset.item[events]
        others = self._touched.draw_others(user, negatives, rng, user_ids=self.dataset.user_ids)
        return rng.permuted(np.concatenate([item[:, None], others], axis=1), axis=1)

    def _requests(self, examples: Examples) -> np.ndarray:
        """Events that ask, int64, ascending."""
        key = (examples.kind, examples.tasks)
        if key not in self._asking:
            self._asking[key] = self._find_requests(examples)
        return self._asking[key]

    def _find_requests(self, examples: Examples) -> np.ndarray:
        events = self.dataset.requests(Split.TRAIN)
        if examples.tasks != frozenset(Task):
            events = events[np.isin(self.dataset.task[events], sorted(examples.tasks))]
        if examples.kind == "requests":
            return events
        # Events are sorted by user: the last one of each run of a user.
        user = self.dataset.user[events]
        return events[np.append(user[1:] != user[:-1], True)] if len(events) else events

    @cached_property
    def _touched(self) -> Touched:
        data, events = self.dataset, self._requests(REQUESTS)
        return Touched(data.user[events], data.item[events], data.num_users, data.num_items)


def _int64(array: np.ndarray) -> Tensor:
    return torch.from_numpy(array.astype(np.int64))
