"""The peak of a piece of work is its own, where the system can forget earlier ones."""

from __future__ import annotations

import os
from mmap import mmap

import pytest

from gensr import memory
from gensr.memory import free_memory, peak_memory, reset_peak


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


def fake_system(monkeypatch, folder, *, groups, available="1000 kB"):
    """A machine with ``/proc`` and control groups under `folder`; `groups` is what the process's own file says."""
    (folder / "meminfo").write_text(f"MemTotal: 9999 kB\nMemAvailable: {available}\n")
    (folder / "cgroup").write_text(groups)
    monkeypatch.setattr(memory, "MEMINFO", folder / "meminfo")
    monkeypatch.setattr(memory, "GROUPS", folder / "cgroup")
    monkeypatch.setattr(memory, "GROUP_FILES", folder / "fs")


def group(folder, names, limit, used, cache):
    folder.mkdir(parents=True, exist_ok=True)
    stat = f"anon 5\n{names[2]} {cache}\n"
    for name, content in ((names[0], limit), (names[1], used), ("memory.stat", stat)):
        (folder / name).write_text(str(content))


def test_free_is_what_the_system_calls_available(monkeypatch, tmp_path):
    fake_system(monkeypatch, tmp_path, groups="0::/\n")
    assert free_memory("cpu") == 1000 << 10


def test_the_tightest_control_group_around_a_process_limits_it_and_cached_files_do_not_count(monkeypatch, tmp_path):
    fake_system(monkeypatch, tmp_path, groups="0::/outer/inner\n")
    group(tmp_path / "fs/outer/inner", memory.V2, "max", 100, 0)
    group(tmp_path / "fs/outer", memory.V2, 5000, 3000, 400)
    assert free_memory("cpu") == 5000 - 3000 + 400
    group(tmp_path / "fs/outer/inner", memory.V2, 700, 600, 0)
    assert free_memory("cpu") == 100
    group(tmp_path / "fs/outer/inner", memory.V2, 700, 900, 0)
    assert free_memory("cpu") == 0


def test_control_groups_of_version_1_limit_too(monkeypatch, tmp_path):
    fake_system(monkeypatch, tmp_path, groups="7:cpu:/a\n4:memory:/a\n")
    group(tmp_path / "fs/memory/a", memory.V1, 5000, 4000, 10)
    assert free_memory("cpu") == 1010


def test_without_proc_what_is_free_is_what_there_is(monkeypatch, tmp_path):
    for name in ("MEMINFO", "GROUPS", "GROUP_FILES"):
        monkeypatch.setattr(memory, name, tmp_path / "none")
    assert free_memory("cpu") == os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
