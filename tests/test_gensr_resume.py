"""A GenSR build that is killed and resumed ends where an uninterrupted one ends, to the bit."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from gensr.pipeline import build, run_directory
from gensr.runs import Run
from gensr.spec import PipelineSpec, load_spec
from gensr.spec_file import merge, read_spec
from gensr.training.checkpoint import newest_checkpoint

WEIGHTS = Path("model/weights.safetensors")
STEPS, AFTER = 60, 10
CHANGES = {
    "data": {"source": {"type": "demo", "events_per_user": 10}},
    "ranker": {"cf_folds": 2, "backbone": {"scratch": {"dropout": 0.1}}},
    "training": {"epochs": 50, "max_steps": STEPS, "evaluate_every": 20, "checkpoint_every": 3, "patience": 0},
    "evaluation": {"floors": ["popularity"], "bootstrap": 0, "max_requests": 20},
}


def spec(seed: int = 1) -> PipelineSpec:
    """The tiny preset, with dropout, a table a fold, InfoNCE, and few checkpoints between many steps."""
    filled = load_spec(merge(read_spec("preset:tiny"), CHANGES | {"seed": seed}))
    assert filled.ranker.contrastive is not None
    return filled


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return build(spec(), root=tmp_path_factory.mktemp("uninterrupted"), progress=False)


def content(run: Run) -> tuple[bytes, ...]:
    """The weights that were chosen, their metrics, and the weights and moments of the very last step."""
    last = Path(f"checkpoints/step-{STEPS}")
    files = (WEIGHTS, Path("metrics.json"), last / "model.safetensors", last / "optimizer.safetensors")
    return tuple((run.path / file).read_bytes() for file in files)


def kill_in_training(root: Path, *, after: int, delay: float) -> Path:
    """Build in another process and kill it `delay` seconds after its first checkpoint of step `after` or later."""
    file = root / "spec.json"
    root.mkdir()
    file.write_text(spec().to_json())
    # The same number of threads: sums of floats depend on how they are cut.
    environment = os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads())}
    command = [sys.executable, "-m", "gensr.cli.main", "build", str(file), "--root", str(root), "--quiet"]
    path = run_directory(spec(), root)
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as process:
        while process.poll() is None:
            newest = newest_checkpoint(path / "checkpoints")
            if newest is not None and int(newest.name.removeprefix("step-")) >= after:
                time.sleep(delay)
                process.kill()
                break
            time.sleep(0.002)
        assert process.wait() == -9, f"it ended before it could be killed: {process.stderr.read()}"
    return path


def test_a_build_killed_in_training_and_resumed_equals_an_uninterrupted_one_to_the_byte(uninterrupted, tmp_path):
    path = kill_in_training(tmp_path / "killed", after=AFTER, delay=0.03)
    assert not (path / "manifest.json").exists()
    assert not (path / WEIGHTS).exists()

    resumed = build(tmp_path / "killed" / "spec.json", root=tmp_path / "killed", progress=False)

    assert resumed.path == path
    assert AFTER <= resumed.manifest["training"]["resumed_from"] < STEPS
    assert resumed.manifest["training"]["steps"] == uninterrupted.manifest["training"]["steps"] == STEPS
    assert content(resumed) == content(uninterrupted)
    assert not [left for left in path.rglob("*") if ".tmp" in left.name]


def test_two_builds_of_one_seed_are_equal_to_the_byte_and_another_seed_differs(uninterrupted, tmp_path):
    again = build(spec(), root=tmp_path, progress=False)
    assert content(again) == content(uninterrupted)
    other = build(spec(seed=2), root=tmp_path, progress=False)
    assert other.path != again.path
    assert all(mine != theirs for mine, theirs in zip(content(again), content(other), strict=True))
