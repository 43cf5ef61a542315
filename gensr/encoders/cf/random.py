"""Vectors that say which item it is and nothing else: what a collaborative view is worth beyond its parameters."""

from __future__ import annotations

import scipy.sparse as sp
import torch
from torch import Tensor

from gensr.encoders.cf.table import CFTable, zero_untouched


def random_table(user_items: sp.csr_matrix, *, dim: int, seed: int = 0) -> CFTable:
    """Standard normal vectors for everybody with an interaction.

    Args:
        user_items: sparse [U+1, I+1], row and column 0 empty; tells who has interactions, and nothing more is read.
        dim: width of the vectors.
        seed: for the draw. A row's vector depends on this, the row and the table's shape, not on who else has one.

    Returns:
        Float32 tables; zero in every row without an interaction.
    """
    touched = user_items != 0
    return CFTable(
        _draw(touched.getnnz(axis=1), dim, seed=2 * seed), _draw(touched.getnnz(axis=0), dim, seed=2 * seed + 1)
    )


def _draw(counts: sp.spmatrix, dim: int, *, seed: int) -> Tensor:
    vectors = torch.randn(len(counts), dim, generator=torch.Generator().manual_seed(seed))
    return zero_untouched(vectors, torch.from_numpy(counts > 0))
