"""Variants of a ranker against their base, on the same requests: differences, intervals, p-values.

A *variant* is one spec, measured under one or several seeds. Everything here works on stored ranks; nothing is scored
again. Per candidate list, task and metric:

- ``value``: the variant's own mean; ``value_low``, ``value_high``: its 95 % interval, made like that of the difference.
- ``difference``: mean of variant minus base over requests and common seeds, seed paired with seed.
- ``low``, ``high``: its 95 % interval. One seed: a bootstrap over requests, which says nothing about other seeds.
  Several: requests and seeds are drawn anew, see `crossed_interval`.
- ``p_value``: sign-flip test on the requests' differences, averaged over seeds: whether these models differ on other
  requests. ``p_adjusted``: after Holm, over the variants compared on that list, task and metric.
- ``seed_low``, ``seed_high``: the smallest and largest difference that a single pair of seeds shows.

Where runs were asked without a part of the request (its query, its history), that is compared with the same variant
asked in full, by the same numbers but for a test: what is lost, the part was worth.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property, partial
from typing import Any

import numpy as np

from gensr.data.tasks import Task
from gensr.errors import BadInputError
from gensr.evaluation.metrics import Floats, Ranks, Ties, metric
from gensr.evaluation.names import parse_metric
from gensr.evaluation.significance import crossed_interval, holm, sign_flip_test

RESAMPLES = 2000
TASKS = (Task.SEARCH, Task.RECOMMENDATION)
SIGNIFICANT = 0.05


@dataclass(frozen=True)
class SeedResult:
    """One finished run of a variant.

    Attributes:
        ranks: where the truth stands, by candidate list.
        withheld: the same for requests without a part of them, by candidate list and what was done to them.
        path: the run directory.
        training_seconds: spent in updates, all sittings together; None where nothing was trained.
        total_seconds: of the whole build; None where it went on from an earlier sitting, whose time is not known.
        process_mib: peak memory of the process during the build.
        gpu_mib: peak memory of the GPU's tensors.
        parameters: of the ranker, frozen ones included.
        rows_per_second: (request, candidate) pairs in training updates; None where nothing was trained.
        requests_per_second: while the test requests were scored.
    """

    ranks: Mapping[str, Ranks] = field(repr=False)
    path: str = ""
    training_seconds: float | None = None
    total_seconds: float | None = None
    process_mib: float | None = None
    gpu_mib: float | None = None
    parameters: int | None = None
    rows_per_second: float | None = None
    requests_per_second: float | None = None
    withheld: Mapping[str, Mapping[str, Ranks]] = field(default_factory=dict, repr=False)


@dataclass(frozen=True)
class Measured:
    """One variant: a spec under its seeds.

    Attributes:
        name: what tables call it.
        results: what is finished, by seed.
        failed: why a seed has no result.
        pending: seeds still to run.
    """

    name: str
    results: Mapping[int, SeedResult]
    failed: Mapping[int, str] = field(default_factory=dict)
    pending: tuple[int, ...] = ()

    def mean(self, cost: str) -> float | None:
        """Mean over seeds of one of the numbers of `SeedResult`; None where no seed has it."""
        values = [value for result in self.results.values() if (value := getattr(result, cost)) is not None]
        return sum(values) / len(values) if values else None

    def peak(self, cost: str) -> float | None:
        """Largest over seeds."""
        return max((value for run in self.results.values() if (value := getattr(run, cost)) is not None), default=None)


@dataclass(frozen=True)
class Cell:
    """One metric of one variant on one task and candidate list; the module says what the numbers are.

    Of the base itself, and of a variant without a base to compare with, there is a `value` with its interval and
    nothing else. Where `withheld` names what was done to the requests, the base is the same variant asked in full.
    """

    candidates: str
    task: str
    variant: str
    metric: str
    requests: int
    seeds: tuple[int, ...]
    value: float
    value_low: float
    value_high: float
    base: float | None = None
    difference: float | None = None
    low: float | None = None
    high: float | None = None
    p_value: float | None = None
    p_adjusted: float | None = None
    seed_low: float | None = None
    seed_high: float | None = None
    withheld: str = ""

    @property
    def significant(self) -> bool | None:
        """Whether the adjusted p-value is below 0.05 and the interval excludes 0; None where nothing was tested."""
        if self.p_adjusted is None or self.low is None or self.high is None:
            return None
        return self.p_adjusted < SIGNIFICANT and not self.low <= 0 <= self.high


@dataclass(frozen=True)
class Sweep:
    """The variants of one ``--grid``: an option, and which variant has which of its values.

    Attributes:
        path: the option.
        points: value and variant; the base among them, with the value it has.
    """

    path: str
    points: tuple[tuple[Any, str], ...]


@dataclass(frozen=True)
class Comparison:
    """Variants, the first of them the base, and all that was found about them. Prints as a table.

    Attributes:
        variants: in the order of tables.
        cells: by list, task, metric and variant, in that order.
        metrics: their names.
        ties: how equal scores count.
        candidates: sha256 of each candidate list; the first one leads.
        resamples: of the intervals.
        sweeps: the grids among the variants.
        withheld: cells of requests without a part of them, of the primary metric, by list, task, part and variant.
    """

    variants: tuple[Measured, ...]
    cells: tuple[Cell, ...]
    metrics: tuple[str, ...]
    ties: Ties
    candidates: Mapping[str, str]
    resamples: int = RESAMPLES
    sweeps: tuple[Sweep, ...] = ()
    withheld: tuple[Cell, ...] = ()

    @property
    def base(self) -> Measured:
        """What the others are compared with."""
        return self.variants[0]

    @property
    def primary(self) -> str:
        """The metric whose differences tables show in full: ndcg@5, or the first one where it is not asked for."""
        return _primary(self.metrics)

    @property
    def failed(self) -> list[str]:
        """A line for each run that failed: variant, seed and reason."""
        return [
            f"{v.name}, seed {seed}: {' '.join(why.split())}" for v in self.variants for seed, why in v.failed.items()
        ]

    def cell(self, candidates: str, task: str, variant: str, metric: str, withheld: str = "") -> Cell | None:
        """One cell; None where the variant does not do the task, or has no result."""
        return self._index.get((candidates, task, variant, metric, withheld))

    @cached_property
    def _index(self) -> dict[tuple[str, ...], Cell]:
        cells = (*self.cells, *self.withheld)
        return {(cell.candidates, cell.task, cell.variant, cell.metric, cell.withheld): cell for cell in cells}

    def to_dict(self) -> dict[str, Any]:
        """All of it but the ranks, for JSON."""
        variants = []
        for variant in self.variants:
            runs = [
                {"seed": seed} | {name: value for name, value in vars(run).items() if name not in ("ranks", "withheld")}
                for seed, run in variant.results.items()
            ]
            failed = [{"seed": seed, "reason": why} for seed, why in variant.failed.items()]
            variants.append({"name": variant.name, "runs": runs, "failed": failed, "pending": list(variant.pending)})
        return {
            "base": self.base.name,
            "metrics": list(self.metrics),
            "ties": self.ties,
            "candidates": dict(self.candidates),
            "resamples": self.resamples,
            "variants": variants,
            "cells": [asdict(cell) | {"significant": cell.significant} for cell in self.cells],
            "withheld": [asdict(cell) | {"significant": cell.significant} for cell in self.withheld],
            "sweeps": [
                {"path": sweep.path, "points": [list(point) for point in sweep.points]} for sweep in self.sweeps
            ],
        }

    def __str__(self) -> str:
        from gensr.evaluation.tables import render

        return render(self, "text")

    def _repr_markdown_(self) -> str:
        from gensr.evaluation.tables import render

        return render(self, "markdown")


def compare_variants(
    variants: Sequence[Measured],
    *,
    candidates: Mapping[str, str],
    metrics: Sequence[str],
    ties: Ties = "expected",
    resamples: int = RESAMPLES,
    seed: int = 0,
    sweeps: Iterable[Sweep] = (),
) -> Comparison:
    """Compare variants with the first one, request by request.

    Args:
        variants: the base, and what is compared with it.
        candidates: sha256 of the candidate lists to compare on.
        metrics: their names.
        ties: how equal scores count.
        resamples: of the intervals.
        seed: makes intervals and p-values repeatable.
        sweeps: grids among the variants, carried along for figures.

    Raises:
        BadInputError: an unknown metric, or runs that ranked different requests (names both).
    """
    metrics = tuple(dict.fromkeys(metrics))
    for name in metrics:
        parse_metric(name)
    measure = partial(_cell, resamples=resamples, seed=seed)
    cells: list[Cell] = []
    withheld: list[Cell] = []
    for listed in candidates:
        full = [{seed: result.ranks[listed] for seed, result in variant.results.items()} for variant in variants]
        parts = _withheld(variants, listed)
        for task in TASKS:
            asked = [_of_task(runs, task) for runs in full]
            _check_requests(variants, asked, listed, task)
            without = {part: [_of_task(runs, task) for runs in of] for part, of in parts.items()}
            for name in metrics:
                new = [partial(Cell, listed, task.label, variant.name, name) for variant in variants]
                values = [_values(runs, name, ties) for runs in asked]
                found = [measure(cell, values[0], own) for cell, own in zip(new, values, strict=True) if own]
                cells += _adjusted(found)
                if name != _primary(metrics):
                    continue
                for part, of in without.items():
                    left = [_values(runs, name, ties) for runs in of]
                    withheld += [
                        measure(partial(cell, withheld=part), whole, own, tested=False)
                        for cell, whole, own in zip(new, values, left, strict=True)
                        if own
                    ]
    return Comparison(
        tuple(variants), tuple(cells), metrics, ties, dict(candidates), resamples, tuple(sweeps), tuple(withheld)
    )


def _primary(metrics: Sequence[str]) -> str:
    return "ndcg@5" if "ndcg@5" in metrics else metrics[0]


def pairs_of_seeds(base: Iterable[int], other: Iterable[int]) -> list[tuple[int, int]]:
    """Which seed of the base is compared with which seed of a variant: equal ones, else one after the other."""
    first, second = sorted(base), sorted(other)
    common = [(seed, seed) for seed in first if seed in second]
    return common or list(zip(first, second, strict=False))


def _cell(
    new: Callable[..., Cell],
    base: Mapping[int, Floats],
    own: Mapping[int, Floats],
    *,
    resamples: int,
    seed: int,
    tested: bool = True,
) -> Cell:
    """Fill a `new` cell from the values of each seed's requests."""
    pairs = [] if own is base else pairs_of_seeds(base, own)
    seeds = tuple(b for _, b in pairs) or tuple(own)
    values = np.stack([own[number] for number in seeds])  # [S, R]
    value_low, value_high = crossed_interval(values, resamples=resamples, seed=seed)
    cell = new(
        requests=values.shape[1], seeds=seeds, value=float(values.mean()), value_low=value_low, value_high=value_high
    )
    if not pairs:
        return cell
    compared = np.stack([base[a] for a, _ in pairs])
    differences = values - compared
    low, high = crossed_interval(differences, resamples=resamples, seed=seed)
    by_seed = differences.mean(axis=1)
    return replace(
        cell,
        base=float(compared.mean()),
        difference=float(differences.mean()),
        low=low,
        high=high,
        p_value=sign_flip_test(differences.mean(axis=0), seed=seed) if tested else None,
        seed_low=float(by_seed.min()),
        seed_high=float(by_seed.max()),
    )


def _adjusted(row: list[Cell]) -> Iterator[Cell]:
    tested = [cell for cell in row if cell.p_value is not None]
    adjusted = dict(zip(map(id, tested), holm([cell.p_value or 0.0 for cell in tested]), strict=True))
    for cell in row:
        yield replace(cell, p_adjusted=adjusted.get(id(cell)))


def _withheld(variants: Sequence[Measured], listed: str) -> dict[str, list[dict[int, Ranks]]]:
    """By part of the request that any run was asked without: each variant's ranks by seed."""
    found = [
        {seed: result.withheld.get(listed, {}) for seed, result in variant.results.items()} for variant in variants
    ]
    names = dict.fromkeys(name for of in found for parts in of.values() for name in parts)
    return {
        name: [{seed: parts[name] for seed, parts in of.items() if name in parts} for of in found] for name in names
    }


def _of_task(runs: Mapping[int, Ranks], task: Task) -> dict[int, Ranks]:
    """The ranks of one task by seed, requests in one order everywhere; without runs that ranked none."""
    parts = {seed: ranks.select(ranks.task == task) for seed, ranks in runs.items()}
    return {seed: ranks.select(np.argsort(ranks.request)) for seed, ranks in parts.items() if len(ranks)}


def _values(runs: Mapping[int, Ranks], name: str, ties: Ties) -> dict[int, Floats]:
    return {seed: metric(ranks, name, ties) for seed, ranks in runs.items()}


def _check_requests(variants: Sequence[Measured], asked: list[dict[int, Ranks]], listed: str, task: Task) -> None:
    runs = [
        (variant.results[seed].path or f"{variant.name}, seed {seed}", ranks)
        for variant, of in zip(variants, asked, strict=True)
        for seed, ranks in of.items()
    ]
    for name, ranks in runs[1:]:
        first_name, first = runs[0]
        same = all(np.array_equal(getattr(first, part), getattr(ranks, part)) for part in ("request", "candidates"))
        if not same:
            shared = len(np.intersect1d(first.request, ranks.request))
            raise BadInputError(
                f"{first_name} and {name} cannot be compared: they ranked different requests on {listed} "
                f"({task.label}: {len(first):,} and {len(ranks):,}, {shared:,} in both). Build both with the same "
                "evaluation.max_requests and data"
            )
