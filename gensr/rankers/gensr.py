"""GenSR: one generative model for search and recommendation (Zhang et al., 2025, sections 4.1-4.2)."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gensr.backbones.base import Backbone
from gensr.backbones.prompt import PromptBuilder
from gensr.backbones.templates import DEFAULTS, split_template
from gensr.data.batch import Batch, Extra
from gensr.data.tasks import Task
from gensr.encoders.cf.table import CFTable
from gensr.fusion.projection import SlotProjection
from gensr.fusion.soft_filter.mean import MeanFilter
from gensr.rankers.base import Losses, Ranker, Resources, mask_padding, require_tasks
from gensr.rankers.config import GenSRConfig


class CFVectors(nn.Module):
    """Frozen collaborative vectors; items without one (cold, unknown) share a learned vector.

    Args:
        table: float32 [I+1, d]; zero rows hold no signal. Kept bit for bit; scaled to unit root mean square on reading.
        dropout: chance of hiding an item's vector in training.
    """

    def __init__(self, table: Tensor, *, dropout: float = 0.0) -> None:
        super().__init__()
        known = table.abs().sum(1) > 0
        self.register_buffer("table", table, persistent=False)
        self.register_buffer("known", known, persistent=False)
        scale = float(table[known].square().mean().sqrt()) if known.any() else 1.0
        self.scale, self.dropout, self.width = scale, dropout, table.shape[1]
        self.unknown = nn.Parameter(torch.zeros(self.width))

    def forward(self, items: Tensor) -> Tensor:
        """Vectors of items [...] -> [..., d]; items beyond the table are unknown."""
        inside = torch.where(items < self.table.shape[0], items, 0)
        known = self.known[inside]
        if self.training and self.dropout:
            known = known & (torch.rand(items.shape, device=items.device) >= self.dropout)
        return torch.where(known.unsqueeze(-1), F.embedding(inside, self.table) / self.scale, self.unknown)


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
            empty = ~mask.any(dim=1)
            history = torch.where(empty[:, None, None], self.empty, items)
        first = torch.arange(mask.shape[1], device=mask.device) == 0
        mask = mask | (~mask.any(dim=1, keepdim=True) & first)
        return ViewState(history, mask, self.context(query) if self.context is not None else None)

    def filter(self, state: ViewState, candidates: Tensor) -> tuple[Tensor, Tensor]:
        """History as each candidate [B, C, d] sees it, in the backbone's space [B, C, K, D], and weights [B, C, L]."""
        filtered = self.soft_filter(state.history, candidates, state.mask, state.context)
        return self.projection(filtered.tokens), filtered.weights

    def user(self, state: ViewState) -> Tensor:
        """The history's mean before the filter, in the backbone's space [B, D]: what eq. 10 aligns."""
        weights = state.mask.to(state.history.dtype).unsqueeze(-1)
        return self.projection((state.history * weights).sum(1) / weights.sum(1))


class Encoded(NamedTuple):
    """Everything about a batch of requests that does not depend on a candidate."""

    views: dict[str, ViewState]
    prompt: Any


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
    """

    trainable = True

    def __init__(
        self,
        config: GenSRConfig,
        *,
        backbone: Backbone,
        item_texts: list[str],
        query_texts: list[str],
        cf_items: Tensor | None,
        max_history: int,
    ) -> None:
        super().__init__()
        self.config, self.backbone, self.max_history = config, backbone, max_history
        self.num_items, self.num_queries = len(item_texts) - 1, len(query_texts) - 1
        self.vectors = nn.ModuleDict()
        if cf_items is not None:
            self.vectors["cf"] = CFVectors(cf_items, dropout=config.cf_dropout)
        if config.semantic is not None:
            self.vectors["text"] = config.semantic.build(texts=item_texts, backbone=backbone)
        self.views = nn.ModuleDict(
            {
                name: View(config, dim=int(vectors.width), backbone=backbone, max_history=max_history)
                for name, vectors in self.vectors.items()
            }
        )
        self.history_slots = next(iter(self.views.values())).soft_filter.tokens(max_history)
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

    def encode(self, batch: Batch) -> Encoded:
        """Read histories, queries and prompts once per request."""
        require_tasks(self, batch)
        query_ids = self._query_ids(batch)
        words = (query_ids > 0).unsqueeze(-1)
        query = (self.backbone.embed(query_ids) * words).sum(1) / words.sum(1).clamp(min=1)  # [B, D]
        mask = batch.hist_mask
        views = {
            name: view.encode(self._items(name, batch.hist_item, batch.extra), mask, batch.hist_task, query)
            for name, view in self.views.items()
        }
        some = next(iter(views.values())).mask
        history = some if self.history_slots > 1 else some[:, :1] | True
        # A history slot per item holds as many vectors as the batch is wide; the prompt is laid out for the longest.
        history = F.pad(history, (0, self.history_slots - history.shape[1]))
        candidate = torch.ones_like(history[:, :1])
        present = torch.cat([history] * len(views) + [candidate] * len(views), dim=1)  # [B, S]
        return Encoded(views, self.backbone.encode(self.prompts(batch.task, query_ids, present)))

    def hidden_state(self, batch: Batch, encoded: Encoded | None = None) -> Tensor:
        """The decoder's hidden state at the answer, [B, C, D]."""
        encoded = encoded or self.encode(batch)
        histories, candidates = [], []
        for name, view in self.views.items():
            vectors = self._items(name, batch.cand, batch.extra)  # [B, C, d]
            tokens, _ = view.filter(encoded.views[name], vectors)  # [B, C, K, D]
            histories.append(F.pad(tokens, (0, 0, 0, self.history_slots - tokens.shape[2])))
            candidates.append(view.projection(vectors).unsqueeze(2))
        slots = torch.cat(histories + candidates, dim=2)  # [B, C, S, D]
        return self.backbone.hidden(encoded.prompt, slots)

    def margins(self, batch: Batch, encoded: Encoded | None = None) -> Tensor:
        """logit(Yes) - logit(No), float32 [B, C], padding candidates included."""
        return self.backbone.answer(self.hidden_state(batch, encoded))

    def score(self, batch: Batch) -> Tensor:
        """See `Ranker.score`."""
        return mask_padding(self.margins(batch), batch)

    def loss(self, batch: Batch) -> Losses:
        """Task loss plus the weighted contrastive loss (eq. 8)."""
        encoded = self.encode(batch)
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
        from safetensors.torch import save_file, save_model

        folder.mkdir(parents=True, exist_ok=True)
        self.backbone.save(folder / "backbone")
        if "cf" in self.vectors:
            save_file({"items": self.vectors["cf"].table.cpu().contiguous()}, folder / "cf.safetensors")
        save_model(self, str(folder / "weights.safetensors"))

    def _query_ids(self, batch: Batch) -> Tensor:
        table = self.query_ids
        if batch.extra is not None and batch.extra.queries:
            new = self.backbone.tokenize(batch.extra.queries, self.config.query_length)
            table = torch.cat([table, new.to(table.device)])
        return F.embedding(torch.where(batch.is_search, batch.query, 0), table)

    def _items(self, view: str, items: Tensor, extra: Extra | None) -> Tensor:
        """A view's vectors of item rows [...] -> [..., d]; rows beyond the catalogue are read from `extra`."""
        vectors = self.vectors[view]
        if view == "cf":
            return vectors(items)
        beyond = items > self.num_items
        known = vectors(torch.where(beyond, 0, items))
        if extra is None or not extra.items:
            return known
        new = vectors.encode_text(list(extra.items))
        place = torch.where(beyond, items - self.num_items - 1, 0)
        return torch.where(beyond.unsqueeze(-1), F.embedding(place, new), known)


def build_gensr(config: GenSRConfig, resources: Resources) -> GenSR:
    """A new GenSR from the prepared data, or the saved one from ``resources.folder``."""
    from safetensors.torch import load_file, load_model

    catalogue, folder = resources.catalogue, resources.folder
    cf_items: Tensor | None = None
    if folder is not None:
        backbone = config.backbone.open(folder / "backbone")
        cf_items = load_file(folder / "cf.safetensors")["items"] if config.cf else None
    else:
        templates = config.templates or DEFAULTS[config.layout]
        words = [
            text
            for task in Task
            for kind, text in split_template(getattr(templates, task.label))
            if kind == "text"
        ]
        backbone = config.backbone.build(texts=[*catalogue.text, *catalogue.queries, *words], seed=resources.seed)
        if config.cf is not None:
            assert resources.cf_table is not None, "a new ranker needs Resources.cf_table"
            table: CFTable = resources.cf_table(config.cf)
            cf_items = table.items
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(resources.seed)
        ranker = GenSR(
            config,
            backbone=backbone,
            item_texts=list(catalogue.text),
            query_texts=list(catalogue.queries),
            cf_items=cf_items,
            max_history=resources.max_history,
        )
    if folder is not None:
        load_model(ranker, str(folder / "weights.safetensors"))
    return ranker.eval()
