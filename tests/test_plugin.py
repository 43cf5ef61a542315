"""The example plug-in, installed into an environment of its own and used there by the command line."""

from __future__ import annotations

import json
import os
import shutil
import site
import subprocess
import sys
from pathlib import Path

import pytest

from gensr.data.catalogue import Catalogue
from gensr.errors import BadInputError
from gensr.runs import CATALOGUE, MODEL, open_run

SOURCE = Path(__file__).parents[1] / "examples" / "plugin"
SWAPS = ("--set", "ranker.soft_filter=recency", "--set", "ranker.cf=pmi")


class Environment:
    """A fresh environment that sees the packages of the running one, as if they were installed in it."""

    def __init__(self, folder: Path) -> None:
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
        self.python = folder / ("Scripts" if os.name == "nt" else "bin") / "python"
        packages = Path(self("-c", "import sysconfig; print(sysconfig.get_path('purelib'))").stdout.strip())
        hosts = [path for path in site.getsitepackages() if Path(path).is_dir()]
        # addsitedir and not the bare path: the running environment may know gensr by a .pth file of its own
        (packages / "host.pth").write_text("".join(f"import site; site.addsitedir({path!r})\n" for path in hosts))

    def __call__(self, *args: object, code: int = 0, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        """Run its Python; `code` is what it must exit with."""
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
        command = [str(self.python), *map(str, args)]
        result = subprocess.run(command, capture_output=True, text=True, cwd=cwd, env=environment)
        assert result.returncode == code, f"exit code {result.returncode}\n{result.stdout}\n{result.stderr}"
        return result

    def gensr(self, *args: object, code: int = 0) -> subprocess.CompletedProcess[str]:
        return self("-m", "gensr.cli.main", *args, code=code)


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A copy of the plug-in: what is built and tested there leaves nothing in the checkout."""
    folder = tmp_path_factory.mktemp("source") / "plugin"
    return shutil.copytree(SOURCE, folder, ignore=shutil.ignore_patterns("__pycache__"))


@pytest.fixture(scope="module")
def fresh(tmp_path_factory, source):
    """An environment into which the plug-in was installed, without an index."""
    for needed in ("pip", "hatchling"):
        pytest.importorskip(needed, reason=f"building the plug-in needs {needed}: pip install -e '.[dev]'")
    environment = Environment(tmp_path_factory.mktemp("fresh"))
    offline = ("--no-index", "--no-deps", "--no-build-isolation", "--disable-pip-version-check")
    environment("-m", "pip", "install", "--quiet", *offline, source)
    return environment


@pytest.fixture(scope="module")
def run(fresh, tmp_path_factory):
    """A tiny run with both components of the plug-in."""
    path = tmp_path_factory.mktemp("runs") / "plugged"
    few = ("--set", 'evaluation.floors=["random"]', "--set", "evaluation.bootstrap=0")
    fresh.gensr("build", "preset:tiny", *SWAPS, *few, "--root", path.parent, "--run-dir", path)
    return path


def test_the_listing_holds_the_plug_in_beside_the_built_ins(fresh):
    lines = fresh.gensr("components", "soft_filter").stdout.splitlines()
    assert "recency: Recent events weigh more, whatever the candidate; how much more is learnt." in lines
    assert any(line.startswith("cross_attention: ") for line in lines)
    assert "BROKEN" not in fresh.gensr("components").stdout


def test_its_options_are_shown(fresh):
    text = fresh.gensr("components", "soft_filter", "recency").stdout
    assert "Source: Ding, Li, Time weight collaborative filtering, CIKM 2005" in text
    assert "half_life  number > 0  = 5.0  After how many further events" in text


def test_a_spec_may_name_it_and_its_options(fresh):
    option = ("--set", "ranker.soft_filter.half_life=2")
    assert fresh.gensr("spec", "check", "preset:tiny", *SWAPS, *option).stdout.startswith("ok ")
    wrong = fresh.gensr("spec", "check", "preset:tiny", *SWAPS, "--set", "ranker.soft_filter.halflife=2", code=2)
    assert "did you mean 'half_life'" in wrong.stderr


def test_an_editor_completes_it(fresh):
    schema = fresh.gensr("spec", "schema").stdout
    assert '"const": "recency"' in schema
    assert "After how many further events an item weighs half as much" in schema


def test_a_run_is_built_and_ranks(fresh, run):
    spec = json.loads((run / "spec.json").read_text())["ranker"]
    assert (spec["soft_filter"], spec["cf"]["type"]) == ({"type": "recency", "half_life": 5.0}, "pmi")
    items = Catalogue.load(run / MODEL / CATALOGUE).item_ids[1:6]
    asked = ("--history", ",".join(items[:2]), "--candidates", ",".join(items[2:]))
    ranking = json.loads(fresh.gensr("rank", run, *asked, "--json").stdout)
    assert sorted(entry["item"] for entry in ranking) == sorted(items[2:])
    assert [entry["rank"] for entry in ranking] == [1, 2, 3]


def test_its_own_tests_pass_where_it_is_installed(fresh, source):
    assert "passed" in fresh("-m", "pytest", "-o", "addopts=-p no:cacheprovider", cwd=source).stdout


def test_a_run_opened_without_the_plug_in_says_what_is_missing(run):
    with pytest.raises(BadInputError) as caught:
        _ = open_run(run).spec
    assert "no soft_filter named 'recency'" in str(caught.value)
    assert "a plug-in must be installed" in str(caught.value)
