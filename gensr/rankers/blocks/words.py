"""Texts as bags of word vectors: what the search models of the 2010s read, and what UniSAR reads of a query."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gensr.data.batch import Batch
from gensr.files import undamaged, write_json

WORD = re.compile(r"[^\W_]+")
"""A run of letters and digits of any script."""


class Vocabulary:
    """Words by row; row 0 = padding. Lower case, runs of letters and digits of any script.

    Args:
        words: [V+1], row 0 is ``""``.
        counts: int64 [V+1], occurrences in the texts it was built from; row 0 is zero.
    """

    def __init__(self, words: Sequence[str], counts: Tensor) -> None:
        self.words, self.counts = tuple(words), counts
        self._rows = {word: row for row, word in enumerate(self.words) if row}

    def __len__(self) -> int:
        """V + 1: rows of a table of these words."""
        return len(self.words)

    @classmethod
    def build(cls, texts: Iterable[str], *, min_count: int = 1) -> Vocabulary:
        """The words that occur at least `min_count` times in `texts`, frequent ones first.

        Example:
            >>> Vocabulary.build(["Red shoe", "red hat"]).words
            ('', 'red', 'hat', 'shoe')
        """
        found = Counter(word for text in texts for word in _words(text))
        kept = sorted((-count, word) for word, count in found.items() if count >= min_count)
        return cls(["", *(word for _, word in kept)], torch.tensor([0, *(-count for count, _ in kept)]))

    def encode(self, texts: Sequence[str], length: int) -> Tensor:
        """Rows of the first `length` known words of each text, int64 [n, length], right padded.

        Unknown words are left out; a word said twice stands twice.
        """
        rows = torch.zeros((len(texts), length), dtype=torch.int64)
        for at, text in enumerate(texts):
            known = [self._rows[word] for word in _words(text) if word in self._rows][:length]
            rows[at, : len(known)] = torch.tensor(known, dtype=torch.int64)
        return rows

    def save(self, path: Path) -> None:
        """Write a JSON file."""
        write_json(path, {"words": self.words, "counts": self.counts.tolist()})

    @classmethod
    def load(cls, path: Path) -> Vocabulary:
        """Read what `save` wrote.

        Raises:
            DamagedFileError: it is not there, or not what `save` wrote.
        """
        with undamaged(path, "It belongs to a saved ranker; build that again."):
            saved = json.loads(path.read_text(encoding="utf-8"))
            return cls(saved["words"], torch.tensor(saved["counts"]))


def _words(text: str) -> list[str]:
    return WORD.findall(text.lower())


class WordBag(nn.Module):
    r"""A text as the mean of its word vectors, projected or not: :math:`\tanh(W\,\frac{1}{|q|}\sum_w E_w[w]+b)`.

    The order of the words does not matter, their number does, padding does not count; a text without known words is
    the zero vector before the projection.

    Args:
        size: V + 1, rows of the word table.
        dim: width of the word vectors.
        projection: ``tanh`` for the formula above; None for the mean itself.
        out: width of the projection; `dim` where absent.
        dropout: chance of dropping a dimension of the mean in training.
        std: standard deviation of the normal distribution that word vectors start from.

    Input: words, int64 [..., W], 0 = padding. Output: float32 [..., out].
    """

    def __init__(
        self,
        size: int,
        dim: int,
        *,
        projection: Literal["tanh"] | None = None,
        out: int | None = None,
        dropout: float = 0.0,
        std: float = 0.02,
    ) -> None:
        super().__init__()
        if projection is None and out not in (None, dim):
            raise ValueError(f"without a projection the output has the words' width {dim}, got out={out}")
        self.words = nn.Embedding(size, dim, padding_idx=0)
        nn.init.normal_(self.words.weight, std=std)
        with torch.no_grad():
            self.words.weight[0].zero_()
        self.dropout = nn.Dropout(dropout)
        self.projection = None
        if projection == "tanh":
            self.projection = nn.Linear(dim, out or dim)
            # A bias of the size of the projected words would make all texts alike at the start.
            nn.init.xavier_uniform_(self.projection.weight)
            nn.init.zeros_(self.projection.bias)

    def forward(self, words: Tensor) -> Tensor:
        """See the class."""
        # embedding_bag leaves padding out of the mean and never holds the [..., W, dim] it averages.
        bags = words.reshape(-1, words.shape[-1])
        mean = F.embedding_bag(bags, self.words.weight, mode="mean", padding_idx=0)
        mean = self.dropout(mean.view(*words.shape[:-1], -1))  # [..., dim]
        return mean if self.projection is None else torch.tanh(self.projection(mean))


def query_words(batch: Batch, table: Tensor, vocabulary: Vocabulary) -> Tensor:
    """Words of what is asked, int64 [B, W]: of the catalogue's queries in `table` [Q+1, W], or of ``batch.extra``."""
    return text_words(batch.query, table, vocabulary, batch.extra.queries if batch.extra else ())


def text_words(rows: Tensor, table: Tensor, vocabulary: Vocabulary, new: Sequence[str]) -> Tensor:
    """Words of texts of which some came after the catalogue.

    Args:
        rows: int64 [...], texts of the catalogue, or beyond it of `new`; beyond both, a blank text.
        table: int64 [n, W], words of the catalogue's texts.
        vocabulary: encodes the others; words it lacks are left out.
        new: texts that the catalogue lacks.

    Returns:
        int64 [..., W].
    """
    known = table[torch.where(rows < len(table), rows, 0)]
    if not new:
        return known
    encoded = vocabulary.encode(["", *new], table.shape[1]).to(table.device)
    place = (rows - len(table) + 1).clamp(min=0)  # among the new texts; 0 where the catalogue has it
    place = torch.where(place < len(encoded), place, 0)
    return torch.where(place.unsqueeze(-1) > 0, encoded[place], known)
