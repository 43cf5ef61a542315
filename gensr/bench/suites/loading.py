"""Batches per second, on the CPU: sliced from arrays, against put together request by request.

Where no spec is given, the data are a demo shop of a million events. It is made and prepared once, in about a minute,
and kept in the cache of prepared data.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import islice

from gensr.bench.cases import Case, Context
from gensr.bench.prepared import CACHE
from gensr.cache import StageCache
from gensr.data.loader import MOST_SCORED, RequestLoader
from gensr.data.sources.config import DemoConfig
from gensr.data.split import Split
from gensr.spec import DataSpec, PipelineSpec

SHOP = DemoConfig(users=20_000, items=10_000, events_per_user=50)
QUICK_SHOP = DemoConfig(users=60, items=200)
BATCHES, QUICK_BATCHES = 64, 2
"""How many a call makes, from the first of an epoch or a test pass."""
TRAINED, TESTED = 256, 64
"""Requests of a batch of either kind."""


def cases(context: Context) -> Iterator[Case]:
    """See `gensr.bench.cases.Suite`."""
    reference = context.baselines("loading")
    spec = context.spec or PipelineSpec(data=DataSpec(source=QUICK_SHOP if context.quick else SHOP))
    most = QUICK_BATCHES if context.quick else BATCHES
    data = StageCache(CACHE).data(spec.data)
    loader = RequestLoader(data, spec.data.max_history)
    requests = partial(reference.Requests, data, max_history=loader.max_history)

    negatives = spec.data.train_negatives
    train = requests(data.requests(Split.TRAIN), negatives=negatives)
    yield from _group(
        f"training batches of {TRAINED} x {1 + negatives} candidates, {data.num_events:,} events",
        partial(reference.batches, train, TRAINED, shuffle=True),
        partial(loader.epoch, seed=0, epoch=0, batch_size=TRAINED, negatives=negatives),
        batches=min(most, -(-len(train) // TRAINED)),
    )
    listed = data.candidates(data.candidate_names[0])
    events, items = listed.lists[Split.TEST]
    size = max(1, min(TESTED, MOST_SCORED // items.shape[1]))
    test = requests(events, candidates=items)
    yield from _group(
        f"test batches of {size} x {items.shape[1]} candidates, {data.num_events:,} events",
        partial(reference.batches, test, size, shuffle=False),
        partial(loader.evaluation, listed, Split.TEST, batch_size=size),
        batches=min(most, -(-len(test) // size)),
    )


def _group(
    workload: str, usual: Callable[[], Iterable[object]], ours: Callable[[], Iterable[object]], *, batches: int
) -> Iterator[Case]:
    case = partial(Case, "loading", workload, units=batches, unit="batches", flops=lambda: 0)
    yield case("Dataset and DataLoader", partial(_take, usual, batches), baseline=True)
    yield case("gensr", partial(_take, ours, batches))


def _take(batches: Callable[[], Iterable[object]], count: int) -> None:
    deque(islice(batches(), count), maxlen=0)
