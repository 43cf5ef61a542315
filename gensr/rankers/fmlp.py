"""FMLP-Rec: filter-enhanced MLP for sequential recommendation (Zhou et al., WWW 2022)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gensr.data.batch import Batch
from gensr.data.examples import Examples
from gensr.data.tasks import Task
from gensr.encoders.history.base import reorder
from gensr.rankers.base import Losses, Ranker, Resources, mask_padding, require_tasks
from gensr.rankers.blocks.frequency import FilterBlock
from gensr.rankers.blocks.losses import bce
from gensr.rankers.blocks.sequence import ItemEmbedding, SequenceEmbedding, UserState, events_of
from gensr.rankers.weights import load_weights, save_weights

if TYPE_CHECKING:
    from gensr.rankers.peers import FMLPConfig


class FMLP(Ranker):
    """Frequency filters over the items of the user's recommendation events; ``score(i) = h . E_i`` at the newest.

    Events stand at the right end of a sequence of exactly L, and padding takes part in the filters, as published: its
    positions carry signal, so an empty history has a state too, and is trained like any other. A filter sees what
    follows; so each training event is an example of its own, with its strict past, and the loss is binary cross-entropy
    of the newest position alone. For the same reason the last block is computed there alone.

    Differences from the authors' code: every training event is an example, not the newest L of a user alone; a negative
    was touched by the user in no training event (there: not in that prefix); row 0 of the table is zero rather than a
    frozen random vector.

    Args:
        config: sizes and options.
        num_items: I.
    """

    tasks = frozenset({Task.RECOMMENDATION})
    trainable = True

    def __init__(self, config: FMLPConfig, *, num_items: int) -> None:
        super().__init__()
        self.config = config
        self.items = ItemEmbedding(num_items, config.dim)
        self.embedding = SequenceEmbedding(config.length, config.dim, dropout=config.dropout)
        self.blocks = nn.ModuleList(
            FilterBlock(config.dim, length=config.length, dropout=config.dropout) for _ in range(config.layers)
        )

    @classmethod
    def build(cls, config: FMLPConfig, resources: Resources) -> FMLP:
        """A new one for the catalogue's items, or the saved one from ``resources.folder``."""
        with resources.seeded():
            ranker = cls(config, num_items=resources.catalogue.num_items)
        if resources.folder is not None:
            load_weights(ranker, resources.folder)
        return ranker

    @property
    def examples(self) -> Examples:
        """See `Ranker.examples`: every prefix of a training sequence, the empty one too."""
        return Examples("requests", self.tasks, self.config.negatives)

    def encode_request(self, batch: Batch) -> UserState:
        """Read the user's sequence."""
        require_tasks(self, batch)
        events = events_of(batch, Task.RECOMMENDATION, self.config.length)
        items = reorder(events.take(batch.hist_item).unsqueeze(-1), events.mask.int().argsort(dim=1, stable=True))
        items = F.pad(items.squeeze(-1), (self.config.length - items.shape[1], 0))  # [B, L], right-aligned
        position = torch.arange(self.config.length - 1, -1, -1, device=items.device)
        x = self.embedding(self.items(items), position)
        *first, last = self.blocks
        for block in first:
            x = block(x)
        return UserState(cast(FilterBlock, last).newest(x))

    def score(self, batch: Batch, state: UserState | None = None) -> Tensor:
        """See `Ranker.score`."""
        return mask_padding(self._logits(batch, state), batch)

    def loss(self, batch: Batch) -> Losses:
        """Mean binary cross-entropy of the truth and its negatives."""
        logits, truth = self._logits(batch), batch.label > 0.5
        total = bce(logits[truth], logits[~truth].view(len(batch), -1)).mean()
        return Losses(total, {"task": total.detach()})

    def _logits(self, batch: Batch, state: UserState | None = None) -> Tensor:
        state = state or self.encode_request(batch)
        return torch.einsum("bd,bcd->bc", state.user, self.items(batch.cand)).float()  # also under autocast

    def save(self, folder: Path) -> None:
        """See `Ranker.save`."""
        save_weights(self, folder)
