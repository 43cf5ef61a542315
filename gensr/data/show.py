"""How the numbers of prepared data are spread: events per user and item, lengths of histories and queries, days.

Counts hide what decides a model's fate: whether histories are long enough to learn from, whether a few items take all
the clicks, whether search and recommendation happen on the same days.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow.compute as pc

from gensr.data.split import Split
from gensr.data.tasks import Task
from gensr.evaluation.figures import COLOURS, check_figure_path
from gensr.evaluation.report import markdown_table
from gensr.files import new_file

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from gensr.data.dataset import Dataset

QUANTILES = {"smallest": 0.0, "10 %": 0.1, "median": 0.5, "90 %": 0.9, "99 %": 0.99, "largest": 1.0}


def distributions(dataset: Dataset) -> dict[str, dict[str, np.ndarray]]:
    """Every number behind the table and the figure: int64 arrays by what they count, and of which task.

    Events per user and per item are those of all splits, of the users and items that have any. The history of a test
    request is all that it may see, before `max_history` cuts it. Days are those of the log's time zone that have
    events; absent where the timestamps are no Unix times.
    """
    user, item, task = (np.asarray(column) for column in (dataset.user, dataset.item, dataset.task))
    tests = {code: dataset.requests(Split.TEST, code) for code in Task}
    words = pc.add(pc.count_substring(dataset.catalogue.queries.arrow, " "), 1)
    found = {
        "events of a user": {code.label: _occurrences(user[task == code]) for code in Task},
        "events of an item": {code.label: _occurrences(item[task == code]) for code in Task},
        "history of a test request": {code.label: _history(dataset, asked) for code, asked in tests.items()},
        "words of a query": {Task.SEARCH.label: words.to_numpy()},
        "events of a day": {name: counts[counts > 0] for name, (_, counts) in daily(dataset).items()},
    }
    return {
        name: {label: np.asarray(values, np.int64) for label, values in parts.items() if len(values)}
        for name, parts in found.items()
    }


def daily(dataset: Dataset) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """By task the days [n] of the log without gaps, as days since 1970-01-01, and the events of each, int64 [n].

    Empty where the timestamps are no Unix times.
    """
    if dataset.scale.unit == "none":
        return {}
    days = dataset.scale.days(np.asarray(dataset.time))
    first, task = int(days.min()), np.asarray(dataset.task)
    span = np.arange(first, int(days.max()) + 1)
    return {code.label: (span, np.bincount(days[task == code] - first, minlength=len(span))) for code in Task}


def _history(dataset: Dataset, events: np.ndarray) -> np.ndarray:
    """Entries in the past of requests [B]: events, with the clicks of one search session as one."""
    begin, end = dataset.offsets[dataset.user[events]], dataset.past[events]
    return np.asarray(end - begin if dataset.entry is None else dataset.entry[end] - dataset.entry[begin])


def _occurrences(codes: np.ndarray) -> np.ndarray:
    counts = np.bincount(codes, minlength=1)
    return counts[counts > 0]


def quantiles(values: np.ndarray) -> dict[str, float]:
    """Count, mean and `QUANTILES` of whole numbers [n], n > 0; each quantile is one of the numbers."""
    at = np.quantile(values, list(QUANTILES.values()), method="lower")
    return {"count": len(values), "mean": float(values.mean()), **dict(zip(QUANTILES, at.tolist(), strict=True))}


def spread(dataset: Dataset) -> dict[str, dict[str, dict[str, float]]]:
    """`quantiles` of all `distributions`, ready for JSON."""
    found = distributions(dataset)
    return {name: {label: quantiles(values) for label, values in parts.items()} for name, parts in found.items()}


def spread_table(found: dict[str, dict[str, dict[str, float]]]) -> str:
    """`spread` as text, a line a distribution and task."""
    rows = [
        [name, label, *(f"{value:,.1f}" if column == "mean" else f"{value:,.0f}" for column, value in entry.items())]
        for name, parts in found.items()
        for label, entry in parts.items()
    ]
    return markdown_table(["distribution", "task", "count", "mean", *QUANTILES], rows, left=(0, 1))


def save_figure(dataset: Dataset, path: Path) -> None:
    """Draw the distributions and write them atomically, in the format of the path's suffix.

    Raises:
        MissingExtraError: no matplotlib.
        BadInputError: a suffix that names no figure format.
    """
    check_figure_path(path)
    from matplotlib.figure import Figure

    found = {name: parts for name, parts in distributions(dataset).items() if parts}
    columns = -(-len(found) // 2)
    figure = Figure(figsize=(4.6 * columns, 6.4), layout="constrained")
    for place, (name, parts) in enumerate(found.items(), start=1):
        axes = figure.add_subplot(2, columns, place)
        if name == "events of a day":
            _timeline(axes, daily(dataset))
        else:
            _at_least(axes, name, parts)
    with new_file(path) as temporary:
        figure.savefig(temporary, format=path.suffix.removeprefix(".").lower(), dpi=150)


def _at_least(axes: Axes, name: str, parts: dict[str, np.ndarray]) -> None:
    """A curve a task: the share of users, items, ... that have at least x; straight where a power law rules."""
    for values, (label, colour) in zip(parts.values(), _colours(parts), strict=True):
        x, counts = np.unique(values[values > 0], return_counts=True)  # 0 has no place on a logarithmic axis
        if len(x):
            axes.step(x, counts[::-1].cumsum()[::-1] / len(values), where="pre", color=colour, label=label)
    axes.set(xscale="log", yscale="log", xlabel=name, ylabel="share with at least as many")
    largest = max(int(values.max()) for values in parts.values())
    ticks = [step * 10**power for power in range(19) for step in (1, 2, 5) if step * 10**power <= largest]
    axes.set_xticks(ticks if len(ticks) <= 10 else ticks[::3], minor=False)
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.yaxis.set_major_formatter("{x:g}")
    axes.minorticks_off()
    axes.legend(fontsize="small", frameon=False)


def _timeline(axes: Axes, days: dict[str, tuple[np.ndarray, np.ndarray]]) -> None:
    for (span, counts), (label, colour) in zip(days.values(), _colours(days), strict=True):
        axes.plot(span.astype("datetime64[D]"), counts, color=colour, label=label, linewidth=1)
    axes.set(ylabel="events of a day")
    axes.set_ylim(bottom=0)
    axes.tick_params(axis="x", rotation=30)
    axes.legend(fontsize="small", frameon=False)


def _colours(parts: dict[str, Any]) -> list[tuple[str, str]]:
    """A colour a task, the same in every panel."""
    order = [code.label for code in Task]
    return [(label, COLOURS[order.index(label)]) for label in parts]
