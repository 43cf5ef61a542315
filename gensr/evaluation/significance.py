"""How far a mean may be trusted, and whether two runs differ.

Metrics of ranks take few distinct values (at most one a rank), and resampling requests with replacement is the same
as drawing multinomial counts of the distinct values. That is exact, needs memory for the distinct values only, and
makes a thousand resamples of a hundred thousand requests a matter of milliseconds.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from gensr.evaluation.metrics import Floats

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
    changed = np.abs(differences[differences != 0])
    if len(changed) == 0:
        return 1.0
    size, counts = np.unique(changed, return_counts=True)
    alike = len(changed) > 4 * len(size)
    rng = np.random.default_rng(seed)
    observed = abs(float(differences.sum()))
    extreme = 0
    for rows in _chunks(resamples, len(size) if alike else len(changed)):
        if alike:  # drawing how many of each size keep a plus is cheaper than a sign for each
            sums = (2 * rng.binomial(counts, 0.5, size=(rows, len(size))) - counts) @ size
        else:
            bits = np.unpackbits(rng.integers(0, 256, size=(rows, -(-len(changed) // 8)), dtype=np.uint8), axis=1)
            sums = 2 * (bits[:, : len(changed)] @ changed) - changed.sum()
        extreme += int((np.abs(sums) >= observed - 1e-9).sum())
    return (extreme + 1) / (resamples + 1)


def crossed_interval(
    values: Floats, *, resamples: int = 2000, seed: int = 0, level: float = 0.95
) -> tuple[float, float]:
    """Percentile bootstrap interval of the mean of a table whose rows and columns are both samples.

    Rows and columns are drawn with replacement independently of each other (the pigeonhole bootstrap: Owen, Annals of
    Applied Statistics 1, 2007). One row gives `bootstrap_interval`. What varies cell by cell counts more than once, so
    such noise makes the interval wider than it need be; a handful of rows tells little about the rows not drawn.

    Args:
        values: float [S, R]: of S seeds and R requests.
        resamples: how often both are drawn anew.
        seed: makes the interval repeatable.
        level: share of resampled means inside.

    Raises:
        ValueError: no values, or no resamples.
    """
    if values.size == 0 or resamples < 1:
        raise ValueError(f"a bootstrap needs values and resamples, got {values.shape} and {resamples}")
    seeds, requests = values.shape
    distinct, counts = np.unique(values.T, axis=0, return_counts=True)  # [K, S], [K]
    rng, share = np.random.default_rng(seed), counts / requests
    draws = [rng.multinomial(requests, share, size=rows) @ distinct for rows in _chunks(resamples, len(distinct))]
    by_seed = np.concatenate(draws) / requests  # [resamples, S]
    weights = np.random.default_rng([seed, 1]).multinomial(seeds, [1 / seeds] * seeds, size=resamples) / seeds
    low, high = np.quantile((by_seed * weights).sum(axis=1), [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values adjusted for being several, so that any false alarm among them stays as rare as promised.

    Step-down Bonferroni (Holm, Scandinavian Journal of Statistics 6, 1979): the smallest is multiplied by their
    number, the next by one less, and so on; none may fall below the one before it.

    Example:
        >>> [round(p, 6) for p in holm([0.01, 0.04, 0.03])]
        [0.03, 0.06, 0.06]
    """
    adjusted, largest = [0.0] * len(p_values), 0.0
    for place, index in enumerate(np.argsort(p_values, kind="stable").tolist()):
        largest = max(largest, min(1.0, (len(p_values) - place) * p_values[index]))
        adjusted[index] = largest
    return adjusted


def _chunks(resamples: int, width: int) -> Iterator[int]:
    """Split `resamples` rows of `width` counts so that no part exceeds `CHUNK`."""
    rows = max(1, CHUNK // max(width, 1))
    for start in range(0, resamples, rows):
        yield min(rows, resamples - start)
