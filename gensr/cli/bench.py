"""`gensr bench`: speeds, side by side in one run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from gensr.bench.cases import Context
from gensr.cli.base import Command
from gensr.cli.options import (
    chosen_spec,
    device_option,
    json_option,
    options,
    print_json,
    quiet_option,
    results_only,
    spec_argument,
)
from gensr.files import write_json

if TYPE_CHECKING:
    from gensr.bench.report import Result


@click.command("bench", cls=Command)
@options(spec_argument)
@click.option("--suite", "suites", multiple=True, metavar="NAME", help="Run this suite alone. Repeatable.")
@click.option(
    "--shape", "shapes", multiple=True, metavar="NAME", help="small, base or tiny. Repeatable; small and base."
)
@click.option("--quick", is_flag=True, help="Small sizes and few rounds: does it run? Not for numbers.")
@click.option("--rounds", type=click.IntRange(min=1), help="Samples of each case; 9, or 3 with --quick.")
@click.option("--threads", type=click.IntRange(min=1), help="CPU threads of torch, instead of its own choice.")
@click.option(
    "--baselines",
    type=click.Path(path_type=Path),
    metavar="FOLDER",
    help="Where the baselines are; a checkout's benchmarks/baselines where absent.",
)
@click.option("--out", type=click.Path(path_type=Path), metavar="FILE", help="Store the results as JSON too.")
@click.option(
    "--table", type=click.Path(path_type=Path), metavar="FILE", help="Measure nothing: show results that --out stored."
)
@options(device_option, json_option, quiet_option)
def command(
    spec: str | None,
    suites: tuple[str, ...],
    shapes: tuple[str, ...],
    quick: bool,
    rounds: int | None,
    threads: int | None,
    baselines: Path | None,
    out: Path | None,
    table: Path | None,
    device: str,
    as_json: bool,
    quiet: bool,
) -> None:
    """Time scoring, training, CF, ranks, loading and imports, each against a named baseline in the same run.

    With SPEC, its ranker on its data: suites scoring, training and loading. Without, models of two sizes with random
    weights on made-up data. Leave the machine alone meanwhile. An interruption keeps what is finished.
    """
    if table is not None:
        from gensr.bench.report import read_result

        if spec is not None or suites or shapes or out is not None:
            raise click.UsageError("--table measures nothing: leave SPEC, --suite, --shape and --out out")
        _show(read_result(table), as_json)
        return
    if spec is not None and shapes:
        raise click.UsageError("--shape chooses made-up models, and SPEC brings its own: give one of them")

    from gensr.bench.run import BASELINES, QUICK_ROUNDS, ROUNDS, baselines_in, chosen_shapes, chosen_suites, run, suite
    from gensr.progress import Progress

    chosen = None if spec is None else chosen_spec(spec)
    names = chosen_suites(suites, spec=chosen)
    context = Context(
        device=_prepared(device, threads),
        shapes=chosen_shapes(shapes),
        spec=chosen,
        quick=quick,
        baselines=baselines_in(baselines or BASELINES),
    )
    # Lines and no bars: what redraws itself beside the clock would be timed with it.
    say = Progress(enabled=not quiet).note
    rounds = rounds or (QUICK_ROUNDS if quick else ROUNDS)
    result = None
    try:
        with results_only():
            for result in run(context, map(suite, names), rounds=rounds, say=say):
                if out is not None:
                    write_json(out, result.to_dict())
    finally:  # also where it was interrupted, or a suite failed
        if result is not None:
            _show(result, as_json)


def _prepared(device: str, threads: int | None) -> str:
    import torch

    from gensr.device import choose_device

    if threads is not None:
        torch.set_num_threads(threads)
    return choose_device(device)


def _show(result: Result, as_json: bool) -> None:
    from gensr.bench.report import tables

    if as_json:
        print_json(result.to_dict())
    else:
        click.echo(tables(result))
