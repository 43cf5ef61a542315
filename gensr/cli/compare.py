"""`gensr compare`: finished runs against the first one."""

from __future__ import annotations

from pathlib import Path

import click

from gensr.cli.base import Command
from gensr.cli.options import json_option, options


@click.command("compare", cls=Command)
@click.argument("runs", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="RUN RUN...")
@click.option(
    "--metric", "metrics", multiple=True, help="recall@k, ndcg@k or mrr. Repeatable; the first run's where absent."
)
@click.option("--format", "form", default="text", show_default=True, help="text, markdown, csv, latex or json.")
@click.option(
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Write the tables there, not to stdout.",
)
@click.option("--plot", type=click.Path(path_type=Path), metavar="FILE", help="Draw a figure too (extra: plots).")
@options(json_option)
def command(
    runs: tuple[Path, ...], metrics: tuple[str, ...], form: str, output: Path | None, plot: Path | None, as_json: bool
) -> None:
    """Compare finished runs with the first one, request by request, from their stored ranks.

    Runs of any rankers: a leaderboard a task, with a dash where a ranker does not do it. Runs that differ in their seed
    alone are the seeds of one variant. Runs that ranked other candidates or other requests are refused.
    """
    from gensr.evaluation.figures import check_figure_path, save_figure
    from gensr.evaluation.grouping import compare
    from gensr.evaluation.tables import check_format, render
    from gensr.files import write_text

    form = "json" if as_json else form
    check_format(form)
    if plot is not None:
        check_figure_path(plot)
    comparison = compare(runs, metrics=metrics)
    if plot is not None:
        save_figure(comparison, plot)
    text = render(comparison, form)
    if output is None:
        click.echo(text, nl=False)
    else:
        write_text(output, text)
