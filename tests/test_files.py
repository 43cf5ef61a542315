"""Nothing half-written stays, and a full disk is told in words whichever library noticed it."""

from __future__ import annotations

import errno

import numpy as np
import pytest
import torch

from gensr.encoders.cf.table import CFTable
from gensr.errors import BadInputError, DamagedFileError, FullDiskError
from gensr.files import new_file, new_folder, undamaged

FAILURES = {
    "python": OSError(errno.ENOSPC, "No space left on device"),
    "quota": OSError(errno.EDQUOT, "Disk quota exceeded"),
    "numpy": OSError("1000 requested and 24 written"),  # no errno
    "tokenizers": Exception("No space left on device (os error 28)"),
}


def write_half_and_fail(place, failure):
    with place as temporary:
        (temporary / "part" if temporary.is_dir() else temporary).write_bytes(b"half")
        raise failure


@pytest.mark.parametrize("kind", FAILURES)
@pytest.mark.parametrize("new", [new_file, new_folder])
def test_a_full_disk_is_told_whoever_notices_it(tmp_path, kind, new):
    with pytest.raises(FullDiskError, match=r"the disk is full: writing .*/it needs 1,024 bytes") as error:
        write_half_and_fail(new(tmp_path / "it", needs=1024), FAILURES[kind])
    assert error.value.exit_code == 2
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "failure", [OSError(errno.EIO, "Input/output error"), OSError("disk gone"), ValueError("1 requested")]
)
def test_other_failures_stay_what_they_are(tmp_path, failure):
    with pytest.raises(type(failure)) as error, new_folder(tmp_path / "it"):
        raise failure
    assert error.value is failure


def test_arrays_that_do_not_fit_on_the_disk_leave_nothing(tmp_path, monkeypatch):
    def cut_short(path, array):
        path.write_bytes(array.tobytes()[:3])
        raise OSError(f"{array.size} requested and 0 written")

    monkeypatch.setattr(np, "save", cut_short)
    with pytest.raises(FullDiskError), new_folder(tmp_path / "data") as folder:
        np.save(folder / "user.npy", np.arange(9))
    assert list(tmp_path.iterdir()) == []


def test_a_table_that_does_not_fit_on_the_disk_spares_the_older_one(tmp_path, monkeypatch):
    path = tmp_path / "cf.safetensors"
    CFTable(torch.ones(2, 3), torch.ones(4, 3)).save(path)

    def cut_short(tensors, path):
        path.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("safetensors.torch.save_file", cut_short)
    with pytest.raises(FullDiskError, match=r"cf\.safetensors needs 72 bytes"):
        CFTable(torch.zeros(2, 3), torch.zeros(4, 3)).save(path)
    assert [file.name for file in tmp_path.iterdir()] == ["cf.safetensors"]
    assert CFTable.load(path).items.sum() == 12


def test_a_damaged_file_is_named_with_the_reason_and_the_cure(tmp_path):
    with pytest.raises(DamagedFileError) as error, undamaged(tmp_path / "x", "Delete it"):
        raise KeyError("items")
    assert (
        str(error.value)
        == f"{tmp_path / 'x'} cannot be read, it is damaged or incomplete (KeyError: 'items'). Delete it"
    )
    told = BadInputError("in words already")
    with pytest.raises(BadInputError) as error, undamaged(tmp_path / "x", "Delete it"):
        raise told
    assert error.value is told
