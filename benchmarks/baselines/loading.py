"""Batches as training scripts usually make them, for `gensr bench loading` to be measured against.

A `torch.utils.data.Dataset` whose items are single requests, put together by the default collation of a `DataLoader`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from torch.utils.data import DataLoader, Dataset

CLICKS = 5


class Requests(Dataset):
    """One request an item, as a dictionary of arrays; it may hold what `gensr.data.batch.Batch` holds.

    Args:
        data: a prepared `gensr.data.dataset.Dataset`.
        events: positions of the requests' events [R].
        max_history: history slots.
        candidates: stored candidates int32 [R, C]; where absent, negatives are drawn.
        negatives: how many to draw.
    """

    def __init__(
        self, data: Any, events: np.ndarray, *, max_history: int, candidates: Any = None, negatives: int = 0
    ) -> None:
        self.data, self.events, self.max_history = data, events, max_history
        self.candidates, self.negatives = candidates, negatives
        self.touched: dict[int, set[int]] = {}
        if candidates is None:
            for user, item in zip(data.user[events].tolist(), data.item[events].tolist(), strict=True):
                self.touched.setdefault(user, set()).add(item)

    def __len__(self) -> int:
        return len(self.events)

    def __getitem__(self, place: int) -> dict[str, Any]:
        data, event = self.data, int(self.events[place])
        history = self._history(event)
        candidates = self._draw(event) if self.candidates is None else self.candidates[place]
        request = {
            "task": int(data.task[event]),
            "user": int(data.user[event]),
            "time": int(data.time[event]),
            "query": int(data.query[event]),
            "hist_item": self._padded(data.item[history]),
            "hist_task": self._padded(data.task[history]),
            "hist_query": self._padded(data.query[history]),
            "hist_time": self._padded(data.time[history]),
            "cand": candidates.astype(np.int64),
            "cand_mask": candidates > 0,
            "label": (candidates == data.item[event]).astype(np.float32),
            "request": event,
        }
        if data.starts is not None:
            request["hist_clicks"] = self._padded(data.clicks(history, CLICKS))
        return request

    def _history(self, event: int) -> np.ndarray:
        """Positions of the newest entries of the event's strict past, oldest first."""
        data = self.data
        begin, end = int(data.offsets[data.user[event]]), int(data.past[event])
        if data.starts is None:
            return np.arange(max(begin, end - self.max_history), end)
        begin, end = int(data.entry[begin]), int(data.entry[end])
        return data.starts[max(begin, end - self.max_history) : end]

    def _padded(self, values: np.ndarray) -> np.ndarray:
        padded = np.zeros((self.max_history, *values.shape[1:]), np.int64)
        padded[: len(values)] = values
        return padded

    def _draw(self, event: int) -> np.ndarray:
        """The truth among items that its user did not touch, shuffled."""
        truth, touched = int(self.data.item[event]), self.touched[int(self.data.user[event])]
        chosen = [truth]
        while len(chosen) <= self.negatives:
            item = np.random.randint(1, self.data.num_items + 1)
            if item not in touched and item not in chosen:
                chosen.append(item)
        return np.random.permutation(chosen)


def batches(requests: Requests, batch_size: int, *, shuffle: bool) -> DataLoader:
    """Batches as dictionaries of tensors."""
    return DataLoader(requests, batch_size=batch_size, shuffle=shuffle)
