"""How far a mean may be trusted, and whether two runs differ.

Metrics of ranks take few distinct values (at most one a rank), and resampling requests with replacement is the same
as drawing multinomial counts of the distinct values. That is exact, needs memory for the distinct values only, and
makes a thousand resamples of a hundred thousand requests a matter of milliseconds.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gensr.data.tasks import Task
from gensr.errors import BadInputError
from gensr.evaluation.metrics import Floats, Ranks, Ties, metric

CHUNK = 1 << 21
"""Most counts drawn at once: 16 MiB."""


def bootstrap_interval(
    values: Floats, *, resamples: int = 1000, seed: int = 0, level: float = 0.95
) -> tuple[Floats, Floats]:
    """Percentile bootstrap interval of column means (Efron, Tibshirani, 1993, chapter 13).

    Args:
        values: float [R, M]: M metrics of R requests; the columns are resampled together.
        resamples: how often the requests are drawn anew.
        seed: makes the interval repeatable.
        level: share of resampled means inside.

    Returns:
        Lower and upper ends, float64 [M] each.

    Raises:
        ValueError: no requests, or no resamples.
    """
    if len(values) == 0 or resamples < 1:
        raise ValueError(f"a bootstrap needs requests and resamples, got {len(values)} and {resamples}")
    distinct, counts = np.unique(values, axis=0, return_counts=True)  # [K, M], [K]
    rng = np.random.default_rng(seed)
    share = counts / counts.sum()
    draws = [rng.multinomial(len(values), share, size=rows) for rows in _chunks(resamples, len(distinct))]
    means = np.concatenate([draw @ distinct for draw in draws]) / len(values)  # [resamples, M]
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2], axis=0)
    return low, high


def sign_flip_test(differences: Floats, *, resamples: int = 10_000, seed: int = 0) -> float:
    """Two-sided paired randomisation test of mean zero (Smucker, Allan, Carterette, CIKM 2007).

    If two runs do not differ, each request's difference is as likely with the other sign. The returned p-value counts
    the observed arrangement itself, so it is never zero.

    Args:
        differences: float [R], metric of one run minus metric of the other, request by request.
        resamples: random sign patterns.
        seed: makes the p-value repeatable.
    """
    size, counts = np.unique(np.abs(differences[differences != 0]), return_counts=True)
    if len(size) == 0:
        return 1.0
    rng = np.random.default_rng(seed)
    observed = abs(float(differences.sum()))
    extreme = 0
    for rows in _chunks(resamples, len(size)):
        positive = rng.binomial(counts, 0.5, size=(rows, len(size)))  # differences of each size that keep a plus
        extreme += int((np.abs((2 * positive - counts) @ size) >= observed - 1e-9).sum())
    return (extreme + 1) / (resamples + 1)


@dataclass(frozen=True)
class Comparison:
    """One metric of two runs on the same requests.

    Attributes:
        task: label of the task.
        metric: its name.
        first: mean of the first run.
        second: mean of the second run.
        difference: second minus first.
        low: lower end of the difference's bootstrap interval.
        high: upper end.
        p_value: of the paired randomisation test.
        requests: how many.
    """

    task: str
    metric: str
    first: float
    second: float
    difference: float
    low: float
    high: float
    p_value: float
    requests: int


def compare(
    first: Ranks,
    second: Ranks,
    *,
    metrics: Sequence[str],
    ties: Ties = "expected",
    resamples: int = 1000,
    seed: int = 0,
) -> list[Comparison]:
    """Compare two runs request by request, for each task and metric.

    Raises:
        BadInputError: the runs did not rank the same requests against as many candidates.
    """
    first, second = first.select(_order(first)), second.select(_order(second))
    if not all(
        np.array_equal(getattr(first, name), getattr(second, name)) for name in ("request", "task", "candidates")
    ):
        shared = len(np.intersect1d(first.request, second.request))
        raise BadInputError(
            "the runs cannot be compared request by request: they must rank the same requests against as many "
            f"candidates; one ranked {len(first)}, the other {len(second)}, and {shared} requests occur in both"
        )
    results = []
    for code in np.unique(first.task):
        rows = first.task == code
        for name in metrics:
            a, b = metric(first.select(rows), name, ties), metric(second.select(rows), name, ties)
            low, high = bootstrap_interval((b - a)[:, None], resamples=resamples, seed=seed)
            results.append(
                Comparison(
                    task=Task(code).label,
                    metric=name,
                    first=float(a.mean()),
                    second=float(b.mean()),
                    difference=float((b - a).mean()),
                    low=float(low[0]),
                    high=float(high[0]),
                    p_value=sign_flip_test(b - a, seed=seed),
                    requests=len(a),
                )
            )
    return results


def _order(ranks: Ranks) -> NDArray[np.int64]:
    return np.lexsort((ranks.task, ranks.request))


def _chunks(resamples: int, width: int) -> Iterator[int]:
    """Split `resamples` rows of `width` counts so that no part exceeds `CHUNK`."""
    rows = max(1, CHUNK // max(width, 1))
    for start in range(0, resamples, rows):
        yield min(rows, resamples - start)
