"""SASRec: self-attentive sequential recommendation (Kang, McAuley, ICDM 2018)."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn

from gensr.data.batch import Batch
from gensr.data.examples import Examples
from gensr.data.tasks import Task
from gensr.encoders.history.transformer import positions_from_newest
from gensr.errors import BadInputError
from gensr.rankers.base import Losses, Ranker, Resources, mask_padding, require_tasks
from gensr.rankers.blocks import losses
from gensr.rankers.blocks.samplers import PowerSampler
from gensr.rankers.blocks.sequence import (
    ItemEmbedding,
    NextItems,
    SequenceEmbedding,
    UserState,
    events_of,
    newest_state,
    next_items,
)
from gensr.rankers.blocks.transformer import Attention, Rows, TransformerBlock, causal
from gensr.rankers.weights import load_weights, save_weights

if TYPE_CHECKING:
    from gensr.rankers.peers import SASRecConfig


class SASRec(Ranker):
    """Causal self-attention over the items of the user's recommendation events; ``score(i) = h . E_i`` at the newest.

    The input and the output side share one item table. By default everything is as in S3-Rec's code (the variant whose
    results others quote): post-norm blocks, two heads, GELU, N(0, 0.02). Training: at every position of a user's
    training sequence the next item against sampled negatives (binary cross-entropy, Kang and McAuley's eq. 7), or one
    of the softmax losses.

    Differences from S3-Rec's code: negatives leave out the user's training items alone (leaving held-out ones out, too,
    would tell which they are); row 0 of the table is zero rather than a frozen random vector, which no mask lets
    through in either; padding is not worked on; a user without a past scores every item 0, as nothing was learned for
    that.

    Args:
        config: sizes and options.
        num_items: I.
        max_history: most events that a batch will hold.
        counts: int64 [I+1] training events by item, for `sampled_softmax`; only training needs them.
    """

    tasks = frozenset({Task.RECOMMENDATION})
    trainable = True

    def __init__(self, config: SASRecConfig, *, num_items: int, max_history: int, counts: Tensor | None = None) -> None:
        super().__init__()
        self.config, self.length = config, min(config.length, max_history)
        published = config.norm == "post"  # as in S3-Rec; the others follow the authors' own code
        eps = 1e-12 if published else 1e-8
        self.items = ItemEmbedding(num_items, config.dim)
        self.embedding = SequenceEmbedding(
            self.length,
            config.dim,
            dropout=config.dropout,
            norm=published,
            eps=eps,
            scale=math.sqrt(config.dim) if config.scale_embeddings else 1.0,
        )
        self.blocks = nn.ModuleList(
            TransformerBlock(
                config.dim,
                heads=config.heads,
                hidden=config.ffn_mult * config.dim,
                dropout=config.dropout,
                norm=config.norm,
                activation=config.activation,
                inner_dropout=not published,
                output=config.output_projection,
                eps=eps,
            )
            for _ in range(config.layers)
        )
        self.last_norm = nn.Identity() if published else nn.LayerNorm(config.dim, eps=eps)
        self.sampler = PowerSampler(counts, power=config.sample_power) if counts is not None else None
        self.apply(_start_glorot if config.norm == "original" else _start_normal)

    @classmethod
    def build(cls, config: SASRecConfig, resources: Resources) -> SASRec:
        """A new one for ``resources.dataset``, or the saved one from ``resources.folder``."""
        counts = None
        if resources.dataset is not None and config.loss == "sampled_softmax":
            counts = torch.from_numpy(resources.dataset.item_counts(Task.RECOMMENDATION))
        sizes = {"num_items": resources.catalogue.num_items, "max_history": resources.max_history}
        with resources.seeded():
            ranker = cls(config, **sizes, counts=counts)
        if resources.folder is not None:
            load_weights(ranker, resources.folder)
        return ranker

    @property
    def examples(self) -> Examples:
        """See `Ranker.examples`: whole sequences."""
        return Examples("sequences", self.tasks, self.config.negatives)

    def encode_request(self, batch: Batch) -> UserState:
        """Read the user's sequence."""
        require_tasks(self, batch)
        events = events_of(batch, Task.RECOMMENDATION, self.length)
        rows = Rows(events.mask)
        states = rows.pad(self._states(events.take(batch.hist_item), rows))
        return UserState(newest_state(states, events.mask))

    def score(self, batch: Batch, state: UserState | None = None) -> Tensor:
        """See `Ranker.score`."""
        state = state or self.encode_request(batch)
        return mask_padding(torch.einsum("bd,bcd->bc", state.user, self.items(batch.cand)), batch)

    def loss(self, batch: Batch) -> Losses:
        """Mean loss over the positions that have a target."""
        require_tasks(self, batch)
        sequence = next_items(batch, Task.RECOMMENDATION, self.length)
        found = self._losses(sequence)
        total = found.sum() / max(1, len(found))
        return Losses(total, {"task": total.detach()})

    def _states(self, items: Tensor, rows: Rows) -> Tensor:
        """State of every real position, packed [N, d], of sequences int64 [B, n]."""
        position = rows.pack(positions_from_newest(rows.mask))
        x = self.embedding(self.items(rows.pack(items)), position)
        attend = causal(rows.mask)
        for block in self.blocks:
            x = block(x, attend, rows)
        return cast(Tensor, self.last_norm(x))

    def _losses(self, sequence: NextItems) -> Tensor:
        """Loss of each of the n positions that have a target: [n]."""
        rows = Rows(sequence.mask)
        trains = rows.pack(sequence.trains)
        states = self._states(sequence.items, rows)[trains]  # [n, d]
        target = rows.pack(sequence.target)[trains]
        kind, table = self.config.loss, self.items.weight
        if kind == "softmax":
            return losses.softmax(states, table, target)
        if kind == "sampled_softmax":
            if self.sampler is None:
                raise BadInputError("sampled_softmax counts items in a data set; this SASRec was reopened without one")
            samples = self.sampler.draw(self.config.samples)
            return losses.sampled_softmax(states, table, target, samples, self.sampler.log_chance)
        positive = (states * self.items(target)).sum(-1)
        negatives = torch.einsum("nd,nkd->nk", states, self.items(rows.pack(sequence.negatives)[trains]))
        beta = 1.0
        if kind == "gbce":
            beta = losses.gbce_beta(self.config.negatives, len(table) - 1, self.config.calibration)
        return losses.bce(positive, negatives, beta=beta)

    def save(self, folder: Path) -> None:
        """See `Ranker.save`."""
        save_weights(self, folder)


def _start_normal(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.normal_(module.weight, std=0.02)
        nn.init.zeros_(module.bias)


def _start_glorot(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        nn.init.zeros_(module.bias)
    elif isinstance(module, Attention):  # after its maps: queries, keys and values are a matrix each
        for part in module.qkv.weight.chunk(3):
            nn.init.xavier_uniform_(part)
    elif isinstance(module, SequenceEmbedding):
        nn.init.xavier_uniform_(module.positions)
    elif isinstance(module, ItemEmbedding):
        nn.init.xavier_uniform_(module.weight[1:])
