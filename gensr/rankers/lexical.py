"""BM25 of the query against the item text: the floor of every search table, through bm25s."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gensr.data.batch import Batch, Extra
from gensr.data.bm25 import BM25Index
from gensr.data.catalogue import Catalogue
from gensr.data.tasks import Task
from gensr.rankers.base import Ranker, mask_padding, require_tasks

CACHE_BYTES = 128 << 20
"""Most memory for the scores of queries that were asked before."""


class LexicalRanker(Ranker):
    """BM25 (Lucene's variant) of the query in the item text; lower case, English stop words left out, no stemming.

    A query is scored once against the whole catalogue and remembered; candidates are then gathered. An item that the
    catalogue lacks is scored with the catalogue's word statistics: it must not change what other items score. Such an
    item comes as one text, made of the catalogue's own `item_text`, which is searched whatever `fields` says.

    Args:
        catalogue: whose items are searched.
        fields: what of them, joined into one text: "title", "categories", in any number and order; the catalogue's
            `text` where absent.
        k1: saturation of term counts.
        b: length normalisation.

    Raises:
        MissingExtraError: bm25s is not installed.
    """

    tasks = frozenset({Task.SEARCH})

    def __init__(
        self, catalogue: Catalogue, *, fields: Sequence[str] | None = None, k1: float = 1.5, b: float = 0.75
    ) -> None:
        super().__init__()
        self.catalogue = catalogue
        searched = catalogue.with_text(fields) if fields else catalogue
        self.index = BM25Index(searched.text[1:], k1=k1, b=b, purpose="the lexical ranker")
        self._remembered: OrderedDict[str, NDArray[np.float32]] = OrderedDict()
        self._most_remembered = max(16, CACHE_BYTES // (4 * (catalogue.num_items + 1)))

    def score(self, batch: Batch, state: None = None) -> Tensor:
        """See `Ranker.score`."""
        require_tasks(self, batch)
        extra = batch.extra or Extra()
        documents = self.index.words(list(extra.items))
        queries, which = np.unique(batch.query.cpu().numpy(), return_inverse=True)  # [q], [B]
        items = batch.cand.masked_fill(~batch.cand_mask, 0).cpu().numpy()
        scores = np.zeros(items.shape, dtype=np.float32)
        for number, row in enumerate(queries.tolist()):
            known = self.catalogue.queries
            query = known[row] if row < len(known) else extra.queries[row - len(known)]
            asked = which == number
            scores[asked] = self._scores(query, documents)[items[asked]]
        return mask_padding(torch.from_numpy(scores).to(batch.cand.device), batch)

    def _scores(self, query: str, documents: list[list[str]]) -> NDArray[np.float32]:
        """Scores of the catalogue's items and then of `documents`, [I + 1 + n]; row 0 is zero."""
        if query in self._remembered:
            self._remembered.move_to_end(query)
        else:
            self._remembered[query] = np.concatenate([np.zeros(1, np.float32), self.index.scores(query)])
            if len(self._remembered) > self._most_remembered:
                self._remembered.popitem(last=False)
        scores = self._remembered[query]
        if not documents:
            return scores
        words = self.index.known_words(query)
        new = [self.index.document_score(words, document) for document in documents]
        return np.concatenate([scores, np.array(new, dtype=np.float32)])

    def save(self, folder: Path) -> None:
        """See `Ranker.save`: the index is rebuilt from the catalogue, which a run keeps anyway."""
