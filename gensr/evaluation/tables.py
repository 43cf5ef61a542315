"""A comparison as text, Markdown, LaTeX, CSV or JSON: one table as data, and a writer for each format.

Tables for reading have one row a variant: a leaderboard for each candidate list and task, with the primary metric's
intervals in full and what the variant cost, and beneath, what it loses without a part of the request. CSV has one row
for each variant and metric, with everything the comparison holds.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields

from gensr.errors import BadInputError, did_you_mean
from gensr.evaluation.comparison import TASKS, Cell, Comparison, Measured
from gensr.evaluation.report import markdown_table

DASH = "-"


@dataclass(frozen=True)
class Table:
    """One table for reading.

    Attributes:
        title: what it is about.
        header: names of the columns; the first one is aligned to the left.
        rows: cells as text.
    """

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def render(comparison: Comparison, form: str) -> str:
    """The comparison in one of `FORMATS`.

    Raises:
        BadInputError: no such format.
    """
    check_format(form)
    return FORMATS[form](comparison)


def check_format(form: str) -> None:
    """Raise `BadInputError` where `form` is none of `FORMATS`."""
    if form not in FORMATS:
        hint = did_you_mean(form, FORMATS) or "."
        raise BadInputError(f"no format named {form!r}{hint} Known: {', '.join(FORMATS)}")


def tables(comparison: Comparison) -> list[Table]:
    """A leaderboard for each candidate list and task, then what is lost where a part of the request is withheld."""
    boards, withheld = [], []
    for listed in comparison.candidates:
        for task in TASKS:
            cells = [cell for cell in comparison.cells if (cell.candidates, cell.task) == (listed, task.label)]
            if cells:
                boards.append(_leaderboard(comparison, cells[0]))
            parts = [cell for cell in comparison.withheld if (cell.candidates, cell.task) == (listed, task.label)]
            if parts:
                withheld.append(_withheld_table(comparison, parts))
    return [*boards, *withheld] or [_leaderboard(comparison, None)]


def notes(comparison: Comparison) -> list[str]:
    """How to read the tables, and what is missing in them."""
    lines = [*_intervals(comparison), *_gaps(comparison)]
    if comparison.withheld:
        lines.append(
            "Withheld: the same requests without their query, with the query of another request, or without their "
            "history; each against the same variant asked in full. What is not lost was not read."
        )
    lines += [
        f"Equal scores: {comparison.ties}. Parameters: frozen ones too. Rows/s: (request, candidate) pairs in training "
        "updates. Requests/s: while test requests were scored. Means over seeds; peak: largest over seeds.",
        f"Seconds in training updates, and of the whole build with the stages it was the first to need: "
        f"{_seconds(comparison)}.",
    ]
    lines += [f"Candidates {name}: sha256 {sha}" for name, sha in comparison.candidates.items()]
    lines += [f"Paired in order, for want of a common seed: {name}" for name in _unpaired(comparison)]
    lines += _fewer_seeds(comparison)
    lines += [f"Failed: {line}" for line in comparison.failed]
    return lines


def _intervals(comparison: Comparison) -> Iterator[str]:
    most = max((len(cell.seeds) for cell in comparison.cells), default=0)
    if not most:
        return
    seeds = max((len(cell.seeds) for cell in comparison.cells if cell.difference is not None), default=0)
    covers = (
        f"over requests and over the {most} seeds"
        if most > 1
        else "over requests alone: with one seed it says nothing about other seeds"
    )
    yield f"Brackets: 95 % bootstrap interval {covers}."
    if not seeds:
        return
    paired = "request by request" + (" and seed by seed" if seeds > 1 else "")
    yield f"Difference: variant minus {comparison.base.name}, paired {paired}."
    yield (
        "p: paired sign-flip test over requests, Holm-adjusted over the variants of a task and metric. *: p < 0.05 and "
        "an interval without 0."
    )
    if seeds > 1:
        yield "By seed: smallest and largest difference of one seed."


def _gaps(comparison: Comparison) -> Iterator[str]:
    """Why rows of finished variants have dashes: they ranked no requests of the task."""
    for task in dict.fromkeys(cell.task for cell in comparison.cells):
        asked = {cell.variant for cell in comparison.cells if cell.task == task}
        without = [variant.name for variant in comparison.variants if variant.results and variant.name not in asked]
        if without:
            why = "a dash, not a zero: a ranker is asked for the tasks that it does"
            yield f"No {task} requests were ranked by {', '.join(without)} ({why})."
        if comparison.base.name in without:
            yield f"No differences in {task}: nothing of {comparison.base.name} is there to compare with."


def _leaderboard(comparison: Comparison, first: Cell | None) -> Table:
    """One row a variant on the task and the candidates of the `first` cell; without one, nothing was measured."""
    listed, task = (first.candidates, first.task) if first else ("", "")
    several = any(len(cell.seeds) > 1 for cell in comparison.cells if (cell.candidates, cell.task) == (listed, task))
    memory = "gpu_mib" if any(variant.peak("gpu_mib") is not None for variant in comparison.variants) else "process_mib"
    primary = comparison.primary
    header = (
        "variant",
        *comparison.metrics,
        f"{primary} difference",
        *(("by seed",) if several else ()),
        "p",
        "parameters",
        "rows/s",
        "requests/s",
        "peak GPU MiB" if memory == "gpu_mib" else "peak MiB",
    )
    rows = []
    for variant in comparison.variants:
        found = {name: comparison.cell(listed, task, variant.name, name) for name in comparison.metrics}
        main = found[primary]
        rows.append(
            (
                _label(variant),
                *(_value(cell, interval=name == primary) for name, cell in found.items()),
                _difference(main),
                *((_spread(main),) if several else ()),
                _p_value(main),
                _number(variant.peak("parameters")),
                _number(variant.mean("rows_per_second")),
                _number(variant.mean("requests_per_second")),
                _number(variant.peak(memory)),
            )
        )
    if first is None:
        return Table("nothing was measured", header, tuple(rows))
    about = f"{first.requests:,} requests, sha256 {comparison.candidates[listed][:12]}"
    return Table(f"{task}, candidates {listed} ({about})", header, tuple(rows))


def _withheld_table(comparison: Comparison, cells: Sequence[Cell]) -> Table:
    """The primary metric of one task and list, in full and with each part of the request withheld."""
    listed, task, primary = cells[0].candidates, cells[0].task, comparison.primary
    parts = dict.fromkeys(cell.withheld for cell in cells)
    header = ["variant", primary]
    for part in parts:
        header += [part.replace("_", " "), "difference"]
    rows = []
    for variant in comparison.variants:
        full = comparison.cell(listed, task, variant.name, primary)
        row = [_label(variant), DASH if full is None else f"{full.value:.4f}"]
        for part in parts:
            cell = comparison.cell(listed, task, variant.name, primary, part)
            row += [_value(cell), _difference(cell)]
        rows.append(tuple(row))
    return Table(f"{task}, parts of the request withheld, candidates {listed}", tuple(header), tuple(rows))


def _label(variant: Measured) -> str:
    done, asked = len(variant.results), len(variant.results) + len(variant.failed) + len(variant.pending)
    if done == asked:
        return variant.name
    if done:
        return f"{variant.name} ({done} of {asked} seeds)"
    return f"{variant.name} (failed)" if variant.failed else f"{variant.name} (to come)"


def _value(cell: Cell | None, *, interval: bool = False) -> str:
    if cell is None:
        return DASH
    ends = f" [{cell.value_low:.4f}, {cell.value_high:.4f}]" if interval else ""
    return f"{cell.value:.4f}{'*' if cell.significant else ''}{ends}"


def _difference(cell: Cell | None) -> str:
    if cell is None or cell.difference is None:
        return DASH
    return f"{cell.difference:+.4f} [{cell.low:+.4f}, {cell.high:+.4f}]"


def _spread(cell: Cell | None) -> str:
    if cell is None or cell.seed_low is None:
        return DASH
    return f"{cell.seed_low:+.4f} to {cell.seed_high:+.4f}"


def _p_value(cell: Cell | None) -> str:
    if cell is None or cell.p_adjusted is None:
        return DASH
    return "<0.001" if cell.p_adjusted < 0.001 else f"{cell.p_adjusted:.3f}"


def _number(value: float | None) -> str:
    """A count or a rate: whole, and with a digit more where it is a small rate."""
    if value is None:
        return DASH
    return f"{value:,.1f}" if isinstance(value, float) and value < 10 else f"{value:,.0f}"


def _seconds(comparison: Comparison) -> str:
    def told(variant: Measured, cost: str) -> str:
        mean = variant.mean(cost)
        return DASH if mean is None else f"{mean:,.1f}"

    finished = [variant for variant in comparison.variants if variant.results]
    told_all = (f"{v.name} {told(v, 'training_seconds')}, {told(v, 'total_seconds')}" for v in finished)
    return "; ".join(told_all) or DASH


def _unpaired(comparison: Comparison) -> list[str]:
    base = set(comparison.base.results)
    return [v.name for v in comparison.variants[1:] if base and v.results and not base & set(v.results)]


def _fewer_seeds(comparison: Comparison) -> Iterator[str]:
    """A line for each variant of which not every seed, or not every seed of the base, has a counterpart."""
    base = comparison.base
    for variant in comparison.variants[1:]:
        cells = [cell for cell in comparison.cells if cell.variant == variant.name and cell.difference is not None]
        paired = max((len(cell.seeds) for cell in cells), default=0)
        if 0 < paired < max(len(base.results), len(variant.results)):
            own = f"{base.name} has {len(base.results)}, it has {len(variant.results)}"
            alone = "; its interval says nothing about other seeds" if paired == 1 else ""
            yield f"Over {paired} of the seeds alone: {variant.name} ({own}){alone}"


def _text(comparison: Comparison) -> str:
    parts = []
    for table in tables(comparison):
        rows = (table.header, *table.rows)
        widths = [max(len(row[column]) for row in rows) for column in range(len(table.header))]
        lines = ["  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]).rstrip() for row in rows]
        parts.append("\n".join([table.title, "", lines[0], "-" * max(map(len, lines)), *lines[1:]]))
    return "\n\n".join([*parts, "\n".join(notes(comparison))]) + "\n"


def _markdown(comparison: Comparison) -> str:
    parts = [f"**{table.title}**\n\n{markdown_table(table.header, table.rows)}" for table in tables(comparison)]
    return "\n\n".join([*parts, "\n".join(f"- {line}" for line in notes(comparison))]) + "\n"


def _latex(comparison: Comparison) -> str:
    parts = []
    for table in tables(comparison):
        body = [" & ".join(map(latex_text, row)) + r" \\" for row in (table.header, *table.rows)]
        lines = [
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{latex_text(table.title)}}}",
            rf"\begin{{tabular}}{{l{'r' * (len(table.header) - 1)}}}",
            r"\hline",
            body[0],
            r"\hline",
            *body[1:],
            r"\hline",
            r"\end{tabular}",
            r"\end{table}",
        ]
        parts.append("\n".join(lines))
    return "\n\n".join([*parts, "\n".join(f"% {line}" for line in notes(comparison))]) + "\n"


_LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": "$<$",
    ">": "$>$",
    "|": "$|$",
    '"': "''",
    **{char: f"\\{char}" for char in "&%$#_{}"},
}


def latex_text(text: str) -> str:
    """Text as LaTeX prints it in any font encoding, minus signs before numbers included."""
    if text == DASH:
        return "--"
    escaped = "".join(_LATEX.get(char, char) for char in text)
    return re.sub(r"(?<![\w.])([+-])(?=\d)", r"$\1$", escaped)


_MEANS = ("training_seconds", "total_seconds", "rows_per_second", "requests_per_second")
_PEAKS = ("parameters", "process_mib", "gpu_mib")


def _csv(comparison: Comparison) -> str:
    names = [field.name for field in fields(Cell)]
    out = io.StringIO()
    writer = csv.DictWriter(out, [*names, "significant", *_MEANS, *_PEAKS, "status"], lineterminator="\n")
    writer.writeheader()
    writer.writerows(_csv_rows(comparison))
    return out.getvalue()


def _csv_rows(comparison: Comparison) -> Iterator[dict[str, object]]:
    for variant in comparison.variants:
        costs: dict[str, object] = {name: variant.mean(name) for name in _MEANS}
        costs |= {name: variant.peak(name) for name in _PEAKS}
        status = "failed" if variant.failed else "to come" if variant.pending else "done"
        cells = [cell for cell in (*comparison.cells, *comparison.withheld) if cell.variant == variant.name]
        for cell in cells:
            seeds = " ".join(map(str, cell.seeds))
            yield asdict(cell) | {"seeds": seeds, "significant": cell.significant, "status": status} | costs
        if not cells:
            yield {"variant": variant.name, "status": status} | (costs if variant.results else {})


def _json(comparison: Comparison) -> str:
    return json.dumps(comparison.to_dict(), indent=2, ensure_ascii=False) + "\n"


FORMATS: dict[str, Callable[[Comparison], str]] = {
    "text": _text,
    "markdown": _markdown,
    "csv": _csv,
    "latex": _latex,
    "json": _json,
}
"""What `render` can write."""
