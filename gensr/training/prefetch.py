"""Batches that are ready when they are asked for: a thread slices the next ones while the device computes."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

from gensr.data.batch import Batch

T = TypeVar("T")

DEPTH = 2
"""Batches that wait ready: the device takes one, and a slow one has the time of another to catch up."""


def prefetched(batches: Iterable[Batch], *, device: torch.device | str, depth: int = DEPTH) -> Iterator[Batch]:
    """The same batches in the same order; for a GPU, sliced ahead and in pinned memory.

    They stay on the host. `Batch.to` copies pinned ones without waiting, so the copy, too, runs beside the computation.
    For a CPU they come as they are: there a thread takes its time from the computation.

    Args:
        batches: what to read.
        device: where the batches will be used.
        depth: most batches that wait ready.
    """
    device = torch.device(device)
    if device.type != "cuda":
        return iter(batches)

    def pinned(batch: Batch) -> Batch:
        with torch.cuda.device(device):  # a thread begins on GPU 0, and pinning would open a context there
            return batch.pinned()

    return ahead((pinned(batch) for batch in batches), depth=depth)


def ahead(items: Iterable[T], *, depth: int = DEPTH) -> Iterator[T]:
    """The same items, none of them None, computed by a thread that is at most `depth` in front.

    An error of `items` is raised where its item would have come. Closing the generator ends the thread: it finishes the
    item it is at, and has ended when `close` returns.
    """
    iterator = iter(items)
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="gensr-prefetch") as thread:
        waiting = deque(thread.submit(next, iterator, None) for _ in range(depth))
        try:
            while (item := waiting.popleft().result()) is not None:
                waiting.append(thread.submit(next, iterator, None))
                yield item
        finally:
            for future in waiting:
                future.cancel()
