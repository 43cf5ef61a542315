"""The peak of a piece of work is its own, where the system can forget earlier ones."""

from __future__ import annotations

import os
from mmap import mmap

import pytest

from gensr import memory
from gensr.memory import peak_memory, reset_peak


def test_an_earlier_peak_is_forgotten_and_a_new_one_is_seen():
    if not os.access(memory.CLEAR, os.W_OK):
        pytest.skip("this system cannot forget a peak")
    _hold(300)
    high = peak_memory("cpu")["process"]
    reset_peak("cpu")
    low = peak_memory("cpu")["process"]
    assert low < high - 250
    _hold(200)
    assert peak_memory("cpu")["process"] > low + 150


def _hold(mib: int) -> None:
    """Hold `mib` MiB for a moment, of pages the process did not have before, and give them back."""
    with mmap(-1, mib << 20) as pages:
        for start in range(0, mib << 20, 4096):
            pages[start] = 1


def test_without_proc_the_peak_is_that_of_the_whole_process(monkeypatch, tmp_path):
    monkeypatch.setattr(memory, "CLEAR", tmp_path)
    monkeypatch.setattr(memory, "STATUS", tmp_path / "none")
    reset_peak("cpu")
    assert peak_memory("cpu")["process"] > 10
    assert peak_memory("cpu")["gpu"] is None
