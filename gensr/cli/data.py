"""`gensr data`: is my log readable, what becomes of it, and how do I get it out again?"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
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
from gensr.errors import BadInputError, GensrError

if TYPE_CHECKING:
    from gensr.data.dataset import Dataset
    from gensr.data.sources.config import SourceConfig

SPEC_SUFFIXES = (".json", ".yaml", ".yml", ".toml")


@click.group("data", cls=Group)
def command() -> None:
    """Check, prepare, show, export or extend the data of a spec."""


@command.command()
@click.argument("logs", nargs=-1, metavar="[SPEC | LOG...]")
@click.option("--items", help="The file of items beside a LOG that is a file of events.")
@options(set_option, json_option)
@click.pass_context
def check(
    ctx: click.Context, logs: tuple[str, ...], items: str | None, changes: tuple[str, ...], as_json: bool
) -> None:
    """Read a log and say what is in it, or what is wrong with it: file, line and field.

    A LOG is a file or folder as its authors publish it, recognised by its names, or a table: a folder with
    interactions.* (or events.*) and items.*, or a file of events. --set changes how a LOG is read, as in
    --set columns.item_id=sku. A SPEC names its own source. Nothing is written.
    """
    found: dict[str, dict[str, Any]] = {}
    for name in logs or (spec_source(None),):
        try:
            found[name] = _checked(_source(name, items, changes))
        except GensrError as error:
            click.echo(f"gensr: {error}", err=True)
            found[name] = {"ok": False, "problem": str(error)}
    if as_json:
        print_json(found)
    else:
        for name, entry in found.items():
            if entry["ok"]:
                _print_checked(name, entry)
    ctx.exit(0 if all(entry["ok"] for entry in found.values()) else BadInputError.exit_code)


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
    _print_prepared(dataset, as_json)


@command.command()
@options(spec_argument, set_option, root_option, json_option)
@click.option(
    "--plot", type=click.Path(path_type=Path), metavar="FILE", help="Draw the distributions: .png, .pdf or .svg."
)
def show(spec: str | None, changes: tuple[str, ...], root: Path, as_json: bool, plot: Path | None) -> None:
    """Print what `data prepare` printed, of data that are already prepared; prepares nothing."""
    from gensr.cache import StageCache
    from gensr.data.dataset import Dataset

    if plot:
        from gensr.evaluation.figures import check_figure_path

        check_figure_path(plot)
    folder = StageCache(root / ".cache").data_path(chosen_spec(spec, changes).data)
    if not folder.exists():
        edits = "".join(f" --set {shlex.quote(change)}" for change in changes)
        again = f"gensr data prepare {spec_source(spec)}{edits} --root {root}"
        raise BadInputError(f"these data are not prepared: no {folder}. Prepare them with: {again}")
    dataset = Dataset.open(folder)
    if plot:
        from gensr.data.show import save_figure

        save_figure(dataset, plot)
    _print_prepared(dataset, as_json)


@command.command()
@options(spec_argument, set_option)
@click.option("--format", "form", default="parquet", show_default=True, help="parquet, recbole or trec.")
@click.option(
    "--to", "folder", type=click.Path(path_type=Path), required=True, metavar="FOLDER", help="Folder to make."
)
@options(root_option, dry_run_option, json_option, quiet_option)
def export(
    spec: str | None,
    changes: tuple[str, ...],
    form: str,
    folder: Path,
    root: Path,
    dry_run: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Write the prepared data of a spec for other tools, with their splits and candidates; prepares them if need be.

    parquet: interactions.parquet and items.parquet, which gensr reads back. recbole: atomic files, also by split.
    trec: corpus, topics, qrels and candidates. The folder must not exist.
    """
    from gensr.cache import StageCache
    from gensr.data.export import check_target, write_export

    chosen, cache = chosen_spec(spec, changes).data, StageCache(root / ".cache")
    check_target(form, folder)
    if dry_run:
        click.echo(f"would write {folder} from {cache.data_path(chosen)}")
        return
    with results_only():
        found = write_export(cache.data(chosen, progress=not quiet), form, folder)
    if as_json:
        print_json({"folder": str(folder), **found})
        return
    click.echo(f"wrote {folder}")
    print_rows([(name, f"{rows:,} rows") for name, rows in found["rows"].items()], indent="  ")
    for listed in found.get("lists_left_out", ()):
        click.echo(f"  not written: the candidate list {listed}, which is made on demand")
    if "read_back" in found:
        click.echo(f'to read it back, in a spec\n  "data": {json.dumps(found["read_back"], ensure_ascii=False)}')


@command.command()
@click.argument("spec")
@click.argument("log")
@click.option("--items", help="The file of items beside a LOG that is a file of events.")
@click.option(
    "--to", type=click.Path(path_type=Path), metavar="FILE", help="The new spec; SPEC-appended.json if absent."
)
@options(set_option, root_option, dry_run_option, json_option, quiet_option)
def append(
    spec: str,
    log: str,
    items: str | None,
    to: Path | None,
    changes: tuple[str, ...],
    root: Path,
    dry_run: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Add the events and items of LOG to the data of SPEC: writes a new spec, prepares it and says what is new.

    Users and items keep their rows, new ones come after them. A LOG that is a table is read with the options of the
    table in SPEC; --set changes how it is read, as for `data check`.
    """
    from gensr.cache import StageCache
    from gensr.data.check import appended_spec
    from gensr.files import write_json
    from gensr.spec import load_spec

    before = load_spec(spec)
    to = to or _appended_name(spec)
    if to.exists():
        raise BadInputError(f"{to} exists; name another file with --to")
    new = _source(log, items, changes, like=before.data.source)
    extended = appended_spec(spec, new)
    after = load_spec(extended)
    if dry_run:
        click.echo(f"would write {to} and prepare {StageCache(root / '.cache').data_path(after.data)}")
        return
    cache = StageCache(root / ".cache")
    with results_only():
        old, whole = (cache.data(part.data, progress=not quiet) for part in (before, after))
    write_json(to, extended)
    counts = {name: (old.manifest["counts"].get(name, 0), count) for name, count in whole.manifest["counts"].items()}
    if as_json:
        print_json({"spec": str(to), "folder": str(whole.folder), "before_and_after": counts})
        return
    click.echo(f"wrote {to}\nprepared in {whole.folder}")
    rows = [(name.replace("_", " "), f"{a:,}", f"{b:,}", f"+{b - a:,}") for name, (a, b) in counts.items()]
    print_rows([("", "before", "after", "new"), *rows], indent="  ")


def _appended_name(spec: str) -> Path:
    """`spec.json` -> `spec-appended.json` beside it; presets have no folder."""
    path = Path(spec.removeprefix("preset:"))
    return path.with_name(f"{path.stem if path.suffix in SPEC_SUFFIXES else path.name}-appended.json")


def _source(
    name: str, items: str | None, changes: tuple[str, ...], *, like: SourceConfig | None = None
) -> SourceConfig:
    """What reads the log or spec called `name`; a table as `like` is read, where that is a table too."""
    from gensr.data.check import recognise, table_like

    published = None if name.startswith("preset:") else recognise(name)
    if published is not None and items:
        raise BadInputError(f"--items goes with a file of events; {name} is read as {published.type!r}")
    if published is None and (name.startswith("preset:") or _is_spec(name)):
        if items:
            raise BadInputError(f"--items goes with a file of events; {name} is a spec, which names its items itself")
        return chosen_spec(name, changes).data.source
    return _with_options(published or table_like(like, name, items), changes)


def _is_spec(name: str) -> bool:
    return Path(name).suffix in SPEC_SUFFIXES and not Path(name).is_dir()


def _with_options(source: SourceConfig, changes: tuple[str, ...]) -> SourceConfig:
    """`source` with the options that ``--set`` changes: a log has no others."""
    from gensr.edits import apply_edits, parse_set
    from gensr.spec import DataSpec, PipelineSpec

    edits = [parse_set(change) for change in changes]
    own = [replace(edit, path=".".join(("data.source", *_below_source(edit.path)))) for edit in edits]
    return apply_edits(PipelineSpec(data=DataSpec(source=source)), own).data.source


def _below_source(path: str) -> list[str]:
    """``data.source.columns.title`` -> ``columns``, ``title``."""
    parts = path.split(".")
    parts = parts[1:] if parts[0] == "data" else parts
    return parts[1:] if parts[0] == "source" else parts


def _checked(source: SourceConfig) -> dict[str, Any]:
    """What `data check` tells of a log that can be read."""
    from gensr.data.check import snippet, summary

    log = source.read()
    return {"ok": True, "source": source.type, "report": log.report, **summary(log), "spec": snippet(source)}


def _print_checked(name: str, entry: Mapping[str, Any]) -> None:
    click.echo(f"{name}: ok\n  read as {entry['source']}; see gensr components source {entry['source']}")
    report = dict(entry["report"])
    dropped = report.pop("dropped", {})
    time = entry["time"]
    unit = "no Unix times, only an order" if time["unit"] == "none" else f"Unix time in {time['unit']}, {time['zone']}"
    _print_section("what was read", _flat(report))
    _print_section("left out", _dropped(dropped) if dropped else [("nothing",)])
    _print_section("counts", _flat(entry["counts"]))
    _print_section("time", [("unit", unit), ("first", time["first"]), ("last", time["last"])])
    events = entry["first_events"]
    _print_section("first events", [tuple(events[0]), *(tuple(map(str, event.values())) for event in events)])
    click.echo(f"  in a spec\n    {entry['spec']}")


def _print_section(title: str, rows: Iterable[tuple[str, ...]]) -> None:
    click.echo(f"  {title}")
    print_rows(list(rows), indent="    ")


def _dropped(dropped: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    """A line a reason: rows, and the first lines they stand on."""
    for reason, entry in dropped.items():
        lines = ", ".join(map(str, entry.get("first_lines", ())))
        yield reason, f"{entry['rows']:,} rows", f"first on lines {lines}" if lines else ""


def _print_prepared(dataset: Dataset, as_json: bool) -> None:
    from gensr.data.show import spread, spread_table
    from gensr.evaluation.report import audit_text

    manifest, spreads = dataset.manifest, spread(dataset)
    if as_json:
        print_json({"folder": str(dataset.folder), **manifest, "distributions": spreads})
        return
    click.echo(f"prepared in {dataset.folder}\nfingerprint {manifest['fingerprint']}")
    for title, part in (("counts", manifest["counts"]), ("source", manifest["source"]), ("split", manifest["split"])):
        if part:
            click.echo(f"{title}:")
            print_rows(list(_flat(part)), indent="  ")
    click.echo("candidates:")
    print_rows([(name, f"sha256 {sha256}") for name, sha256 in manifest["candidates"].items()], indent="  ")
    click.echo(f"distributions:\n\n{spread_table(spreads)}\n")
    click.echo(f"audit:\n\n{audit_text(manifest['audit'], dataset.scale)}")


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
