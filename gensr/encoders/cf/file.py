"""Collaborative vectors that somebody else computed: the table of any published model can stand in for ours."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from gensr.encoders.cf.config import CFFileConfig
from gensr.encoders.cf.table import CFTable
from gensr.encoders.tables import place_of, read_ids, read_vectors, rows_by_id, rows_in_order
from gensr.errors import BadInputError


def read_cf_table(
    config: CFFileConfig,
    *,
    num_users: int,
    num_items: int,
    user_ids: Sequence[str] | None = None,
    item_ids: Sequence[str] | None = None,
) -> CFTable:
    """The table that `config` describes.

    Args:
        config: files and keys.
        num_users: U.
        num_items: I.
        user_ids: raw id by row [U+1], row 0 empty; needed where the config names a file of user ids.
        item_ids: raw id by row [I+1], row 0 empty; needed where the config names a file of item ids.

    Returns:
        Float32 tables as the file has them: a vector of an item without interactions in this log is kept. Users are
        zero where the config names none.

    Raises:
        BadInputError: a file is unreadable, or does not fit the log (see `gensr.encoders.tables`).
    """
    items = _rows(config, config.key, config.ids, item_ids, num_items, "items")
    if config.user_key is None:
        return CFTable(torch.zeros(num_users + 1, items.shape[1]), items)
    users = _rows(config, config.user_key, config.user_ids, user_ids, num_users, "users")
    if users.shape[1] != items.shape[1]:
        raise BadInputError(
            f"{config.path}: users ({config.user_key}) are {users.shape[1]} wide and items ({config.key}) "
            f"{items.shape[1]}: expected one width"
        )
    return CFTable(users, items)


def _rows(
    config: CFFileConfig, key: str | None, ids: str | None, wanted: Sequence[str] | None, count: int, noun: str
) -> Tensor:
    table, place = read_vectors(config.path, key=key), place_of(config.path, key)
    if ids is None:
        return rows_in_order(table, count, place=place, noun=noun)
    if wanted is None:
        raise BadInputError(f"{ids} names {noun} by raw id, and a matrix has none: call `table`, which is given them")
    return rows_by_id(table, read_ids(ids), wanted, place=place, ids_place=ids, missing=config.missing, noun=noun)
