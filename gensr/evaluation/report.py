"""The numbers of a run as text: tables that are Markdown and read well in a terminal too.

Everything here is a function of the content of ``metrics.json``:

```
{"main": name of the trained ranker,
 "metrics": [metric names], "ties": "expected" | ..., "bootstrap": resamples,
 "candidates": {list: {"sha256": ..., "rankers": {ranker: NUMBERS}}},
 "ablations": {list: {"shuffled_query" | "no_query" | "no_history": NUMBERS}},
 "missing": {ranker: why it was not measured}}
NUMBERS = {task label: {"requests": n, metric: {"value": mean, "low": ..., "high": ...}}}
```

The first candidate list leads. A ranker that does not do a task has no entry for it, which tables show as a dash;
``low`` and ``high`` are null where no intervals were asked for.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from gensr.data.tasks import Task
from gensr.data.times import TimeScale

MEANINGS = {
    "random": "nothing: what chance gives",
    "popularity": "what the crowd takes: far above random, the candidates differ in popularity",
    "lexical": "the words: near the top, the query gives the answer away among these candidates",
    "query_popularity": "what was clicked under the same query before",
    "cf": "who took what together",
    "in_history": "what the user took before: above random, beyond genuine repeats, is a leak",
    "shuffled_query": "all but the query (it gets another request's): what is lost, the query was worth",
    "no_query": "all but the query (there is none): what the history alone answers",
    "no_history": "all but the history: what is lost, the history was worth",
}
TIMES = ("first_time", "last_time")
"""Entries of the audit that are times."""


def primary_metric(metrics: Mapping[str, Any]) -> str:
    """The metric that tables give intervals for and audits quote: ndcg@5, or the first one where it is not measured."""
    names: list[str] = metrics["metrics"]
    return "ndcg@5" if "ndcg@5" in names else names[0]


def results_table(metrics: Mapping[str, Any], listed: str | None = None) -> str:
    """One table a task: rankers by metrics, intervals for the primary metric.

    Args:
        metrics: content of ``metrics.json``.
        listed: name of a candidate list; the first one where absent.
    """
    listed = listed or next(iter(metrics["candidates"]))
    rows = dict(_rows(metrics, listed))
    tables = []
    for task in (Task.SEARCH.label, Task.RECOMMENDATION.label):
        counts = [numbers[task]["requests"] for numbers in rows.values() if task in numbers]
        if not counts:
            continue
        header = [f"{task} ({max(counts):,} requests)", *metrics["metrics"]]
        body = [[name, *_cells(numbers.get(task), metrics)] for name, numbers in rows.items()]
        tables.append(markdown_table(header, body))
    return "\n\n".join(tables)


def _rows(metrics: Mapping[str, Any], listed: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Floors, what is missing, the trained ranker, its ablations: names and NUMBERS."""
    main, rankers = metrics["main"], metrics["candidates"][listed]["rankers"]
    for name, numbers in rankers.items():
        if name != main:
            yield name, numbers
    for name in metrics["missing"]:
        yield f"{name} (not measured)", {}
    if main in rankers:
        yield main, rankers[main]
    for name, numbers in metrics["ablations"].get(listed, {}).items():
        yield f"{main}, {name.replace('_', ' ')}", numbers


def _cells(numbers: Mapping[str, Any] | None, metrics: Mapping[str, Any]) -> list[str]:
    if numbers is None:
        return ["-" for _ in metrics["metrics"]]
    primary = primary_metric(metrics)
    return [_number(numbers[name], interval=name == primary) for name in metrics["metrics"]]


def _number(entry: Mapping[str, Any], *, interval: bool) -> str:
    value = f"{entry['value']:.4f}"
    return f"{value} [{entry['low']:.4f}, {entry['high']:.4f}]" if interval and entry["low"] is not None else value


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]], *, left: Collection[int] = (0,)) -> str:
    """A Markdown table with aligned columns: those in `left` to the left, the others to the right."""
    cells = [[cell.replace("|", "\\|") for cell in row] for row in (header, *rows)]
    widths = [max(3, *(len(row[i]) for row in cells)) for i in range(len(header))]

    def line(row: Sequence[str]) -> str:
        padded = (c.ljust(w) if i in left else c.rjust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True)))
        return "| " + " | ".join(padded) + " |"

    rule = "|" + "|".join("-" * (w + 2) if i in left else "-" * (w + 1) + ":" for i, w in enumerate(widths)) + "|"
    return "\n".join([line(cells[0]), rule, *map(line, cells[1:])])


def audit_table(metrics: Mapping[str, Any], listed: str | None = None) -> str:
    """What the floors and ablations say about the data and the model: primary metric of both tasks, and the meaning."""
    listed = listed or next(iter(metrics["candidates"]))
    primary, main = primary_metric(metrics), metrics["main"]
    rankers = metrics["candidates"][listed]["rankers"]
    found = {**rankers, **metrics["ablations"].get(listed, {})}
    labels = (Task.SEARCH.label, Task.RECOMMENDATION.label)
    body = []
    for name, numbers in found.items():
        meaning = "all it learnt: the trained ranker" if name == main else MEANINGS.get(name.partition("(")[0])
        if meaning is not None:
            cells = [f"{numbers[task][primary]['value']:.4f}" if task in numbers else "-" for task in labels]
            body.append([name, *cells, meaning])
    return markdown_table([f"{primary} on {listed}", *labels, "what it knows"], body, left=(0, 3))


def report(
    metrics: Mapping[str, Any],
    *,
    title: str,
    audit: Mapping[str, Any] | None = None,
    scale: TimeScale | None = None,
    facts: Mapping[str, Any] | None = None,
) -> str:
    """The text of ``report.md``.

    Args:
        metrics: content of ``metrics.json``.
        title: first heading.
        audit: the data's audit, from its manifest.
        scale: what the audit's times count; they are told as numbers where that is unknown.
        facts: anything else worth a line each, such as device, seconds and parameters; nested as you like.
    """
    parts = [f"# {title}", "## Results"]
    for listed, entry in metrics["candidates"].items():
        parts += [f"### Candidates: {listed}", f"sha256 `{entry['sha256']}`", results_table(metrics, listed)]
    parts.append(_reading(metrics))
    if metrics["missing"]:
        parts += ["## Not measured", "\n".join(f"- {name}: {why}" for name, why in metrics["missing"].items())]
    parts += ["## Audits", audit_table(metrics)]
    if audit:
        parts += ["### Data", audit_text(audit, scale)]
    if facts:
        parts += ["## Run", "\n".join(f"- {name}: {_value(value)}" for name, value in _flat(facts))]
    return "\n\n".join(parts) + "\n"


def _reading(metrics: Mapping[str, Any]) -> str:
    ties = {
        "expected": "Equal scores count by expectation over their orders.",
        "optimistic": "Equal scores count in favour of the truth (optimistic): a constant scorer looks perfect.",
        "pessimistic": "Equal scores count against the truth (pessimistic).",
    }[metrics["ties"]]
    interval = (
        f"Brackets: 95 % bootstrap interval over requests, {metrics['bootstrap']:,} resamples. "
        if metrics["bootstrap"]
        else ""
    )
    return f"One relevant item a request. {ties} {interval}A dash: the ranker does not do this task."


def audit_text(audit: Mapping[str, Any], scale: TimeScale | None = None) -> str:
    """The audit of `gensr.data.audit`: requests by split and task, then the log, each entry with its meaning.

    Args:
        audit: from the data's manifest.
        scale: what its times count; they are told as numbers where that is unknown.
    """

    def told(name: str, found: Mapping[str, Any]) -> str:
        if name not in found:
            return "-"
        if name in TIMES and scale is not None and scale.unit != "none":
            return scale.describe(found[name])
        return _value(found[name])

    meaning = audit["meaning"]
    columns = {f"{split} {task}": found for split, tasks in audit["splits"].items() for task, found in tasks.items()}
    names = list(dict.fromkeys(name for found in columns.values() for name in found))
    rows = [[name, *(told(name, found) for found in columns.values()), meaning.get(name, "")] for name in names]
    requests = markdown_table(["requests", *columns, "meaning"], rows, left=(0, len(columns) + 1))
    log = [[name, _value(value), meaning.get(name, "")] for name, value in audit["log"].items()]
    tables = [requests, markdown_table(["log", "count", "meaning"], log, left=(0, 2))]
    if audit.get("floors"):
        tables += [_floor_table(audit["floors"]), meaning["floors"]]
    return "\n\n".join(tables)


def _floor_table(floors: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> str:
    """Rankers without training by candidate list and task; a text where one was not measured."""
    found = [
        (listed, task, *entry) for listed, tasks in floors.items() for task, by in tasks.items() for entry in by.items()
    ]
    names = list(dict.fromkeys(name for *_, values in found if isinstance(values, Mapping) for name in values))
    rows = []
    for listed, task, ranker, values in found:
        measured = isinstance(values, Mapping)
        cells = [f"{values[name]:.4f}" if measured else "-" for name in names]
        rows.append([listed, task, ranker if measured else f"{ranker} ({values})", *cells])
    return markdown_table(["floors on", "task", "ranker", *names], rows, left=(0, 1, 2))


def _flat(value: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    for name, inner in value.items():
        here = f"{path} {name}".strip().replace("_", " ")
        if isinstance(inner, Mapping):
            yield from _flat(inner, here)
        else:
            yield here, inner


def _value(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
