"""A comparison as text, Markdown, LaTeX, CSV or JSON: one table as data, and a writer for each format.

Tables for reading have one row a variant, and the primary metric's difference in full. CSV has one row for each variant
and metric, with everything the comparison holds.
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
    """A table for each candidate list and task."""
    found = []
    for listed in comparison.candidates:
        for task in TASKS:
            cells = [cell for cell in comparison.cells if (cell.candidates, cell.task) == (listed, task.label)]
            if cells:
                title = f"{task.label}, candidates {listed} ({cells[0].requests:,} requests)"
                found.append(_table(comparison, title, listed, task.label, cells))
    return found or [_table(comparison, "nothing was measured", "", "", [])]


def notes(comparison: Comparison) -> list[str]:
    """How to read the tables, and what is missing in them."""
    seeds = max((len(cell.seeds) for cell in comparison.cells if cell.difference is not None), default=0)
    lines = []
    if seeds:
        paired = "request by request" + (" and seed by seed" if seeds > 1 else "")
        covers = (
            f"over requests and over the {seeds} seeds"
            if seeds > 1
            else "over requests alone: with one seed it says nothing about other seeds"
        )
        lines += [
            f"Difference: variant minus {comparison.base.name}, paired {paired}. Brackets: 95 % bootstrap interval "
            f"{covers}.",
            "p: paired sign-flip test over requests, Holm-adjusted over the variants of a task and metric. "
            "*: p < 0.05 and an interval without 0.",
        ]
    if seeds > 1:
        lines.append("By seed: smallest and largest difference of one seed.")
    lines.append(
        f"Equal scores: {comparison.ties}. Seconds: in training updates, and of the whole build, which includes stages "
        "shared with others where this build was the first to need them; means over seeds. Peak: largest over seeds."
    )
    lines += [f"Candidates {name}: sha256 {sha}" for name, sha in comparison.candidates.items()]
    lines += [f"Paired in order, for want of a common seed: {name}" for name in _unpaired(comparison)]
    lines += _fewer_seeds(comparison)
    lines += [f"Failed: {line}" for line in comparison.failed]
    return lines


def _table(comparison: Comparison, title: str, listed: str, task: str, cells: Sequence[Cell]) -> Table:
    several = any(len(cell.seeds) > 1 for cell in cells)
    cost = "gpu_mib" if any(variant.peak("gpu_mib") is not None for variant in comparison.variants) else "process_mib"
    primary = comparison.primary
    header = (
        "variant",
        *comparison.metrics,
        f"{primary} difference",
        *(("by seed",) if several else ()),
        "p",
        "training s",
        "total s",
        "peak GPU MiB" if cost == "gpu_mib" else "peak MiB",
    )
    rows = []
    for variant in comparison.variants:
        found = [comparison.cell(listed, task, variant.name, name) for name in comparison.metrics]
        main = comparison.cell(listed, task, variant.name, primary)
        rows.append(
            (
                _label(variant),
                *(f"{cell.value:.4f}{'*' if cell.significant else ''}" if cell else DASH for cell in found),
                _difference(main),
                *((_spread(main),) if several else ()),
                _p_value(main),
                _number(variant.mean("training_seconds")),
                _number(variant.mean("total_seconds")),
                _number(variant.peak(cost), digits=0),
            )
        )
    return Table(title, header, tuple(rows))


def _label(variant: Measured) -> str:
    done, asked = len(variant.results), len(variant.results) + len(variant.failed) + len(variant.pending)
    if done == asked:
        return variant.name
    if done:
        return f"{variant.name} ({done} of {asked} seeds)"
    return f"{variant.name} (failed)" if variant.failed else f"{variant.name} (to come)"


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


def _number(value: float | None, *, digits: int = 1) -> str:
    return DASH if value is None else f"{value:,.{digits}f}"


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


_COSTS = ("training_seconds", "total_seconds", "process_mib", "gpu_mib")


def _csv(comparison: Comparison) -> str:
    names = [field.name for field in fields(Cell)]
    out = io.StringIO()
    writer = csv.DictWriter(out, [*names, "significant", *_COSTS, "status"], lineterminator="\n")
    writer.writeheader()
    writer.writerows(_csv_rows(comparison))
    return out.getvalue()


def _csv_rows(comparison: Comparison) -> Iterator[dict[str, object]]:
    for variant in comparison.variants:
        costs: dict[str, object] = {name: variant.mean(name) for name in _COSTS[:2]}
        costs |= {name: variant.peak(name) for name in _COSTS[2:]}
        status = "failed" if variant.failed else "to come" if variant.pending else "done"
        cells = [cell for cell in comparison.cells if cell.variant == variant.name]
        for cell in cells:
            seeds = " ".join(map(str, cell.seeds))
            yield asdict(cell) | {"seeds": seeds, "significant": cell.significant, "status": status} | costs
        if not cells:
            yield {"variant": variant.name, "status": status}


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
