"""A comparison as a figure: bars a variant as in GenSR's Figure 4, and for each sweep a curve as in its Figure 5.

Whiskers are the interval of the paired difference from the base, drawn around the variant's value: one that stays clear
of the base's dashed line is a difference. Intervals of the values themselves would be wide and say nothing about that.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gensr.errors import BadInputError, MissingExtraError, did_you_mean
from gensr.evaluation.comparison import TASKS, Cell, Comparison, Measured, Sweep
from gensr.files import new_file

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SUFFIXES = ("png", "pdf", "svg")
# Okabe and Ito's palette, which the colour-blind can tell apart; hatches go on where it ends, and help in print.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#999999")
HATCHES = ("", "//", "..", "xx")
MARKERS = ("o", "s", "^", "D")
SPAN = 30.0
"""Positive values whose largest is so many times the smallest stand on a logarithmic axis."""


def require_matplotlib() -> None:
    """Raise `MissingExtraError` where there is no matplotlib."""
    if find_spec("matplotlib") is None:
        raise MissingExtraError("matplotlib", "plots", "a figure")


def check_figure_path(path: Path) -> None:
    """Raise where no figure can be written to `path`: no matplotlib, or another suffix than `SUFFIXES`."""
    require_matplotlib()
    suffix = path.suffix.removeprefix(".").lower()
    if suffix not in SUFFIXES:
        hint = did_you_mean(suffix, SUFFIXES) or "."
        raise BadInputError(f"{path}: no figure format {path.suffix!r}{hint} Known: {', '.join(SUFFIXES)}")


def save_figure(comparison: Comparison, path: Path) -> None:
    """Draw the comparison's first candidate list and write it atomically, in the format of the path's suffix.

    Raises:
        MissingExtraError: no matplotlib.
        BadInputError: another suffix than `SUFFIXES`.
    """
    check_figure_path(path)
    figure = draw(comparison)
    with new_file(path) as temporary:
        figure.savefig(temporary, format=path.suffix.removeprefix(".").lower(), dpi=200)


def draw(comparison: Comparison) -> Figure:
    """The figure: a panel a task with a group of bars a metric, and beneath a panel a sweep with a curve a task.

    Variants of a sweep are in its panel and not among the bars.
    """
    from matplotlib.figure import Figure

    listed = next(iter(comparison.candidates), "")
    tasks = [
        task.label for task in TASKS if any((c.candidates, c.task) == (listed, task.label) for c in comparison.cells)
    ]
    swept = {name for sweep in comparison.sweeps for _, name in sweep.points}
    bars = [v for v in comparison.variants if v.results and (v is comparison.base or v.name not in swept)]
    panels = len(tasks) if len(bars) > 1 else 0
    columns = max(panels, min(len(comparison.sweeps), 2), 1)
    rows = bool(panels) + -(-len(comparison.sweeps) // columns)
    figure = Figure(figsize=(5.5 * columns, 3.6 * max(rows, 1)), layout="constrained")
    grid = figure.add_gridspec(max(rows, 1), columns)
    shown: dict[object, Any] = {}
    for place, task in enumerate(tasks[:panels]):
        axes = figure.add_subplot(grid[0, place])
        _bars(axes, comparison, bars, listed, task)
        shown |= {drawn.get_label(): drawn for drawn in axes.containers}
    if shown:  # one legend for both, above the panels: inside, it would lie on bars
        names = [variant.name for variant in bars if variant.name in shown]
        figure.legend(
            [shown[name] for name in names],
            names,
            loc="outside upper center",
            ncols=min(len(names), 5),
            fontsize="small",
            frameon=False,
            title=f"dashed: {comparison.base.name}; whiskers: 95 % interval of the difference from it",
            title_fontsize="small",
        )
    for place, sweep in enumerate(comparison.sweeps):
        axes = figure.add_subplot(grid[bool(panels) + place // columns, place % columns])
        _curve(axes, comparison, sweep, listed, tasks)
    return figure


def _bars(axes: Axes, comparison: Comparison, variants: list[Measured], listed: str, task: str) -> None:
    width = 0.8 / len(variants)
    for place, variant in enumerate(variants):
        found = [(x, comparison.cell(listed, task, variant.name, name)) for x, name in enumerate(comparison.metrics)]
        cells = [(x, cell) for x, cell in found if cell is not None]
        if not cells:  # it does not do the task
            continue
        offset = (place - (len(variants) - 1) / 2) * width
        axes.bar(
            [x + offset for x, _ in cells],
            [cell.value for _, cell in cells],
            width,
            yerr=_whiskers([cell for _, cell in cells]),
            label=variant.name,
            color=COLOURS[place % len(COLOURS)],
            hatch=HATCHES[place // len(COLOURS) % len(HATCHES)],
            edgecolor="black",
            linewidth=0.4,
            error_kw={"elinewidth": 0.8, "capsize": min(3.0, 12 * width)},
        )
        if variant is comparison.base:
            for x, cell in cells:
                axes.hlines(cell.value, x - 0.4, x + 0.4, colors="black", linestyles="--", linewidth=0.8, zorder=3)
    axes.set_xticks(range(len(comparison.metrics)), comparison.metrics)
    axes.set_title(f"{task}, {listed}")
    axes.set_ylim(bottom=0)


def _curve(axes: Axes, comparison: Comparison, sweep: Sweep, listed: str, tasks: list[str]) -> None:
    values = [value for value, _ in sweep.points]
    numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
    places: list[Any] = values if numbers else list(range(len(values)))
    for number, task in enumerate(tasks):
        found = [comparison.cell(listed, task, name, comparison.primary) for _, name in sweep.points]
        points = [(place, cell) for place, cell in zip(places, found, strict=True) if cell is not None]
        axes.errorbar(
            [place for place, _ in points],
            [cell.value for _, cell in points],
            yerr=_whiskers([cell for _, cell in points]),
            label=task,
            color=COLOURS[number],
            marker=MARKERS[number],
            linestyle="-" if numbers else "",
            capsize=3,
            linewidth=1.2,
        )
    if numbers and min(values) > 0 and max(values) / min(values) >= SPAN:
        axes.set_xscale("log")
    if numbers:
        axes.set_xticks(values, [f"{value:g}" for value in values])
        axes.minorticks_off()
    else:
        axes.set_xticks(places, [str(value) for value in values])
    own = [place for place, (_, name) in zip(places, sweep.points, strict=True) if name == comparison.base.name]
    for place in own:
        axes.axvline(place, color="black", linestyle=":", linewidth=0.8, label=comparison.base.name)
    axes.set_xlabel(sweep.path)
    axes.set_ylabel(comparison.primary)
    axes.legend(fontsize="small", frameon=False)


def _whiskers(cells: list[Cell]) -> list[list[float]]:
    """Distances from the value down and up to the ends of the difference's interval; 0 where there is none."""
    down, up = [], []
    for cell in cells:
        known = cell.difference is not None and cell.low is not None and cell.high is not None
        down.append(max(0.0, cell.difference - cell.low) if known else 0.0)  # type: ignore[operator]
        up.append(max(0.0, cell.high - cell.difference) if known else 0.0)  # type: ignore[operator]
    return [down, up]
