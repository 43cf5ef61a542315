"""The step size over a run, as a pure function of the step: resuming needs no scheduler state."""

from __future__ import annotations

import math
from typing import Literal

Schedule = Literal["linear", "cosine", "constant", "plateau"]
PLATEAU_FACTOR, PLATEAU_LEAST = 0.1, 1e-6
"""Of ReduceLROnPlateau as UniSAR and its relatives use it: what the step size falls by, and the least there is."""


def step_size_factor(step: int, *, warmup: int, total: int, schedule: Schedule) -> float:
    """Share of the peak step size at update `step` (counted from 0); never 0 before the run's end.

    Rises as ``(step + 1) / warmup``, so that the first update already moves the weights, then falls from 1 towards 0
    at `total` (``linear``, ``cosine``) or stays (``constant``, and ``plateau`` until `on_plateau` says otherwise).

    Example:
        >>> [step_size_factor(s, warmup=2, total=4, schedule="linear") for s in range(4)]
        [0.5, 1.0, 1.0, 0.5]
    """
    if step < warmup:
        return (step + 1) / warmup
    if schedule in ("constant", "plateau"):
        return 1.0
    done = min(1.0, (step - warmup) / max(1, total - warmup))
    return 1.0 - done if schedule == "linear" else 0.5 * (1.0 + math.cos(math.pi * done))


def on_plateau(learning_rate: float, falls: int) -> float:
    """The step size of the schedule ``plateau`` after `falls` falls."""
    return max(min(learning_rate, PLATEAU_LEAST), learning_rate * PLATEAU_FACTOR**falls)
