"""The parts work without a spec: the example scripts run, and a part drags in nothing that it does not need."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples" / "standalone"


def python(*args):
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, *map(str, args)], capture_output=True, text=True, check=True, env=environment
    ).stdout


def test_a_filter_and_a_loss_learn_in_a_plain_training_loop():
    lines = python(EXAMPLES / "align_and_filter.py").splitlines()
    task, alignment = zip(*((float(x) for x in re.findall(r"\d+\.\d+", line)) for line in lines), strict=True)
    assert task[-1] < 0.5 * task[0]
    assert alignment[-1] < 0.5 * alignment[0]


def test_lightgcn_beats_a_constant_scorer_which_gets_what_chance_gives():
    found = {
        name: (float(recall), float(ndcg))
        for name, recall, ndcg in re.findall(
            r"(\w+) +recall@5 (\S+)  ndcg@5 (\S+)", python(EXAMPLES / "lightgcn_and_metrics.py")
        )
    }
    assert found["constant"][0] == 5 / 20
    assert found["lightgcn"][0] > 0.9
    assert found["lightgcn"][1] > 2 * found["constant"][1]


@pytest.mark.parametrize("script", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.stem)
def test_the_scripts_import_public_names_only(script):
    imported = re.findall(r"^from (gensr\S*) import (.+)$", script.read_text(), re.MULTILINE)
    assert imported
    for package, names in imported:
        exported = __import__(package, fromlist=["__all__"]).__all__
        assert {name.strip() for name in names.split(",")} <= set(exported)


@pytest.mark.parametrize("package", ["gensr.fusion", "gensr.encoders", "gensr.evaluation"])
def test_a_part_drags_in_no_language_model_library(package):
    """Every public name of the package, in a fresh interpreter."""
    heavy = ["transformers", "sentence_transformers", "accelerate", "peft", "implicit", "matplotlib", "gensr.spec"]
    code = (
        f"import sys, {package} as parts; [getattr(parts, name) for name in parts.__all__]; "
        f"print(*[name for name in {heavy} if name in sys.modules])"
    )
    assert python("-c", code).strip() == ""
