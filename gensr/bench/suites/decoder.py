"""Candidates scored per second by a causal language model, for which a shared prefix is exact."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from gensr.bench.cases import Case, Context
from gensr.bench.suites.scoring import CHECKED, REQUESTS_GPU, UNIT, encoded, scorer
from gensr.bench.workloads import TOLERANCE_BF16, Workload, find_shape, in_bf16, require_equal
from gensr.data.tasks import Task

AIMS = {"small": (25.0, 40.0)}
"""In float32 and in bfloat16."""


def cases(context: Context) -> Iterator[Case]:
    """See `gensr.bench.cases.Suite`."""
    for name in context.shapes:
        yield from _of_shape(context, name)


def _of_shape(context: Context, name: str) -> Iterator[Case]:
    shape = find_shape(name)
    reference, work = context.baselines("per_candidate"), Workload(shape, kind="decoder", device=context.device)
    packed = work.ranker("packed")
    fast, (aim, aim_bf16) = in_bf16(packed), AIMS.get(name, (None, None))
    some = work.requests([Task.SEARCH, Task.RECOMMENDATION], CHECKED)
    margins = scorer(packed, some)()
    require_equal("the packed layout and whole prompts", margins, reference.score(packed, some))
    require_equal("packed in bf16, and in fp32", scorer(fast, some)(), margins, tolerance=TOLERANCE_BF16)
    count = REQUESTS_GPU if context.device == "cuda" else shape.requests
    batch = work.requests([Task.SEARCH] * count, shape.candidates[0])
    label = f"{name}, {shape.candidates[0]} candidates"
    case = partial(Case, "decoder", label, units=batch.cand.numel(), unit=UNIT)
    yield case("per candidate", lambda: reference.score(packed, batch), baseline=True)
    yield case("packed, 4 slots", scorer(packed, batch), aim=aim)
    yield case("packed, 4 slots, request encoded before", scorer(packed, batch, encoded(packed, batch)))
    yield case("packed, 4 slots, bf16", scorer(fast, batch), aim=aim_bf16, dtype="bf16")
