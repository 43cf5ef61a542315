"""`gensr spec`: look at a spec without running it."""

from __future__ import annotations

import click

from gensr.cli.base import Group
from gensr.cli.options import chosen_spec, json_option, options, print_json, seed_option, set_option, spec_argument

changes = options(spec_argument, set_option, seed_option)
already_json = click.option("--json", is_flag=True, expose_value=False, help="Accepted; the output is JSON anyway.")


@click.group("spec", cls=Group)
def command() -> None:
    """Show, check or describe a spec."""


@command.command()
@changes
@already_json
def show(spec: str | None, changes: tuple[str, ...], seed: int | None) -> None:
    """Print the spec with every option filled in, as JSON that is itself a spec."""
    click.echo(chosen_spec(spec, changes, seed).to_json(), nl=False)


@command.command()
@changes
@json_option
def check(spec: str | None, changes: tuple[str, ...], seed: int | None, as_json: bool) -> None:
    """Validate the spec: all of its problems at once, or ok and its fingerprint."""
    fingerprint = chosen_spec(spec, changes, seed).fingerprint()
    if as_json:
        print_json({"ok": True, "fingerprint": fingerprint})
    else:
        click.echo(f"ok {fingerprint}")


@command.command()
@already_json
def schema() -> None:
    """Print the JSON schema of specs, for editors: name it in a spec as "$schema"."""
    from gensr.spec import PipelineSpec

    print_json({"$schema": "https://json-schema.org/draft/2020-12/schema", **PipelineSpec.model_json_schema()})
