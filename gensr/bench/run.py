"""Run suites: take their groups one after another, time each, count its work, and keep what is finished."""

from __future__ import annotations

import gc
import importlib.util
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from importlib import import_module
from itertools import groupby
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import torch

import gensr
from gensr.bench import floor
from gensr.bench.cases import Case, Context, Suite
from gensr.bench.environment import environment
from gensr.bench.report import Measured, Result, duration, spread
from gensr.bench.timing import Timing, measure
from gensr.bench.workloads import SHAPES, find_shape
from gensr.errors import BadInputError, did_you_mean

if TYPE_CHECKING:
    from gensr.spec import PipelineSpec

SUITES = ("scoring", "training", "decoder", "cf", "ranks", "loading", "imports")
SPEC_SUITES = ("scoring", "training", "loading")
"""Those that can measure a spec's ranker on its data."""
USUAL_SHAPES = ("small", "base")
BASELINES = Path(gensr.__file__).parents[1] / "benchmarks" / "baselines"
"""Where a checkout has them; they are not in the wheel."""
ROUNDS, QUICK_ROUNDS = 9, 3

Say = Callable[[str], None]


def chosen_suites(names: Sequence[str], *, spec: PipelineSpec | None) -> tuple[str, ...]:
    """The suites named, in the order of `SUITES`; where none is, all that apply.

    Raises:
        BadInputError: no such suite, or one that has nothing to measure of `spec`.
    """
    apply: tuple[str, ...] = SUITES
    if spec is not None:
        apply = tuple(name for name in SPEC_SUITES if name != "training" or type(spec.ranker).trainable)
    for name in names:
        if name not in SUITES:
            raise BadInputError(
                f"no suite named {name!r}{did_you_mean(name, SUITES) or '.'} Known: {', '.join(SUITES)}"
            )
        if spec is not None and name not in apply:
            why = (
                f"does not train a {spec.ranker.type!r} ranker" if name in SPEC_SUITES else "does not depend on a spec"
            )
            raise BadInputError(f"suite {name} {why}; leave SPEC out, or choose among {', '.join(apply)}")
    return tuple(name for name in apply if not names or name in names)


def chosen_shapes(names: Sequence[str]) -> tuple[str, ...]:
    """The shapes named, smallest first; where none is, `USUAL_SHAPES`.

    Raises:
        BadInputError: no such shape.
    """
    asked = [find_shape(name).name for name in names or USUAL_SHAPES]
    return tuple(name for name in SHAPES if name in asked)


def baselines_in(folder: Path) -> Callable[[str], ModuleType]:
    """What loads the baselines of a folder by name, each once."""

    @cache
    def load(name: str) -> ModuleType:
        path = folder / f"{name}.py"
        spec = importlib.util.spec_from_file_location(f"gensr_baseline_{name}", path)
        if not path.is_file() or spec is None or spec.loader is None:
            raise BadInputError(
                f"no baseline {name!r}: there is no {path}. What speeds are measured against is in the repository, not "
                "in the package: run gensr bench in a checkout, or name its benchmarks/baselines with --baselines"
            )
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module  # dataclasses look their module up
        spec.loader.exec_module(module)
        return module

    return load


def suite(name: str) -> Suite:
    """The suite of that name."""
    cases: Suite = import_module(f"gensr.bench.suites.{name}").cases
    return cases


def run(context: Context, suites: Iterable[Suite], *, rounds: int, say: Say = lambda line: None) -> Iterator[Result]:
    """Yield the result so far whenever a group is done, so that nothing finished is lost.

    Args:
        context: what the suites are told.
        suites: what to run, one after another.
        rounds: samples of each case.
        say: told what is being timed, and what came out.
    """
    done: list[Measured] = []
    found = environment(context.device)
    of = context.spec
    described = None if of is None else {"name": of.name, "fingerprint": of.fingerprint()}
    for cases in suites:
        for group in groups(cases(context)):
            say(f"{group[0].suite}: {group[0].workload} ({len(group)} cases)")
            done += measured(group, context, rounds=rounds)
            for case in done[-len(group) :]:
                say(f"  {case.name}: {duration(case.seconds.median)}, {spread(case.ratio)} times the baseline")
            group.clear()
            release(context.device)
            dtypes = dict.fromkeys(case.dtype for case in done if case.flops)
            peaks = {dtype: floor.peak(context.device, dtype, quick=context.quick) for dtype in dtypes}
            copies = floor.copy_rate(context.device, quick=context.quick) if dtypes else None
            yield Result(found, described, peaks, copies, tuple(done))


def groups(cases: Iterator[Case]) -> Iterator[list[Case]]:
    """Cases by workload, as they come."""
    for _, group in groupby(cases, key=lambda case: (case.suite, case.workload)):
        yield list(group)


def measured(group: Sequence[Case], context: Context, *, rounds: int) -> list[Measured]:
    """Count the work of a group's cases and time them."""
    works = [floor.count_work(case) for case in group]
    timings = measure(group, rounds=rounds, synchronise=lambda: floor.synchronise(context.device))
    return [_measured(timing, work, context) for timing, work in zip(timings, works, strict=True)]


def _measured(timing: Timing, work: floor.Work, context: Context) -> Measured:
    case, seconds = timing.case, timing.seconds.median
    used = least = None
    if work.flops:
        peak = floor.peak(context.device, case.dtype, quick=context.quick)
        used = floor.utilisation(work, seconds, peak)
        least = floor.floor_seconds(work, peak, floor.copy_rate(context.device, quick=context.quick))
    job = floor.JOBS.get(case.unit) if context.spec is None else None
    return Measured(
        suite=case.suite,
        workload=case.workload,
        name=case.name,
        units=case.units,
        unit=case.unit,
        baseline=case.baseline,
        aim=case.aim,
        dtype=case.dtype,
        seconds=timing.seconds,
        ratio=timing.ratio,
        rounds=timing.rounds,
        repeats=timing.repeats,
        flops=work.flops,
        bytes=work.bytes,
        utilisation=used,
        floor_seconds=least,
        job_units=job,
        job_seconds=None if job is None else floor.seconds_for(job, case, seconds),
    )


def release(device: str) -> None:
    """Give back what a finished group held."""
    gc.collect()
    if device == "cuda":
        torch.cuda.empty_cache()
