"""Every mistake of a user: exit code 2, one message, no traceback, no run directory left."""

from __future__ import annotations

import json
import os
import shutil

import pytest

from gensr.backbones.config import T5Sizes
from gensr.backbones.t5 import random_t5
from gensr.backbones.tokenizer import train_tokenizer
from gensr.files import locked
from gensr.spec import load_spec
from tests.cli.conftest import FEW_FLOORS

BUILD = ("build", "preset:tiny", "--set", FEW_FLOORS)


def truncate(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.fixture
def refused(call, tmp_path):
    """Build in an empty folder; return the message of its refusal."""

    def build(*args):
        # Before it, transformers may show how it loads weights.
        _, found, message = call("build", *args, "-q", code=2).stderr.rpartition("gensr: ")
        assert found
        assert [path for path in tmp_path.glob("runs/*") if path.name != ".cache"] == []
        return message

    return build


# The spec


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ("ranker.soft_filter=cross_atention", "did you mean 'cross_attention'?"),
        ('ranker.history={"type": "transformer", "layer": 2}', "no option 'layer'; did you mean 'layers'?"),
        ("ranker.histroy=null", "did you mean"),
        ("training.precision=fp16", "training.precision: fp16 overflows in T5"),
        ('evaluation.floors=["gensr"]', "evaluation.floors: 'gensr' must be trained"),
    ],
)
def test_a_mistake_in_the_spec(refused, tmp_path, change, expected):
    assert expected in refused("preset:tiny", "--set", change)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("part", ["history", "soft_filter"])
def test_options_that_do_not_fit_each_other_are_found_before_training(refused, part):
    name = {"history": "transformer", "soft_filter": "cross_attention"}[part]
    change = f'ranker.{part}={{"type": "{name}", "heads": 3}}'
    assert "ranker: heads=3 does not divide dim=8" in refused("preset:tiny", "--set", FEW_FLOORS, "--set", change)


# The backbone


@pytest.fixture
def pretrained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "t5"
    tokenizer = train_tokenizer(["is it? not sure, Yes or No"], vocabulary=60, answers=("Yes", "No"))
    random_t5(
        T5Sizes(width=8, layers=1, heads=1, head_width=4, hidden=8), vocabulary=len(tokenizer), seed=0
    ).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def backbone(folder, **options):
    return (
        "preset:tiny",
        "--set",
        f"ranker.backbone={json.dumps({'type': 't5', 'pretrained': str(folder), **options})}",
    )


def test_answers_of_several_tokens(refused, pretrained):
    message = refused(*backbone(pretrained, answers=["not sure", "No"]))
    assert "backbone.answers: 'not sure' is" in message
    assert "exactly one known token" in message


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "config.json"])
def test_a_truncated_pretrained_model(refused, pretrained, name):
    truncate(pretrained / name)
    message = refused(*backbone(pretrained))
    assert f"backbone.pretrained: cannot load '{pretrained}'" in message


# Files


def test_a_folder_in_place_of_a_file_and_a_file_without_a_known_format(refused, call, tmp_path):
    log = tmp_path / "log"
    (log / "interactions.csv").mkdir(parents=True)
    source = f'data.source={{"type": "table", "path": "{log}"}}'
    assert "no interactions.* or events.*" in refused("preset:tiny", "--set", source)
    source = 'data.source={"type": "table", "path": "gone.csv"}'
    assert f"no file or folder 'gone.csv' in {tmp_path}" in refused("preset:tiny", "--set", source)
    (tmp_path / "spec.json").mkdir()
    assert "no spec file 'spec.json'" in call("spec", "check", "spec.json", code=2).stderr


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_a_file_without_the_permission_to_read_it(refused, tmp_path):
    path = tmp_path / "interactions.csv"
    path.write_text("user_id,item_id,timestamp\n")
    path.chmod(0)
    message = refused("preset:tiny", "--set", f'data.source={{"type": "table", "path": "{path}"}}')
    assert f"cannot read {path}: Permission denied" in message


def test_a_file_that_cannot_be_read_is_named_as_root_too(refused, tmp_path, monkeypatch):
    path = tmp_path / "interactions.csv"
    path.write_text("user_id,item_id,timestamp\n")

    def deny(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("gensr.data.sources.formats.open_binary", deny)
    message = refused("preset:tiny", "--set", f'data.source={{"type": "table", "path": "{path}"}}')
    assert f"cannot read {path}: Permission denied" in message


@pytest.mark.parametrize(
    "pattern", ["data-*/item.npy", "data-*/candidates/*-test-items.npy", "data-*/catalogue/items.parquet"]
)
def test_damaged_prepared_data_are_named_with_the_cure(call, root, pattern):
    (path,) = root.glob(f".cache/{pattern}")
    truncate(path)
    message = call(*BUILD, "--root", root, "--run-dir", root / "new", "--set", "ranker=random", "-q", code=2).stderr
    folder = next(parent for parent in path.parents if parent.name.startswith("data-"))
    assert str(path.parent if path.suffix == ".parquet" else path) in message
    assert f"Delete {folder}" in message
    assert not (root / "new").exists()


def test_a_damaged_cf_table_is_named_with_the_cure(call, root):
    for path in root.glob(".cache/cf-*.safetensors"):
        truncate(path)
    message = call(*BUILD, "--root", root, "--run-dir", root / "new", "--seed", "42", "--force", "-q", code=2).stderr
    assert ".cache/cf-" in message
    assert "Delete it; the next command that needs it computes it again" in message
    assert not (root / "new").exists()


# Run directories


@pytest.fixture
def unfinished(root, tiny_run):
    """A run whose build was interrupted after its last checkpoint."""
    path = root / tiny_run.name
    (path / "manifest.json").unlink()
    return path


def newest(path):
    return max((path / "checkpoints").glob("step-*"), key=lambda step: int(step.name.removeprefix("step-")))


def test_a_truncated_checkpoint(call, root, unfinished):
    truncate(newest(unfinished) / "model.safetensors")
    message = call(*BUILD, "--root", root, "-q", code=2).stderr
    assert f"{newest(unfinished) / 'model.safetensors'} is damaged" in message
    assert "--no-resume" in message


def test_a_checkpoint_of_another_spec(call, root, unfinished):
    state = newest(unfinished) / "state.json"
    state.write_text(json.dumps(json.loads(state.read_text()) | {"fingerprint": "another"}))
    message = call(*BUILD, "--root", root, "-q", code=2).stderr
    assert f"the checkpoint {newest(unfinished)} belongs to another spec" in message


def test_a_run_directory_of_another_spec(call, root, tiny_run):
    path = root / tiny_run.name
    message = call(*BUILD, "--seed", "7", "--root", root, "--run-dir", path, "-q", code=2).stderr
    assert f"{path} holds another run" in message


def test_a_run_directory_in_use(call, root, tiny_run):
    path = root / tiny_run.name
    with locked(path / ".lock"):
        message = call(*BUILD, "--root", root, "-q", code=2).stderr
    assert message == f"gensr: the run directory {path} is in use by another process (pid {os.getpid()})\n"


def test_a_damaged_manifest(call, root, tiny_run):
    path = root / tiny_run.name / "manifest.json"
    truncate(path)
    message = call(*BUILD, "--root", root, "-q", code=2).stderr
    assert f"{path} cannot be read" in message
    assert "--force" in message


MODEL_FILES = (
    "weights.safetensors",
    "cf.safetensors",
    "backbone/backbone.json",
    "backbone/config.json",
    "backbone/tokenizer.json",
    "catalogue/items.parquet",
)


@pytest.mark.parametrize("name", MODEL_FILES)
def test_a_truncated_model(call, root, tiny_run, item_ids, name):
    path = root / tiny_run.name / "model" / name
    truncate(path)
    message = call("rank", root / tiny_run.name, "--candidates", item_ids[0], code=2).stderr
    assert str(path.parent if name.startswith("catalogue") else path) in message
    assert "build its spec again with --force" in message


@pytest.mark.parametrize("name", ["weights.safetensors", "cf.safetensors", "backbone"])
def test_a_model_with_a_file_missing(call, root, tiny_run, item_ids, name):
    path = root / tiny_run.name / "model" / name
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    message = call("rank", root / tiny_run.name, "--candidates", item_ids[0], code=2).stderr
    assert str(path) in message
    assert "build its spec again with --force" in message


def test_a_truncated_floor(call, root, item_ids):
    changes = ("--set", "ranker=popularity", "--set", "evaluation.floors=[]")
    call("build", "preset:tiny", *changes, "--root", root, "--run-dir", root / "floor", "-q")
    path = root / "floor" / "model" / "floor.safetensors"
    truncate(path)
    message = call("rank", root / "floor", "--candidates", item_ids[0], code=2).stderr
    assert f"{path} cannot be read" in message


def test_a_full_disk(call, tmp_path, monkeypatch):
    import numpy as np

    def cut_short(path, array):
        raise OSError(f"{array.size} requested and 0 written")

    monkeypatch.setattr(np, "save", cut_short)
    message = call("build", "preset:tiny", "-q", code=2).stderr
    assert message.startswith("gensr: the disk is full: writing ")
    run = tmp_path / "runs" / f"tiny-{load_spec('preset:tiny').fingerprint()[:8]}"
    assert not run.exists()
