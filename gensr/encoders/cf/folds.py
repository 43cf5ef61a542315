"""Tables that have not seen the interaction a model is asked to predict.

A collaborative table is fitted on the interactions that a ranker is then trained to predict, so in training the truth
is always close to the history: the ranker learns to trust the table more than it deserves, and a search target, whose
twin is in the table, teaches it to ignore the query. As in stacking, the interactions are cut into folds, one table is
fitted without each, and a training request reads the table without its own truth. Held-out requests read the full
table, which never saw their truths.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from gensr.encoders.cf.table import CFTable

if TYPE_CHECKING:
    import scipy.sparse

    from gensr.data.dataset import Dataset
    from gensr.encoders.cf.config import CFConfig

MULTIPLIER = 0x9E3779B97F4A7C15 - 2**64  # 2**64 / golden ratio, as a signed integer: spreads consecutive numbers


def pair_folds(users: Tensor, items: Tensor, folds: int) -> Tensor:
    """The fold of each (user, item) pair, int64 in [0, folds): fixed, the same for both tasks.

    Args:
        users: int64 rows.
        items: int64 rows, of the same shape.
        folds: how many folds.
    """
    mixed = (users * 0x1000003 + items) * MULTIPLIER  # wraps around, which is what a hash wants
    mixed = (mixed ^ (mixed >> 29)) * MULTIPLIER
    return (mixed >> 33) % folds


def without_fold(user_items: scipy.sparse.csr_matrix, fold: int, folds: int) -> scipy.sparse.csr_matrix:
    """The csr matrix [U+1, I+1] without the interactions of `fold`."""
    pairs = user_items.tocoo()
    rows, columns = (torch.from_numpy(index.astype("int64")) for index in (pairs.row, pairs.col))
    kept = (pair_folds(rows, columns, folds) != fold).numpy()
    return type(pairs)((pairs.data[kept], (pairs.row[kept], pairs.col[kept])), shape=pairs.shape).tocsr()


def fit_table(
    config: CFConfig,
    dataset: Dataset,
    *,
    seed: int,
    fold: tuple[int, int] | None = None,
    device: str = "cpu",
    progress: bool = False,
) -> CFTable:
    """The table of `config` on the recommendation events of the training split, less one ``(fold, folds)`` of them."""
    pairs = dataset.user_items()
    if fold is not None:
        pairs = without_fold(pairs, *fold)
    ids = {"user_ids": dataset.user_ids, "item_ids": dataset.catalogue.item_ids}
    return config.table(pairs, **ids, seed=seed, device=device, progress=progress)


def aligned(table: CFTable, reference: CFTable) -> CFTable:
    """`table` turned into the space of `reference`: the rotation that brings their items closest (Procrustes).

    Two fits of one method agree up to a rotation at best; dot products within a table are unchanged.
    """
    known = (table.items.abs().sum(1) > 0) & (reference.items.abs().sum(1) > 0)
    left, _, right = torch.linalg.svd((table.items[known].T @ reference.items[known]).double())
    rotation = (left @ right).float()
    return CFTable(table.users @ rotation, table.items @ rotation)
