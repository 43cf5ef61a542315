"""What preparing and loading a log costs as it grows: KuaiSAR-shaped logs of several sizes, users and items in step.

Every size is generated (not timed), prepared in a fresh process and opened in another, on the same few cores:

    python benchmarks/data_scale.py --sizes 2 5 10 20 --work DIR
    python benchmarks/data_scale.py --sizes 2 5 10 20 --work DIR --core 0 --out FILE

The papers' 5-core leaves a sixth of these made-up logs, so the second command keeps every click and item. The files of
a size are deleted before the next; a size of 20 million events takes 4 GB of disk.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
from kuaisar_log import Size, write_log

RESULTS = Path(__file__).parent / "results"
EVENTS_PER_USER, EVENTS_PER_ITEM = 800, 5
"""25,000 users and 4 million items at 20 million events."""
BATCH, NEGATIVES, HISTORY = 256, 4, 20
WARM_UP, BATCHES = 20, 400
MEASURED = ("prepare_seconds", "prepare_peak_mib")


def spec(log: Path | str, core: int) -> dict[str, Any]:
    """The data section: what the papers do with KuaiSAR, where `core` is 5."""
    return {
        "source": {"type": "kuaisar", "path": str(log)},
        "core": {"users": core, "items": core, "both_tasks": core > 0},
        "split": "by_day",
        "candidates": ["uniform"],
        "max_history": HISTORY,
        "train_negatives": NEGATIVES,
    }


def prepare_once(log: Path, prepared: Path, core: str) -> dict[str, Any]:
    """Runs in a process of its own. Wall time includes imports; the peak is that of the whole process."""
    begin = time.perf_counter()
    from gensr.data.prepare import prepare
    from gensr.spec import DataSpec

    read_seconds = []

    def read(source):
        start = time.perf_counter()
        log = source.read()
        read_seconds.append(time.perf_counter() - start)
        return log

    dataset = prepare(DataSpec.model_validate(spec(log, int(core))), prepared, read=read)
    return {
        "prepare_seconds": round(time.perf_counter() - begin, 2),
        "of_which_reading": round(sum(read_seconds), 2),
        "prepare_peak_mib": peak_mib(),
        "counts": dataset.manifest["counts"],
    }


def load_once(prepared: Path) -> dict[str, Any]:
    """Runs in a process of its own. Imports are not timed, for every program pays them once."""
    from gensr.data.dataset import Dataset
    from gensr.data.loader import RequestLoader

    begin = time.perf_counter()
    dataset = Dataset.open(prepared)
    opened = time.perf_counter()
    batches = _endless(RequestLoader(dataset, HISTORY))
    next(batches)
    first = time.perf_counter()
    for _ in range(WARM_UP):
        next(batches)
    start = time.perf_counter()
    for _ in range(BATCHES):
        next(batches)
    seconds = time.perf_counter() - start
    return {
        "open_seconds": round(opened - begin, 3),
        "open_to_first_batch_seconds": round(first - begin, 3),
        "batches_per_second": round(BATCHES / seconds, 1),
        "load_peak_mib": peak_mib(),
        "prepared_mib": round(sum(file.stat().st_size for file in prepared.rglob("*") if file.is_file()) / 2**20, 1),
    }


def _endless(loader: Any) -> Iterator[Any]:
    epoch = 0
    while True:
        yield from loader.epoch(seed=0, epoch=epoch, batch_size=BATCH, negatives=NEGATIVES)
        epoch += 1


def peak_mib() -> float:
    """Most resident memory of this process so far. Not `ru_maxrss`, which starts at what the parent had."""
    with open("/proc/self/status") as status:
        kib = next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))
    return round(kib / 1024, 1)


def measure(millions: float, work: Path, core: int) -> dict[str, Any]:
    """One size: generated, prepared, opened, deleted."""
    events = round(millions * 1e6)
    size = Size(max(events // EVENTS_PER_USER, 50), max(events // EVENTS_PER_ITEM, 500), events)
    with tempfile.TemporaryDirectory(dir=work, prefix="data-scale-") as folder:
        log, prepared = Path(folder) / "log", Path(folder) / "prepared"
        write_log(size, log)
        csv_mib = sum(file.stat().st_size for file in log.iterdir()) / 2**20
        row = {"million_events": millions, "users": size.users, "items": size.items, "csv_mib": round(csv_mib, 1)}
        row |= _in_fresh_process("prepare", log, prepared, core)
        shutil.rmtree(log)
        return row | _in_fresh_process("load", prepared)


def _in_fresh_process(step: str, *given: Path | int) -> dict[str, Any]:
    command = [sys.executable, __file__, "--step", step, *map(str, given)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def growth(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Per million events at every size, and the straight line through all sizes."""
    millions = np.array([row["million_events"] for row in rows])
    found = {}
    for name in MEASURED:
        values = np.array([row[name] for row in rows])
        slope, start = np.polyfit(millions, values, 1) if len(rows) > 1 else (values[0] / millions[0], 0.0)
        off = np.abs(start + slope * millions - values) / values
        found[name] = {
            "per_million_events": [round(float(value), 2) for value in values / millions],
            "line": {"start": round(float(start), 2), "per_million_events": round(float(slope), 2)},
            "farthest_from_the_line": round(float(off.max()), 3),
        }
    return found


def table(rows: list[dict[str, Any]]) -> str:
    """The rows as text for the terminal."""
    columns = {
        "million_events": "M events",
        "prepare_seconds": "prepare s",
        "of_which_reading": "reading s",
        "prepare_peak_mib": "peak MiB",
        "open_seconds": "open s",
        "open_to_first_batch_seconds": "first batch s",
        "batches_per_second": "batches/s",
    }
    lines = ["  ".join(f"{title:>13}" for title in columns.values())]
    lines += ["  ".join(f"{row[name]:>13,}" for name in columns) for row in rows]
    return "\n".join(lines)


def use_cores(count: int) -> int:
    """Keep this process and its children on `count` cores; how many there are."""
    cores = sorted(os.sched_getaffinity(0))[:count]
    os.sched_setaffinity(0, cores)
    return len(cores)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=float, nargs="+", default=[2, 5, 10, 20], help="millions of events")
    parser.add_argument("--work", type=Path, default=None, help="folder for the logs; the system's where absent")
    parser.add_argument("--core", type=int, default=5, help="the k of the k-core; 0 keeps everything")
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--out", type=Path, default=None, help="the result; in benchmarks/results where absent")
    parser.add_argument("--step", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.step:
        step, *given = options.step
        paths, rest = map(Path, given[:2]), given[2:]
        print(json.dumps((prepare_once if step == "prepare" else load_once)(*paths, *rest)))
        return 0
    cores = use_cores(options.cores)
    if options.work:
        options.work.mkdir(parents=True, exist_ok=True)
    rows = []
    for millions in options.sizes:
        print(f"{millions:g} million events ...", file=sys.stderr, flush=True)
        rows.append(measure(millions, options.work, options.core))
        print(table(rows[-1:]), file=sys.stderr, flush=True)
    result = {
        "what": "python benchmarks/data_scale.py "
        f"--sizes {' '.join(f'{size:g}' for size in options.sizes)} --core {options.core}",
        "device": f"{cores} CPU cores ({platform.machine()})",
        "versions": {"python": platform.python_version(), "numpy": np.__version__, "pyarrow": pyarrow.__version__},
        "spec": spec("LOG", options.core),
        "batches": {"requests": BATCH, "candidates": 1 + NEGATIVES, "history": HISTORY, "measured": BATCHES},
        "sizes": rows,
        "growth": growth(rows),
    }
    out = options.out or RESULTS / f"data-scale-{cores}cpu.json"
    out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(table(rows))
    print(json.dumps(result["growth"], indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
