"""Arguments that several commands share, and how they become a spec."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from gensr.spec import PipelineSpec

F = TypeVar("F", bound=Callable[..., Any])

spec_argument = click.argument("spec", required=False)
set_option = click.option(
    "--set",
    "changes",
    multiple=True,
    metavar="PATH=VALUE",
    help="Change an option; PATH may be cut on the left while it stays unambiguous. Repeatable.",
)
seed_option = click.option("--seed", type=click.IntRange(min=0), help="Seed of the run, instead of the spec's.")
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
device_option = click.option("--device", default="auto", show_default=True, help="auto, cpu or cuda.")
precision_option = click.option(
    "--precision", default="fp32", show_default=True, help="fp32, or bf16: faster, scores move a little."
)
root_option = click.option(
    "--root", type=click.Path(path_type=Path), default="runs", show_default=True, help="Folder of runs and their cache."
)
dry_run_option = click.option("--dry-run", is_flag=True, help="Say what would be done; write nothing.")
quiet_option = click.option("-q", "--quiet", is_flag=True, help="No progress on stderr.")


def options(*decorators: Callable[[F], F]) -> Callable[[F], F]:
    """Several option decorators as one, shown in the order given."""
    return lambda function: reduce(lambda wrapped, decorate: decorate(wrapped), reversed(decorators), function)


def spec_source(spec: str | None) -> str:
    """The spec that was named; else ``./spec.json`` where there is one, else ``preset:demo``."""
    return spec or ("spec.json" if Path("spec.json").is_file() else "preset:demo")


def chosen_spec(spec: str | None, changes: tuple[str, ...] = (), seed: int | None = None) -> PipelineSpec:
    """The spec that a command's arguments describe."""
    from gensr.edits import Edit, apply_edits, parse_set
    from gensr.spec import load_spec

    edits = [parse_set(change) for change in changes]
    if seed is not None:
        edits.append(Edit("set", "seed", seed))
    return apply_edits(load_spec(spec_source(spec)), edits)


@contextmanager
def results_only() -> Iterator[None]:
    """Send whatever libraries print while they work to stderr, so that stdout holds results alone."""
    with redirect_stdout(sys.stderr):
        yield


def print_json(value: Any) -> None:
    """Write `value` to stdout as indented JSON."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))


def print_rows(rows: list[tuple[str, ...]], *, indent: str = "") -> None:
    """Write rows of text in columns as wide as their longest entry."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]) - 1)] if rows else []
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=False)]
        click.echo((indent + "  ".join([*cells, row[-1]])).rstrip())
