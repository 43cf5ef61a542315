"""`gensr evaluate`: measure a run again, on other lists, tasks or numbers of requests."""

from __future__ import annotations

from pathlib import Path

import click

from gensr.cli.base import Command
from gensr.cli.options import device_option, json_option, options, print_json, quiet_option, results_only

run_argument = click.argument("run", type=click.Path(path_type=Path))


@click.command("evaluate", cls=Command)
@run_argument
@click.option("--task", "tasks", multiple=True, help="Measure this task alone. Repeatable; the spec's where absent.")
@click.option("--candidates", multiple=True, metavar="NAME", help="Candidate list. Repeatable; all where absent.")
@click.option("--max-requests", type=click.IntRange(min=1), help="Requests per task, drawn with the data seed.")
@click.option("--precision", help="fp32 or bf16, whatever the spec says.")
@click.option(
    "--root", type=click.Path(path_type=Path), help="Folder whose cache holds the data; the run's where absent."
)
@options(device_option, json_option, quiet_option)
def command(
    run: Path,
    tasks: tuple[str, ...],
    candidates: tuple[str, ...],
    max_requests: int | None,
    precision: str | None,
    root: Path | None,
    device: str,
    as_json: bool,
    quiet: bool,
) -> None:
    """Measure RUN, a run directory, on its test requests; the directory stays as it is."""
    from gensr.evaluation.report import results_table
    from gensr.runs import evaluate, open_run

    with results_only():
        metrics = evaluate(
            open_run(run, device=device),
            tasks=tasks or None,
            candidates=candidates or None,
            max_requests=max_requests,
            precision=precision,
            root=root,
            progress=not quiet,
        )
    if as_json:
        print_json(metrics)
        return
    for name in metrics["candidates"]:
        click.echo(f"candidates: {name}\n\n{results_table(metrics, name)}\n")
