"""Collaborative vectors: LightGCN's step and its negatives against the usual form, and whole fits beside one another.

The graphs are made up, with long tails on both sides: a few users do much, a few items are touched by many.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from gensr.bench.cases import Case, Context
from gensr.bench.workloads import require_equal
from gensr.encoders.cf.config import ALSConfig, LightGCNConfig
from gensr.encoders.cf.lightgcn import BPRSampler, LightGCN

STEP_AIM, SAMPLING_AIM = 2.4, 20.0
METHOD = LightGCNConfig()
"""The library's own width, layers, batch and step sizes, for both sides."""


class Size(NamedTuple):
    """A graph to measure on."""

    label: str
    users: int
    items: int
    edges: int


SIZES = (Size("200k edges", 50_000, 20_000, 200_000), Size("1M edges", 200_000, 60_000, 1_000_000))
QUICK_SIZES = (Size("2k edges", 500, 200, 2_000),)


def cases(context: Context) -> Iterator[Case]:
    """See `gensr.bench.cases.Suite`."""
    reference, sizes = context.baselines("lightgcn"), QUICK_SIZES if context.quick else SIZES
    for size in sizes:
        user_items = long_tailed(size)
        yield from _step(reference, size, user_items, context.device)
        yield from _sampling(reference, size, user_items)
    yield from _fits(size, user_items, context)  # of the largest


def long_tailed(size: Size, seed: int = 0) -> sp.csr_matrix:
    """Random interactions, csr float32 of ones [U+1, I+1] with row and column 0 empty.

    How much users do is log-normal; how often items are touched falls with their rank to the power of 0.8.
    """
    generator = np.random.default_rng(seed)
    activity = generator.lognormal(size=size.users)
    popularity = generator.permutation(np.arange(1, size.items + 1) ** -0.8)
    keys = np.empty(0, np.int64)
    while len(keys) < size.edges:  # the same pair may be drawn twice
        users, items = (generator.choice(len(p), size.edges, p=p / p.sum()) for p in (activity, popularity))
        keys = np.unique(np.concatenate([keys, users * size.items + items]))
    users, items = np.divmod(generator.permutation(keys)[: size.edges], size.items)
    ones = np.ones(size.edges, np.float32)
    return sp.csr_matrix((ones, (users + 1, items + 1)), shape=(size.users + 1, size.items + 1))


def _step(reference: ModuleType, size: Size, user_items: sp.csr_matrix, device: str) -> Iterator[Case]:
    """One batch: propagation, loss, gradient, optimiser."""
    batch = tuple(part.to(device) for part in next(BPRSampler(user_items, seed=0).epoch(METHOD.batch_size)))
    shape: dict[str, Any] = {"dim": METHOD.dim, "layers": METHOD.layers, "regularization": METHOD.regularization}
    ours, usual = LightGCN(user_items, **shape).to(device), reference.LightGCN(user_items, **shape).to(device)
    usual.start_from(ours.embedding)
    with torch.no_grad():
        require_equal("LightGCN's loss", ours.loss(*batch), usual.loss(*batch))
    case = partial(Case, "cf", f"LightGCN step, {size.label}", units=len(batch[0]), unit="interactions", flops=_none)
    yield case("COO under autograd", _usual_step(reference, usual, batch), baseline=True)
    yield case("gensr", _own_step(ours, batch), aim=STEP_AIM)


def _usual_step(reference: ModuleType, model: Any, batch: Sequence[Tensor]) -> Callable[[], object]:
    optimizer = reference.optimizer(model, learning_rate=METHOD.learning_rate)

    def step() -> None:
        optimizer.zero_grad()
        model.loss(*batch).backward()
        optimizer.step()

    return step


def _own_step(model: LightGCN, batch: Sequence[Tensor]) -> Callable[[], object]:
    optimizer = torch.optim.Adam(model.parameters(), lr=METHOD.learning_rate, fused=True)
    memory = model.embedding.new_empty(3, *model.embedding.shape)

    def step() -> None:
        model.backward(*batch, memory=memory)
        optimizer.step()

    return step


def _sampling(reference: ModuleType, size: Size, user_items: sp.csr_matrix) -> Iterator[Case]:
    """An epoch of shuffled interactions with a negative each."""
    sampler, known = BPRSampler(user_items, seed=0), reference.known_items(user_items)
    case = partial(Case, "cf", f"epoch of negatives, {size.label}", units=size.edges, unit="interactions", flops=_none)
    for name, draw in (
        ("Python loop, numpy.random", np.random.RandomState(0).randint),
        ("Python loop, random", random.Random(0).randrange),
    ):
        epoch = partial(reference.epoch, user_items, known, METHOD.batch_size, draw)
        yield case(name, partial(_exhaust, epoch), baseline=name.endswith("numpy.random"))
    yield case("gensr", partial(_exhaust, partial(sampler.epoch, METHOD.batch_size)), aim=SAMPLING_AIM)


def _fits(size: Size, user_items: sp.csr_matrix, context: Context) -> Iterator[Case]:
    """What a table costs: the whole of `implicit`'s ALS as it is fitted by default, and one epoch of LightGCN's."""
    case = partial(Case, "cf", f"fit, {size.label}", units=size.edges, unit="edges", flops=_none)
    als, epoch = ALSConfig(), METHOD.model_copy(update={"epochs": 1})
    yield case(f"implicit's ALS, {als.iterations} iterations", lambda: als.fit(user_items, seed=0), baseline=True)
    yield case(
        f"gensr's LightGCN, one epoch of {METHOD.epochs}", lambda: epoch.fit(user_items, seed=0, device=context.device)
    )


def _exhaust(batches: Callable[[], Iterator[object]]) -> None:
    deque(batches(), maxlen=0)  # as training does: no batch outlives the next


def _none() -> int:
    return 0  # sparse products and look-ups are no work for a matrix multiplier
