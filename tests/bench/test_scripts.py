"""The scripts in benchmarks/ run, and the page of results shows what is stored."""

from __future__ import annotations

import json
import runpy
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from torch.profiler import DeviceType

from gensr.bench import run as bench
from gensr.files import write_json
from tests.bench.toys import install, quick_context

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def script(monkeypatch):
    """The names in a script of benchmarks/."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return lambda name: runpy.run_path(str(BENCHMARKS / f"{name}.py"))


def test_the_page_shows_the_stored_results(script):
    table = script("docs_table")
    page = table["PAGE"].read_text(encoding="utf-8")
    assert table["with_tables"](page) == page, "run: python benchmarks/docs_table.py"


def test_tables_are_made_anew_between_the_markers(script, tmp_path, monkeypatch):
    table = script("docs_table")
    install(monkeypatch)
    *_, result = bench.run(quick_context(), [bench.suite("toy")], rounds=1)
    write_json(tmp_path / "bench-two-cores.json", result.to_dict())
    page = f"# Speed\n\n{table['BEGIN']}\nold\n{table['END']}\n\nAfter.\n"
    made = table["with_tables"](page, tmp_path)
    assert made.startswith(f"# Speed\n\n{table['BEGIN']}\n\n### bench-two-cores\n\n")
    assert made.endswith(f"{table['END']}\n\nAfter.\n")
    assert "| toy: sums " in made
    assert "old" not in made
    assert table["with_tables"](made, tmp_path) == made


def test_a_gpus_measurements_run_at_toy_size(script, tmp_path, capsys):
    script("gpu")["main"](["--toy", "--out", str(tmp_path / "gpu.json")])
    found = json.loads((tmp_path / "gpu.json").read_text(encoding="utf-8"))
    assert {case["suite"] for case in found["cases"]} == {"scoring", "training"}
    assert {case["dtype"] for case in found["cases"]} == {"bf16"}
    assert all(case["flops"] and case["job_seconds"] for case in found["cases"])
    assert found["agreement"]["exact - per candidate, fp32"] < 1e-4
    assert found["agreement"]["packed bf16 - packed fp32"] < found["agreement"]["standard deviation of margins"]
    assert found["messages"] == []
    assert set(found["profile"]) == {"scoring", "training"}
    assert "packed, 2 at once, compiled" in capsys.readouterr().out


def test_only_kernels_count_in_a_gpus_profile(script):
    def event(key, time, device, *, annotation=False):
        times = {"self_device_time_total": time, "self_cpu_time_total": 7.0}
        return SimpleNamespace(key=key, count=2, device_type=device, is_user_annotation=annotation, **times)

    events = [
        event("aten::mm", 3000.0, DeviceType.CPU),  # the time of the kernel that it launched
        event("gemm", 3000.0, DeviceType.CUDA),
        event("softmax", 1000.0, DeviceType.CUDA),
        event("Optimizer.step", 4000.0, DeviceType.CUDA, annotation=True),
    ]
    longest = script("gpu")["longest"]
    assert longest(events, "cuda") == [
        {"name": "gemm", "calls": 2, "milliseconds": 3.0, "share": 0.75},
        {"name": "softmax", "calls": 2, "milliseconds": 1.0, "share": 0.25},
    ]
    assert [kernel["name"] for kernel in longest(events, "cpu")] == ["aten::mm"]


def test_wheels_are_asked_for_where_there_are_none(tmp_path):
    command = [sys.executable, BENCHMARKS / "gpu.py", "--out", tmp_path / "gpu.json", "--wheels", tmp_path]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 1
    assert result.stderr == f"gpu.py: there are no wheels in {tmp_path}\n"


def test_a_line_is_fitted_by_relative_error(script):
    line = script("scaling")["line"]
    assert line([1, 2, 4], [5.0, 7.0, 11.0]) == pytest.approx((3.0, 2.0, 0.0))
    fixed, each, error = line([1, 10, 100], [1.1, 10.0, 100.0])
    assert each == pytest.approx(1.0, rel=0.1)
    assert 0 < error < 0.1
    assert fixed > 0


def test_scaling_is_measured_and_drawn_at_toy_size(script, tmp_path, capsys):
    pytest.importorskip("matplotlib")
    out, plot = tmp_path / "scaling.json", tmp_path / "scaling.svg"
    script("scaling")["main"](["--toy", "--out", str(out), "--plot", str(plot)])
    curves = json.loads(out.read_text(encoding="utf-8"))["curves"]
    assert len({curve["axis"] for curve in curves}) == 4
    assert all(len(curve["x"]) == len(curve["seconds"]) == 3 for curve in curves)
    assert capsys.readouterr().out.count("line within") == len(curves) == 6
    assert "<svg" in plot.read_text(encoding="utf-8")
