"""GenSR at flan-t5-base's sizes in bfloat16 on one NVIDIA GPU: speeds, whole jobs, limits, where the time goes.

    python benchmarks/gpu.py --out benchmarks/results/bench-gpu.json
    python benchmarks/gpu.py --out FILE --wheels FOLDER
    python benchmarks/gpu.py --out FILE --toy

It needs no installed gensr, only torch, transformers and pydantic. What a machine without network lacks of them can
come along as wheels in a folder, such as ``pip download --only-binary=:all: pydantic -d FOLDER`` gives elsewhere for
its Python; they go into a temporary folder.

``--toy`` runs the same at toy size on the CPU: does it run? What is finished is stored after each group of cases.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
ROUNDS, TOY_ROUNDS = 15, 1
KERNELS = 20
"""How many of the kernels that take longest are told."""
PROFILED_CALLS = 3


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print tables, store JSON."""
    options = parse(arguments)
    sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]
    with tempfile.TemporaryDirectory() as target:
        if options.wheels is not None:
            install(options.wheels, target)
        measure(options)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="where the JSON goes")
    parser.add_argument("--wheels", type=Path, metavar="FOLDER", help="wheels of packages that are missing here")
    parser.add_argument("--toy", action="store_true", help="toy size, on the CPU")
    parser.add_argument("--rounds", type=int, help=f"samples of each case; {ROUNDS} where absent")
    return parser.parse_args(arguments)


def install(wheels: Path, target: str) -> None:
    """Install the wheels of a folder for this process alone."""
    files = sorted(map(str, wheels.glob("*.whl")))
    if not files:
        sys.exit(f"gpu.py: there are no wheels in {wheels}")
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-index", "--no-deps", "--target", target]
    subprocess.run([*pip, *files], check=True)
    sys.path.insert(0, target)


def measure(options: argparse.Namespace) -> None:
    """Time the cases, then look into the largest ones."""
    import gpu_cases
    import torch

    from gensr.bench.cases import Context
    from gensr.bench.report import tables
    from gensr.bench.run import BASELINES, baselines_in, run
    from gensr.files import write_json

    if not (options.toy or torch.cuda.is_available()):
        sys.exit("gpu.py: torch finds no GPU here; --toy runs it at toy size on the CPU")
    device, shape = ("cpu", "tiny") if options.toy else ("cuda", "base")
    context = Context(device, (shape,), spec=None, quick=options.toy, baselines=baselines_in(BASELINES))
    found: dict[str, Any] = {"agreement": gpu_cases.agreement(context), "profile": {}, "messages": []}

    def say(line: str) -> None:
        print(line, file=sys.stderr)

    def remember(line: str) -> None:
        found["messages"].append(line)
        say(line)

    rounds = options.rounds or (TOY_ROUNDS if options.toy else ROUNDS)
    suites = [partial(suite, say=remember) for suite in (gpu_cases.scoring, gpu_cases.training_steps)]
    for result in run(context, suites, rounds=rounds, say=say):
        write_json(options.out, result.to_dict() | found)
    for name, call in gpu_cases.profiled(context):
        found["profile"][name] = profile(call, device, calls=1 if options.toy else PROFILED_CALLS)
    write_json(options.out, result.to_dict() | found)
    print(tables(result))
    for name, value in found["agreement"].items():
        print(f"{name}: {value:.2g}")
    for name, kernels in found["profile"].items():
        print(f"\n{name}, share of the device's time, kernel:")
        print("\n".join(f"{kernel['share']:6.1%} {kernel['calls']:6} x {kernel['name'][:90]}" for kernel in kernels))


def profile(call: Callable[[], object], device: str, *, calls: int) -> list[dict[str, Any]]:
    """The kernels in which the time of so many calls goes, longest first; shares are of all kernels."""
    import torch
    from torch.profiler import ProfilerActivity

    from gensr.bench.floor import synchronise

    activities = [ProfilerActivity.CPU] + ([ProfilerActivity.CUDA] if device == "cuda" else [])
    call()
    with torch.profiler.profile(activities=activities) as profiler:
        for _ in range(calls):
            call()
        synchronise(device)
    return longest(profiler.key_averages(), device)


def longest(events: Iterable[Any], device: str) -> list[dict[str, Any]]:
    """The `KERNELS` of a profile's averages that took longest, with their shares of all that ran on `device`."""
    from torch.profiler import DeviceType

    own = "self_device_time_total" if device == "cuda" else "self_cpu_time_total"
    # On a GPU the same time stands at the kernel and at the operator that launched it: one of the two counts.
    ran = [e for e in events if e.device_type == getattr(DeviceType, device.upper()) and not e.is_user_annotation]
    spent = sorted(((getattr(event, own), event.count, event.key) for event in ran), reverse=True)
    total = sum(microseconds for microseconds, _, _ in spent)
    return [
        {"name": name, "calls": count, "milliseconds": microseconds / 1e3, "share": microseconds / total}
        for microseconds, count, name in spent[:KERNELS]
    ]


if __name__ == "__main__":
    main()
