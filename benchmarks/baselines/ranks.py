"""Ranks and metrics by sorting, the usual vectorised way, for `gensr bench ranks` to be measured against."""

from __future__ import annotations

import numpy as np


def ties_in_order(scores: np.ndarray, label: np.ndarray) -> np.ndarray:
    """Which ranks the truth may take, bool [B, C]: those of the candidates that score like it, itself included.

    Args:
        scores: float [B, C], finite; higher is better.
        label: [B, C], positive at the only truth.
    """
    rows = np.arange(len(scores))
    ranked = np.take_along_axis(scores, np.argsort(-scores, axis=1), axis=1)
    return ranked == scores[rows, label.argmax(axis=1)][:, None]


def better_and_equal(tied: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Candidates above and beside the truth (itself included), int64 [B] each."""
    return tied.argmax(axis=1), tied.sum(axis=1)


def metrics(tied: np.ndarray, cuts: tuple[int, ...]) -> dict[str, np.ndarray]:
    """recall@k and ndcg@k, float [B] each, in expectation over the orders of equal scores."""
    rank = np.arange(1, tied.shape[1] + 1)
    gains = {}
    for cut in cuts:
        gains[f"recall@{cut}"] = (rank <= cut).astype(float)
        gains[f"ndcg@{cut}"] = (rank <= cut) / np.log2(rank + 1)
    table = np.stack(list(gains.values()), axis=1)  # [C, metrics]
    values = tied.astype(float) @ table / tied.sum(axis=1, keepdims=True)
    return dict(zip(gains, values.T, strict=True))
