"""Queries as vectors, and what a query picks from the items of a history."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gensr.data.batch import Batch
from gensr.fusion.soft_filter.base import masked_softmax
from gensr.rankers.blocks.words import Vocabulary, WordBag, query_words

Zero = Literal["none", "literal", "learnable"]


class QueryEncoder(nn.Module):
    r"""phi of the product search models: :math:`\phi(q)=\tanh(W\,\frac{1}{|q|}\sum_{w\in q}E_w[w]+b)`.

    A query without known words is :math:`\tanh(b)`.

    Args:
        vocabulary: words that have vectors.
        queries: texts of the catalogue's queries [Q+1], row 0 ``""``; they are encoded once.
        dim: width of words and queries.
        length: words read of a query.
        dropout: chance of dropping a dimension of the mean in training.
        std: standard deviation of the normal distribution that word vectors start from.

    Output of a batch: float32 [B, dim].
    """

    table: Tensor

    def __init__(
        self,
        vocabulary: Vocabulary,
        queries: Sequence[str],
        dim: int,
        *,
        length: int,
        dropout: float = 0.0,
        std: float = 0.02,
    ) -> None:
        super().__init__()
        self.vocabulary = vocabulary
        self.bag = WordBag(len(vocabulary), dim, projection="tanh", dropout=dropout, std=std)
        self.register_buffer("table", vocabulary.encode(queries, length), persistent=False)

    def forward(self, batch: Batch) -> Tensor:
        """See the class."""
        vectors: Tensor = self.bag(query_words(batch, self.table, self.vocabulary))
        return vectors


class Attended(NamedTuple):
    """What a query picks from a history.

    Attributes:
        vector: [B, d], weighted sum of the items.
        weights: [B, L] >= 0, zero on padding.
    """

    vector: Tensor
    weights: Tensor

    @property
    def mass(self) -> Tensor:
        """The personalisation mass pi [B], 0..1: what the zero slot leaves to the items."""
        return self.weights.sum(dim=1)


class QueryAttention(nn.Module):
    r"""Attention of a query over items, with the choice to attend to nothing (Ai et al., CIKM 2019).

    .. math::
        f(q,i)=\sum_h w_h\,\langle i,\tanh(W^{(h)}q+b^{(h)})\rangle,\qquad
        \alpha_i=\frac{\exp f(q,i)}{\exp f(q,\mathbf 0)+\sum_{i'}\exp f(q,i')},\qquad u=\sum_i\alpha_i\,i

    The heads are summed before the softmax, so they fold into one inquiry vector and an item costs one dot product. The
    zero slot's value is the zero vector: it only takes weight away. An empty history gives u = 0.

    Args:
        dim: d, width of queries and items.
        heads: inquiries that are summed.
        zero: the zero slot's key: the zero vector, so that f = 0 (``literal``, as in the authors' code), a vector that
            is learned from there (``learnable``), or no such slot (``none``: AEM, whose weights sum to 1).

    Inputs: query [B, d], items [B, L, d], mask bool [B, L].
    """

    def __init__(self, dim: int, heads: int, zero: Zero) -> None:
        super().__init__()
        self.heads, self.zero = heads, zero
        self.inquiries = nn.Linear(dim, heads * dim)
        self.mix = nn.Parameter(torch.empty(heads))
        nn.init.xavier_uniform_(self.inquiries.weight)
        nn.init.zeros_(self.inquiries.bias)
        nn.init.constant_(self.mix, 1 / heads)
        self.key = nn.Parameter(torch.zeros(dim)) if zero == "learnable" else None

    def forward(self, query: Tensor, items: Tensor, mask: Tensor) -> Attended:
        """See the class."""
        inquiries = torch.tanh(self.inquiries(query)).view(len(query), self.heads, -1)  # [B, H, d]
        inquiry = torch.einsum("bhd,h->bd", inquiries, self.mix)
        relevance = torch.einsum("bld,bd->bl", items, inquiry).float()
        slots = torch.cat([self._nothing(inquiry), relevance], dim=1)  # [B, 1 + L]
        weights = masked_softmax(slots, F.pad(mask, (1, 0), value=self.zero != "none"))[:, 1:]
        return Attended(torch.einsum("bl,bld->bd", weights, items), weights)

    def _nothing(self, inquiry: Tensor) -> Tensor:
        """Logit of the zero slot, float32 [B, 1]; where there is no such slot, of what is masked."""
        if self.key is not None:
            return (inquiry @ self.key).float().unsqueeze(1)
        return torch.zeros(len(inquiry), 1, device=inquiry.device)
