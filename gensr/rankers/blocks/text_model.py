"""Words of an item's text predicted from the item's vector: how item vectors learn what the item is called."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from gensr.rankers.blocks.losses import bce
from gensr.rankers.blocks.samplers import PowerSampler


def keep_probability(counts: Tensor, threshold: float) -> Tensor:
    """Chance of keeping an occurrence of each word, so that frequent words do not drown the others (word2vec).

    With x = threshold * (sum of counts), a word seen c times is kept with min(1, (sqrt(c / x) + 1) * x / c).

    Args:
        counts: [V], occurrences.
        threshold: share of the text from which on a word counts as frequent.

    Returns:
        float32 [V]; 1 for words that never occur.

    Example:
        >>> counts = torch.tensor([100, 1_000, 10_000, 100_000, 888_900])
        >>> [round(float(p), 4) for p in keep_probability(counts, 1e-4)]
        [1.0, 0.4162, 0.11, 0.0326, 0.0107]
    """
    frequent = threshold * counts.sum()
    counts = counts.clamp(min=1)
    return (((counts / frequent).sqrt() + 1) * frequent / counts).clamp(max=1).float()


class ItemLanguageModel(nn.Module):
    r"""Paragraph vectors of items (Ai et al., SIGIR 2017): :math:`P(w\mid i)\propto\exp(w\cdot i+b_w)` by NS loss.

    For each item, `words` words are drawn from its text, frequent ones seldom; each is told from `negatives` words
    drawn in proportion to count^0.75. Words and their vectors are shared with the query encoder, which is what lets an
    item be found by a query nobody asked before.

    Args:
        texts: int64 [I+1, T], word rows of the items' texts, right padded with 0.
        size: V + 1, rows of the word table.
        words: drawn from an item's text.
        negatives: drawn for each of them.
        threshold: see `keep_probability`.

    Inputs: rows int64 [B] and vectors [B, d] of items, and the word table [V+1, d]. Output: the mean over drawn words,
    a scalar; 0 where no text has any.
    """

    texts: Tensor
    keep: Tensor

    def __init__(self, texts: Tensor, size: int, *, words: int, negatives: int, threshold: float) -> None:
        super().__init__()
        self.words, self.negatives = words, negatives
        self.bias = nn.Parameter(torch.zeros(size))
        counts = torch.bincount(texts.flatten(), minlength=size)
        counts[0] = 0  # padding
        longest = max(1, int((texts > 0).sum(dim=1).max()))
        self.register_buffer("texts", texts[:, :longest].contiguous(), persistent=False)
        self.register_buffer("keep", keep_probability(counts, threshold), persistent=False)
        self.others = PowerSampler(counts, power=0.75)

    def forward(self, rows: Tensor, items: Tensor, table: Tensor) -> Tensor:
        """See the class."""
        words, drawn = self.draw(rows)  # [B, W]
        others = self.others.draw(*words.shape, self.negatives)  # [B, W, k]
        positive = torch.einsum("bwd,bd->bw", table[words], items) + self.bias[words]
        negatives = torch.einsum("bwkd,bd->bwk", table[others], items) + self.bias[others]
        return bce(positive, negatives).masked_fill(~drawn, 0).sum() / drawn.sum().clamp(min=1)

    def draw(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Words of the items' texts, each at most as often as it stands there: int64 [B, W], and bool, where one is."""
        text = self.texts[rows]  # [B, T]
        chance = torch.rand(text.shape, device=text.device)
        kept = (text > 0) & (chance < self.keep[text])
        # What was kept is equally likely to come first: under the threshold, the chance is uniform again.
        order = torch.where(kept, chance / self.keep[text], torch.inf)
        found = order.topk(min(self.words, text.shape[1]), dim=1, largest=False)
        return text.gather(1, found.indices), found.values.isfinite()
