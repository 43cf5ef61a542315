import errno
import json

import pytest
import torch
from torch import nn

from gensr.errors import BadInputError, GensrError
from gensr.training import checkpoint
from gensr.training.checkpoint import (
    TrainState,
    load_optimizer,
    load_weights,
    newest_checkpoint,
    read_state,
    restore_tensors,
    save_checkpoint,
    unique_tensors,
)


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(5, 3)
        self.head = nn.Linear(3, 5, bias=False)
        self.head.weight = self.embedding.weight
        self.frozen = nn.Parameter(torch.ones(2), requires_grad=False)

    def forward(self, ids):
        return self.head(self.embedding(ids))


def trained(model, steps=2):
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.1)
    for _ in range(steps):
        model(torch.arange(5)).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()
    return optimizer


def save(folder, step, model=None, **state):
    model = model or Tied()
    return save_checkpoint(folder, model, trained(model), TrainState(step=step, **state), fingerprint="abc")


def test_a_checkpoint_brings_back_weights_and_optimiser_to_the_bit(tmp_path):
    model = Tied()
    optimizer = trained(model)
    path = save_checkpoint(tmp_path, model, optimizer, TrainState(step=2, window={"loss": 0.1}), fingerprint="abc")
    other = Tied()
    other_optimizer = torch.optim.AdamW([p for p in other.parameters() if p.requires_grad], lr=0.1)
    state = read_state(path, fingerprint="abc")
    load_weights(path, other)
    load_optimizer(path, other_optimizer, other)
    for m, o in ((model, optimizer), (other, other_optimizer)):
        m(torch.arange(5)).square().sum().backward()
        o.step()
    assert state == TrainState(step=2, window={"loss": 0.1})
    assert torch.equal(model.embedding.weight, other.embedding.weight)
    assert other.head.weight is other.embedding.weight


def test_tied_weights_are_stored_once_and_filled_through_one_name():
    model, other = Tied(), Tied()
    tensors = unique_tensors(model)
    assert list(tensors) == ["frozen", "embedding.weight"]
    restore_tensors(other, tensors)
    assert torch.equal(other.head.weight, model.embedding.weight)


def test_weights_of_another_model_are_refused_by_name():
    with pytest.raises(BadInputError, match=r"2 of 2 tensors differ in name or shape, the first is 'embedding.weight'"):
        restore_tensors(Tied(), {"frozen": torch.ones(3)})


def test_frozen_parameters_stand_in_the_model_file_but_not_in_the_optimiser(tmp_path):
    from safetensors.torch import load_file

    path = save(tmp_path, 1)
    assert "frozen" in load_file(path / "model.safetensors")
    assert not [key for key in load_file(path / "optimizer.safetensors") if "frozen" in key]


def test_the_newest_two_and_the_best_are_kept(tmp_path):
    for step in range(1, 7):
        save(tmp_path, step, best_step=2)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step-2", "step-5", "step-6"]
    assert newest_checkpoint(tmp_path) == tmp_path / "step-6"


def test_steps_are_compared_as_numbers_and_unfinished_folders_do_not_count(tmp_path):
    save(tmp_path, 9)
    save(tmp_path, 10)
    (tmp_path / ".step-11.tmp").mkdir()
    assert newest_checkpoint(tmp_path) == tmp_path / "step-10"


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.safetensors"])
def test_a_truncated_file_is_named_with_what_to_do(tmp_path, name):
    save(tmp_path, 1)
    path = save(tmp_path, 2)
    content = (path / name).read_bytes()
    (path / name).write_bytes(content[: len(content) // 2])
    with pytest.raises(BadInputError) as error:
        read_state(path, fingerprint="abc")
    assert str(path / name) in str(error.value)
    assert "resume from step-1" in str(error.value)
    assert "--no-resume" in str(error.value)


def test_a_missing_file_and_a_broken_state_are_named(tmp_path):
    path = save(tmp_path, 1)
    (path / "model.safetensors").unlink()
    with pytest.raises(BadInputError, match=r"model\.safetensors is damaged: the file is missing"):
        read_state(path, fingerprint="abc")
    (path / "state.json").write_text('{"state": ')
    with pytest.raises(BadInputError, match=r"state\.json is damaged"):
        read_state(path, fingerprint="abc")


def test_a_checkpoint_of_another_spec_is_refused_with_both_fingerprints(tmp_path):
    path = save(tmp_path, 1)
    with pytest.raises(BadInputError, match=r"its fingerprint is abc, this run's is xyz"):
        read_state(path, fingerprint="xyz")


class FullDiskError(Exception):
    pass


@pytest.mark.parametrize("kind", ["python", "safetensors"])
def test_a_full_disk_names_path_and_bytes_and_leaves_nothing_half_written(tmp_path, monkeypatch, kind):
    save(tmp_path, 1)
    FullDiskError.__name__ = "SafetensorError"  # what safetensors raises: no OSError, the number stands in the text
    failure = {
        "python": OSError(errno.ENOSPC, "No space left on device"),
        "safetensors": FullDiskError("Error while serializing: I/O error: No space left on device (os error 28)"),
    }[kind]

    def write_a_bit_then_fail(tensors, path):
        path.write_bytes(b"half")
        raise failure

    monkeypatch.setattr(checkpoint, "save_file", write_a_bit_then_fail)
    with pytest.raises(GensrError, match="the disk is full") as error:
        save(tmp_path, 2)
    assert str(tmp_path / "step-2") in str(error.value)
    # Tied weights 60 and frozen 8 bytes; two moments of 60 bytes and a step of 4.
    assert "192 bytes" in str(error.value)
    assert [p.name for p in tmp_path.iterdir()] == ["step-1"]
    assert read_state(tmp_path / "step-1", fingerprint="abc").step == 1


def test_the_state_file_is_plain_json(tmp_path):
    path = save(tmp_path, 3, best=0.5, best_step=3)
    record = json.loads((path / "state.json").read_text())
    assert record["state"]["best"] == 0.5
    assert record["torch"] == torch.__version__
    assert set(record["sha256"]) == {"model.safetensors", "optimizer.safetensors"}
