"""Attention over rows of unequal length, and the transformer block, in the variants that rankers are published with."""

from __future__ import annotations

from functools import cached_property
from typing import Literal, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Norm = Literal["post", "pre", "original"]
Activation = Literal["relu", "gelu"]


GROUPS, FEW = 4, 32
"""Groups of similar length that rows are put into where tokens attend to each other; how many rows need no groups."""


class Rows:
    """Where the real tokens of padded rows lie, so that what works token by token can leave the padding out.

    Args:
        mask: bool [B, L], True = real.
    """

    def __init__(self, mask: Tensor) -> None:
        self.mask = mask
        self.index = mask.flatten().nonzero().squeeze(1)

    def pack(self, x: Tensor) -> Tensor:
        """The N real tokens of x [B, L, ...]: [N, ...]."""
        return x.flatten(0, 1).index_select(0, self.index)

    def pad(self, packed: Tensor) -> Tensor:
        """Packed tokens [N, ...] at their places, 0 elsewhere: [B, L, ...]."""
        places = packed.new_zeros(self.mask.numel(), *packed.shape[1:])
        return torch.unflatten(places.index_copy(0, self.index, packed), 0, self.mask.shape)

    @cached_property
    def groups(self) -> list[Group]:
        """The rows in groups of similar length, each cropped to what it holds.

        Attention costs the square of the padded length, and most histories are far shorter than the longest of a batch.
        """
        places = torch.arange(1, self.mask.shape[1] + 1, device=self.mask.device)
        counts = (places * self.mask).amax(1)  # up to the last real one
        numbers = self.pad(torch.arange(len(self.index), device=self.index.device))  # of packed tokens
        found = []
        for rows in counts.argsort().tensor_split(GROUPS if len(self.mask) > FEW else 1):
            length = int(counts[rows[-1]]) if len(rows) else 0
            if length:
                inner = Rows(self.mask[rows, :length])
                found.append(Group(rows, length, inner.pack(numbers[rows, :length]), inner))
        return found


class Group(NamedTuple):
    """Some rows of `Rows`.

    Attributes:
        rows: int64 [b], which they are.
        length: what they are cropped to.
        tokens: int64 [n], the numbers of their packed tokens.
        inner: the places of those among the cropped rows.
    """

    rows: Tensor
    length: int
    tokens: Tensor
    inner: Rows


def causal(mask: Tensor) -> Tensor:
    """Who may attend to whom where none sees what follows: bool [B, L, L] of a mask [B, L]."""
    length = mask.shape[1]
    return mask.unsqueeze(1) & torch.ones(length, length, dtype=torch.bool, device=mask.device).tril()


class Attention(nn.Module):
    """Multi-head scaled dot-product attention.

    Args:
        dim: width in and out.
        heads: divides `dim`.
        dropout: in training, on attention weights.
        output: mix the heads by a matrix (W_O).

    A query that may attend to nothing gets the mixture 0, never NaN.
    """

    def __init__(self, dim: int, *, heads: int, dropout: float, output: bool = True) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.qkv = nn.Linear(dim, 3 * dim)
        self.out = nn.Linear(dim, dim) if output else nn.Identity()

    def forward(
        self,
        x: Tensor,
        source: Tensor,
        attend: Tensor,
        *,
        rows: Rows | None = None,
        source_rows: Rows | None = None,
    ) -> Tensor:
        """Mix `source` for each token of `x`.

        Args:
            x: [B, Q, d], or packed [N, d] with `rows`.
            source: [B, K, d], or packed with `source_rows`; `x` itself for self-attention.
            attend: bool, broadcast to [B, Q, K]; True = may be attended to.
            rows: places of packed `x`.
            source_rows: places of packed `source`.

        Returns:
            As `x`.
        """
        query, key, value = self._project(x, source)
        if rows is not None and rows is source_rows:
            return cast(Tensor, self.out(self._mix_in_groups(query, key, value, attend, rows)))
        if rows is not None:
            query = rows.pad(query)
        if source_rows is not None:
            key, value = source_rows.pad(key), source_rows.pad(value)
        mixed = self._mix(query, key, value, attend)
        return cast(Tensor, self.out(rows.pack(mixed) if rows is not None else mixed))

    def _mix_in_groups(self, query: Tensor, key: Tensor, value: Tensor, attend: Tensor, rows: Rows) -> Tensor:
        """`_mix` of packed tokens [N, d] that attend within their rows."""
        attend = attend.expand(len(rows.mask), *rows.mask.shape[1:] * 2)
        mixed = torch.empty_like(query)
        for group in rows.groups:
            seen = attend[group.rows, : group.length, : group.length]
            q, k, v = (group.inner.pad(part.index_select(0, group.tokens)) for part in (query, key, value))
            mixed = mixed.index_copy(0, group.tokens, group.inner.pack(self._mix(q, k, v, seen)))
        return mixed

    def _mix(self, query: Tensor, key: Tensor, value: Tensor, attend: Tensor) -> Tensor:
        """Attention of [B, Q, d] to [B, K, d]."""
        empty = ~attend.any(-1, keepdim=True)  # [B, Q, 1]
        q, k, v = (torch.unflatten(part, -1, (self.heads, -1)).transpose(1, 2) for part in (query, key, value))
        mixed = F.scaled_dot_product_attention(
            q, k, v, attn_mask=(attend | empty).unsqueeze(1), dropout_p=self.dropout if self.training else 0.0
        )
        return mixed.transpose(1, 2).flatten(2).masked_fill(empty, 0.0)

    def _project(self, x: Tensor, source: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        if x is source:
            query, key, value = self.qkv(x).chunk(3, -1)
            return query, key, value
        width, weight, bias = x.shape[-1], self.qkv.weight, self.qkv.bias
        key, value = F.linear(source, weight[width:], bias[width:]).chunk(2, -1)
        return F.linear(x, weight[:width], bias[:width]), key, value


class FeedForward(nn.Module):
    """Two linear maps with an activation between: [..., dim] -> [..., dim].

    Args:
        dim: width in and out.
        hidden: width between.
        activation: ``gelu`` is the exact one.
        dropout: in training, after the activation.
    """

    def __init__(self, dim: int, *, hidden: int, activation: Activation, dropout: float) -> None:
        super().__init__()
        self.inner, self.outer = nn.Linear(dim, hidden), nn.Linear(hidden, dim)
        self.activation, self.dropout = F.gelu if activation == "gelu" else F.relu, dropout

    def forward(self, x: Tensor) -> Tensor:
        """Apply the network."""
        return cast(Tensor, self.outer(F.dropout(self.activation(self.inner(x)), self.dropout, self.training)))


class TransformerBlock(nn.Module):
    """Self-attention, then a feed-forward network, each with residual, dropout and layer norm.

    Args:
        dim: width in and out.
        heads: attention heads; divides `dim`.
        hidden: width of the feed-forward part.
        dropout: in training, on attention weights and on the output of both parts.
        norm: ``post``: after each residual sum (Vaswani et al., 2017). ``pre``: before each part; the owner adds one
            after the last block. ``original``: as in SASRec's own code, where the query and the residual are
            normalised, keys and values are not, ``y = LN(x) + Attn(LN(x), x, x)``, ``LN(y) + FFN(LN(y))``.
        activation: of the feed-forward part.
        inner_dropout: whether the feed-forward part also drops after its activation.
        output: mix the heads by a matrix.
        eps: of the layer norms.
    """

    def __init__(
        self,
        dim: int,
        *,
        heads: int,
        hidden: int,
        dropout: float,
        norm: Norm = "post",
        activation: Activation = "relu",
        inner_dropout: bool = True,
        output: bool = True,
        eps: float = 1e-5,
    ) -> None:
        super().__init__()
        self.norm, self.dropout = norm, dropout
        self.attention = Attention(dim, heads=heads, dropout=dropout, output=output)
        inner = dropout if inner_dropout else 0.0
        self.feed_forward = FeedForward(dim, hidden=hidden, activation=activation, dropout=inner)
        self.norm1, self.norm2 = nn.LayerNorm(dim, eps=eps), nn.LayerNorm(dim, eps=eps)

    def forward(self, x: Tensor, attend: Tensor, rows: Rows | None = None) -> Tensor:
        """Apply the block.

        Args:
            x: [B, L, d], or packed [N, d] with `rows`.
            attend: bool, broadcast to [B, L, L]; True = may be attended to.
            rows: places of packed `x`.

        Returns:
            As `x`.
        """

        def attention(x: Tensor, source: Tensor) -> Tensor:
            return self._drop(self.attention(x, source, attend, rows=rows, source_rows=rows))

        if self.norm == "post":
            x = self.norm1(x + attention(x, x))
            return cast(Tensor, self.norm2(x + self._drop(self.feed_forward(x))))
        normed = self.norm1(x)
        if self.norm == "pre":
            x = x + attention(normed, normed)
            return x + self._drop(self.feed_forward(self.norm2(x)))
        y = self.norm2(normed + attention(normed, x))
        return cast(Tensor, y + self._drop(self.feed_forward(y)))

    def _drop(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.dropout, self.training)
