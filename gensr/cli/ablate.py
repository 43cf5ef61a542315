"""`gensr ablate`: variants of a spec, built and compared."""

from __future__ import annotations

from pathlib import Path

import click

from gensr.cli.base import Command
from gensr.cli.options import (
    chosen_spec,
    device_option,
    dry_run_option,
    json_option,
    options,
    print_rows,
    quiet_option,
    results_only,
    root_option,
    seed_option,
    set_option,
    spec_argument,
)


@click.command("ablate", cls=Command)
@options(spec_argument, set_option)
@click.option(
    "--drop",
    "drops",
    multiple=True,
    metavar="SLOT[+SLOT]",
    help="A variant without a component, or several. Repeatable.",
)
@click.option(
    "--swap",
    "swaps",
    multiple=True,
    metavar="SLOT=NAME[+...]",
    help='A variant with another component: a name, or an object with a "type" and options. Repeatable.',
)
@click.option(
    "--grid",
    "grids",
    multiple=True,
    metavar="PATH=VALUE,...",
    help="A variant a value. Repeatable; several are several sweeps, not their product.",
)
@click.option("--suite", help="A list of variants by name: paper, for those of GenSR's Figure 4.")
@click.option(
    "--seeds", type=click.IntRange(min=1), default=1, show_default=True, help="So many seeds, from the spec's own on."
)
@click.option("--plot", is_flag=True, help="Leave figures beside the tables (extra: plots).")
@options(seed_option, device_option, root_option, dry_run_option, json_option, quiet_option)
@click.pass_context
def command(
    ctx: click.Context,
    spec: str | None,
    changes: tuple[str, ...],
    drops: tuple[str, ...],
    swaps: tuple[str, ...],
    grids: tuple[str, ...],
    suite: str | None,
    seeds: int,
    plot: bool,
    seed: int | None,
    device: str,
    root: Path,
    dry_run: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Build SPEC and variants of it, one after the other, and end in one table.

    --set changes the base, and so all variants. Each --drop, each --swap and each value of a --grid is a variant; +
    joins several changes into one.

    \b
    gensr ablate --drop soft_filter
    gensr ablate spec.json --suite paper --seeds 3
    gensr ablate spec.json --drop cf+contrastive --swap history=gru --grid contrastive.temperature=0.05,0.1

    Finished runs are opened and not built again: the same command after an interruption does what is missing. A variant
    that fails does not stop the others; then the exit code is 1. Tables are left in ROOT/ablations.
    """  # noqa: D301 -- click's own mark for lines to leave as they are
    from gensr.variants import make_plan, read_grids, read_variants

    variants = read_variants(suite=suite, drops=drops, swaps=swaps)
    plan = make_plan(chosen_spec(spec, changes, seed), variants, read_grids(grids), seeds=seeds, root=root)
    if dry_run:
        for remark in plan.remarks:
            click.echo(remark)
        rows: list[tuple[str, ...]] = [("variant", "seed", "run", "")]
        rows += [
            (run.variant, str(run.seed), str(run.path), "finished" if run.finished else "to build") for run in plan.runs
        ]
        print_rows(rows)
        click.echo(f"tables: {plan.folder}")
        return

    from gensr.ablation import run_plan
    from gensr.evaluation.tables import render

    with results_only():
        comparison = run_plan(plan, device=device, progress=not quiet, plot=plot)
    click.echo(render(comparison, "json" if as_json else "text"), nl=False)
    if comparison.failed:
        count = len(plan.runs)
        failed = "\n  ".join(comparison.failed)
        click.echo(f"gensr: {len(comparison.failed)} of {count} runs failed:\n  {failed}", err=True)
        ctx.exit(1)
