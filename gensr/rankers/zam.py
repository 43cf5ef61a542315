"""ZAM: QEM's query, moved by what it attends to in the history, or by nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from gensr.data.batch import Batch
from gensr.data.tasks import Task
from gensr.rankers.base import require_tasks
from gensr.rankers.blocks.query import Attended, QueryAttention
from gensr.rankers.blocks.sequence import newest_events
from gensr.rankers.blocks.words import Vocabulary
from gensr.rankers.floors import known_rows
from gensr.rankers.qem import QEM, QueryState

if TYPE_CHECKING:
    from gensr.data.dataset import Catalogue
    from gensr.rankers.peers import ZAMConfig


class ZAM(QEM):
    r"""Zero Attention Model, and without the zero slot the Attention Embedding Model (Ai et al., CIKM 2019).

    .. math:: M_{uq}=\phi(q)+u\ \text{(paper)}\quad\text{or}\quad\tfrac12\,\phi(q)+\tfrac12\,u\ \text{(code)}

    with u what `QueryAttention` takes from the newest items of the request's strict past; they have the vectors of the
    candidates. Score, loss and deviations are those of QEM, and these:
        - Only events before the request are attended to; the authors place an event at its item's first purchase.
        - Items that are new to the catalogue are left out of the history.
        - No L2 term of its own on u and the attention: the optimiser's weight decay is the only one.

    Args:
        config: options.
        catalogue: texts of items and queries.
        vocabulary: words that have vectors.
    """

    config: ZAMConfig

    def __init__(self, config: ZAMConfig, catalogue: Catalogue, vocabulary: Vocabulary) -> None:
        super().__init__(config, catalogue, vocabulary)
        self.attention = QueryAttention(config.dim, config.heads, config.zero)

    def encode_request(self, batch: Batch) -> QueryState:
        """M_uq, and the weight that the history has in it."""
        require_tasks(self, batch)
        query = self.query(batch)
        attended = self._attend(query, batch)
        share = 0.5 if self.config.mixture == "mean" else 1.0
        return QueryState(share * (query + attended.vector), attended.mass)

    def personalisation(self, batch: Batch) -> Tensor:
        """The mass pi [B], 0..1: attention to the history rather than to nothing. Without a zero slot, 1 or 0."""
        return self._attend(self.query(batch), batch).mass

    def _attend(self, query: Tensor, batch: Batch) -> Attended:
        searches_only = self.config.history == "search"
        events = newest_events(batch.hist_task == Task.SEARCH if searches_only else batch.hist_mask, self.config.length)
        rows = known_rows(events.take(batch.clicked).flatten(1), self.items.num_embeddings)  # [B, N]
        attended: Attended = self.attention(query, self.items(rows), rows > 0)
        return attended
