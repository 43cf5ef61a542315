"""`gensr build`: from a spec to a trained, evaluated run."""

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
    print_json,
    quiet_option,
    results_only,
    root_option,
    seed_option,
    set_option,
    spec_argument,
)


@click.command("build", cls=Command)
@options(spec_argument, set_option, seed_option, device_option, root_option)
@click.option(
    "--run-dir", type=click.Path(path_type=Path), help="The run's folder, instead of ROOT/<name>-<fingerprint>."
)
@click.option("--force", is_flag=True, help="Build again where the run is finished already.")
@click.option("--no-resume", is_flag=True, help="Start training anew instead of going on from the last checkpoint.")
@options(dry_run_option, json_option, quiet_option)
def command(
    spec: str | None,
    changes: tuple[str, ...],
    seed: int | None,
    device: str,
    root: Path,
    run_dir: Path | None,
    force: bool,
    no_resume: bool,
    dry_run: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Prepare the data, train the ranker, measure it beside the floors, and print both tasks' tables.

    Interrupted, it goes on from its last checkpoint when called again; finished, it prints what was found.
    """
    chosen = chosen_spec(spec, changes, seed)
    if dry_run:
        from gensr.cache import StageCache
        from gensr.pipeline import run_directory

        cached = StageCache(root / ".cache").data_path(chosen.data)
        click.echo(f"would build {chosen.name}, a {chosen.ranker.type} ranker, seed {chosen.seed}")
        click.echo(f"fingerprint  {chosen.fingerprint()}")
        click.echo(f"run          {run_dir or run_directory(chosen, root)}")
        click.echo(f"data         {cached}{' (prepared already)' if cached.exists() else ''}")
        return

    from gensr.evaluation.report import results_table
    from gensr.pipeline import build

    with results_only():
        run = build(
            chosen,
            root=root,
            run_dir=run_dir,
            device=device,
            progress=not quiet,
            resume=not no_resume,
            force=force,
        )
    if as_json:
        print_json(run.metrics)
        return
    for name in run.metrics["candidates"]:
        click.echo(f"candidates: {name}\n\n{results_table(run.metrics, name)}\n")
    click.echo(f"run: {run.path}")
