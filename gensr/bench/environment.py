"""What a timing depends on beside the code: device, threads, versions, precision of products, day."""

from __future__ import annotations

import platform
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PACKAGES = ("torch", "transformers", "numpy", "implicit")
CPU_INFO = Path("/proc/cpuinfo")


def environment(device: str) -> dict[str, Any]:
    """Plain values for JSON; nothing that names the machine itself, its users or its paths.

    Args:
        device: ``cpu`` or ``cuda``.
    """
    import torch

    import gensr

    found: dict[str, Any] = {
        "device": torch.cuda.get_device_name() if device == "cuda" else cpu_model(),
        "threads": torch.get_num_threads(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "float32 products": torch.get_float32_matmul_precision(),
        "date": datetime.now(UTC).date().isoformat(),
        "python": platform.python_version(),
        "gensr": gensr.__version__,
    }
    if device == "cuda":
        found["cuda"] = torch.version.cuda
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = None
    return found


def cpu_model() -> str:
    """The processor's name as its maker gives it, or its architecture where the system does not tell."""
    try:
        lines = CPU_INFO.read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
