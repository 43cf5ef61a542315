"""`gensr data`: is my log readable, and what becomes of it?"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gensr.cli.base import Group
from gensr.cli.options import (
    chosen_spec,
    dry_run_option,
    json_option,
    options,
    print_json,
    print_rows,
    quiet_option,
    results_only,
    root_option,
    set_option,
    spec_argument,
    spec_source,
)
from gensr.errors import BadInputError

if TYPE_CHECKING:
    from gensr.data.sources.config import SourceConfig

SPEC_SUFFIXES = (".json", ".yaml", ".yml", ".toml")


@click.group("data", cls=Group)
def command() -> None:
    """Check, prepare or show the data of a spec."""


@command.command()
@click.argument("logs", nargs=-1, metavar="[SPEC | LOG...]")
@click.option("--items", help="The file of items beside a LOG that is a file of events.")
@options(set_option, json_option)
@click.pass_context
def check(
    ctx: click.Context, logs: tuple[str, ...], items: str | None, changes: tuple[str, ...], as_json: bool
) -> None:
    """Read a log and say what is in it, or what is wrong with it: file, line and field.

    A LOG is a folder with interactions.* (or events.*) and items.*, or a file of events; a SPEC names its own source.
    Nothing is written.
    """
    reports: dict[str, Any] = {}
    for name in logs or (spec_source(None),):
        try:
            reports[name] = _source(name, items, changes).read().report
        except BadInputError as error:
            click.echo(f"gensr: {error}", err=True)
    if as_json:
        print_json(reports)
    else:
        for name, report in reports.items():
            click.echo(f"{name}: ok")
            print_rows(list(_flat(report)), indent="  ")
    ctx.exit(0 if len(reports) == len(logs or (1,)) else BadInputError.exit_code)


@command.command()
@options(spec_argument, set_option, root_option, dry_run_option, json_option, quiet_option)
def prepare(spec: str | None, changes: tuple[str, ...], root: Path, dry_run: bool, as_json: bool, quiet: bool) -> None:
    """Prepare the data of a spec in the cache of ROOT, and print counts, candidate hashes and audits.

    Data that are there already are opened, not prepared again.
    """
    from gensr.cache import StageCache

    chosen, cache = chosen_spec(spec, changes).data, StageCache(root / ".cache")
    if dry_run:
        folder = cache.data_path(chosen)
        click.echo(f"{folder} is prepared already" if folder.exists() else f"would prepare {folder}")
        return
    with results_only():
        dataset = cache.data(chosen, progress=not quiet)
    _print_prepared(dataset.folder, dataset.manifest, as_json)


@command.command()
@options(spec_argument, set_option, root_option, json_option)
def show(spec: str | None, changes: tuple[str, ...], root: Path, as_json: bool) -> None:
    """Print what `data prepare` printed, of data that are already prepared; prepares nothing."""
    from gensr.cache import StageCache
    from gensr.data.dataset import Dataset

    folder = StageCache(root / ".cache").data_path(chosen_spec(spec, changes).data)
    if not folder.exists():
        edits = "".join(f" --set {shlex.quote(change)}" for change in changes)
        again = f"gensr data prepare {spec_source(spec)}{edits} --root {root}"
        raise BadInputError(f"these data are not prepared: no {folder}. Prepare them with: {again}")
    _print_prepared(folder, Dataset.open(folder).manifest, as_json)


def _source(name: str, items: str | None, changes: tuple[str, ...]) -> SourceConfig:
    from gensr.data.sources.config import TableConfig

    if name.startswith("preset:") or (Path(name).suffix in SPEC_SUFFIXES and not Path(name).is_dir()):
        if items:
            raise BadInputError(f"--items goes with a file of events; {name} is a spec, which names its items itself")
        return chosen_spec(name, changes).data.source
    if changes:
        raise BadInputError(f"--set changes a spec, and {name} is a log; name the log in a spec to set its columns")
    return TableConfig(path=name, items=items)


def _print_prepared(folder: Path, manifest: Mapping[str, Any], as_json: bool) -> None:
    from gensr.evaluation.report import audit_text

    if as_json:
        print_json({"folder": str(folder), **manifest})
        return
    click.echo(f"prepared in {folder}\nfingerprint {manifest['fingerprint']}")
    for title, part in (("counts", manifest["counts"]), ("source", manifest["source"])):
        click.echo(f"{title}:")
        print_rows(list(_flat(part)), indent="  ")
    click.echo("candidates:")
    print_rows([(name, f"sha256 {sha256}") for name, sha256 in manifest["candidates"].items()], indent="  ")
    click.echo(f"audit:\n\n{audit_text(manifest['audit'])}")


def _flat(value: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, ...]]:
    for name, inner in value.items():
        here = f"{path} {name}".strip().replace("_", " ")
        if isinstance(inner, Mapping):
            yield from _flat(inner, here)
        else:
            yield here, _number(inner)


def _number(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
