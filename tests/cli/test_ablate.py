"""`gensr ablate`, as its user calls it."""

from __future__ import annotations

import csv
import io
import json
import shutil

import pytest
from click.testing import CliRunner

from gensr import ablation
from gensr.cli.main import cli
from gensr.pipeline import build
from gensr.spec import load_spec
from tests.cli.conftest import FEW_FLOORS, as_json

BASE = ("preset:tiny", "--set", FEW_FLOORS, "--set", "max_steps=2", "--set", "evaluation.ablations=false")
FLAGS = ("--drop", "soft_filter", "--grid", "contrastive.temperature=0.01,1")


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """The result of a small ablation, and the root it lies in."""
    root = tmp_path_factory.mktemp("root")
    result = CliRunner().invoke(cli, ["ablate", *BASE, *FLAGS, "--root", str(root)], catch_exceptions=False)
    assert result.exit_code == 0, result.stderr
    return root, result


def test_it_ends_in_one_table_with_the_base_and_every_variant(done):
    result = done[1]
    lines = result.stdout.splitlines()
    assert lines[0].startswith("search, candidates uniform-19 (40 requests, sha256 ")
    assert lines[2].split()[0] == "variant"
    assert [line.split("  ")[0] for line in lines[4:8]] == [
        "base", "no soft_filter", "contrastive.temperature=0.01", "contrastive.temperature=1",
    ]  # fmt: skip
    assert any(line.startswith("recommendation, candidates uniform-19 (40 requests, ") for line in lines)
    assert "with one seed it says nothing about other seeds." in result.stdout


def test_progress_goes_to_stderr(done):
    text = done[1].stderr
    assert "[run 1/4] base, seed 42" in text
    assert "  [3/4] training" in text
    assert "[run 4/4] contrastive.temperature=1, seed 42 (" in text
    assert f"tables: {done[0]}/ablations/tiny-" in text


def test_the_tables_on_disk_are_in_four_formats(done):
    (folder,) = (done[0] / "ablations").iterdir()
    assert (folder / "table.txt").read_text() == done[1].stdout
    rows = list(csv.DictReader(io.StringIO((folder / "table.csv").read_text())))
    assert {row["variant"] for row in rows} == {
        "base", "no soft_filter", "contrastive.temperature=0.01", "contrastive.temperature=1",
    }  # fmt: skip
    assert (folder / "table.md").read_text().startswith("**search, candidates uniform-19 (40 requests, sha256 ")
    assert r"no soft\_filter" in (folder / "table.tex").read_text()


def test_called_again_it_opens_the_runs_and_prints_the_same(done, call, tmp_path, monkeypatch):
    shutil.copytree(done[0], tmp_path / "root")
    monkeypatch.setattr("gensr.training.trainer.train", lambda *_, **__: pytest.fail("trained again"))
    result = call("ablate", *BASE, *FLAGS, "--root", "root", "-q")
    assert result.stdout == done[1].stdout
    assert result.stderr == ""
    content = as_json(call("ablate", *BASE, *FLAGS, "--root", "root", "--json"))
    assert (content["base"], len(content["variants"])) == ("base", 4)


def test_a_dry_run_prints_the_plan_and_writes_nothing(call, tmp_path):
    spec = load_spec("preset:tiny")
    text = call("ablate", "preset:tiny", "--suite", "paper", "--drop", "contrastive", "--seeds", 2, "--dry-run").stdout
    lines = [line.split("  ") for line in text.splitlines()]
    assert lines[0] == ["--drop contrastive is the same as no contrastive: built once"]
    variants = [line[0] for line in lines[2:-1]]
    assert variants == ["base", "CF only", "semantic only", "no soft filter", "no contrastive"] * 2
    assert f"runs/tiny-{spec.fingerprint()[:8]}" in text
    assert "to build" in text
    assert lines[-1][0].startswith("tables: runs/ablations/tiny-")
    assert not list(tmp_path.iterdir())


def test_a_dry_run_says_what_is_finished(done, call):
    text = call("ablate", *BASE, *FLAGS, "--root", done[0], "--dry-run").stdout
    assert text.count("finished") == 4
    assert "to build" not in text


def test_help_has_examples_a_line_each(call):
    assert "\n  gensr ablate spec.json --suite paper --seeds 3\n" in call("ablate", "--help").stdout


def test_without_a_spec_the_demo_is_ablated(call):
    text = call("ablate", "--drop", "soft_filter", "--dry-run").stdout
    assert f"runs/demo-{load_spec('preset:demo').fingerprint()[:8]}" in text


def test_set_changes_the_base_and_so_all_variants(call):
    text = call("ablate", "preset:tiny", "--set", "cf.dim=4", "--seed", 7, "--drop", "soft_filter", "--dry-run").stdout
    runs = [line.split() for line in text.splitlines()[1:-1]]
    base = load_spec("preset:tiny").model_dump()
    base["seed"], base["ranker"]["cf"]["dim"] = 7, 4
    assert runs[0][2] == f"runs/tiny-{load_spec(base).fingerprint()[:8]}"
    base["ranker"]["soft_filter"] = None
    assert runs[1][-3] == f"runs/tiny-{load_spec(base).fingerprint()[:8]}"


def test_a_failing_variant_is_told_and_the_exit_code_is_1(call, monkeypatch):
    def failing(spec, **options):
        if spec.ranker.soft_filter is None:
            raise MemoryError
        return build(spec, **options)

    monkeypatch.setattr(ablation, "build", failing)
    result = call("ablate", *BASE, "--drop", "soft_filter", "--drop", "contrastive", code=1)
    assert "no soft_filter (failed)" in result.stdout
    assert result.stderr.endswith("gensr: 1 of 3 runs failed:\n  no soft_filter, seed 42: MemoryError\n")
    assert json.loads(call("ablate", *BASE, "--drop", "contrastive", "--json", "-q").stdout)["variants"][1]["runs"]


def test_an_interrupt_exits_with_130_and_the_same_command_goes_on(call, monkeypatch, tmp_path):
    trained = []

    def interrupted(spec, **options):
        if trained:
            raise KeyboardInterrupt
        trained.append(spec)
        return build(spec, **options)

    flags = ("ablate", *BASE, "--drop", "soft_filter")
    with monkeypatch.context() as patch:
        patch.setattr(ablation, "build", interrupted)
        result = call(*flags, code=130)
    assert "interrupted: the same command goes on from here" in result.stderr
    (folder,) = (tmp_path / "runs/ablations").iterdir()
    assert "no soft_filter (to come)" in (folder / "table.txt").read_text()
    result = call(*flags)
    assert "already built: " in result.stderr.split("[run 2/2]")[0]
    assert "(to come)" not in result.stdout


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ((), "nothing to ablate: give --drop SLOT, --swap SLOT=NAME, --grid PATH=VALUE,VALUE or --suite paper"),
        (("--seeds", "3"), "nothing to ablate"),
        (("--drop", "backbone"), "--drop backbone: backbone cannot be dropped: swap it; known: "),
        (("--drop", "cf"), "cf is null; drop it as well: --drop cf+contrastive"),
        (("--swap", "soft_filter=men"), "no soft_filter named 'men'; did you mean 'mean'?"),
        (("--swap", "histroy=gru"), "--swap histroy=gru: no slot 'histroy'; did you mean 'history'?"),
        (("--grid", "heads=1,2"), "--grid heads=1: 'heads' is ambiguous: "),
        (("--grid", "contrastive.temprature=1"), "did you mean 'temperature'?"),
        (("--grid", "contrastive.temperature=1,"), "value 2 is empty"),
        (("--suite", "papr"), "did you mean 'paper'?"),
        (("--set", "soft_filter=mean", "--swap", "soft_filter=mean"), "changes nothing: the base is so already"),
        (("--drop", "soft_filter", "--seeds", "0"), "--seeds"),
        (("--grid", "data.seed=1"), "--grid data.seed=1 changes the candidates or the requests"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_bad_input_exits_with_2_and_builds_nothing(call, tmp_path, flags, expected):
    result = call("ablate", "preset:tiny", *flags, "-q", code=2)
    assert expected in result.stderr
    assert result.stdout == ""
    assert [path for path in tmp_path.glob("runs/*") if path.name != ".cache"] == []
