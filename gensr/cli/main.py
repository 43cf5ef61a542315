"""The `gensr` command."""

from __future__ import annotations

import click

from gensr import __version__
from gensr.cli.base import Lazy, LazyGroup

COMMANDS = {
    "init": Lazy("gensr.cli.init", "Write a starter spec.json."),
    "spec": Lazy("gensr.cli.spec", "Show, check or describe a spec."),
    "components": Lazy("gensr.cli.components", "List the parts a spec can name, and their options."),
    "data": Lazy("gensr.cli.data", "Check, prepare, show, export or extend the data of a spec."),
    "build": Lazy("gensr.cli.build", "Prepare, train and evaluate what a spec describes."),
    "ablate": Lazy("gensr.cli.ablate", "Build a spec and variants of it, and compare them."),
    "compare": Lazy("gensr.cli.compare", "Compare finished runs with the first one."),
    "evaluate": Lazy("gensr.cli.evaluate", "Measure a run again."),
    "bench": Lazy("gensr.cli.bench", "Measure speeds side by side, against named baselines."),
    "rank": Lazy("gensr.cli.rank", "Rank candidates with a run."),
    "doctor": Lazy("gensr.cli.doctor", "Look at this installation: versions, devices, extras, disk."),
}


@click.group(cls=LazyGroup, lazy=COMMANDS, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="gensr")
def cli() -> None:
    """One generative model for search and recommendation.

    A SPEC is a file (.json, .yaml, .toml), preset:NAME, or absent: ./spec.json where there is one, else preset:demo.
    Results go to stdout, progress to stderr. Exit codes: 0 done, 1 failed, 2 bad usage or bad input, 130 interrupted.
    """


def main() -> None:
    """Entry point of the ``gensr`` command."""
    cli(prog_name="gensr")


if __name__ == "__main__":
    main()
