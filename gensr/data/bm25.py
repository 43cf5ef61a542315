"""BM25 over a list of texts, through bm25s: shared by the ranker `lexical` and the candidates `bm25`."""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gensr.errors import MissingExtraError


class BM25Index:
    """BM25 (Lucene's variant) of queries in texts; lower case, English stop words left out, no stemming.

    Args:
        texts: n documents.
        k1: saturation of term counts.
        b: length normalisation.
        purpose: what needs it, for the error where bm25s is missing.

    Raises:
        MissingExtraError: bm25s is not installed.
    """

    def __init__(self, texts: Sequence[str], *, k1: float, b: float, purpose: str) -> None:
        self.k1, self.b, self.size = k1, b, len(texts)
        self._bm25s = _import_bm25s(purpose)
        words = self.words(list(texts))
        self._mean_length = sum(map(len, words)) / max(len(words), 1)
        self._vocabulary: dict[str, int] = {}
        if self._mean_length:  # bm25s cannot index texts without a single word
            self._index = self._bm25s.BM25(k1=k1, b=b)
            self._index.index(words, show_progress=False)
            self._vocabulary = self._index.vocab_dict

    def words(self, texts: list[str]) -> list[list[str]]:
        """The words of texts that count."""
        words: list[list[str]] = self._bm25s.tokenize(texts, return_ids=False, show_progress=False)
        return words

    def known_words(self, query: str) -> list[str]:
        """The words of a query that any text holds."""
        return [word for word in self.words([query])[0] if word in self._vocabulary]

    def scores(self, query: str) -> NDArray[np.float32]:
        """Score of every text, [n]; 0 where it shares no word with the query."""
        known = self.known_words(query)
        if not known:
            return np.zeros(self.size, np.float32)
        found: NDArray[np.float32] = self._index.get_scores_from_ids([self._vocabulary[word] for word in known])
        return found

    def first_hits(self, query: str, most: int, order: NDArray[np.int64]) -> NDArray[np.int64]:
        """Numbers of the best texts, best first; at most `most`, and no text without a hit.

        Args:
            query: what is asked.
            most: texts at most.
            order: a permutation of all texts [n], in which ties come.
        """
        scores = self.scores(query)[order]
        hits = np.flatnonzero(scores > 0)
        if len(hits) > most:  # what ties with the last one is cut by `order`, not by how a sort happens to end
            least = np.partition(scores[hits], len(hits) - most)[len(hits) - most]
            above = hits[scores[hits] > least]
            hits = np.concatenate([above, hits[scores[hits] == least][: most - len(above)]])
        return order[hits[np.argsort(-scores[hits], kind="stable")]]

    def document_score(self, words: list[str], document: list[str]) -> float:
        """BM25 of a text outside the index, given as words, from the index's document frequencies and mean length."""
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
        return math.log(1 + (self.size - holding + 0.5) / (holding + 0.5))


def _import_bm25s(purpose: str) -> Any:
    try:
        import bm25s
    except ModuleNotFoundError:
        raise MissingExtraError("bm25s", "retrieval", purpose) from None
    logging.getLogger("bm25s").setLevel(logging.WARNING)  # bm25s sets DEBUG on import, for everybody's root handler
    return bm25s
