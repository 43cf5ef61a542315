"""UniSAR: transitions within and between search and recommendation behaviour (Shi et al., SIGIR 2024)."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gensr.data.batch import Batch
from gensr.data.tasks import Task
from gensr.files import undamaged, write_json
from gensr.fusion.contrastive.info_nce import TanhBilinear, info_nce, pool_info_nce
from gensr.fusion.soft_filter.bilinear import BilinearFilter
from gensr.rankers.base import Losses, Ranker, Resources, mask_padding, require_tasks
from gensr.rankers.blocks.experts import TaskExperts
from gensr.rankers.blocks.pooling import masked_mean
from gensr.rankers.blocks.sequence import newest, newest_events
from gensr.rankers.blocks.towers import Tower
from gensr.rankers.blocks.words import Vocabulary
from gensr.rankers.unisar_features import Features
from gensr.rankers.unisar_history import HistoryEncoder, Transitions
from gensr.rankers.weights import load_weights, save_weights

if TYPE_CHECKING:
    from gensr.rankers.peers import UniSARConfig

TOWER = (128, 64, 200, 80)
"""Widths between the experts' 64 and the logit."""
PIECE = 1 << 13
"""Candidates whose experts are computed at once while nothing is trained: more would not fit the processor's cache."""
VOCABULARY, SIZES = "vocabulary.json", "unisar.json"


class Pools(NamedTuple):
    """What the clicked pairs of a batch are compared with.

    Attributes:
        items: int64 [P], of the whole catalogue.
        queries: int64 [P], likewise.
        item_vectors: [P, d].
        query_vectors: [P, d].
    """

    items: Tensor
    queries: Tensor
    item_vectors: Tensor
    query_vectors: Tensor


class Pairs(NamedTuple):
    """Distinct (query, clicked item) pairs of histories, int64 [n], and how often each stands there, float32 [n]."""

    query: Tensor
    item: Tensor
    times: Tensor


class UniSARState(NamedTuple):
    """Requests that have been read.

    Attributes:
        task: int64 [B] `Task` codes.
        recommendation: fused recommendation events (F_rec), [B, n, d].
        recommendation_mask: which of them are real, bool [B, n].
        search: fused search events (F_src), [B, m, d].
        search_mask: which of them are real, bool [B, m].
        user: [B, d].
        query: [B, d]; for a recommendation, the vector learned in its place.
    """

    task: Tensor
    recommendation: Tensor
    recommendation_mask: Tensor
    search: Tensor
    search_mask: Tensor
    user: Tensor
    query: Tensor


class UniSAR(Ranker):
    """Four transitions between behaviours, aligned, fused, pooled for each candidate, judged by experts of two tasks.

    An event is the vector of its item, and in search that of its query plus the mean of the clicked items. The history
    gives S2R and R2S (transformer over the merged events, only different kinds see each other), R2R and S2S
    (transformers over events of a kind), and F_rec, F_src (`CrossFusion` of the pairs). For a candidate v, bilinear
    target attention pools both: h_rec(v), h_src(v). ``[h_rec(v); h_src(v); v; u; q]`` goes through PLE or MMoE and the
    tower of the task. Each task's loss is binary cross-entropy over a positive and its negatives, plus

    * the query-item alignment: InfoNCE of the clicked pairs in the histories against a pool of items, and of queries;
    * the history alignment: InfoNCE of mean R2R with mean S2R, and of mean S2S with mean R2S, over the batch;

    and ``total = L_rec + search_weight * L_src``.

    Differences from the authors' code, each for a reason:

    * A user with one kind of history, or none, gets finite scores where the code has NaN: an event with nothing to read
      keeps itself alone (the residual), and an empty history is pooled to zero. Such rows are not aligned.
    * Rows of one user are no negatives of each other, nor are pool entries equal to the positive: that would push apart
      what belongs together. Temperatures are held at 0.01 or above; the code lets them fall.
    * One loader gives both tasks, shuffled, in their natural proportion, where the code has two that end together, and
      pools are drawn anew at every update: that needs nothing of the trainer.
    * Scores are logits, because sigmoids of float32 tie where they saturate. Layers that nothing calls are not kept.
    * Padding is not worked on, and a clicked pair is compared once, with its count as weight: the same result, sooner.

    Args:
        config: widths and options.
        features: of items, queries and users.
    """

    trainable = True

    def __init__(self, config: UniSARConfig, features: Features) -> None:
        super().__init__()
        self.config, self.features = config, features
        dim, own = config.dim, config.experts == "ple"
        self.history = HistoryEncoder(config)
        self.pooling = nn.ModuleDict({task.label: BilinearFilter(dim, context=False) for task in Task})
        self.no_query = nn.Parameter(torch.empty(1, dim))
        self.experts = TaskExperts(
            len(Task),
            5 * dim,
            dim,
            shared=config.shared_experts + (0 if own else config.task_experts),
            own=config.task_experts if own else 0,
            dropout=config.dropout,
        )
        self.towers = nn.ModuleDict({task.label: Tower(dim, TOWER, dropout=config.dropout) for task in Task})
        # What has no weight has no parameters: nothing would move them.
        temperatures = {"query_item": config.query_item_temperature} if config.query_item_weight else {}
        temperatures |= {t.label: config.history_temperature for t in Task if config.history_weight}
        self.similarities = nn.ModuleDict({k: TanhBilinear(dim, temperature=t) for k, t in temperatures.items()})
        self._start()

    def _start(self) -> None:
        """Xavier-normal weights, zero biases, embeddings as `config.embedding_std` says."""
        for name, parameter in self.named_parameters():
            if parameter.ndim == 2:
                nn.init.xavier_normal_(parameter)
            elif name.endswith("bias"):
                nn.init.zeros_(parameter)
        for module in self.modules():
            if isinstance(module, nn.Embedding):
                if self.config.embedding_std is not None:
                    nn.init.normal_(module.weight, std=self.config.embedding_std)
                with torch.no_grad():
                    module.weight[0].zero_()

    @classmethod
    def build(cls, config: UniSARConfig, resources: Resources) -> UniSAR:
        """A new one for ``resources.dataset``, or the saved one from ``resources.folder``."""
        catalogue, folder = resources.catalogue, resources.folder
        if folder is not None:
            vocabulary = Vocabulary.load(folder / VOCABULARY)
            users = _saved_users(folder)
        elif resources.dataset is not None:
            texts = [catalogue.text] if "text" in config.item_features else []
            vocabulary = Vocabulary.build(text for part in (catalogue.queries, *texts) for text in part)
            users = resources.dataset.num_users
        else:
            raise ValueError("a new ranker needs resources.dataset; a saved one resources.folder")
        with resources.seeded():
            ranker = cls(config, Features(config, catalogue, vocabulary, users))
        if folder is not None:
            load_weights(ranker, folder)
        return ranker

    def save(self, folder: Path) -> None:
        """Weights, words, and the number of users."""
        save_weights(self, folder)
        self.features.vocabulary.save(folder / VOCABULARY)
        write_json(folder / SIZES, {"users": self.features.num_users})

    def shared_parameters(self) -> list[nn.Parameter]:
        """The history's encoders, its pooling, and the shared experts."""
        shared = [self.history, self.pooling, *([self.experts.shared] if self.experts.shared else [])]
        return [parameter for module in shared for parameter in module.parameters()]

    def encode_request(self, batch: Batch) -> UniSARState:
        """Read the histories, users and queries."""
        require_tasks(self, batch)
        return self._state(batch, self.transitions(batch))

    def transitions(self, batch: Batch) -> dict[Task, Transitions]:
        """Each kind's events after reading both kinds."""
        kept = torch.stack([newest(batch.hist_task == task, self.config.events) for task in Task]).any(0)
        merged = newest_events(kept, kept.shape[1])
        kind, items = merged.take(batch.hist_task), merged.take(batch.clicked)  # [B, L], [B, L, K]
        query = self.features.queries(merged.take(batch.hist_query), batch.extra)
        clicked = masked_mean(self.features.items(items, batch.extra), items > 0, 2)
        found: dict[Task, Transitions] = self.history(clicked + query * (kind == Task.SEARCH).unsqueeze(2), kind)
        return found

    def _state(self, batch: Batch, transitions: dict[Task, Transitions]) -> UniSARState:
        asked = self.features.queries(batch.query.masked_fill(~batch.is_search, 0), batch.extra)  # [B, d]
        recommendation, search = transitions[Task.RECOMMENDATION], transitions[Task.SEARCH]
        return UniSARState(
            batch.task,
            recommendation.fused,
            recommendation.mask,
            search.fused,
            search.mask,
            self.features.users(batch.user),
            torch.where(batch.is_search.unsqueeze(1), asked, self.no_query),
        )

    def score(self, batch: Batch, state: UniSARState | None = None) -> Tensor:
        """See `Ranker.score`."""
        state = state or self.encode_request(batch)
        items = self.features.items(batch.cand, batch.extra)  # [B, C, d]
        size = max(1, PIECE // max(1, len(batch)))
        logits = [self._logits(state, piece) for piece in torch.split(items, size, dim=1)]
        return mask_padding(torch.cat(logits, dim=1), batch)

    def hidden_state(self, batch: Batch, state: UniSARState | None = None) -> Tensor:
        """The mixture of experts of the request's task, [B, C, d]."""
        state = state or self.encode_request(batch)
        return self._mixtures(state, self.features.items(batch.cand, batch.extra))

    def _mixtures(self, state: UniSARState, items: Tensor) -> Tensor:
        """Mixtures of experts [B, C, d] for items [B, C, d]."""
        histories = (
            (Task.RECOMMENDATION, state.recommendation, state.recommendation_mask),
            (Task.SEARCH, state.search, state.search_mask),
        )
        pooled = [self.pooling[task.label](events, items, mask).tokens.squeeze(2) for task, events, mask in histories]
        parts = [*pooled, items, state.user.unsqueeze(1), state.query.unsqueeze(1)]
        return by_task(state.task, lambda task, *some: self.experts(task - 1, some), *parts)

    def _logits(self, state: UniSARState, items: Tensor) -> Tensor:
        """Logits [B, C] of items [B, C, d]."""
        mixtures = self._mixtures(state, items)
        return by_task(state.task, lambda task, some: self.towers[task.label](some), mixtures)

    def loss(self, batch: Batch) -> Losses:
        """``L_rec + search_weight * L_src``, each with its share of both alignments."""
        transitions = self.transitions(batch)
        pools = self._pools(batch.task.device) if self.config.query_item_weight else None
        logits = self._logits(self._state(batch, transitions), self.features.items(batch.cand))
        click = F.binary_cross_entropy_with_logits(logits, batch.label, reduction="none")  # [B, C]
        total = batch.label.new_zeros(())
        parts: dict[str, Tensor] = {}
        for task in Task:
            asking = batch.task == task
            if not asking.any():
                continue
            losses = {
                "task": click[asking][batch.cand_mask[asking]].mean(),
                "query_item": self._query_item_loss(batch.select(asking), pools),
                "history": self._history_loss(batch.user, transitions, asking),
            }
            weight = self.config.search_weight if task == Task.SEARCH else 1.0
            alignments = self.config.query_item_weight * losses["query_item"]
            alignments = alignments + self.config.history_weight * losses["history"]
            total = total + weight * (losses["task"] + alignments)
            parts[f"task_{task.label}"] = losses["task"].detach()
            for name, value in losses.items():  # for the log: the mean over requests
                parts[name] = parts.get(name, 0) + value.detach() * asking.float().mean()
        return Losses(total, parts)

    def _query_item_loss(self, batch: Batch, pools: Pools | None) -> Tensor:
        """Clicked pairs of the histories against the pools."""
        pairs = self._pairs(batch)
        if pools is None or not len(pairs.query):
            return batch.label.new_zeros(())
        similarity = cast(TanhBilinear, self.similarities["query_item"])
        return pool_info_nce(
            self.features.queries(pairs.query),
            self.features.items(pairs.item),
            pools.query_vectors,
            pools.item_vectors,
            same_a=pairs.query.unsqueeze(1) == pools.queries,
            same_b=pairs.item.unsqueeze(1) == pools.items,
            weight=pairs.times,
            temperature=similarity.temperature,
            similarity=similarity,
        )

    def _history_loss(self, user: Tensor, transitions: dict[Task, Transitions], asking: Tensor) -> Tensor:
        """What events of a kind tell each other, against what the other kind tells them; over users who have both.

        Args:
            user: int64 [B], whose rows are no negatives of each other.
            transitions: of the whole batch.
            asking: bool [B], the requests that count.
        """
        both = torch.stack([asking, *(found.mask.any(1) for found in transitions.values())]).all(0)
        total = user.new_zeros((), dtype=torch.float32)
        if not self.config.history_weight or not both.any():
            return total
        for task, found in transitions.items():
            similarity = cast(TanhBilinear, self.similarities[task.label])
            within, across = (view[both] for view in found.means())
            temperature = similarity.temperature
            total = total + info_nce(within, across, user[both], temperature=temperature, similarity=similarity)
        return total

    def _pools(self, device: torch.device) -> Pools:
        """Uniform over the catalogue, with replacement; both tasks of a batch share them."""
        counts = (self.features.num_items, self.features.num_queries)
        items, queries = (torch.randint(1, max(1, n) + 1, (self.config.pool,), device=device) for n in counts)
        return Pools(items, queries, self.features.items(items), self.features.queries(queries))

    def _pairs(self, batch: Batch) -> Pairs:
        """Clicked pairs of the search events that the histories show."""
        shown = newest(batch.hist_task == Task.SEARCH, self.config.events)
        items = batch.clicked[shown]  # [n, K]
        queries = batch.hist_query[shown].unsqueeze(1).expand_as(items)
        real = (items > 0) & (queries > 0)
        size = self.features.num_items + 1
        pairs, times = torch.unique(queries[real] * size + items[real], return_counts=True)
        return Pairs(pairs // size, pairs % size, times.float())


def by_task(task: Tensor, apply: Callable[..., Tensor], *parts: Tensor) -> Tensor:
    """``apply(task, *parts)`` for the requests of each task alone: [B, ...], in the order of the requests.

    Args:
        task: int64 [B].
        apply: what to do with the requests of one task.
        parts: its inputs [B, ...].
    """
    places = [(task == code).nonzero().squeeze(1) for code in Task]
    found = [apply(code, *(part[rows] for part in parts)) for code, rows in zip(Task, places, strict=True) if len(rows)]
    return torch.cat(found)[torch.cat(places).argsort()]


def _saved_users(folder: Path) -> int:
    path = folder / SIZES
    with undamaged(path, "It belongs to a saved ranker; build that again."):
        return int(json.loads(path.read_text(encoding="utf-8"))["users"])
