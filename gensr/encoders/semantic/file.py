"""Text vectors that somebody else computed, by whatever model."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from gensr.encoders.semantic.config import TextFileConfig
from gensr.encoders.semantic.table import TextTable
from gensr.encoders.tables import place_of, read_ids, read_vectors, rows_by_id, rows_in_order
from gensr.errors import BadInputError


def read_text_table(config: TextFileConfig, item_ids: Sequence[str]) -> TextTable:
    """The table that `config` describes.

    Args:
        config: the files.
        item_ids: raw id by row [I+1], row 0 empty.

    Raises:
        BadInputError: a file is unreadable, or does not fit the catalogue (see `gensr.encoders.tables`).
    """
    table, place = read_vectors(config.path, key=config.key), place_of(config.path, config.key)
    if config.ids is None:
        return TextTable(rows_in_order(table, len(item_ids) - 1, place=place), {})
    ids = read_ids(config.ids)
    rows = rows_by_id(table, ids, item_ids, place=place, ids_place=config.ids, missing=config.missing)
    return TextTable(rows, {})


def refuse_text(texts: Sequence[str], device: torch.device) -> Tensor:
    """There is no model to encode them with.

    Raises:
        BadInputError: always; names the encoders that have one.
    """
    raise BadInputError(
        f"the semantic encoder 'file' holds vectors of the catalogue only and cannot encode new item text such as "
        f"{texts[0]!r}; tokens, sentence and tfidf can"
    )
