"""Ranks and metrics of a whole test split: counted, against sorted."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np

from gensr.bench.cases import Case, Context
from gensr.evaluation.metrics import Ranks, metric, rank_truth

REQUESTS, QUICK_REQUESTS, CANDIDATES = 68_223, 300, 100
"""Amazon's recommendation and search requests together, with 99 negatives each."""
STEPS = 64
"""Scores are rounded to this fraction of a unit, so that some are equal."""
CUTS = (5, 10)
AIM = 3.0


def cases(context: Context) -> Iterator[Case]:
    """See `gensr.bench.cases.Suite`."""
    reference = context.baselines("ranks")
    requests = QUICK_REQUESTS if context.quick else REQUESTS
    generator = np.random.default_rng(0)
    scores = np.round(generator.standard_normal((requests, CANDIDATES), dtype=np.float32) * STEPS) / STEPS
    label = np.zeros_like(scores)
    label[np.arange(requests), generator.integers(CANDIDATES, size=requests)] = 1

    def counted() -> dict[str, np.ndarray]:
        ranks = Ranks(np.arange(requests), np.ones(requests, np.int8), *rank_truth(scores, label))
        return {f"{kind}@{cut}": metric(ranks, f"{kind}@{cut}") for cut in CUTS for kind in ("recall", "ndcg")}

    def sorted_() -> dict[str, np.ndarray]:
        found: dict[str, np.ndarray] = reference.metrics(reference.ties_in_order(scores, label), CUTS)
        return found

    workload = f"ranks and {2 * len(CUTS)} metrics, {requests:,} x {CANDIDATES}"
    case = partial(Case, "ranks", workload, units=requests, unit="requests", flops=lambda: 0)
    yield case("argsort", sorted_, baseline=True)
    yield case("gensr", counted, aim=AIM)
