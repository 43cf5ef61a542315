"""Collaborative vectors without training: which items are touched by the same users more often than by chance."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp
import torch

from gensr.encoders import CFTable
from gensr.errors import BadInputError


def shifted_ppmi(user_items: sp.csr_matrix, *, negatives: float = 1.0) -> sp.csr_matrix:
    """``max(log(n_ij D / (n_i n_j)) - log k, 0)`` over pairs of items (Levy and Goldberg 2014, eq. 11-12).

    n_ij counts the users who touched both i and j (i != j), n_i = sum_j n_ij, D = sum_i n_i.

    Args:
        user_items: sparse [U+1, I+1]; whatever is stored and not zero is one interaction.
        negatives: k.

    Returns:
        Symmetric sparse float64 [I+1, I+1]; only positive values are stored.
    """
    touched = user_items.astype(bool).astype(np.float64)
    pairs = (touched.T @ touched).tolil()
    pairs.setdiag(0)
    pairs = pairs.tocoo()
    counts = np.bincount(pairs.row, weights=pairs.data, minlength=pairs.shape[0])
    pmi = np.log(pairs.data * counts.sum() / (counts[pairs.row] * counts[pairs.col])) - np.log(negatives)
    kept = pmi > 0
    return sp.csr_matrix((pmi[kept], (pairs.row[kept], pairs.col[kept])), shape=pairs.shape)


def fit_pmi(user_items: sp.csr_matrix, *, dim: int, negatives: float = 1.0) -> CFTable:
    """Item vectors ``U sqrt(S)`` from the truncated SVD of `shifted_ppmi`; a user is the mean of their items.

    Items that are associated with no other have a zero row, as have their users where they touched nothing else.

    Args:
        user_items: sparse [U+1, I+1], row and column 0 empty; training events only.
        dim: width; columns beyond the number of associated items are zero.
        negatives: k of the shift.

    Returns:
        Float32 tables, the same for the same input.

    Raises:
        BadInputError: fewer than three items are associated with another.
    """
    associations = shifted_ppmi(user_items, negatives=negatives)
    known = np.flatnonzero(np.diff(associations.indptr))
    if len(known) < 3:
        raise BadInputError(
            f"cf 'pmi' learns from users who touched several items: {len(known)} items are touched together with "
            "another more often than by chance; expected at least 3. Choose another cf, or lower its negatives"
        )
    items = np.zeros((user_items.shape[1], dim), dtype=np.float32)
    vectors = _factors(associations[known][:, known], dim)
    items[known, : vectors.shape[1]] = vectors
    touched = user_items.astype(bool).astype(np.float32)
    users = touched @ items / np.maximum(touched.sum(1), 1).reshape(-1, 1)
    return CFTable(torch.from_numpy(np.asarray(users, dtype=np.float32)), torch.from_numpy(items))


def _factors(matrix: sp.csr_matrix, dim: int) -> np.ndarray:
    from scipy.sparse.linalg import svds

    width = min(dim, matrix.shape[0] - 1)  # the solver finds fewer vectors than the matrix has rows
    left, sizes, _ = svds(matrix, k=width, v0=np.ones(matrix.shape[0]))  # a fixed start: the same result every time
    return np.asarray(left * np.sqrt(sizes))
