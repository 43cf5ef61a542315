"""`gensr compare`, as its user calls it."""

from __future__ import annotations

import csv
import io

import pytest

from tests.cli.conftest import FEW_FLOORS, as_json

FEW = ("--set", FEW_FLOORS, "--set", "evaluation.ablations=false", "--set", "max_steps=2", "-q", "--json")


@pytest.fixture(scope="module")
def other(built, tmp_path_factory):
    """A run like the tiny one but for its filter, one of other candidates, one of fewer requests."""
    from click.testing import CliRunner

    from gensr.cli.main import cli

    root, found = tmp_path_factory.mktemp("others"), {}
    changes = {"mean": "soft_filter=mean", "drawn": "data.seed=1", "few": "max_requests=5"}
    for name, change in changes.items():
        args = ["build", "preset:tiny", *FEW, "--set", change, "--run-dir", str(root / name), "--root", str(root)]
        result = CliRunner().invoke(cli, args, catch_exceptions=False)
        assert result.exit_code == 0, result.stderr
        found[name] = root / name
    return found


def test_runs_are_compared_with_the_first_one(call, tiny_run, other):
    text = call("compare", tiny_run, other["mean"]).stdout
    assert text.startswith("search, candidates uniform-19 (40 requests, sha256 ")
    assert "\nmean  " in text
    assert f"Difference: variant minus {tiny_run.name}" in text


@pytest.mark.parametrize("form", ["text", "markdown", "csv", "latex", "json"])
def test_every_format_can_be_had(call, tiny_run, other, form):
    text = call("compare", tiny_run, other["mean"], "--format", form, "--metric", "ndcg@10", "--metric", "mrr").stdout
    assert "ndcg@10" in text
    assert "recall" not in text
    if form == "csv":
        rows = list(csv.DictReader(io.StringIO(text)))
        assert len([row for row in rows if not row["withheld"]]) == 2 * 2 * 2
        assert {row["variant"] for row in rows if row["withheld"]} == {tiny_run.name}


def test_json_is_what_the_other_commands_call_it(call, tiny_run, other):
    content = as_json(call("compare", tiny_run, other["mean"], "--json"))
    assert [variant["name"] for variant in content["variants"]] == [tiny_run.name, "mean"]


def test_the_tables_go_to_a_file_where_one_is_named(call, tiny_run, other, tmp_path):
    result = call("compare", tiny_run, other["mean"], "--format", "markdown", "--output", "there/board.md")
    assert result.stdout == ""
    expected = call("compare", tiny_run, other["mean"], "--format", "markdown").stdout
    assert (tmp_path / "there/board.md").read_text() == expected


def test_a_folder_is_no_file_for_the_tables(call, tiny_run, other, tmp_path):
    message = call("compare", tiny_run, other["mean"], "--output", tmp_path, code=2).stderr
    assert "is a directory" in message


def test_a_figure_is_drawn_where_it_is_wanted(call, tiny_run, other, tmp_path):
    pytest.importorskip("matplotlib")
    call("compare", tiny_run, other["mean"], "--plot", "there.png")
    assert (tmp_path / "there.png").read_bytes().startswith(b"\x89PNG")
    message = call("compare", tiny_run, other["mean"], "--plot", "there.doc", code=2).stderr
    assert "no figure format '.doc'. Known: png, pdf, svg" in message


def test_what_cannot_be_compared_is_refused_with_both_names(call, tiny_run, other):
    message = call("compare", tiny_run, other["drawn"], code=2).stderr
    assert (
        f"{tiny_run} and {other['drawn']} cannot be compared: they ranked different candidates: uniform-19" in message
    )
    message = call("compare", tiny_run, other["few"], code=2).stderr
    assert f"{tiny_run} and {other['few']} cannot be compared: they ranked different requests on uniform-19" in message


def test_bad_arguments_are_told(call, tiny_run, other):
    assert "give two runs or more" in call("compare", tiny_run, code=2).stderr
    assert "is given twice" in call("compare", tiny_run, tiny_run, code=2).stderr
    assert "is no run directory" in call("compare", tiny_run, "gone", code=2).stderr
    assert "did you mean 'latex'?" in call("compare", tiny_run, other["mean"], "--format", "latx", code=2).stderr
    assert "did you mean 'ndcg@5'?" in call("compare", tiny_run, other["mean"], "--metric", "ndgc@5", code=2).stderr
    assert "Missing argument" in call("compare", code=2).stderr
