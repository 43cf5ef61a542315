"""Peak memory of one piece of work, in a process that does several one after the other."""

from __future__ import annotations

import resource
import sys
from pathlib import Path

CLEAR, STATUS = Path("/proc/self/clear_refs"), Path("/proc/self/status")


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
