"""What `benchmarks/gpu.py` times: the released path, the exact layout and the packed one, all in bfloat16.

A GPU wants more at once than a CPU: the packed layout is timed for several numbers of requests in a call. For the
fewest (a server's) and the most (an evaluation's) it is timed with `torch.compile` too, and replaying CUDA graphs.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import torch

from gensr.bench.cases import Case, Context
from gensr.bench.floor import count_work
from gensr.bench.suites.scoring import encoded, scorer
from gensr.bench.suites.training import training, updater
from gensr.bench.workloads import Workload, find_shape, in_bf16
from gensr.compilation import Compiler
from gensr.data.batch import Batch
from gensr.data.tasks import Task
from gensr.rankers.gensr import GenSR
from gensr.spec import TrainingSpec
from gensr.training.optimizer import build_optimizer

RELEASED_REQUESTS = {"scoring": 14, "training": 40}
"""1,400 candidates of an evaluation batch, 200 rows of a training batch."""
REQUESTS = {"scoring": (1, 14, 128, 512), "training": (40, 160, 640)}
TOY_REQUESTS = {"scoring": (2,), "training": (2,)}
NEGATIVES = 4
VARIANTS: dict[str, str | None] = {"compiled": None, "CUDA graphs": "reduce-overhead"}
"""Modes of `torch.compile`."""
WARMUP = 4
"""Calls of what is compiled before it is timed: the first compiles it, the next ones record its graphs."""
Say = Callable[[str], None]


def scoring(context: Context, say: Say) -> Iterator[Case]:
    """A suite; `say` is told where compiling failed, so that what follows is timed without."""
    torch.compiler.reset()  # torch stops compiling a function after a few models
    shape = find_shape(context.shapes[0])
    work, reference = Workload(shape, device=context.device), context.baselines("per_candidate")
    exact, packed, preset = (in_bf16(work.ranker(wording)) for wording in ("interleaved", "packed", "preset"))
    few = shape.candidates[0]
    case = partial(_case, "scoring", f"{shape.name}, bf16, {few} candidates", unit="candidates")

    def requests(count: int) -> Batch:
        return work.requests([Task.SEARCH] * count, few)

    released, counts = _counts("scoring", context)
    asked = requests(released)
    autocast = partial(torch.autocast, context.device, dtype=torch.bfloat16)  # histories of float32, a model of bf16
    yield case("per candidate", asked, _within(autocast, lambda: reference.score(exact, asked)), baseline=True)
    yield case("exact (interleaved)", asked, scorer(exact, asked))
    for count in counts:
        batch = requests(count)
        plain = case(f"packed, {count} at once", batch, scorer(packed, batch))
        yield plain
        yield case(f"packed, {count} encoded before", batch, scorer(packed, batch, state=encoded(packed, batch)))
        for name, compiled in _compiled(packed, context, say) if count in (counts[0], counts[-1]) else ():
            yield case(f"packed, {count} at once, {name}", batch, scorer(compiled, batch), like=plain)
    yield case(f"packed, preset wording, {counts[-1]} at once", batch, scorer(preset, batch))


def training_steps(context: Context, say: Say) -> Iterator[Case]:
    """A suite; `say` as in `scoring`."""
    torch.compiler.reset()
    shape = find_shape(context.shapes[0])
    work, reference = Workload(shape, device=context.device), context.baselines("per_candidate")
    released, packed = work.ranker("interleaved", loss="vocabulary"), work.ranker("packed")
    slow, fast = reference.released_optimizer(released), build_optimizer(packed, TrainingSpec(learning_rate=1e-4))
    autocast = partial(torch.autocast, context.device, dtype=torch.bfloat16)
    usual, counts = _counts("training", context)
    tasks = {Task.SEARCH: "", Task.RECOMMENDATION: ", shared text"}
    for task, suffix in list(tasks.items())[: 1 if context.quick else 2]:
        case = partial(_case, "training", f"{shape.name}, bf16, {NEGATIVES} negatives{suffix}", unit="rows")
        asked = work.requests([task] * usual, 1 + NEGATIVES)
        step = _within(autocast, partial(reference.training_step, released, asked, slow))
        yield case("released step", asked, training(released, step), baseline=True)
        for count in counts:
            batch = work.requests([task] * count, 1 + NEGATIVES)
            plain = case(f"packed, {count} requests", batch, updater(packed, batch, fast, bf16=True))
            yield plain
        for name, compiled in () if context.quick else _compiled(packed, context, say):  # tracing is slow at any size
            optimizer = build_optimizer(compiled, TrainingSpec(learning_rate=1e-4))
            run = updater(compiled, batch, optimizer, bf16=True)
            yield case(f"packed, {count} requests, {name}", batch, run, like=plain)


def agreement(context: Context) -> dict[str, float]:
    """Largest differences of margins on this device: fp32 paths that should be equal, and bf16 from fp32."""
    shape = find_shape(context.shapes[0])
    work, reference = Workload(shape, device=context.device), context.baselines("per_candidate")
    batch = work.requests([Task.SEARCH] * 4, shape.candidates[0])
    exact, packed = work.ranker("interleaved"), work.ranker("packed")
    margins = scorer(packed, batch)()
    return {
        "exact - per candidate, fp32": _largest(scorer(exact, batch)() - reference.score(exact, batch)),
        "packed bf16 - packed fp32": _largest(scorer(in_bf16(packed), batch)() - margins),
        "standard deviation of margins": float(margins.std()),
    }


def profiled(context: Context) -> Iterator[tuple[str, Callable[[], object]]]:
    """The calls worth looking into: the largest of the packed ones."""
    shape = find_shape(context.shapes[0])
    work = Workload(shape, device=context.device)
    packed, count = in_bf16(work.ranker("packed")), _counts("scoring", context)[1][-1]
    yield "scoring", scorer(packed, work.requests([Task.SEARCH] * count, shape.candidates[0]))
    trained, count = work.ranker("packed"), _counts("training", context)[1][-1]
    batch = work.requests([Task.SEARCH] * count, 1 + NEGATIVES)
    optimizer = build_optimizer(trained, TrainingSpec(learning_rate=1e-4))
    yield "training", updater(trained, batch, optimizer, bf16=True)


def _counts(what: str, context: Context) -> tuple[int, Sequence[int]]:
    """Requests of a call: the released number, and those that the packed layout is timed for."""
    counts = (TOY_REQUESTS if context.quick else REQUESTS)[what]
    return (counts[-1] if context.quick else RELEASED_REQUESTS[what]), counts


def _compiled(ranker: GenSR, context: Context, say: Say) -> Iterator[tuple[str, GenSR]]:
    """Copies of `ranker` whose blocks go through `torch.compile`; at toy size one, through the front end alone."""
    for name, mode in list(VARIANTS.items())[: 1 if context.quick else None]:
        copied = copy.deepcopy(ranker)
        how = {"backend": "eager"} if context.quick else {"mode": mode}
        copied.compile_with(Compiler(say, option=name, dynamic=False, **how))
        yield name, copied


def _within(context: Callable[[], torch.autocast], run: Callable[[], object]) -> Callable[[], object]:
    def call() -> object:
        with context():
            return run()

    return call


def _case(
    suite: str,
    workload: str,
    name: str,
    batch: Batch,
    run: Callable[[], object],
    *,
    unit: str,
    baseline: bool = False,
    like: Case | None = None,
) -> Case:
    """A case in bf16. One that is `like` another is its compiled form: it counts as many FLOPs, and warms up longer."""
    flops, warmup = (None, 1) if like is None else (lambda: count_work(like).flops, WARMUP)
    units = batch.cand.numel()
    return Case(suite, workload, name, run, units, unit, baseline=baseline, dtype="bf16", flops=flops, warmup=warmup)


def _largest(difference: torch.Tensor) -> float:
    return float(difference.abs().max())
