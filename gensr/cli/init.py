"""`gensr init`: a spec to start from."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import click

from gensr.cli.base import Command
from gensr.cli.options import dry_run_option, options
from gensr.errors import BadInputError
from gensr.files import write_text


@click.command("init", cls=Command)
@click.argument("folder", metavar="[DIR]", type=click.Path(file_okay=False, path_type=Path), default=".")
@click.option("--force", is_flag=True, help="Overwrite a spec.json that is there.")
@options(dry_run_option)
def command(folder: Path, force: bool, dry_run: bool) -> None:
    """Write a starter spec.json.

    It names the parts that are changed most; everything else comes from preset:demo. `gensr components` documents what
    each part may be, `gensr spec show` prints the spec with every option filled in.
    """
    path = folder / "spec.json"
    if path.exists() and not force:
        raise BadInputError(f"{path} exists; --force overwrites it")
    text = json.dumps(starter(folder), indent=2) + "\n"
    if dry_run:
        click.echo(f"would write {path}:\n{text}", nl=False)
        return
    write_text(path, text)
    click.echo(f"wrote {path}")
    click.echo("next:  gensr build            train and evaluate it on the demo shop")
    click.echo("       gensr spec show        see every option")
    click.echo("       gensr components       see what each part can be, for example: gensr components source table")


def starter(folder: Path) -> dict[str, Any]:
    """The starter's content, named after `folder`: the demo preset, with the parts worth trying spelt out."""
    from gensr.rankers.config import GenSRConfig
    from gensr.spec import load_spec

    demo = load_spec("preset:demo")
    assert isinstance(demo.ranker, GenSRConfig)
    parts = ("cf", "semantic", "history", "soft_filter", "contrastive")
    return {
        "version": demo.version,
        "extends": "preset:demo",
        "name": re.sub(r"[^A-Za-z0-9._-]+", "-", folder.resolve().name).strip("._-") or "gensr",
        "seed": demo.seed,
        "data": {"source": demo.data.source.type, "item_text": list(demo.data.item_text)},
        "ranker": {"type": "gensr", **{part: getattr(demo.ranker, part).type for part in parts}},
    }
