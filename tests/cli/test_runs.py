"""`gensr data`, `build`, `evaluate`, `rank` and `doctor` on the tiny preset, from data to ranking."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from gensr import __version__
from gensr.spec import load_spec
from tests.cli.conftest import FEW_FLOORS, as_json

LOG = "user_id,item_id,timestamp,task,query\nu,a,1,rec,\nu,b,2,search,tea\n"
ITEMS = "item_id,title,categories\na,Kettle,Kitchen\nb,Tea,Kitchen|Drinks\n"


# Data


@pytest.fixture
def log(tmp_path):
    folder = tmp_path / "log"
    folder.mkdir()
    (folder / "interactions.csv").write_text(LOG)
    (folder / "items.csv").write_text(ITEMS)
    return folder


def test_check_reports_a_folder_a_file_and_a_spec(call, log):
    (log / "spec.json").write_text(json.dumps({"data": {"source": {"type": "table", "path": str(log)}}}))
    assert f"{log}: ok\n" in call("data", "check", log).stdout
    assert ": ok\n" in call("data", "check", log / "interactions.csv", "--items", log / "items.csv").stdout
    assert len(as_json(call("data", "check", log, log / "spec.json", "--json"))) == 2
    assert "preset:tiny: ok\n" in call("data", "check", "preset:tiny").stdout


def test_check_names_file_and_line_and_goes_on_with_the_next_log(call, log, tmp_path):
    (tmp_path / "bad.csv").write_text(LOG + "u,a,yesterday,rec,\n")
    result = call("data", "check", tmp_path / "bad.csv", log, code=2)
    assert "bad.csv" in result.stderr
    assert "line 4" in result.stderr
    assert f"{log}: ok" in result.stdout


def test_check_refuses_options_that_a_log_does_not_have(call, log):
    assert "no option 'data.source.users'" in call("data", "check", log, "--set", "users=3", code=2).stderr
    assert "names its items itself" in call("data", "check", "preset:tiny", "--items", "x.csv", code=2).stderr


def test_prepare_prints_counts_hashes_and_audits_with_meanings_and_show_repeats_them(call, tmp_path):
    assert call("data", "prepare", "preset:tiny", "--dry-run").stdout.startswith("would prepare runs/.cache/data-")
    assert not list(tmp_path.iterdir())
    first = call("data", "prepare", "preset:tiny", "-q")
    assert first.stderr == ""
    for expected in ("counts:\n", "  users ", "uniform-19  sha256 ", "twin_leaks", "Requests that see their answer at"):
        assert expected in first.stdout
    assert call("data", "show", "preset:tiny").stdout == first.stdout
    assert call("data", "prepare", "preset:tiny").stdout == first.stdout
    assert "is prepared already" in call("data", "prepare", "preset:tiny", "--dry-run").stdout
    assert as_json(call("data", "show", "preset:tiny", "--json"))["counts"]["users"] == 60


def test_show_prepares_nothing_and_says_how_to(call, tmp_path):
    text = call("data", "show", "preset:tiny", "--set", "data.users=9", "--root", "there", code=2).stderr
    assert "Prepare them with: gensr data prepare preset:tiny --set data.users=9 --root there" in text
    assert not list(tmp_path.iterdir())


# Build


def test_build_prints_metrics_of_both_tasks_as_json(built, tiny_run):
    metrics = as_json(built[1])
    assert metrics == json.loads((tiny_run / "metrics.json").read_text())
    (entry,) = metrics["candidates"].values()
    assert set(entry["rankers"]["gensr"]) == {"search", "recommendation"}


def test_a_finished_run_is_not_built_again_and_its_tables_are_printed(call, root):
    result = call("build", "preset:tiny", "--set", FEW_FLOORS, "--root", root)
    assert "already built" in result.stderr
    assert "| search (" in result.stdout
    assert "| recommendation (" in result.stdout
    assert result.stdout.splitlines()[-1].startswith(f"run: {root}")


def test_a_dry_run_says_what_would_be_built_and_writes_nothing(call, tmp_path):
    spec = load_spec("preset:tiny")
    text = call("build", "preset:tiny", "--dry-run").stdout
    assert "would build tiny, a gensr ranker, seed 42" in text
    assert spec.fingerprint() in text
    assert f"runs/tiny-{spec.fingerprint()[:8]}" in text
    assert "mine" in call("build", "preset:tiny", "--dry-run", "--run-dir", "mine").stdout
    assert not list(tmp_path.iterdir())


def test_quiet_builds_say_nothing_on_stderr(call, root):
    floor = ("--set", "ranker=popularity", "--set", "floors=[]", "--set", "name=floor")
    result = call("build", "preset:tiny", *floor, "--root", root, "--run-dir", root / "floor", "-q")
    assert result.stderr == ""
    assert (root / "floor" / "metrics.json").is_file()


# Evaluate


def test_evaluate_measures_a_run_again_and_leaves_it_as_it_is(call, built, tiny_run):
    before = {path: path.stat().st_mtime_ns for path in tiny_run.rglob("*")}
    assert as_json(call("evaluate", tiny_run, "--json")) == as_json(built[1])
    assert {path: path.stat().st_mtime_ns for path in tiny_run.rglob("*")} == before


def test_evaluate_can_be_limited_to_a_task_a_list_and_a_number_of_requests(call, tiny_run):
    limits = ("--task", "rec", "--candidates", "uniform-19", "--max-requests", 5)
    text = call("evaluate", tiny_run, *limits).stdout
    assert "candidates: uniform-19" in text
    assert "| recommendation (5 requests)" in text
    assert "search (" not in text
    assert "did you mean 'search'" in call("evaluate", tiny_run, "--task", "serch", code=2).stderr
    assert "uniform-19" in call("evaluate", tiny_run, "--candidates", "uniform-9", code=2).stderr


def test_evaluate_in_bf16_finds_the_same_ranks_but_for_near_ties(call, built, tiny_run):
    exact = as_json(built[1])["candidates"]["uniform-19"]["rankers"]["gensr"]
    found = as_json(call("evaluate", tiny_run, "--precision", "bf16", "--json"))
    for task, numbers in found["candidates"]["uniform-19"]["rankers"]["gensr"].items():
        assert numbers["ndcg@5"]["value"] == pytest.approx(exact[task]["ndcg@5"]["value"], abs=0.01)
    assert "did you mean 'bf16'" in call("evaluate", tiny_run, "--precision", "bf6", code=2).stderr


def test_a_build_may_measure_in_bf16_and_saves_what_it_trained(call, root, tiny_run):
    changes = (FEW_FLOORS, "evaluation.precision=bf16", "ablations=false", "max_requests=10")
    options = [part for change in changes for part in ("--set", change)]
    call("build", "preset:tiny", *options, "--root", root, "--run-dir", root / "half", "-q")
    weights = [(folder / "model" / "weights.safetensors").read_bytes() for folder in (root / "half", tiny_run)]
    assert weights[0] == weights[1]
    measured = json.loads((root / "half" / "metrics.json").read_text())
    assert as_json(call("evaluate", root / "half", "--json")) == measured


# Rank


def test_rank_in_bf16_gives_nearly_the_same_scores(call, tiny_run, item_ids):
    args = ("rank", tiny_run, "--history", item_ids[0], "--candidates", ",".join(item_ids[1:9]), "--json")
    answers = (as_json(call(*args, *more)) for more in ((), ("--precision", "bf16")))
    exact, found = ({entry["item"]: entry["score"] for entry in answer} for answer in answers)
    assert found == pytest.approx(exact, abs=0.05)
    assert found != exact


def test_rank_orders_candidates_with_scores_and_titles(call, tiny_run, item_ids):
    args = ("--history", f"{item_ids[0]}, {item_ids[1]}", "--query", "tea", "--candidates", ",".join(item_ids[2:6]))
    entries = as_json(call("rank", tiny_run, *args, "--json"))
    assert sorted(entry["item"] for entry in entries) == sorted(item_ids[2:6])
    assert [entry["rank"] for entry in entries] == [1, 2, 3, 4]
    assert [entry["score"] for entry in entries] == sorted((entry["score"] for entry in entries), reverse=True)
    lines = call("rank", tiny_run, *args, "--top", 2).stdout.splitlines()
    assert lines[0].split() == ["rank", "score", "item", "title"]
    assert [line.split()[2] for line in lines[1:]] == [entry["item"] for entry in entries[:2]]


def test_rank_answers_a_file_line_by_line_as_single_requests_are_answered(call, tiny_run, item_ids, tmp_path):
    requests = [
        {"history": item_ids[:2], "candidates": item_ids[2:6]},
        {"query": "tea", "candidates": [item_ids[7], {"id": "new", "title": "Green Tea Kettle"}]},
        {"candidates": item_ids[:3]},
    ]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(request) + "\n\n" for request in requests))
    result = call("rank", tiny_run, "--input", "in.jsonl")
    answers = [json.loads(line)["ranking"] for line in result.stdout.splitlines()]
    assert [len(answer) for answer in answers] == [4, 2, 3]
    alone = call("rank", tiny_run, "--candidates", ",".join(item_ids[:3]), "--json")
    assert [entry["item"] for entry in answers[2]] == [entry["item"] for entry in as_json(alone)]
    assert call("rank", tiny_run, "--input", "-", input=json.dumps(requests[0])).stdout


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("{not json}", "in.jsonl line 2: Expecting property name"),
        ("[1]", "in.jsonl line 2: a request is an object with history, query and candidates"),
        ('{"candidate": ["a"]}', "in.jsonl line 2: a request has no 'candidate'; did you mean 'candidates'?"),
        ('{"candidates": []}', "in.jsonl line 2: candidates: expected at least one item"),
        ('{"candidates": ["no-such-item"]}', "in.jsonl line 2: candidates[0]: the run's catalogue has no item"),
    ],
)
def test_a_bad_line_of_a_file_is_named_by_its_number(call, tiny_run, item_ids, tmp_path, line, expected):
    good = json.dumps({"candidates": item_ids[:2]})
    (tmp_path / "in.jsonl").write_text(f"{good}\n{line}\n")
    assert f"gensr: {expected}" in call("rank", tiny_run, "--input", "in.jsonl", code=2).stderr


def test_rank_wants_either_candidates_or_a_file(call, tiny_run, tmp_path):
    (tmp_path / "in.jsonl").write_text("")
    for args in ((), ("--candidates", "a", "--input", "in.jsonl"), ("--input", "in.jsonl", "--query", "tea")):
        assert "give either --candidates" in call("rank", tiny_run, *args, code=2).stderr


def test_the_command_works_in_a_process_of_its_own_with_json_alone_on_stdout(tiny_run, item_ids):
    command = [sys.executable, "-m", "gensr.cli.main", "rank", str(tiny_run), "--candidates", item_ids[0], "--json"]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert [entry["item"] for entry in json.loads(result.stdout)] == [item_ids[0]]


# Doctor


def test_doctor_finds_this_installation_fit(call, tmp_path):
    report = as_json(call("doctor", "--json"))
    assert report["gensr"] == __version__
    assert report["problems"] == []
    assert report["packages"]["torch"]["ok"]
    assert report["devices"]["threads"] >= 1
    text = call("doctor").stdout
    assert "all required parts are present" in text
    assert "runs in runs: writable, " in text
    assert not list(tmp_path.iterdir())


def test_doctor_exits_with_1_where_something_required_is_missing(call, monkeypatch):
    import gensr.cli.doctor as doctor

    found = doctor._version
    absent = {"bm25s": None, "click": None, "numpy": "1.0"}
    monkeypatch.setattr(
        doctor, "_version", lambda name: absent.get(name, found(name)) if name in absent else found(name)
    )
    result = call("doctor", code=1)
    assert "problem: click>=8.1 is required, missing" in result.stdout
    assert "problem: numpy>=1.26 is required, 1.0 is installed" in result.stdout
    assert "pip install 'gensr[retrieval]'" in result.stdout


def test_doctor_notices_a_root_it_cannot_write_to(call, tmp_path):
    (tmp_path / "file").write_text("")
    assert "file/runs cannot be written" in call("doctor", "--root", "file/runs", code=1).stdout
