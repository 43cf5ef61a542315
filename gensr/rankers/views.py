"""The two views of an item and of a history, from where their vectors come to where the backbone reads them."""

from __future__ import annotations

from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gensr.backbones.base import Backbone
from gensr.data.batch import Batch
from gensr.encoders.history.config import NoHistoryConfig
from gensr.encoders.semantic.base import SemanticEncoder
from gensr.encoders.semantic.table import FrozenTableEncoder
from gensr.fusion.projection import SlotProjection
from gensr.fusion.soft_filter.base import SoftFilter, pooled, real_only
from gensr.fusion.soft_filter.config import MeanConfig
from gensr.rankers.blocks.pooling import masked_mean
from gensr.rankers.config import GenSRConfig


class Parts(NamedTuple):
    """The vectors that stand for a history.

    Attributes:
        vectors: [B, P, d]; P = L, or L times the vectors of an item.
        mask: bool [B, P], padding on the right.
        event: int64 [B, P] the place in the history that a vector belongs to.
    """

    vectors: Tensor
    mask: Tensor
    event: Tensor


class CFVectors(nn.Module):
    """Frozen collaborative vectors; items without one (cold, unknown) share a learned vector.

    Args:
        table: float32 [I+1, d]; zero rows hold no signal. Kept bit for bit.
        folds: float32 [F, I+1, d] tables for training, each fitted without one fold of the interactions, or None.
        dropout: chance of hiding an item's vector in training.
        scaled: scale to unit root mean square on reading.
    """

    table: Tensor
    tables: Tensor
    units = 1

    def __init__(
        self, table: Tensor, *, folds: Tensor | None = None, dropout: float = 0.0, scaled: bool = True
    ) -> None:
        super().__init__()
        self.folds = 0 if folds is None else len(folds)
        self.register_buffer("table", table, persistent=False)
        self.register_buffer("tables", table[:0] if folds is None else folds.flatten(0, 1), persistent=False)
        self.scale, self.dropout, self.width = _size(table) if scaled else 1.0, dropout, table.shape[1]
        self.unknown = nn.Parameter(torch.zeros(self.width))

    def forward(self, items: Tensor, fold: Tensor | None = None) -> Tensor:
        """Vectors of items [B, n] -> [B, n, d]; items beyond the table are unknown.

        Args:
            items: item rows.
            fold: [B] which fold a request's truth is in; None reads the full table.
        """
        inside = torch.where(items < self.table.shape[0], items, 0)
        if fold is None:
            vectors = F.embedding(inside, self.table)
        else:
            vectors = F.embedding(inside + fold.unsqueeze(1) * self.table.shape[0], self.tables)
        known = vectors.any(dim=-1, keepdim=True)
        if self.training and self.dropout:
            known = known & (torch.rand(known.shape, device=items.device) >= self.dropout)
        return torch.where(known, vectors / self.scale, self.unknown)

    def history(self, batch: Batch, fold: Tensor | None) -> Parts:
        """One vector an event; of a search with several clicks their mean."""
        if batch.hist_clicks is None:
            vectors = self(batch.hist_item, fold)
        else:
            vectors = _mean_of_clicks(self(batch.hist_clicks.flatten(1), fold), batch.hist_clicks)
        return Parts(vectors, batch.hist_mask, _events(batch.hist_item, 1))

    def candidates(self, batch: Batch, fold: Tensor | None) -> Tensor:
        """[B, C, d]."""
        return cast(Tensor, self(batch.cand, fold))


class TextVectors(nn.Module):
    """Vectors of item texts; those of items the catalogue lacks are computed from the text that came with the request.

    Args:
        encoder: the catalogue's vectors.
        num_items: I.
        scaled: scale frozen vectors to unit root mean square on reading.
    """

    def __init__(self, encoder: SemanticEncoder, num_items: int, *, scaled: bool = True) -> None:
        super().__init__()
        self.encoder, self.num_items = encoder, num_items
        self.width, self.units = encoder.width, encoder.units
        self.scale = _size(encoder.table) if scaled and isinstance(encoder, FrozenTableEncoder) else 1.0

    def candidates(self, batch: Batch, fold: Tensor | None) -> Tensor:
        """[B, C, d]; texts do not depend on the fold."""
        beyond = batch.cand > self.num_items
        known = self.encoder(torch.where(beyond, 0, batch.cand))
        if batch.extra is not None and batch.extra.items:
            new = self.encoder.encode_text(list(batch.extra.items))
            known = torch.where(beyond.unsqueeze(-1), F.embedding(self._extra(batch.cand), new), known)
        return cast(Tensor, known / self.scale)

    def history(self, batch: Batch, fold: Tensor | None) -> Parts:
        """The vectors of all events in order, packed to the left.

        Of a search with several clicks their mean, or the first click where an item has many vectors.
        """
        items, real = batch.hist_item, batch.hist_mask
        if batch.hist_clicks is not None and self.units == 1:
            vectors = _mean_of_clicks(self.encoder(batch.hist_clicks.flatten(1)), batch.hist_clicks)
            return Parts(vectors / self.scale, real, _events(items, 1))
        beyond = items > self.num_items
        vectors, mask = self.encoder.parts(torch.where(beyond, 0, items))  # [B, L, n, d], [B, L, n]
        if batch.extra is not None and batch.extra.items:
            new, new_mask = self.encoder.text_parts(list(batch.extra.items))
            place = self._extra(items)
            vectors = torch.where(beyond[..., None, None], new[place], vectors)
            mask = torch.where(beyond.unsqueeze(-1), new_mask[place], mask)
        parts = Parts(
            vectors.flatten(1, 2) / self.scale, (mask & real.unsqueeze(-1)).flatten(1), _events(items, self.units)
        )
        return parts if self.units == 1 else _packed(parts)

    def _extra(self, items: Tensor) -> Tensor:
        """Place in the request's own texts; 0 for items of the catalogue."""
        return torch.where(items > self.num_items, items - self.num_items - 1, 0)


def _size(table: Tensor) -> float:
    """Root mean square of the rows that hold something; 1 where none does."""
    size = table[table.abs().sum(1) > 0].square().mean().sqrt()
    return float(size) if size > 0 else 1.0


def _mean_of_clicks(vectors: Tensor, clicks: Tensor) -> Tensor:
    """Vectors [B, L * K, d] of clicked items [B, L, K], 0 = none, to one vector an entry [B, L, d]."""
    return masked_mean(vectors.view(*clicks.shape, -1), clicks > 0, 2)


def _events(items: Tensor, units: int) -> Tensor:
    place = torch.arange(items.shape[1], device=items.device).repeat_interleave(units)
    return place.expand(len(items), -1)


def _packed(parts: Parts) -> Parts:
    """Move what exists to the left: encoders expect padding on the right only."""
    order = (~parts.mask).int().argsort(dim=1, stable=True)  # [B, P]
    vectors = parts.vectors.gather(1, order.unsqueeze(-1).expand_as(parts.vectors))
    return Parts(vectors, parts.mask.gather(1, order), parts.event.gather(1, order))


class ViewState(NamedTuple):
    """A view's history, encoded once per request.

    Attributes:
        history: [B, P, d] as the encoder made it.
        items: [B, P, d] as it came, zeros on padding.
        mask: bool [B, P]; an empty history counts as one item, the encoder's learned vector.
        event: int64 [B, P] the place in the history that a vector belongs to.
        context: [B, d] the query in the view's width, zeros where there is none; None where the filter reads none.
    """

    history: Tensor
    items: Tensor
    mask: Tensor
    event: Tensor
    context: Tensor | None

    def by_event(self, weights: Tensor, length: int) -> Tensor:
        """Sum the weights [B, C, P] of each event's vectors: [B, C, length]."""
        totals = weights.new_zeros(*weights.shape[:2], length)
        return totals.scatter_add(2, self.event.unsqueeze(1).expand_as(weights), weights)


class ViewSlots(NamedTuple):
    """What a view puts into the prompts of B requests with C candidates, in the backbone's space.

    Attributes:
        history: [B, C, K, D] the history as each candidate sees it.
        candidate: [B, C, D].
        match: [B, C, D] where history and candidate agree, or None.
        weights: [B, C, P] of the soft filter.
    """

    history: Tensor
    candidate: Tensor
    match: Tensor | None
    weights: Tensor


class View(nn.Module):
    """One view of requests: the history's encoder, its soft filter, and the way into the backbone's space (eq. 3-6).

    A slot that was dropped is filled by what dropping means: `NoHistory`, `MeanFilter`. The match, which the paper does
    not have, is the product of the candidate and the history's items under the filter's weights, dimension by
    dimension: its sum is the dot product by which item-item scoring ranks, and which a small backbone is slow to find
    in vectors apart. The items enter as they came, in the candidate's space, not as the encoder made them.

    Args:
        config: components and options.
        dim: width d of the view.
        backbone: where the vectors go.
        length: most vectors of a history.
    """

    def __init__(self, config: GenSRConfig, *, dim: int, backbone: Backbone, length: int) -> None:
        super().__init__()
        self.encoder = (config.history or NoHistoryConfig()).build(dim=dim, max_length=length)
        self.soft_filter = cast(SoftFilter, (config.soft_filter or MeanConfig()).build(dim=dim))
        same = dim == backbone.width
        self.context: nn.Module | None = None
        if self.soft_filter.uses_context:
            self.context = nn.Identity() if same else nn.Linear(backbone.width, dim, bias=False)
        self.projection: nn.Module
        if config.scale_slots:
            self.projection = SlotProjection(dim, backbone.width, rms=backbone.embedding_rms)
        else:
            self.projection = nn.Identity() if same else nn.Linear(dim, backbone.width)
        self.match = None
        if config.match_slots:
            self.match = SlotProjection(dim, backbone.width, rms=backbone.embedding_rms)
        self.scaled = config.scale_slots
        self.history_slots = self.soft_filter.tokens(length)

    def encode(self, parts: Parts, task: Tensor, query: Tensor) -> ViewState:
        """Encode histories: `parts` of [B, P], the events' tasks [B, L], query [B, D]."""
        mask = parts.mask
        history = self.encoder(parts.vectors, mask, torch.where(mask, task.gather(1, parts.event), 0))
        first = torch.arange(mask.shape[1], device=mask.device) == 0
        mask = mask | (~mask.any(dim=1, keepdim=True) & first)
        context = self.context(query) if self.context is not None else None
        return ViewState(history, real_only(parts.vectors, parts.mask), mask, parts.event, context)

    def filter(self, state: ViewState, candidates: Tensor) -> ViewSlots:
        """Let every candidate [B, C, d] look at the history."""
        filtered = self.soft_filter(state.history, candidates, state.mask, state.context)
        match = None
        if self.match is not None:
            match = self.match(pooled(filtered.weights, state.items).squeeze(2) * candidates)
        slots = self.projection(filtered.tokens)
        if slots.shape[2] > 1 and self.scaled:
            # Eq. 6 scales the projected item by its weight, times the number of items; the projection ends in a
            # normalisation, which would undo a weight that came before it.
            shares = filtered.weights * state.mask.sum(1)[:, None, None]
            slots = slots * shares.unsqueeze(-1).to(slots.dtype)
        return ViewSlots(slots, self.projection(candidates), match, filtered.weights)

    def present(self, state: ViewState) -> Tensor:
        """Which of the `history_slots` the prompt holds, bool [B, K]."""
        if self.history_slots == 1:
            return torch.ones_like(state.mask[:, :1])
        return F.pad(state.mask, (0, self.history_slots - state.mask.shape[1]))

    def user(self, state: ViewState) -> Tensor:
        """The history's mean before the filter, in the backbone's space [B, D]: what eq. 10 aligns."""
        weights = state.mask.to(state.history.dtype).unsqueeze(-1)
        mean = (state.history * weights).sum(1) / weights.sum(1)
        return cast(Tensor, self.projection(mean))

    def filtered(self, state: ViewState, slots: ViewSlots) -> Tensor:
        """The filtered history's mean over the vectors in the prompt, [B, C, D]: what the released code aligns."""
        real = self.present(state)[:, None, : slots.history.shape[2], None].to(slots.history.dtype)  # [B, 1, K, 1]
        return (slots.history * real).sum(2) / real.sum(2)
