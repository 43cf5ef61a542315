"""`gensr bench`, as its user calls it, on a suite of toys."""

from __future__ import annotations

import json

import pytest

from gensr.bench.report import read_result, tables
from tests.bench.toys import install, toy_cases
from tests.cli.conftest import as_json

QUICK = ("bench", "--suite", "toy", "--quick", "--shape", "tiny", "--device", "cpu")


@pytest.fixture(autouse=True)
def toy_suite(monkeypatch):
    install(monkeypatch)


def test_a_suite_ends_in_tables_and_says_what_it_does(call):
    result = call(*QUICK)
    assert "| toy: sums " in result.stdout
    assert "| **once** " in result.stdout
    assert "toy: sums (3 cases)\n  once: " in result.stderr
    assert call(*QUICK, "-q").stderr == ""


def test_results_can_be_stored_shown_again_and_read_by_programs(call, tmp_path):
    shown = as_json(call(*QUICK, "--json", "--out", "speed.json"))
    assert shown == json.loads((tmp_path / "speed.json").read_text(encoding="utf-8"))
    assert str(tmp_path) not in json.dumps(shown)
    assert call("bench", "--table", "speed.json").stdout == tables(read_result(tmp_path / "speed.json")) + "\n"
    assert as_json(call("bench", "--table", "speed.json", "--json")) == shown


def test_rounds_and_threads_are_as_asked(call):
    import torch

    before = torch.get_num_threads()
    try:
        found = as_json(call(*QUICK, "--json", "--rounds", "5", "--threads", "1"))
    finally:
        torch.set_num_threads(before)
    assert {case["rounds"] for case in found["cases"]} == {5}
    assert found["environment"]["threads"] == 1


def test_an_interruption_keeps_what_is_finished(call, tmp_path, monkeypatch):
    def interrupted(context):
        yield from toy_cases(context)
        raise KeyboardInterrupt

    install(monkeypatch, interrupted)
    result = call(*QUICK, "--out", "speed.json", code=130)
    assert "toy: sums" in result.stdout
    assert result.stderr.endswith("gensr: interrupted\n")
    assert len(read_result(tmp_path / "speed.json").cases) == 3


def test_a_baseline_that_is_missing_names_the_option(call, monkeypatch):
    install(monkeypatch, lambda context: iter([context.baselines("per_candidate")]))
    message = call(*QUICK, "--baselines", "nowhere", code=2).stderr
    assert "gensr: no baseline 'per_candidate'" in message
    assert "--baselines" in message


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("--suite", "scorin"), "no suite named 'scorin'; did you mean 'scoring'? Known: scoring, training, decoder,"),
        (("--shape", "smal"), "no shape named 'smal'; did you mean 'small'? Known: tiny, small, base"),
        (("preset:tiny", "--suite", "cf"), "suite cf does not depend on a spec; leave SPEC out, or choose among"),
        (("gone.json", "--suite", "scoring"), "gone.json"),
        (("--table", "gone.json"), "gone.json: No such file or directory; give a file that gensr bench --out wrote"),
        (("--device", "gpu"), "no device named 'gpu'"),
        (("preset:tiny", "--shape", "small"), "SPEC brings its own"),
        (
            ("--table", "speed.json", "--suite", "ranks"),
            "--table measures nothing: leave SPEC, --suite, --shape and --out",
        ),
    ],
)
def test_mistakes_are_told_before_anything_is_measured(call, tmp_path, args, message):
    result = call("bench", *args, code=2)
    assert message in result.stderr
    assert result.stdout == ""
    assert not list(tmp_path.iterdir())
