"""The cases of `gensr bench` under pytest-benchmark, which keeps, compares and plots timings of its own.

    python -m pytest benchmarks --benchmark-only --benchmark-disable-gc -o addopts= -q
    GENSR_BENCH_SHAPES=small python -m pytest benchmarks ... --benchmark-group-by=group -k packed

A group is a workload. Cases of a group are timed one after another here; ratios to quote come from `gensr bench`, which
interleaves them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from gensr.bench.cases import Case, Context
from gensr.bench.run import BASELINES, SUITES, baselines_in, chosen_shapes, suite

SHAPES = chosen_shapes(os.environ.get("GENSR_BENCH_SHAPES", "tiny").split(","))
CONTEXT = Context("cpu", SHAPES, spec=None, quick=SHAPES == ("tiny",), baselines=baselines_in(BASELINES))


def all_cases() -> Iterator[Case]:
    for name in SUITES:
        yield from suite(name)(CONTEXT)


@pytest.mark.parametrize("case", list(all_cases()), ids=lambda case: f"{case.suite}: {case.workload}: {case.name}")
def test_speed(benchmark, case):
    benchmark.group = f"{case.suite}: {case.workload}"
    benchmark.extra_info |= {"units": case.units, "unit": case.unit, "baseline": case.baseline}
    benchmark.pedantic(case.run, rounds=3, warmup_rounds=1)
