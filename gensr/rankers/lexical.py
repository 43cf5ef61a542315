"""BM25 of the query against the item text: the floor of every search table, through bm25s."""

from __future__ import annotations

import logging
import math
from collections import Counter, OrderedDict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gensr.data.batch import Batch, Extra
from gensr.data.tasks import Task
from gensr.errors import MissingExtraError
from gensr.rankers.base import Ranker, mask_padding, require_tasks

if TYPE_CHECKING:
    from gensr.data.dataset import Catalogue

CACHE_BYTES = 128 << 20
"""Most memory for the scores of queries that were asked before."""


class LexicalRanker(Ranker):
    """BM25 (Lucene's variant) of the query in the item text; lower case, English stop words left out, no stemming.

    A query is scored once against the whole catalogue and remembered; candidates are then gathered. An item that the
    catalogue lacks is scored with the catalogue's word statistics: it must not change what other items score.

    Args:
        catalogue: whose `text` is searched.
        k1: saturation of term counts.
        b: length normalisation.

    Raises:
        MissingExtraError: bm25s is not installed.
    """

    tasks = frozenset({Task.SEARCH})

    def __init__(self, catalogue: Catalogue, *, k1: float = 1.5, b: float = 0.75) -> None:
        super().__init__()
        self.catalogue, self.k1, self.b = catalogue, k1, b
        self._bm25s = _import_bm25s()
        words = self._words(catalogue.text[1:])
        self._mean_length = sum(map(len, words)) / max(len(words), 1)
        self._vocabulary: dict[str, int] = {}
        if self._mean_length:  # bm25s cannot index texts without a single word
            self._index = self._bm25s.BM25(k1=k1, b=b)
            self._index.index(words, show_progress=False)
            self._vocabulary = self._index.vocab_dict
        self._remembered: OrderedDict[str, NDArray[np.float32]] = OrderedDict()
        self._most_remembered = max(16, CACHE_BYTES // (4 * (catalogue.num_items + 1)))

    def score(self, batch: Batch) -> Tensor:
        """See `Ranker.score`."""
        require_tasks(self, batch)
        extra = batch.extra or Extra()
        documents = self._words(list(extra.items))
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
            self._remembered[query] = self._catalogue_scores(self._known_words(query))
            if len(self._remembered) > self._most_remembered:
                self._remembered.popitem(last=False)
        scores = self._remembered[query]
        if not documents:
            return scores
        words = self._known_words(query)
        new = [self._document_score(words, document) for document in documents]
        return np.concatenate([scores, np.array(new, dtype=np.float32)])

    def _catalogue_scores(self, words: list[str]) -> NDArray[np.float32]:
        scores = np.zeros(self.catalogue.num_items + 1, dtype=np.float32)
        if words:
            scores[1:] = self._index.get_scores_from_ids([self._vocabulary[word] for word in words])
        return scores

    def _document_score(self, words: list[str], document: list[str]) -> float:
        """BM25 of one text outside the index, from the index's document frequencies and mean length."""
        counts = Counter(document)
        found = [word for word in words if counts[word]]
        if not found:
            return 0.0
        norm = self.k1 * (1 - self.b + self.b * len(document) / self._mean_length)
        return sum(self._idf(word) * counts[word] / (counts[word] + norm) for word in found)

    def _idf(self, word: str) -> float:
        column = self._index.scores["indptr"]  # terms are columns: a column's length is the term's document frequency
        term = self._vocabulary[word]
        holding = int(column[term + 1] - column[term])
        return math.log(1 + (self.catalogue.num_items - holding + 0.5) / (holding + 0.5))

    def _known_words(self, query: str) -> list[str]:
        return [word for word in self._words([query])[0] if word in self._vocabulary]

    def _words(self, texts: list[str]) -> list[list[str]]:
        words: list[list[str]] = self._bm25s.tokenize(texts, return_ids=False, show_progress=False)
        return words

    def save(self, folder: Path) -> None:
        """See `Ranker.save`: the index is rebuilt from the catalogue, which a run keeps anyway."""


def _import_bm25s() -> Any:
    try:
        import bm25s
    except ModuleNotFoundError:
        raise MissingExtraError("bm25s", "retrieval", "the lexical ranker") from None
    logging.getLogger("bm25s").setLevel(logging.WARNING)  # bm25s sets DEBUG on import, for everybody's root handler
    return bm25s
