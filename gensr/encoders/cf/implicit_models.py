"""Matrix factorisations in seconds, through the `implicit` library: ALS, BPR and LMF.

The library appends bias columns to the factors: BPR one (an item's bias, against a 1 for every user), LMF two (an
item's and a user's). They stay, so that a user's and an item's vector still multiply to the library's score; `dim`
counts them.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from gensr.encoders.cf.table import CFTable, zero_untouched
from gensr.errors import BadInputError

BPR_BIASES, LMF_BIASES = 1, 2


def fit_als(
    user_items: sp.csr_matrix,
    *,
    dim: int,
    iterations: int,
    regularization: float,
    alpha: float,
    threads: int | None = None,
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
        threads: threads, as many as torch computes with where None; each row is solved alone, so the result is the same
            for any number of them.
        seed: for the starting values.
        progress: show the library's bar on stderr, where that is a terminal.

    Returns:
        Float32 tables; zero in every row without an interaction.

    Raises:
        BadInputError: the fit diverged.
    """
    from implicit.als import AlternatingLeastSquares

    make = partial(
        AlternatingLeastSquares,
        factors=dim,
        regularization=regularization,
        alpha=alpha,
        iterations=iterations,
        num_threads=threads or torch.get_num_threads(),
        random_state=seed,
        use_gpu=False,
        dtype=np.float32,
    )
    return _fit(make, user_items, progress, diverged=f"ALS diverged: lower its alpha, which is {alpha:g}")


def fit_bpr(
    user_items: sp.csr_matrix,
    *,
    dim: int,
    epochs: int,
    learning_rate: float,
    regularization: float,
    threads: int = 1,
    seed: int = 0,
    progress: bool = False,
) -> CFTable:
    """Fit matrix factorisation with Bayesian personalised ranking (Rendle et al., UAI 2009).

    A step takes one interaction and compares its item with one drawn from all interactions, that is by popularity,
    which the user did not touch.

    Args:
        user_items: sparse [U+1, I+1], row and column 0 empty; training events only.
        dim: width of the vectors, at least 2: the last column is the item's bias, and 1 for users.
        epochs: passes over the interactions.
        learning_rate: step size of stochastic gradient descent.
        regularization: ridge weight.
        threads: threads; one makes the result repeatable.
        seed: for the starting values and the samples.
        progress: show the library's bar on stderr, where that is a terminal.

    Returns:
        Float32 tables; zero in every row without an interaction.

    Raises:
        BadInputError: there are no interactions, or the fit diverged.
    """
    from implicit.bpr import BayesianPersonalizedRanking

    _require_interactions("BPR", user_items)
    make = partial(
        BayesianPersonalizedRanking,
        factors=dim - BPR_BIASES,
        learning_rate=learning_rate,
        regularization=regularization,
        iterations=epochs,
        num_threads=threads,
        random_state=seed,
        use_gpu=False,
        dtype=np.float32,
    )
    diverged = f"BPR diverged: lower its learning_rate, which is {learning_rate:g}"
    return _fit(make, user_items, progress, diverged=diverged)


def fit_lmf(
    user_items: sp.csr_matrix,
    *,
    dim: int,
    epochs: int,
    learning_rate: float,
    regularization: float,
    negatives: int,
    threads: int = 1,
    seed: int = 0,
    progress: bool = False,
) -> CFTable:
    """Fit logistic matrix factorisation (Johnson, NIPS workshop 2014).

    Args:
        user_items: sparse [U+1, I+1], row and column 0 empty; training events only.
        dim: width of the vectors, at least 3: the last two columns are the item's bias beside a 1 for users, and the
            user's bias beside a 1 for items.
        epochs: alternations over users and items.
        learning_rate: AdaGrad step size.
        regularization: ridge weight.
        negatives: items sampled as not touched, for each interaction.
        threads: threads; one makes the result repeatable.
        seed: for the starting values and the samples.
        progress: show the library's bar on stderr, where that is a terminal.

    Returns:
        Float32 tables; zero in every row without an interaction.

    Raises:
        BadInputError: there are no interactions, or the fit diverged.
    """
    from implicit.lmf import LogisticMatrixFactorization

    _require_interactions("LMF", user_items)
    make = partial(
        LogisticMatrixFactorization,
        factors=dim - LMF_BIASES,
        learning_rate=learning_rate,
        regularization=regularization,
        iterations=epochs,
        neg_prop=negatives,
        num_threads=threads,
        random_state=seed,
        use_gpu=False,
        dtype=np.float32,
    )
    diverged = f"LMF diverged: lower its learning_rate, which is {learning_rate:g}"
    return _fit(make, user_items, progress, diverged=diverged)


def _fit(make: Callable[[], Any], user_items: sp.csr_matrix, progress: bool, *, diverged: str) -> CFTable:
    from implicit.recommender_base import ModelFitError
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    # Row and column 0 are padding: as an ordinary user and item they would take part in the fit.
    pairs = user_items[1:, 1:].astype(np.float32)
    pairs.eliminate_zeros()  # BPR takes whatever is stored for an interaction
    # A BLAS with threads of its own competes with the library's, which looks for one as soon as a model is made.
    with threadpool_limits(limits=1, user_api="blas"):
        model = make()
        try:
            model.fit(pairs, show_progress=progress and sys.stderr.isatty())
        except ModelFitError as error:
            raise BadInputError(diverged) from error
    users, items = pairs.getnnz(axis=1), pairs.getnnz(axis=0)
    return CFTable(_padded(model.user_factors, users), _padded(model.item_factors, items))


def _padded(factors: np.ndarray, counts: np.ndarray) -> Tensor:
    """Factors [n, d] with a zero row in front, and zeros in the rows whose count [n] of interactions is 0."""
    rows = zero_untouched(torch.from_numpy(factors), torch.from_numpy(counts > 0))
    return torch.cat([rows.new_zeros(1, rows.shape[1]), rows])


def _require_interactions(method: str, user_items: sp.csr_matrix) -> None:
    # The library draws its samples from them without a look at how many there are.
    if not user_items.count_nonzero():
        raise BadInputError(f"{method} learns from interactions, and there are none")
