"""A command line to call, and one small run for all tests of a session."""

from __future__ import annotations

import json
import shutil

import pytest
from click.testing import CliRunner

from gensr.cli.main import cli

FEW_FLOORS = 'evaluation.floors=["random", "popularity"]'


@pytest.fixture
def call(tmp_path, monkeypatch):
    """Call the command line in an empty folder; `code` is what it must exit with."""
    monkeypatch.chdir(tmp_path)

    def run(*args, code=0, input=None):
        result = CliRunner().invoke(cli, [str(arg) for arg in args], input=input)
        if result.exception and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert result.exit_code == code, f"exit code {result.exit_code}\n{result.stdout}\n{result.stderr}"
        assert "Traceback" not in result.stderr
        return result

    return run


@pytest.fixture(scope="session")
def built(tmp_path_factory):
    """The result of building the tiny preset, and the root it lies in."""
    root = tmp_path_factory.mktemp("root")
    result = CliRunner().invoke(
        cli, ["build", "preset:tiny", "--set", FEW_FLOORS, "--root", str(root), "--json"], catch_exceptions=False
    )
    assert result.exit_code == 0, result.stderr
    return root, result


@pytest.fixture
def root(built, tmp_path):
    """A copy of that root, for tests that change it."""
    shutil.copytree(built[0], tmp_path / "root")
    return tmp_path / "root"


@pytest.fixture(scope="session")
def tiny_run(built):
    (path,) = (folder for folder in built[0].iterdir() if (folder / "spec.json").is_file())
    return path


@pytest.fixture(scope="session")
def item_ids(built):
    from gensr.data.dataset import Dataset

    (folder,) = built[0].glob(".cache/data-*")
    return Dataset.open(folder).catalogue.item_ids[1:]


def as_json(result):
    """The content of stdout, which must be JSON and nothing else."""
    return json.loads(result.stdout)
