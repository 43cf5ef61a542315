"""Alternating least squares: collaborative vectors in seconds, through the `implicit` library."""

from __future__ import annotations

import sys

import numpy as np
import scipy.sparse as sp
import torch

from gensr.encoders.cf.table import CFTable, zero_untouched


def fit_als(
    user_items: sp.csr_matrix,
    *,
    dim: int,
    iterations: int,
    regularization: float,
    alpha: float,
    threads: int = 1,
    seed: int = 0,
    progress: bool = False,
) -> CFTable:
    """Fit implicit-feedback ALS (Hu, Koren, Volinsky, ICDM 2008).

    Args:
        user_items: sparse [U+1, I+1], row and column 0 empty; training events only.
        dim: width of the vectors.
        iterations: alternations.
        regularization: ridge weight.
        alpha: confidence of an interaction.
        threads: threads; one makes the result repeatable.
        seed: for the starting values.
        progress: show the library's bar on stderr, where that is a terminal.

    Returns:
        Float32 tables; zero in every row without an interaction.
    """
    import implicit.als
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    # A BLAS with threads of its own competes with the library's, which warns about it.
    with threadpool_limits(limits=1, user_api="blas"):
        model = implicit.als.AlternatingLeastSquares(
            factors=dim,
            regularization=regularization,
            alpha=alpha,
            iterations=iterations,
            num_threads=threads,
            random_state=seed,
            use_gpu=False,
            dtype=np.float32,
        )
        # Row and column 0 are padding: as an ordinary user and item they would take part in the regularisation.
        model.fit(user_items[1:, 1:].astype(np.float32), show_progress=progress and sys.stderr.isatty())
    return CFTable(_padded(model.user_factors, user_items), _padded(model.item_factors, user_items.T))


def _padded(factors: np.ndarray, interactions: sp.spmatrix) -> torch.Tensor:
    """Factors [n, d] with a zero row in front, and zeros where a row of `interactions` [n+1, m] is empty."""
    table = torch.from_numpy(np.pad(factors, ((1, 0), (0, 0))))
    return zero_untouched(table, torch.from_numpy(np.diff(interactions.tocsr().indptr) > 0))
