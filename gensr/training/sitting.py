"""What a sitting of training needs around its loop: a curve on disk, signals, random generators, `accelerate`."""

from __future__ import annotations

import json
import signal
import threading
import types
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch

from gensr.errors import BadInputError
from gensr.files import write_text

if TYPE_CHECKING:
    from accelerate import Accelerator


class Curve:
    """``history.jsonl``: one line a log or validation, flushed as written."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def cut(self, step: int) -> None:
        """Drop the lines after `step`: an interrupted sitting wrote them, and they will be written again."""
        kept = []
        if self.path.exists():
            for line in self.path.read_text(encoding="utf-8").splitlines():
                try:
                    if json.loads(line)["step"] <= step:
                        kept.append(line + "\n")
                except ValueError:
                    break  # half a line, from a killed process
        write_text(self.path, "".join(kept))

    def write(self, **record: Any) -> None:
        """Append one line."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")


class Interrupt:
    """Turns Ctrl-C and SIGTERM into a wish that the loop grants at a step boundary; a second one is immediate."""

    def __init__(self) -> None:
        self.wished = False
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():  # others may not set handlers
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._wish)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _wish(self, number: int, frame: types.FrameType | None) -> None:
        if self.wished:
            raise KeyboardInterrupt
        self.wished = True


def reseed(seed: int, step: int) -> None:
    """Every source of randomness of update `step` (dropout above all) from (seed, step) alone."""
    state = np.random.SeedSequence([seed, step]).generate_state(2)
    torch.manual_seed(int(state[0]))
    np.random.seed(state[1])


@contextmanager
def accelerating(precision: str, device: str) -> Iterator[Accelerator]:
    """An `Accelerator` for one training; the process-wide state behind it is left as it was found."""
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState

    # accelerate keeps one state a process and refuses another precision later; leave it as it was found.
    ours = not AcceleratorState._shared_state
    if device.startswith("cuda:"):
        torch.cuda.set_device(device)
    accelerator = Accelerator(mixed_precision="bf16" if precision == "bf16" else "no", cpu=device == "cpu")
    try:
        if accelerator.num_processes > 1:
            raise BadInputError(f"gensr trains in one process, but {accelerator.num_processes} were launched")
        yield accelerator
    finally:
        if ours:
            AcceleratorState._reset_state(reset_partial_state=True)


@contextmanager
def reproducible(device: str) -> Iterator[None]:
    """Deterministic kernels on CPU, and the global generators left as they were found."""
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    numpy_state = np.random.get_state()
    with torch.random.fork_rng(devices=[] if device == "cpu" else None):
        if device == "cpu":
            torch.use_deterministic_algorithms(True, warn_only=True)
        try:
            yield
        finally:
            torch.use_deterministic_algorithms(before[0], warn_only=before[1])
            np.random.set_state(numpy_state)
