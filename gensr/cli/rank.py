"""`gensr rank`: one request from the command line, or many from a file."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import click

from gensr.cli.base import Command
from gensr.cli.evaluate import run_argument
from gensr.cli.options import (
    device_option,
    json_option,
    options,
    precision_option,
    print_json,
    print_rows,
    results_only,
)
from gensr.errors import BadInputError

if TYPE_CHECKING:
    from gensr.requests import Request
    from gensr.runs import Ranked, Run

AT_ONCE = 64


@click.command("rank", cls=Command)
@run_argument
@click.option("--history", default="", metavar="ID,ID", help="Items of the past, oldest first.")
@click.option("--query", help="What is searched; a recommendation without it.")
@click.option("--candidates", metavar="ID,ID", help="Items to rank.")
@click.option(
    "--input", "file", type=click.File(encoding="utf-8"), help="Requests, one JSON object a line; - is stdin."
)
@click.option("--top", type=click.IntRange(min=1), help="Keep the best so many.")
@options(device_option, precision_option, json_option)
def command(
    run: Path,
    history: str,
    query: str | None,
    candidates: str | None,
    file: IO[str] | None,
    top: int | None,
    device: str,
    precision: str,
    as_json: bool,
) -> None:
    """Rank candidates with RUN, a run directory.

    With --input, each line is {"history": [...], "query": "...", "candidates": [...]} and answered by a line
    {"ranking": [{"item": ..., "score": ..., "rank": ...}, ...]}. There an item may be {"id": ..., "title": ...,
    "categories": ...}, which ranks items that the run never saw.
    """
    from gensr.runs import open_run

    if (file is None) == (candidates is None) or (file and (history or query)):
        raise click.UsageError("give either --candidates (with --history, --query) or --input FILE")
    opened = open_run(run, device=device, precision=precision)
    if file is not None:
        _rank_lines(opened, file, top)
        return
    with results_only():
        ranking = opened.rank(_ids(history), query, _ids(candidates or ""), k=top)
    if as_json:
        print_json(_as_objects(ranking))
    else:
        titles = opened.catalogue.titles
        rows = [(str(r.rank), f"{r.score:.4f}", r.item, titles[opened.catalogue.item_row(r.item)]) for r in ranking]
        print_rows([("rank", "score", "item", "title"), *rows])


def _ids(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _as_objects(ranking: list[Ranked]) -> list[dict[str, Any]]:
    return [entry._asdict() for entry in ranking]


def _rank_lines(run: Run, file: IO[str], top: int | None) -> None:
    requests = _read(file)
    while part := list(islice(requests, AT_ONCE)):
        with results_only():
            try:
                rankings = run.rank_many([request for _, request in part], k=top)
            except BadInputError:
                _blame(run, file.name, part)
                raise
        for ranking in rankings:
            click.echo(json.dumps({"ranking": _as_objects(ranking)}, ensure_ascii=False))


def _read(file: IO[str]) -> Iterator[tuple[int, Request]]:
    """Requests with their line numbers; blank lines are skipped."""
    from gensr.requests import Request

    try:
        for number, line in enumerate(file, start=1):
            if line.strip():
                try:
                    yield number, Request.parse(json.loads(line))
                except (json.JSONDecodeError, BadInputError) as error:
                    raise BadInputError(f"{file.name} line {number}: {error}") from None
    except UnicodeDecodeError as error:
        raise BadInputError(f"{file.name} is no UTF-8: {error}") from None


def _blame(run: Run, name: str, part: list[tuple[int, Request]]) -> None:
    """Name the line at fault, which a batch's own error counts from the batch's start."""
    for number, request in part:
        try:
            run.rank_many([request])
        except BadInputError as error:
            raise BadInputError(f"{name} line {number}: {error}") from None
