"""GenSR: one generative model for search and recommendation (Zhang et al., 2025, sections 4.1-4.2)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gensr.backbones.base import Backbone
from gensr.backbones.prompt import PromptBuilder
from gensr.backbones.templates import DEFAULTS, split_template
from gensr.data.batch import Batch, Extra
from gensr.data.tasks import Task
from gensr.encoders.cf.folds import aligned, pair_folds
from gensr.fusion.projection import SlotProjection
from gensr.fusion.soft_filter.base import SoftFilter
from gensr.fusion.soft_filter.mean import MeanFilter
from gensr.rankers.base import Losses, Ranker, Resources, mask_padding, require_tasks
from gensr.rankers.config import GenSRConfig


class CFVectors(nn.Module):
    """Frozen collaborative vectors; items without one (cold, unknown) share a learned vector.

    Args:
        table: float32 [I+1, d]; zero rows hold no signal. Kept bit for bit; scaled to unit root mean square on reading.
        folds: float32 [F, I+1, d] tables for training, each fitted without one fold of the interactions, or None.
        dropout: chance of hiding an item's vector in training.
    """

    table: Tensor
    tables: Tensor

    def __init__(self, table: Tensor, *, folds: Tensor | None = None, dropout: float = 0.0) -> None:
        super().__init__()
        self.folds = 0 if folds is None else len(folds)
        self.register_buffer("table", table, persistent=False)
        self.register_buffer("tables", table[:0] if folds is None else folds.flatten(0, 1), persistent=False)
        size = table[table.abs().sum(1) > 0].square().mean().sqrt()
        self.scale, self.dropout, self.width = float(size) if size > 0 else 1.0, dropout, table.shape[1]
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


class ViewState(NamedTuple):
    """A view's history, encoded once per request.

    Attributes:
        history: [B, L, d].
        mask: bool [B, L]; an empty history counts as one item, the encoder's learned vector.
        context: [B, d] the query in the view's width, zeros where there is none; None where the filter reads none.
    """

    history: Tensor
    mask: Tensor
    context: Tensor | None


class View(nn.Module):
    """One view of requests: the history's encoder, its soft filter, and the way into the backbone's space (eq. 3-6)."""

    def __init__(self, config: GenSRConfig, *, dim: int, backbone: Backbone, max_history: int) -> None:
        super().__init__()
        self.encoder = config.history.build(dim=dim, max_length=max_history) if config.history else None
        self.empty = nn.Parameter(torch.zeros(dim)) if config.history is None else None
        self.soft_filter = config.soft_filter.build(dim=dim) if config.soft_filter else MeanFilter()
        self.context = None
        if self.soft_filter.uses_context:
            self.context = nn.Linear(backbone.width, dim, bias=False) if dim != backbone.width else nn.Identity()
        self.projection = SlotProjection(dim, backbone.width, rms=backbone.embedding_rms)

    def encode(self, items: Tensor, mask: Tensor, task: Tensor, query: Tensor) -> ViewState:
        """Encode histories: items [B, L, d], mask [B, L], task [B, L], query [B, D]."""
        if self.encoder is not None:
            history = self.encoder(items, mask, task)
        else:
            history = torch.where(mask.any(dim=1)[:, None, None], items, cast(Tensor, self.empty))
        first = torch.arange(mask.shape[1], device=mask.device) == 0
        mask = mask | (~mask.any(dim=1, keepdim=True) & first)
        return ViewState(history, mask, self.context(query) if self.context is not None else None)

    def filter(self, state: ViewState, candidates: Tensor) -> tuple[Tensor, Tensor]:
        """History as each candidate [B, C, d] sees it, in the backbone's space [B, C, K, D], and weights [B, C, L]."""
        filtered = self.soft_filter(state.history, candidates, state.mask, state.context)
        slots = self.projection(filtered.tokens)
        if slots.shape[2] > 1:
            # Eq. 6 scales the projected item by its weight, times the number of items; the projection ends in a
            # normalisation, which would undo a weight that came before it.
            shares = filtered.weights * state.mask.sum(1)[:, None, None]
            slots = slots * shares.unsqueeze(-1).to(slots.dtype)
        return slots, filtered.weights

    def history_slots(self, length: int) -> int:
        """How many vectors K a history of `length` becomes."""
        return cast(SoftFilter, self.soft_filter).tokens(length)

    def user(self, state: ViewState) -> Tensor:
        """The history's mean before the filter, in the backbone's space [B, D]: what eq. 10 aligns."""
        weights = state.mask.to(state.history.dtype).unsqueeze(-1)
        mean = (state.history * weights).sum(1) / weights.sum(1)
        return cast(Tensor, self.projection(mean))


class Encoded(NamedTuple):
    """Everything about a batch of requests that does not depend on a candidate."""

    views: dict[str, ViewState]
    prompt: Any
    fold: Tensor | None


class GenSR(Ranker):
    """Both views of a history and of a candidate as vectors in a prompt; the answer's margin is the score.

    The task loss is eq. 9 with the vocabulary restricted to the two answers: binary cross-entropy on
    ``logit(Yes) - logit(No)``. The contrastive loss (eq. 10) aligns the users of a batch; rows of one user and empty
    histories are no pairs.

    Args:
        config: components and options.
        backbone: the language model.
        item_texts: text by item row, row 0 empty.
        query_texts: text by query row, row 0 empty.
        cf_items: float32 [I+1, d], or None without the collaborative view.
        max_history: longest history.
        cf_folds: float32 [F, I+1, d] tables that training requests read instead, by the fold of their truth (see
            `gensr.encoders.cf.folds`); None: `cf_items`.
    """

    trainable = True
    vectors: Mapping[str, Any]
    views: Mapping[str, View]
    query_ids: Tensor

    def __init__(
        self,
        config: GenSRConfig,
        *,
        backbone: Backbone,
        item_texts: list[str],
        query_texts: list[str],
        cf_items: Tensor | None,
        max_history: int,
        cf_folds: Tensor | None = None,
    ) -> None:
        super().__init__()
        self.config, self.backbone, self.max_history = config, backbone, max_history
        self.num_items, self.num_queries = len(item_texts) - 1, len(query_texts) - 1
        vectors: dict[str, nn.Module] = {}
        if cf_items is not None:
            vectors["cf"] = CFVectors(cf_items, folds=cf_folds, dropout=config.cf_dropout)
        if config.semantic is not None:
            vectors["text"] = config.semantic.build(texts=item_texts, backbone=backbone)
        self.vectors = cast(Mapping[str, Any], nn.ModuleDict(vectors))
        views = {
            name: View(config, dim=source.width, backbone=backbone, max_history=max_history)
            for name, source in self.vectors.items()
        }
        self.views = cast(Mapping[str, View], nn.ModuleDict(views))
        self.history_slots: int = next(iter(views.values())).history_slots(max_history)
        self.slots = {f"{name}_history": self.history_slots for name in self.views}
        self.slots |= {f"{name}_candidate": 1 for name in self.views}
        self.prompts = PromptBuilder(
            config.templates or DEFAULTS[config.layout],
            layout=config.layout,
            tokenize=backbone.tokenize,
            slots=self.slots,
            query_length=config.query_length,
        )
        self.register_buffer("query_ids", backbone.tokenize(query_texts, config.query_length), persistent=False)
        self.alignment = config.contrastive.build(dim=backbone.width) if config.contrastive else None

    def encode(self, batch: Batch, fold: Tensor | None = None) -> Encoded:
        """Read histories, queries and prompts once per request; `fold` [B] as in `CFVectors`."""
        require_tasks(self, batch)
        query_ids = self._query_ids(batch)
        words = (query_ids > 0).unsqueeze(-1)
        query = (self.backbone.embed(query_ids) * words).sum(1) / words.sum(1).clamp(min=1)  # [B, D]
        mask = batch.hist_mask
        views = {
            name: view.encode(self._items(name, batch.hist_item, batch.extra, fold), mask, batch.hist_task, query)
            for name, view in self.views.items()
        }
        some = next(iter(views.values())).mask
        history = some if self.history_slots > 1 else some[:, :1] | True
        # A history slot per item holds as many vectors as the batch is wide; the prompt is laid out for the longest.
        history = F.pad(history, (0, self.history_slots - history.shape[1]))
        candidate = torch.ones_like(history[:, :1])
        present = torch.cat([history] * len(views) + [candidate] * len(views), dim=1)  # [B, S]
        return Encoded(views, self.backbone.encode(self.prompts(batch.task, query_ids, present)), fold)

    def hidden_state(self, batch: Batch, encoded: Encoded | None = None) -> Tensor:
        """The decoder's hidden state at the answer, [B, C, D]."""
        encoded = encoded or self.encode(batch)
        histories, candidates = [], []
        for name, view in self.views.items():
            vectors = self._items(name, batch.cand, batch.extra, encoded.fold)  # [B, C, d]
            tokens, _ = view.filter(encoded.views[name], vectors)  # [B, C, K, D]
            histories.append(F.pad(tokens, (0, 0, 0, self.history_slots - tokens.shape[2])))
            candidates.append(view.projection(vectors).unsqueeze(2))
        slots = torch.cat(histories + candidates, dim=2)  # [B, C, S, D]
        return self.backbone.hidden(encoded.prompt, slots)

    def margins(self, batch: Batch, encoded: Encoded | None = None) -> Tensor:
        """logit(Yes) - logit(No), float32 [B, C], padding candidates included."""
        return self.backbone.answer(self.hidden_state(batch, encoded), batch.task)

    def score(self, batch: Batch) -> Tensor:
        """See `Ranker.score`."""
        return mask_padding(self.margins(batch), batch)

    def loss(self, batch: Batch) -> Losses:
        """Task loss plus the weighted contrastive loss (eq. 8)."""
        encoded = self.encode(batch, self._folds(batch))
        losses = F.binary_cross_entropy_with_logits(self.margins(batch, encoded), batch.label, reduction="none")
        losses = losses * batch.cand_mask
        counts = batch.cand_mask.sum(1).clamp(min=1)
        task_loss = losses.sum() / counts.sum()
        parts = {"task": task_loss.detach()}
        for task in Task:
            rows = batch.task == task
            if rows.any():
                parts[f"task_{task.label}"] = (losses.detach()[rows].sum(1) / counts[rows]).mean()
        total = task_loss
        if self.alignment is not None and self.config.contrastive is not None:
            full = batch.hist_mask.any(dim=1)
            if full.any():
                cf, text = (self.views[name].user(encoded.views[name])[full] for name in ("cf", "text"))
                contrastive = self.alignment(cf, text, batch.user[full])
                parts["contrastive"] = contrastive.detach()
                total = total + self.config.contrastive.weight * contrastive
        return Losses(total, parts)

    @torch.inference_mode()
    def explain(self, batch: Batch) -> dict[str, Tensor]:
        """Soft-filter weights by view, [B, C, L]: which past events mattered for which candidate."""
        encoded = self.encode(batch)
        mask = batch.hist_mask.unsqueeze(1)
        return {
            name: view.filter(encoded.views[name], self._items(name, batch.cand, batch.extra))[1] * mask
            for name, view in self.views.items()
        }

    def shared_parameters(self) -> list[nn.Parameter]:
        """The history encoders: what both tasks train in every model of the family."""
        return [p for view in self.views.values() if view.encoder is not None for p in view.encoder.parameters()]

    def save(self, folder: Path) -> None:
        """Weights, CF table, tokenizer and architecture."""
        from safetensors.torch import save_file

        from gensr.training.checkpoint import unique_tensors

        folder.mkdir(parents=True, exist_ok=True)
        self.backbone.save(folder / "backbone")
        if "cf" in self.vectors:
            save_file({"items": self.vectors["cf"].table.cpu().contiguous()}, folder / "cf.safetensors")
        save_file(unique_tensors(self), folder / "weights.safetensors")

    def _query_ids(self, batch: Batch) -> Tensor:
        table = self.query_ids
        if batch.extra is not None and batch.extra.queries:
            new = self.backbone.tokenize(batch.extra.queries, self.config.query_length)
            table = torch.cat([table, new.to(table.device)])
        return F.embedding(torch.where(batch.is_search, batch.query, 0), table)

    def _folds(self, batch: Batch) -> Tensor | None:
        """The fold of each request's truth [B], where there are tables by fold."""
        if "cf" not in self.vectors or not self.vectors["cf"].folds:
            return None
        truth = batch.cand.gather(1, batch.label.argmax(1, keepdim=True)).squeeze(1)
        return pair_folds(batch.user, truth, int(self.vectors["cf"].folds))

    def _items(self, view: str, items: Tensor, extra: Extra | None, fold: Tensor | None = None) -> Tensor:
        """A view's vectors of item rows [B, n] -> [B, n, d]; rows beyond the catalogue are read from `extra`."""
        vectors = self.vectors[view]
        if view == "cf":
            return cast(Tensor, vectors(items, fold))
        beyond = items > self.num_items
        known: Tensor = vectors(torch.where(beyond, 0, items))
        if extra is None or not extra.items:
            return known
        new = vectors.encode_text(list(extra.items))
        place = torch.where(beyond, items - self.num_items - 1, 0)
        return torch.where(beyond.unsqueeze(-1), F.embedding(place, new), known)


def build_gensr(config: GenSRConfig, resources: Resources) -> GenSR:
    """A new GenSR from the prepared data, or the saved one from ``resources.folder``."""
    from safetensors.torch import load_file

    from gensr.training.checkpoint import restore_tensors

    catalogue, folder = resources.catalogue, resources.folder
    cf_items = cf_folds = None
    if folder is not None:
        backbone = config.backbone.open(folder / "backbone")
        cf_items = load_file(folder / "cf.safetensors")["items"] if config.cf else None
    else:
        templates = config.templates or DEFAULTS[config.layout]
        words = [
            text for task in Task for kind, text in split_template(getattr(templates, task.label)) if kind == "text"
        ]
        backbone = config.backbone.build(texts=[*catalogue.text, *catalogue.queries, *words], seed=resources.seed)
        if config.cf is not None:
            assert resources.cf_table is not None, "a new ranker needs Resources.cf_table"
            table = resources.cf_table(config.cf)
            cf_items = table.items
            if config.cf_folds:
                parts = [resources.cf_table(config.cf, (fold, config.cf_folds)) for fold in range(config.cf_folds)]
                cf_folds = torch.stack([aligned(part, table).items for part in parts])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(resources.seed)
        ranker = GenSR(
            config,
            backbone=backbone,
            item_texts=list(catalogue.text),
            query_texts=list(catalogue.queries),
            cf_items=cf_items,
            max_history=resources.max_history,
            cf_folds=cf_folds,
        )
    if folder is not None:
        restore_tensors(ranker, load_file(folder / "weights.safetensors"))
    return ranker.eval()
