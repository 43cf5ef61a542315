"""How much memory there is, and the peak of one piece of work in a process that does several one after the other."""

from __future__ import annotations

import os
import resource
import sys
from collections.abc import Iterator
from pathlib import Path

CLEAR, STATUS, GROUPS = (Path("/proc/self") / name for name in ("clear_refs", "status", "cgroup"))
MEMINFO, GROUP_FILES = Path("/proc/meminfo"), Path("/sys/fs/cgroup")
V1 = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
V2 = ("memory.max", "memory.current", "inactive_file")


def reset_peak(device: str) -> None:
    """Forget earlier peaks: where Linux allows it, the process's high-water mark falls to what it holds now."""
    try:
        CLEAR.write_text("5")
    except OSError:  # another system, or a kernel without it: the peak stays that of the whole process
        pass
    if device == "cuda":
        import torch

        torch.cuda.init()  # type: ignore[no-untyped-call]  # else torch complains of a wrong device
        torch.cuda.reset_peak_memory_stats()


def peak_memory(device: str) -> dict[str, float | None]:
    """Peaks since `reset_peak`, in MiB: of the process's memory, libraries and all, and of the GPU's tensors.

    Where the system cannot forget a peak, that of the process counts from its start.
    """
    gpu = None
    if device == "cuda":
        import torch

        gpu = round(torch.cuda.max_memory_allocated() / 2**20, 1)
    return {"process": round(_process_kib() / 2**10, 1), "gpu": gpu}


def _process_kib() -> float:
    try:
        for line in STATUS.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return float(line.split()[1])
    except OSError:
        pass
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**10 if sys.platform == "darwin" else peak  # bytes there, KiB elsewhere


def free_memory(device: str) -> int:
    """Bytes that this process can still take: of the GPU, or of the machine within the limits of its control groups.

    Where the system does not tell what is free, all the memory it has.
    """
    if device.startswith("cuda"):
        import torch

        unused = torch.cuda.memory_reserved() - torch.cuda.memory_allocated()  # torch's own reserve
        return int(torch.cuda.mem_get_info()[0]) + unused
    return min([_available(), *_group_rooms()])


def _available() -> int:
    try:
        for line in MEMINFO.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) << 10
    except OSError:
        pass
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _group_rooms() -> Iterator[int]:
    """What each control group around this process leaves it; nothing where none is limited."""
    try:
        lines = GROUPS.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers in ("", "memory"):  # version 2, version 1
            root = GROUP_FILES / controllers
            folder = root / path.lstrip("/")
            for group in (folder, *folder.parents):
                if group.is_relative_to(root):
                    yield from _room(group, *(V1 if controllers else V2))


def _room(group: Path, limit: str, usage: str, cache: str) -> Iterator[int]:
    try:
        most, used = int((group / limit).read_text()), int((group / usage).read_text())
        stat = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
    except (OSError, ValueError):  # no such group from inside a container, or "max"
        return
    yield max(0, most - used + int(stat.get(cache, 0)))  # files read long ago count as used, and are dropped on demand
