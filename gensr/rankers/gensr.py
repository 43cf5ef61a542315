"""GenSR: one generative model for search and recommendation (Zhang et al., 2025, sections 4.1-4.2)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gensr.backbones.base import Backbone, Function
from gensr.backbones.prompt import PromptBuilder
from gensr.backbones.templates import DEFAULTS, split_template
from gensr.data.batch import Batch
from gensr.data.tasks import Task
from gensr.device import Precision
from gensr.encoders.cf.folds import aligned, pair_folds
from gensr.encoders.semantic.base import SemanticEncoder
from gensr.errors import BadInputError
from gensr.rankers.base import Losses, Ranker, Resources, mask_padding, require_tasks
from gensr.rankers.blocks.pooling import masked_mean
from gensr.rankers.config import GenSRConfig
from gensr.rankers.state import RequestState
from gensr.rankers.views import CFVectors, TextVectors, View, ViewSlots

SEMANTIC = "semantic"
PIECE, PIECE_GPU = 1 << 26, 1 << 31
"""Bytes, about, that the widest activation of the candidates may take where no gradient is kept; more candidates are
read in pieces. Small pieces make thin matrices, which are slow; larger ones than these gain nothing."""


class GenSR(Ranker):
    """Both views of a history and of a candidate as vectors in a prompt; the answer's margin is the score.

    The task loss is eq. 9: the answer's cross-entropy over the vocabulary, or (the default) over the two answers alone,
    which is binary cross-entropy on ``logit(Yes) - logit(No)``. The contrastive loss (eq. 10) aligns the users of a
    batch, of whom rows of one user and empty histories are no pairs; or, as the released code does, the filtered
    histories of all (user, candidate) rows.

    Args:
        config: components and options.
        backbone: the language model.
        semantic: the semantic view's encoder, or None without that view.
        num_items: I, the items of the catalogue.
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
        semantic: SemanticEncoder | None,
        num_items: int,
        query_texts: list[str],
        cf_items: Tensor | None,
        max_history: int,
        cf_folds: Tensor | None = None,
    ) -> None:
        super().__init__()
        self.config, self.backbone, self.max_history = config, backbone, max_history
        self.num_items, self.num_queries = num_items, len(query_texts) - 1
        vectors: dict[str, nn.Module] = {}
        if cf_items is not None:
            vectors["cf"] = CFVectors(cf_items, folds=cf_folds, dropout=config.cf_dropout, scaled=config.scale_slots)
        if semantic is not None:
            vectors["text"] = TextVectors(semantic, num_items, scaled=config.scale_slots)
        self.vectors = cast(Mapping[str, Any], nn.ModuleDict(vectors))
        views = {
            name: View(config, dim=source.width, backbone=backbone, length=max_history * source.units)
            for name, source in self.vectors.items()
        }
        self.views = cast(Mapping[str, View], nn.ModuleDict(views))
        self.slots = {f"{name}_history": view.history_slots for name, view in self.views.items()}
        self.slots |= {f"{name}_candidate": 1 for name in self.views}
        self.slots |= {f"{name}_match": 1 for name in self.views if config.match_slots}
        self.prompts = PromptBuilder(
            config.templates or DEFAULTS[config.layout],
            layout=config.layout,
            tokenize=backbone.tokenize,
            slots=self.slots,
            query_length=config.query_length,
        )
        self.register_buffer("query_ids", backbone.tokenize(query_texts, config.query_length), persistent=False)
        self.alignment = config.contrastive.build(dim=backbone.width) if config.contrastive else None

    def encode_request(self, batch: Batch, fold: Tensor | None = None) -> RequestState:
        """Read histories, queries and prompts once per request; `fold` [B] as in `CFVectors`."""
        require_tasks(self, batch)
        query_ids = self._query_ids(batch)
        query = masked_mean(self.backbone.embed(query_ids).float(), query_ids > 0, 1)  # [B, D]
        views = {
            name: view.encode(self.vectors[name].history(batch, fold), batch.hist_task, query)
            for name, view in self.views.items()
        }
        present = [self.views[name].present(state) for name, state in views.items()]
        others = torch.ones(len(batch), len(self.slots) - len(views), dtype=torch.bool, device=batch.task.device)
        prompts = self.prompts(batch.task, query_ids, torch.cat([*present, others], dim=1))
        return RequestState(batch.task, batch.hist_mask, views, self.backbone.encode(prompts), fold)

    def score(self, batch: Batch, state: RequestState | None = None) -> Tensor:
        """See `Ranker.score`."""
        return mask_padding(self.margins(batch, state), batch)

    def margins(self, batch: Batch, state: RequestState | None = None) -> Tensor:
        """logit(Yes) - logit(No), float32 [B, C], padding candidates included."""
        state = state or self.encode_request(batch)
        return self.backbone.answer(self.hidden_state(batch, state), state.task)

    def hidden_state(self, batch: Batch, state: RequestState | None = None) -> Tensor:
        """The backbone's hidden state at the answer, [B, C, D]; without gradients, candidates are read in pieces."""
        state = state or self.encode_request(batch)
        candidates = self._candidates(batch, state)
        count = 1 if torch.is_grad_enabled() else self._pieces(batch)
        pieces = zip(*(vectors.tensor_split(count, dim=1) for vectors in candidates.values()), strict=True)
        filtered = (self._filter(state, dict(zip(candidates, piece, strict=True))) for piece in pieces)
        return torch.cat([self._hidden(state, found) for found in filtered], dim=1)

    def _candidates(self, batch: Batch, state: RequestState) -> dict[str, Tensor]:
        """Vectors of the candidates in each view, [B, C, d]."""
        if len(state.task) != len(batch):
            raise BadInputError(
                f"a state of {len(state.task)} requests cannot score a batch of {len(batch)}: encode those, or take "
                "the rows that are meant with its `select`"
            )
        return {name: self.vectors[name].candidates(batch, state.fold) for name in self.views}

    def _filter(self, state: RequestState, candidates: dict[str, Tensor]) -> dict[str, ViewSlots]:
        """Let every candidate look at the history, in each view."""
        return {name: view.filter(state.views[name], candidates[name]) for name, view in self.views.items()}

    def _hidden(self, state: RequestState, filtered: dict[str, ViewSlots]) -> Tensor:
        # A history slot per item holds as many vectors as the batch is wide; the prompt is laid out for the longest.
        histories = [
            F.pad(found.history, (0, 0, 0, self.views[name].history_slots - found.history.shape[2]))
            for name, found in filtered.items()
        ]
        singles = [found.candidate for found in filtered.values()]
        singles += [found.match for found in filtered.values() if found.match is not None]
        slots = torch.cat([*histories, torch.stack(singles, dim=2)], dim=2)  # [B, C, S, D]
        return self.backbone.hidden(state.prompt, slots)

    def _pieces(self, batch: Batch) -> int:
        """Into how many pieces of about one size the candidates of each request are cut."""
        tokens = len(batch) * self.prompts.block_kind.shape[1]  # of one candidate for each request
        # The widest activation is a feed-forward layer's: about four float32 numbers for each of the width.
        room = max(1, (PIECE_GPU if batch.cand.is_cuda else PIECE) // (16 * self.backbone.width * tokens))
        return -(-batch.cand.shape[1] // room)

    def loss(self, batch: Batch) -> Losses:
        """Task loss plus the weighted contrastive loss (eq. 8), and the listwise one where it is wanted."""
        self.require_uncast("be trained")
        state = self.encode_request(batch, self._folds(batch))
        filtered = self._filter(state, self._candidates(batch, state))
        hidden = self._hidden(state, filtered)
        margins = self.backbone.answer(hidden, batch.task)
        losses = self._answer_losses(batch, hidden, margins) * batch.cand_mask  # [B, C]
        counts = batch.cand_mask.sum(1).clamp(min=1)
        task_loss = losses.sum() / counts.sum()
        parts = {"task": task_loss.detach()}
        for task in Task:
            rows = batch.task == task
            if rows.any():
                parts[f"task_{task.label}"] = (losses.detach()[rows].sum(1) / counts[rows]).mean()
        total = task_loss
        if self.config.listwise:
            listwise = listwise_loss(margins, batch.label, batch.cand_mask)
            parts["listwise"] = listwise.detach()
            total = total + self.config.listwise * listwise
        contrastive = self._contrastive_loss(batch, state, filtered)
        if contrastive is not None and self.config.contrastive is not None:
            parts["contrastive"] = contrastive.detach()
            total = total + self.config.contrastive.weight * contrastive
        return Losses(total, parts)

    def _answer_losses(self, batch: Batch, hidden: Tensor, margins: Tensor) -> Tensor:
        """Cross-entropy of each candidate's answer, float32 [B, C] (eq. 9)."""
        if self.config.loss == "answers":
            return F.binary_cross_entropy_with_logits(margins, batch.label, reduction="none")
        answers = torch.where(batch.label > 0.5, self.backbone.yes, self.backbone.no)
        logits = self.backbone.logits(hidden)
        return F.cross_entropy(logits.flatten(0, 1), answers.flatten(), reduction="none").view_as(answers)

    def _contrastive_loss(self, batch: Batch, state: RequestState, filtered: dict[str, ViewSlots]) -> Tensor | None:
        """The alignment of both views; None where there is none, or nothing to align."""
        full = batch.hist_mask.any(dim=1)
        if self.alignment is None or not full.any():
            return None
        if self.config.align == "users":
            cf, text = (self.views[name].user(state.views[name])[full] for name in ("cf", "text"))
            return cast(Tensor, self.alignment(cf, text, batch.user[full]))
        # Every (user, candidate) row is a pair of its own, several of one user among them, as released.
        rows = full.unsqueeze(1) & batch.cand_mask  # [B, C]
        cf, text = (self.views[name].filtered(state.views[name], filtered[name])[rows] for name in ("cf", "text"))
        return cast(Tensor, self.alignment(cf, text, None))

    @torch.inference_mode()
    def explain(self, batch: Batch, state: RequestState | None = None) -> dict[str, Tensor]:
        """Soft-filter weights by view, [B, C, L]: which past events mattered for which candidate."""
        state = state or self.encode_request(batch)
        filtered = self._filter(state, self._candidates(batch, state))
        length, real = state.events.shape[1], state.events.unsqueeze(1)
        return {name: state.views[name].by_event(found.weights, length) * real for name, found in filtered.items()}

    def _cast(self, precision: Precision) -> None:
        # Views, filters and projections cost next to nothing and stay float32, as does the answer's margin.
        self.backbone.cast(torch.bfloat16)
        if "text" in self.vectors:
            self.vectors["text"].encoder.refresh()

    def compile_with(self, compiler: Callable[[Function], Function]) -> None:
        """See `Ranker.compile_with`."""
        self.backbone.compile_with(compiler)

    def checkpoint_activations(self) -> None:
        """See `Ranker.checkpoint_activations`."""
        self.backbone.checkpointing = True

    def shared_parameters(self) -> list[nn.Parameter]:
        """The history encoders: what both tasks train in every model of the family."""
        return [p for view in self.views.values() if view.encoder is not None for p in view.encoder.parameters()]

    def save(self, folder: Path) -> None:
        """Weights, CF table, tokenizer and architecture."""
        self.require_uncast("be saved")
        from safetensors.torch import save_file

        from gensr.training.checkpoint import unique_tensors

        folder.mkdir(parents=True, exist_ok=True)
        self.backbone.save(folder / "backbone")
        if "cf" in self.vectors:
            save_file({"items": self.vectors["cf"].table.cpu().contiguous()}, folder / "cf.safetensors")
        if "text" in self.vectors:
            (folder / SEMANTIC).mkdir(exist_ok=True)
            self.vectors["text"].encoder.save(folder / SEMANTIC)
        # Some GGUF files give transposed weights, which safetensors refuses.
        weights = {name: tensor.contiguous() for name, tensor in unique_tensors(self).items()}
        save_file(weights, folder / "weights.safetensors")

    def _query_ids(self, batch: Batch) -> Tensor:
        table = self.query_ids
        if batch.extra is not None and batch.extra.queries:
            new = self.backbone.tokenize(batch.extra.queries, self.config.query_length)
            table = torch.cat([table, new.to(table.device)])
        read = batch.is_search & self.config.read_query
        return F.embedding(torch.where(read, batch.query, 0), table)

    def _folds(self, batch: Batch) -> Tensor | None:
        """The fold of each request's truth [B], where there are tables by fold."""
        if "cf" not in self.vectors or not self.vectors["cf"].folds:
            return None
        truth = batch.cand.gather(1, batch.label.argmax(1, keepdim=True)).squeeze(1)
        return pair_folds(batch.user, truth, int(self.vectors["cf"].folds))


def listwise_loss(margins: Tensor, label: Tensor, mask: Tensor) -> Tensor:
    """Mean cross-entropy of the softmax over each request's candidates; requests without a truth do not count.

    Args:
        margins: float32 [B, C].
        label: float32 [B, C], 1 for a truth; several truths count alike.
        mask: bool [B, C], False = padding.
    """
    logs = margins.masked_fill(~mask, torch.finfo(margins.dtype).min).log_softmax(1)
    truths = label * mask
    counts = truths.sum(1)
    losses = -(truths * logs).sum(1) / counts.clamp(min=1)
    return losses.sum() / (counts > 0).sum().clamp(min=1)


def build_gensr(config: GenSRConfig, resources: Resources) -> GenSR:
    """A new GenSR from the prepared data, or the saved one from ``resources.folder``."""
    from safetensors.torch import load_file

    from gensr.training.checkpoint import restore_tensors

    catalogue, folder = resources.catalogue, resources.folder
    cf_items = cf_folds = semantic = None
    if folder is not None:
        backbone = config.backbone.open(folder / "backbone")
        cf_items = load_file(folder / "cf.safetensors")["items"] if config.cf else None
        if config.semantic is not None:
            semantic = config.semantic.open(folder / SEMANTIC, texts=catalogue.text, backbone=backbone)
    else:
        texts = [*catalogue.text, *catalogue.queries, *_wording(config)]
        backbone = config.backbone.build(texts=texts, seed=resources.seed)
        cf_items, cf_folds = _cf_tables(config, resources)
        if config.semantic is not None:
            table = resources.semantic_table(config.semantic)
            semantic = config.semantic.build(texts=catalogue.text, backbone=backbone, table=table)
    with resources.seeded():
        ranker = GenSR(
            config,
            backbone=backbone,
            semantic=semantic,
            num_items=catalogue.num_items,
            query_texts=list(catalogue.queries),
            cf_items=cf_items,
            max_history=resources.max_history,
            cf_folds=cf_folds,
        )
    if folder is not None:
        restore_tensors(ranker, load_file(folder / "weights.safetensors"))
    return ranker.eval()


def _wording(config: GenSRConfig) -> list[str]:
    """The words of the templates, for a tokenizer that is trained."""
    templates = config.templates or DEFAULTS[config.layout]
    return [text for task in Task for kind, text in split_template(getattr(templates, task.label)) if kind == "text"]


def _cf_tables(config: GenSRConfig, resources: Resources) -> tuple[Tensor | None, Tensor | None]:
    """The CF table [I+1, d], and the tables by fold [F, I+1, d] where there are any."""
    if config.cf is None:
        return None, None
    assert resources.cf_table is not None, "a new ranker needs Resources.cf_table"
    table = resources.cf_table(config.cf)
    if not (config.cf_folds and type(config.cf).fitted):
        return table.items, None
    parts = [resources.cf_table(config.cf, (fold, config.cf_folds)) for fold in range(config.cf_folds)]
    return table.items, torch.stack([aligned(part, table).items for part in parts])
