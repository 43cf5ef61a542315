"""How the cost of packed scoring grows: with candidates, requests, history and prompt, one at a time.

    python benchmarks/scaling.py --out benchmarks/results/scaling-cpu.json --plot docs/scaling.svg

Times are medians of calls that take turns. A line is fitted to each curve by its relative errors, so that its short end
counts as much as the long one; the largest of them is told. A history is read by its encoders and by the filter alone:
along that axis the language model is timed by itself too.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch

from gensr.backbones.prompt import PromptBuilder
from gensr.backbones.templates import TaskTemplates
from gensr.bench.cases import Case
from gensr.bench.environment import environment
from gensr.bench.suites.scoring import encoded, scorer
from gensr.bench.timing import Spread, measure
from gensr.bench.workloads import SLOTS, Workload, find_shape
from gensr.data.batch import Batch
from gensr.data.tasks import Task
from gensr.evaluation.figures import COLOURS, MARKERS, require_matplotlib
from gensr.files import new_file, write_json
from gensr.rankers.gensr import GenSR

CANDIDATES, REQUESTS = 100, 2
POINTS = {
    "candidates of one request": (25, 50, 100, 200, 400, 800, 1600),
    "requests": (1, 2, 4, 8, 16, 32),
    "events of a history": (5, 10, 20, 40, 80),
    "words of the shared text": (16, 32, 64, 128, 256),
}
TOY_POINTS = {name: points[:3] for name, points in POINTS.items()}
Calls = Iterator[tuple[int, Callable[[], object]]]


@dataclass(frozen=True)
class Curve:
    """Seconds of a call along one axis, and the line nearest to them.

    Attributes:
        axis: what grows.
        name: what is timed.
        x: how much of it.
        seconds: of a call, at each of `x`.
        fixed: seconds of the line at 0.
        each: seconds of the line for each unit more.
        error: largest distance from the line, as a share of the line.
    """

    axis: str
    name: str
    x: tuple[int, ...]
    seconds: tuple[Spread, ...]
    fixed: float
    each: float
    error: float


def line(x: Sequence[float], y: Sequence[float]) -> tuple[float, float, float]:
    """The line nearest to points y > 0 by relative error: value at 0, slope, largest relative distance from it."""
    places, values = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
    terms = np.stack([np.ones_like(places), places], axis=1)
    (fixed, each), *_ = np.linalg.lstsq(terms / values[:, None], np.ones_like(values), rcond=None)
    fitted = fixed + each * places
    return float(fixed), float(each), float(np.abs(values / fitted - 1).max())


def curve(axis: str, name: str, calls: Calls, *, rounds: int) -> Curve:
    """Time `calls`, pairs of a place on the axis and what to do there."""
    group = [Case("scaling", axis, str(x), call, x, axis, baseline=not i) for i, (x, call) in enumerate(calls)]
    x = tuple(int(case.units) for case in group)
    seconds = tuple(timing.seconds for timing in measure(group, rounds=rounds))
    return Curve(axis, name, x, seconds, *line(x, [spread.median for spread in seconds]))


def curves(shape_name: str, points: dict[str, Sequence[int]], *, rounds: int) -> Iterator[Curve]:
    """All curves of a T5 of that shape."""
    shape = replace(find_shape(shape_name), items=2000, history=max(points["events of a history"]))
    work = Workload(shape)
    ranker = work.ranker("packed")
    timed = partial(curve, rounds=rounds)

    def batch(count: int = REQUESTS, *, offered: int = CANDIDATES, history: int = 20) -> Batch:
        return shortened(work.requests([Task.SEARCH] * count, offered), history)

    for axis, batches in (
        ("candidates of one request", lambda n: batch(1, offered=n)),
        ("requests", lambda n: batch(n)),
        ("events of a history", lambda n: batch(history=n)),
    ):
        yield timed(axis, "all of it", ((n, scorer(ranker, batches(n))) for n in points[axis]))
    alone = ((n, language_model(ranker, batch(history=n))) for n in points["events of a history"])
    yield timed("events of a history", "language model alone", alone)
    axis, asked = "words of the shared text", batch()
    rankers = {n: with_words(work.ranker("packed"), n) for n in points[axis]}
    yield timed(axis, "all of it", ((n, scorer(longer, asked)) for n, longer in rankers.items()))
    states = {n: encoded(longer, asked) for n, longer in rankers.items()}
    yield timed(axis, "text read before", ((n, scorer(rankers[n], asked, state=states[n])) for n in points[axis]))


def shortened(batch: Batch, history: int) -> Batch:
    """The same requests with the last events of their histories."""
    return batch.replace(
        **{name: getattr(batch, name)[:, -history:] for name in ("hist_item", "hist_task", "hist_query", "hist_time")}
    )


def language_model(ranker: GenSR, batch: Batch) -> Callable[[], object]:
    """What is left of scoring without histories: reading the prompt, the blocks with their vectors, the answer."""
    prompt = encoded(ranker, batch).prompt.prompt
    slots = torch.randn(*batch.cand.shape, len(SLOTS), ranker.backbone.width)

    @torch.inference_mode()
    def run() -> object:
        return ranker.backbone.answer(ranker.backbone.hidden(ranker.backbone.encode(prompt), slots), batch.task)

    return run


def with_words(ranker: GenSR, count: int) -> GenSR:
    """`ranker` with a shared text of so many words, each of them a token."""
    text = " ".join([*["the"] * count, "{query}", *SLOTS])
    ranker.prompts = PromptBuilder(
        TaskTemplates(recommendation=text, search=text),
        layout="packed",
        tokenize=ranker.backbone.tokenize,
        slots=ranker.slots,
        query_length=ranker.config.query_length,
    )
    return ranker


def draw(found: Sequence[Curve], path: Path) -> None:
    """A panel an axis: medians with quartiles, and the lines."""
    require_matplotlib()
    from matplotlib.figure import Figure

    axes = list(dict.fromkeys(curve.axis for curve in found))
    figure = Figure(figsize=(9, 6.5), layout="constrained")
    for panel, axis in zip(figure.subplots(2, 2).flat, axes, strict=True):
        for number, curve in enumerate(curve for curve in found if curve.axis == axis):
            medians = np.array([spread.median for spread in curve.seconds])
            whiskers = [
                medians - [spread.low for spread in curve.seconds],
                [spread.high for spread in curve.seconds] - medians,
            ]
            colour = COLOURS[number]
            panel.errorbar(
                curve.x,
                1e3 * medians,
                yerr=1e3 * np.array(whiskers),
                color=colour,
                marker=MARKERS[number],
                linestyle="",
                capsize=3,
                label=f"{curve.name}; line within {curve.error:.0%}",
            )
            panel.plot(curve.x, 1e3 * (curve.fixed + curve.each * np.array(curve.x)), color=colour, linewidth=1)
        panel.set_xlabel(axis)
        panel.set_ylabel("milliseconds")
        panel.set_xlim(left=0)
        panel.set_ylim(bottom=0)
        panel.legend(fontsize="small", frameon=False)
    with new_file(path) as temporary:
        figure.savefig(temporary, format=path.suffix.removeprefix("."), dpi=200)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, store, draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="where the JSON goes")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="a figure: .svg or .png (extra: plots)")
    parser.add_argument("--shape", default="small", help="small or base")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--toy", action="store_true", help="few points and rounds at toy size: does it run?")
    options = parser.parse_args(arguments)
    shape, points, rounds = ("tiny", TOY_POINTS, 1) if options.toy else (options.shape, POINTS, options.rounds)
    found = []
    for curve in curves(shape, points, rounds=rounds):
        print(f"{curve.axis}, {curve.name}: {1e3 * curve.each:.3g} ms each, line within {curve.error:.1%}")
        sys.stdout.flush()
        found.append(curve)
    content = {"environment": environment("cpu"), "shape": shape, "rounds": rounds, "layout": "packed, 4 slots, fp32"}
    write_json(options.out, content | {"curves": [asdict(curve) for curve in found]})
    if options.plot is not None:
        draw(found, options.plot)


if __name__ == "__main__":
    main()
