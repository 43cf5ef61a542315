"""Training rows per second, a row being a (request, candidate) pair: the released step against the library's own.

Both make whole updates: forward pass, backward pass, clipping, optimiser. The library's update has its default task
loss, over the two answers, and its fused AdamW; in ``packed, released loss`` it has the cross-entropy over the whole
vocabulary. The contrastive loss is the released one everywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from types import ModuleType
from typing import Any, NamedTuple

import torch
from torch import nn

from gensr.bench.cases import Case, Context
from gensr.bench.prepared import prepare_spec
from gensr.bench.workloads import Workload, find_shape, one_at_a_time, require_equal
from gensr.data.batch import Batch
from gensr.data.tasks import Task
from gensr.rankers.base import Ranker
from gensr.rankers.gensr import GenSR
from gensr.spec import PipelineSpec, TrainingSpec
from gensr.training.optimizer import build_optimizer

UNIT = "rows"
AIMS = {
    "small": {4: (5.0, 7.0), 9: (8.0, 10.0)},
    "base": {4: (6.5, 11.0), 9: (11.0, 16.0)},
}
"""By negatives: where every request's text is read apart, and where all share it."""
ROWS_GPU, ROWS_QUICK = 200, 20


class Rankers(NamedTuple):
    """One set of weights behind several prompts and task losses."""

    released: GenSR
    packed: GenSR
    packed_whole: GenSR


def cases(context: Context) -> Iterator[Case]:
    """See `gensr.bench.cases.Suite`."""
    if context.spec is not None:
        yield from _of_spec(context, context.spec)
        return
    for name in context.shapes:
        yield from _of_shape(context, name)


def _of_shape(context: Context, name: str) -> Iterator[Case]:
    shape, on_gpu = find_shape(name), context.device == "cuda"
    reference, work = context.baselines("per_candidate"), Workload(shape, device=context.device)
    rankers = Rankers(
        work.ranker("interleaved", loss="vocabulary"), work.ranker("packed"), work.ranker("packed", loss="vocabulary")
    )
    _check(reference, rankers.released, work)
    rows = ROWS_GPU if on_gpu else min(shape.rows, ROWS_QUICK if context.quick else shape.rows)
    step = partial(
        reference.training_step,
        rankers.released,
        optimizer=reference.released_optimizer(rankers.released),
        rows=rows if on_gpu else shape.reference_rows,
    )
    # One optimiser for both: they hold one backbone, whose moments are most of the memory.
    ours = build_optimizer(nn.ModuleList([rankers.packed, rankers.packed_whole]), TrainingSpec(learning_rate=1e-4))
    for negatives in (4, 9):
        label, aims = f"{name}, {negatives} negatives", AIMS.get(name, {}).get(negatives, (None, None))
        # Every search has a text of its own; all recommendation requests have the same.
        for task, suffix, aim in ((Task.SEARCH, "", aims[0]), (Task.RECOMMENDATION, ", shared text", aims[1])):
            batch = work.requests([task] * (rows // (1 + negatives)), 1 + negatives)
            case = partial(Case, "training", label + suffix, units=batch.cand.numel(), unit=UNIT)
            yield case("released step", training(rankers.released, partial(step, batch)), baseline=True)
            yield case("packed", updater(rankers.packed, batch, ours), aim=aim)
            yield case("packed, bf16", updater(rankers.packed, batch, ours, bf16=True), dtype="bf16")
            yield case("packed, released loss", updater(rankers.packed_whole, batch, ours))


def _check(reference: ModuleType, released: GenSR, work: Workload) -> None:
    """See that the baseline's loss is the one that the exact layout has for the same rows."""
    pairs = one_at_a_time(work.requests([Task.SEARCH] * 2, 5))
    with torch.no_grad():
        ratio = released.loss(pairs).total / reference.loss(released, pairs)  # the contrastive part is in the hundreds
    require_equal("losses of the exact layout and the released path, their ratio", ratio, torch.ones_like(ratio))


def _of_spec(context: Context, spec: PipelineSpec) -> Iterator[Case]:
    """A training batch of the spec, beside the same rows as requests of one candidate."""
    ranker, loader, _ = prepare_spec(spec, device=context.device, requests=1)
    negatives, fresh = spec.data.train_negatives, spec.training.fresh_negatives
    requests = max(2, (ROWS_QUICK if context.quick else ROWS_GPU) // (1 + negatives))
    epoch = loader.epoch(seed=spec.seed, epoch=0, batch_size=requests, negatives=negatives, fresh=fresh)
    batch = next(epoch).to(context.device)
    optimizer = build_optimizer(ranker, spec.training)
    label = f"{spec.name}, {len(batch)} requests x {1 + negatives} candidates"
    case = partial(Case, "training", label, units=batch.cand.numel(), unit=UNIT)
    yield case("one candidate at a time", updater(ranker, one_at_a_time(batch), optimizer), baseline=True)
    yield case("all of a request", updater(ranker, batch, optimizer))
    yield case("all of a request, bf16", updater(ranker, batch, optimizer, bf16=True), dtype="bf16")


def updater(
    ranker: Ranker, batch: Batch, optimizer: torch.optim.Optimizer, *, bf16: bool = False
) -> Callable[[], None]:
    """A call that makes one update as `gensr.training.trainer` does."""
    parameters = [parameter for parameter in ranker.parameters() if parameter.requires_grad]

    def update() -> None:
        precision: AbstractContextManager[Any] = nullcontext()
        if bf16:
            precision = torch.autocast(batch.task.device.type, dtype=torch.bfloat16)
        with precision:
            total = ranker.loss(batch).total
        total.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return training(ranker, update)


def training(ranker: Ranker, step: Callable[[], None]) -> Callable[[], None]:
    """`step` in training mode: rankers of a workload share a backbone, whose mode is the last one set."""

    def run() -> None:
        ranker.train()
        step()

    return run
