"""The words that suites, timing and reports share: one thing to time, and what a suite is told."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gensr.spec import PipelineSpec


@dataclass(frozen=True)
class Case:
    """One thing to time. Cases of one (suite, workload) are timed interleaved; exactly one of them is the baseline.

    Args:
        suite: the suite it belongs to, such as ``scoring``.
        workload: what every case of its group does, such as ``small, 100 candidates``.
        name: how this case does it, such as ``packed, fp32``.
        run: does the work once.
        units: how many candidates, rows, edges or requests one call does.
        unit: what is counted, in the plural: ``candidates``.
        baseline: the others of the group are measured against this one.
        aim: the ratio to the baseline that the project wants; None where it wants none.
        dtype: ``fp32`` or ``bf16``: which matrix-multiply peak utilisation is measured against.
        flops: counts the FLOPs of one call; where absent, `run` is watched by a counter.
        warmup: first calls that do not count, 1 or more; what compiles itself or records a graph needs several.
    """

    suite: str
    workload: str
    name: str
    run: Callable[[], object]
    units: float
    unit: str
    baseline: bool = False
    aim: float | None = None
    dtype: str = "fp32"
    flops: Callable[[], int] | None = None
    warmup: int = 1


@dataclass(frozen=True)
class Context:
    """What a suite is told.

    Args:
        device: ``cpu`` or ``cuda``.
        shapes: sizes of model to measure: ``small``, ``base``, or ``tiny`` for tests.
        spec: measure this spec's ranker on its data instead of the shapes.
        quick: fewer rounds and smaller sizes, for tests.
        baselines: loads the module of that name in ``benchmarks/baselines``.
    """

    device: str
    shapes: tuple[str, ...]
    spec: PipelineSpec | None
    quick: bool
    baselines: Callable[[str], ModuleType]


Suite = Callable[[Context], Iterator[Case]]
"""Yields groups one after another; heavy set-up happens lazily, as it is iterated."""
