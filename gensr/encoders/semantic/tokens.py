"""Item text as the backbone itself sees it: its own token embeddings, shared with it and trained with it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from gensr.encoders.semantic.base import SemanticEncoder

if TYPE_CHECKING:
    from gensr.backbones.base import Backbone

CHUNK = 4096
"""Items embedded at once when the whole catalogue is: bounds memory at CHUNK * length * width numbers."""


def mean_embedding(ids: Tensor, backbone: Backbone) -> Tensor:
    """Mean over the real tokens of each row.

    Args:
        ids: int64 [n, T], 0 = padding.
        backbone: supplies ``embed(ids) -> [n, T, D]``.

    Returns:
        Float32 [n, D], whatever the precision of the backbone; 0 for a row without tokens.
    """
    real = (ids != 0).unsqueeze(-1)  # [n, T, 1]
    total = (backbone.embed(ids).float() * real).sum(1)
    return total / real.sum(1).clamp(min=1)


def _refresh(encoder: TokenMeanEncoder, _: object) -> None:
    encoder.refresh()


class TokenMeanEncoder(SemanticEncoder):
    """Mean of the backbone's token embeddings of an item's text (GenSR section 4.1.1; ``s_v`` in eq. 7).

    Args:
        texts: item texts by row; row 0, the padding, is empty.
        backbone: supplies ``width``, ``tokenize(texts, length) -> int64 [n, length]`` (0 = padding) and
            ``embed(ids) -> [..., width]``. It is used, not owned: its weights are saved, moved and trained where it is
            registered, not here.
        length: tokens read of a text.

    ``forward(items int64 [...]) -> [..., width]``. With gradients, each distinct item of a call is embedded once. In
    eval mode without gradients, rows come from a table of the whole catalogue that is computed at first use and
    dropped by ``train()`` and by loading weights; who changes the backbone's weights otherwise calls `refresh`.
    """

    ids: Tensor
    _table: Tensor | None

    def __init__(self, texts: Sequence[str], *, backbone: Backbone, length: int) -> None:
        super().__init__()
        self._backbone = (backbone,)  # a tuple hides it from nn.Module, which would register it a second time
        self.length = length
        self.register_buffer("ids", backbone.tokenize(list(texts), length), persistent=False)
        self.register_buffer("_table", None, persistent=False)
        self.register_load_state_dict_post_hook(_refresh)  # type: ignore[no-untyped-call]

    @property
    def backbone(self) -> Backbone:
        """The language model whose embeddings are read."""
        return self._backbone[0]

    @property
    def width(self) -> int:
        """Width of the vectors: the backbone's."""
        return int(self.backbone.width)

    def forward(self, items: Tensor) -> Tensor:
        """Vectors [..., width] of item rows [...]."""
        if self.training or torch.is_grad_enabled():
            distinct, place = torch.unique(items, return_inverse=True)
            # F.embedding and not indexing: its backward pass on CPU adds in a fixed order.
            return F.embedding(place, mean_embedding(self.ids[distinct], self.backbone))
        if self._table is None:
            self._table = torch.cat([mean_embedding(part, self.backbone) for part in torch.split(self.ids, CHUNK)])
        return F.embedding(items, self._table)

    def encode_text(self, texts: Sequence[str]) -> Tensor:
        """Vectors [n, width] of texts, whether or not the catalogue has them."""
        ids = self.backbone.tokenize(list(texts), self.length).to(self.ids.device)
        return mean_embedding(ids, self.backbone)

    def refresh(self) -> None:
        """See `SemanticEncoder.refresh`: after the backbone's weights have changed in eval mode."""
        self._table = None

    def train(self, mode: bool = True) -> TokenMeanEncoder:
        """See `torch.nn.Module.train`; going back to training drops the table."""
        if mode:
            self.refresh()
        return super().train(mode)


class TokenLevelEncoder(TokenMeanEncoder):
    """A history item is the embeddings of its first tokens, a candidate their mean (GenSR's released code).

    An item without tokens keeps one existing vector, a zero in the first place: a history of such items is not an
    empty history.

    Args:
        texts: as for `TokenMeanEncoder`.
        backbone: as for `TokenMeanEncoder`.
        length: tokens read of a text for its mean.
        history_tokens: tokens that stand for a history item; at most `length`.
    """

    def __init__(self, texts: Sequence[str], *, backbone: Backbone, length: int, history_tokens: int) -> None:
        super().__init__(texts, backbone=backbone, length=length)
        if history_tokens > length:
            raise ValueError(f"history_tokens={history_tokens} is more than the {length} tokens read of a text")
        self.units = history_tokens

    def parts(self, items: Tensor) -> tuple[Tensor, Tensor]:
        """Token embeddings [..., units, width] of history items [...], zero where bool [..., units] is False."""
        return self._parts(self.ids[:, : self.units][items])

    def text_parts(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """`parts` of texts: [n, units, width] and bool [n, units]."""
        return self._parts(self.backbone.tokenize(list(texts), self.units).to(self.ids.device))

    def _parts(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        real = ids != 0
        first = torch.arange(self.units, device=ids.device) == 0
        return self.backbone.embed(ids).float() * real.unsqueeze(-1), real | first
