"""How long calls take beside one another: interleaved, so that a machine's moods fall on all of them alike.

A round runs every case of a group once, in an order that rotates from round to round. What counts is the ratio within a
round: a machine that is slow for a second slows both sides of it.
"""

from __future__ import annotations

import gc
import math
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from gensr.bench.cases import Case

SLOW_SECONDS, FEW_ROUNDS = 10.0, 3
"""A group with a call as slow as this gets no more rounds than that."""


@dataclass(frozen=True)
class Spread:
    """A median between its quartiles."""

    low: float
    median: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Quartiles of at least one value, interpolated between neighbours."""
        if len(values) == 1:
            return cls(values[0], values[0], values[0])
        return cls(*statistics.quantiles(values, n=4, method="inclusive"))


@dataclass(frozen=True)
class Timing:
    """What measuring one case gave.

    Attributes:
        case: what was timed.
        seconds: of one call.
        ratio: how many times the baseline's speed, by seconds per unit, paired within rounds; 1 for the baseline.
        rounds: how many samples there are.
        repeats: how many calls a sample holds.
    """

    case: Case
    seconds: Spread
    ratio: Spread
    rounds: int
    repeats: int


def measure(
    group: Sequence[Case],
    *,
    rounds: int = 9,
    min_seconds: float = 0.02,
    synchronise: Callable[[], None] = lambda: None,
    clock: Callable[[], float] = time.perf_counter,
) -> list[Timing]:
    """Time the cases of a group, interleaved.

    Args:
        group: cases of one workload, one of them the baseline.
        rounds: samples of each case; at most `FEW_ROUNDS` where a warm call of the group takes over `SLOW_SECONDS`.
        min_seconds: a faster call is repeated inside a sample until the sample takes about as long.
        synchronise: waits until a device has done all it was told to.
        clock: seconds.

    Raises:
        ValueError: no baseline, or several.
    """
    baseline = the_baseline(group)
    timer = _Timer(synchronise, clock)
    samples: list[list[float]] = [[] for _ in group]
    with _no_collection():
        first = [min(timer.seconds(case, 1) for _ in range(case.warmup)) for case in group]
        repeats = [max(1, math.ceil(min_seconds / max(seconds, 1e-9))) for seconds in first]
        if max(first) > SLOW_SECONDS:
            rounds = min(rounds, FEW_ROUNDS)
        for turn in range(rounds):
            gc.collect()
            for place in rotated(range(len(group)), turn):
                samples[place].append(timer.seconds(group[place], repeats[place]))
    pace = [[seconds / case.units for seconds in taken] for case, taken in zip(group, samples, strict=True)]
    return [
        Timing(case, Spread.of(samples[place]), paired_ratio(pace[baseline], pace[place]), rounds, repeats[place])
        for place, case in enumerate(group)
    ]


def the_baseline(group: Sequence[Case]) -> int:
    """Where in the group its baseline stands.

    Raises:
        ValueError: no baseline, or several.
    """
    found = [place for place, case in enumerate(group) if case.baseline]
    if len(found) != 1:
        raise ValueError(f"{group[0].suite}, {group[0].workload}: {len(found)} baselines among {len(group)} cases")
    return found[0]


def rotated(order: Sequence[int], turn: int) -> list[int]:
    """`order`, begun `turn` places later."""
    start = turn % len(order)
    return [*order[start:], *order[:start]]


def paired_ratio(baseline: Sequence[float], case: Sequence[float]) -> Spread:
    """The spread over rounds of baseline / case, both in seconds per unit."""
    return Spread.of([base / own for base, own in zip(baseline, case, strict=True)])


@dataclass(frozen=True)
class _Timer:
    synchronise: Callable[[], None]
    clock: Callable[[], float]

    def seconds(self, case: Case, repeats: int) -> float:
        """Mean seconds of one call among `repeats`."""
        self.synchronise()
        start = self.clock()
        for _ in range(repeats):
            case.run()
        self.synchronise()
        return (self.clock() - start) / repeats


@contextmanager
def _no_collection() -> Iterator[None]:
    """Collect no garbage in the block but by hand, and then look only at what is new."""
    gc.collect()
    gc.freeze()
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.unfreeze()
        if enabled:
            gc.enable()
