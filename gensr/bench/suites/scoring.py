"""Candidates scored per second: the released path against the library's layouts, with the same weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from types import ModuleType
from typing import Any, NamedTuple

import torch
from torch import Tensor

from gensr.bench.cases import Case, Context
from gensr.bench.prepared import prepare_spec
from gensr.bench.workloads import TOLERANCE_BF16, Workload, find_shape, in_bf16, one_at_a_time, require_equal
from gensr.data.batch import Batch
from gensr.data.tasks import Task
from gensr.rankers.base import Ranker
from gensr.rankers.gensr import GenSR
from gensr.spec import PipelineSpec

UNIT = "candidates"
AIMS = {
    "small": {"exact (interleaved)": 3.0, "packed, 4 slots": 33.0, "packed, 4 slots, bf16": 45.0},
    "base": {"exact (interleaved)": 3.0, "packed, 4 slots": 33.0, "packed, 4 slots, bf16": 60.0},
}
AIMS_MANY = {"packed, 4 slots, bf16": 75.0}
REQUESTS_GPU = 14
"""Requests asked at once: the released evaluation batch of 1,400 candidates. On a CPU fewer do as well."""
REQUESTS_SPEC, REQUESTS_QUICK = 16, 2
CHECKED = 4
"""Candidates of each request whose margins are compared before anything is timed."""


class Rankers(NamedTuple):
    """One set of weights behind several prompts."""

    exact: GenSR
    packed: GenSR
    bf16: GenSR
    preset: GenSR


def cases(context: Context) -> Iterator[Case]:
    """See `gensr.bench.cases.Suite`."""
    if context.spec is not None:
        yield from _of_spec(context, context.spec)
        return
    for name in context.shapes:
        yield from _of_shape(context, name)


def _of_shape(context: Context, name: str) -> Iterator[Case]:
    shape = find_shape(name)
    reference, work = context.baselines("per_candidate"), Workload(shape, device=context.device)
    packed = work.ranker("packed")
    rankers = Rankers(work.ranker("interleaved"), packed, in_bf16(packed), work.ranker("preset"))
    _check(reference, rankers, work)
    few, many = shape.candidates
    count = REQUESTS_GPU if context.device == "cuda" else shape.requests
    searches = [Task.SEARCH] * count
    group, aims = partial(_group, reference, rankers), AIMS.get(name, {})
    yield from group(f"{name}, {few} candidates", work.requests(searches, few), aims=aims)
    if count > 1:
        both = [Task.SEARCH, Task.RECOMMENDATION] * (count // 2)
        yield from group(f"{name}, {few} candidates, both tasks", work.requests(both, few))
    batch = work.requests(searches[:1], many)
    aims = AIMS_MANY if aims else {}
    least = first_candidates(batch, min(many, shape.reference_candidates))
    yield from group(f"{name}, {many:,} candidates", batch, aims=aims, least=least)


def _group(
    reference: ModuleType,
    rankers: Rankers,
    workload: str,
    batch: Batch,
    *,
    aims: dict[str, float] | None = None,
    least: Batch | None = None,
) -> Iterator[Case]:
    """Every way to score `batch`; whole prompts for every candidate only for those of `least`."""
    least, aims = batch if least is None else least, aims or {}

    def case(name: str, run: Callable[[], object], asked: Batch = batch, **facts: Any) -> Case:
        return Case("scoring", workload, name, run, asked.cand.numel(), UNIT, aim=aims.get(name), **facts)

    yield case("per candidate", lambda: reference.score(rankers.exact, least), least, baseline=True)
    yield case("exact (interleaved)", scorer(rankers.exact, least), least)
    for name, ranker, dtype in (
        ("packed, 4 slots", rankers.packed, "fp32"),
        ("packed, 4 slots, bf16", rankers.bf16, "bf16"),
    ):
        yield case(name, scorer(ranker, batch), dtype=dtype)
        yield case(f"{name}, request encoded before", scorer(ranker, batch, encoded(ranker, batch)), dtype=dtype)
    yield case("packed, preset wording", scorer(rankers.preset, batch))


def _check(reference: ModuleType, rankers: Rankers, work: Workload) -> None:
    """See that each path gives the margins it should, before anybody believes in its speed."""
    for task in Task:  # one at a time: then no segment of the released prompts is padded
        batch = work.requests([task] * 2, CHECKED)
        exact = scorer(rankers.exact, batch)()
        require_equal("the exact layout and the released path", exact, reference.score(rankers.exact, batch))
        for ranker in (rankers.packed, rankers.preset):
            margins = scorer(ranker, batch)()
            require_equal("packed, and one candidate at a time", margins, alone(ranker, batch))
            state = encoded(ranker, batch)
            require_equal("packed, with requests encoded before", scorer(ranker, batch, state)(), margins)
        fast, margins = scorer(rankers.bf16, batch)(), scorer(rankers.packed, batch)()
        require_equal("packed in bf16, and in fp32", fast, margins, tolerance=TOLERANCE_BF16)


def _of_spec(context: Context, spec: PipelineSpec) -> Iterator[Case]:
    """The spec's ranker, beside itself where every candidate is a request of its own."""
    count = REQUESTS_QUICK if context.quick else REQUESTS_SPEC
    ranker, _, batch = prepare_spec(spec, device=context.device, requests=count)
    real = batch.cand_mask
    require_equal("one candidate at a time", alone(ranker, batch)[real], scorer(ranker, batch)()[real])
    label = f"{spec.name}, {len(batch)} requests x {batch.cand.shape[1]} candidates"
    case = partial(Case, "scoring", label, units=batch.cand.numel(), unit=UNIT)
    yield case("one candidate at a time", lambda: alone(ranker, batch), baseline=True)
    yield case("all of a request", scorer(ranker, batch))
    yield case("all of a request, encoded before", scorer(ranker, batch, encoded(ranker, batch)))
    if isinstance(ranker, GenSR):
        yield case("all of a request, bf16", scorer(in_bf16(ranker), batch), dtype="bf16")


def first_candidates(batch: Batch, count: int) -> Batch:
    """The same requests with the first `count` of their candidates."""
    return batch.replace(**{name: getattr(batch, name)[:, :count] for name in ("cand", "cand_mask", "label")})


def scorer(ranker: Ranker, batch: Batch, state: Any = None) -> Callable[[], Tensor]:
    """A call that scores `batch`, from the beginning or from what `encoded` gave."""

    @torch.inference_mode()
    def run() -> Tensor:
        return ranker.score(batch, state)

    return run


@torch.inference_mode()
def encoded(ranker: Ranker, batch: Batch) -> Any:
    """The state of the requests of `batch`."""
    return ranker.encode_request(batch)


@torch.inference_mode()
def alone(ranker: Ranker, batch: Batch, *, rows: int = 400) -> Tensor:
    """Scores [B, C] where every candidate is a request of its own, `rows` of them in a batch."""
    pairs = one_at_a_time(batch)
    parts = torch.split(torch.arange(len(pairs), device=batch.task.device), rows)
    return torch.cat([ranker.score(pairs.select(part)) for part in parts]).view(batch.cand.shape)
