"""QEM: a query is the mean of its words, an item a vector, and their product is the score."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gensr.data.batch import Batch
from gensr.data.examples import Examples
from gensr.data.split import Split
from gensr.data.tasks import Task
from gensr.rankers.base import Losses, Ranker, Resources, mask_padding, require_tasks
from gensr.rankers.blocks.losses import bce
from gensr.rankers.blocks.query import QueryEncoder
from gensr.rankers.blocks.sequence import ItemEmbedding
from gensr.rankers.blocks.text_model import ItemLanguageModel
from gensr.rankers.blocks.words import Vocabulary
from gensr.rankers.floors import known_rows
from gensr.rankers.weights import load_weights, save_weights

if TYPE_CHECKING:
    from typing import Self

    from gensr.data.dataset import Catalogue
    from gensr.rankers.peers import ProductSearchConfig

WORDS = "words.json"


class QueryState(NamedTuple):
    """Requests that have been read.

    Attributes:
        vector: M_uq [B, d], what the items are compared with.
        personalisation: [B], the weight of the history in it, 0..1; None where the model reads no history.
    """

    vector: Tensor
    personalisation: Tensor | None = None


class QEM(Ranker):
    r"""Query Embedding Model, the non-personalised base of AEM and ZAM (Ai et al., CIKM 2019).

    .. math::
        M_{uq}=\phi(q),\quad s(i)=\langle M_{uq},E_i\rangle\,(+b_i),\quad
        L=\mathrm{NS}(M_{uq};i,N_I)+\lambda\,\mathrm{NS}(i;w,N_V)

    with NS the negative-sampling logistic loss, items `N_I` uniform and words `N_V` in proportion to count^0.75.

    An item new to the catalogue has no vector: it is the zero vector, and scores 0. A query's unknown words are left
    out.

    Deviations from the authors' code, which trains on word occurrences of reviews:
        - An example is a search, and the item's words are drawn from the catalogue's text, `lm_words` each time: our
          logs have no reviews. Items weigh as often as they are bought, not by the length of their text.
        - Negatives are drawn anew for each request and are never items the user touched; the authors share one set in
          a batch, the positive among them at times.
        - Words are those of training searches and, with a language model, of item texts; no other word can learn.
        - Small random vectors of items instead of zeros, from which no gradient reaches the query at the first update.

    Args:
        config: options.
        catalogue: texts of items and queries.
        vocabulary: words that have vectors.
    """

    tasks = frozenset({Task.SEARCH})
    trainable = True

    def __init__(self, config: ProductSearchConfig, catalogue: Catalogue, vocabulary: Vocabulary) -> None:
        super().__init__()
        self.config, size = config, len(vocabulary)
        self.query = QueryEncoder(
            vocabulary,
            catalogue.queries,
            config.dim,
            length=config.query_length,
            dropout=config.dropout,
            std=config.init_std,
        )
        self.items = ItemEmbedding(catalogue.num_items, config.dim, std=config.init_std)
        biased = config.similarity == "bias_product"
        self.bias = nn.Parameter(torch.zeros(catalogue.num_items + 1)) if biased else None
        self.text_model = None
        if config.lm_weight:
            texts = vocabulary.encode(catalogue.text, config.text_length)
            self.text_model = ItemLanguageModel(
                texts, size, words=config.lm_words, negatives=config.negatives, threshold=config.subsampling
            )

    @classmethod
    def build(cls, config: ProductSearchConfig, resources: Resources) -> Self:
        """A new one over the words of ``resources.dataset``, or the one saved in ``resources.folder``."""
        folder = resources.folder
        vocabulary = Vocabulary.load(folder / WORDS) if folder else Vocabulary.build(_training_texts(config, resources))
        with resources.seeded():
            ranker = cls(config, resources.catalogue, vocabulary)
        if folder is not None:
            load_weights(ranker, folder)
        return ranker.eval()

    @property
    def examples(self) -> Examples:
        """Searches, each with `negatives` items."""
        return Examples(tasks=self.tasks, negatives=self.config.negatives)

    def encode_request(self, batch: Batch) -> QueryState:
        """M_uq = phi(q)."""
        require_tasks(self, batch)
        return QueryState(self.query(batch))

    def score(self, batch: Batch, state: QueryState | None = None) -> Tensor:
        """See `Ranker.score`."""
        require_tasks(self, batch)
        vector = (self.encode_request(batch) if state is None else state).vector
        candidates = self.items(batch.cand)  # [B, C, d]
        if self.config.similarity == "cosine":
            vector, candidates = F.normalize(vector, dim=-1), F.normalize(candidates, dim=-1)
        scores = torch.einsum("bd,bcd->bc", vector, candidates)
        if self.bias is not None:
            scores = scores + self.bias[known_rows(batch.cand, len(self.bias))]
        return mask_padding(scores, batch)

    def loss(self, batch: Batch) -> Losses:
        """L_PR (``task``) and, with a weight, L_LM (``language_model``); a request's one truth against the others."""
        state = self.encode_request(batch)
        scores = self.score(batch, state)
        truth = batch.label.argmax(dim=1, keepdim=True)  # [B, 1]
        positive, others = scores.gather(1, truth), scores.scatter(1, truth, -torch.inf)
        each = bce(positive.squeeze(1), others)  # padding and the truth stand at -inf, which costs nothing
        task = each.mean() if self.config.loss == "ns" else each.sum() / batch.cand_mask.sum()
        total, parts = task, {"task": task.detach()}
        if self.text_model is not None:
            bought = batch.cand.gather(1, truth).squeeze(1)
            words = self.text_model(bought, self.items(bought), self.query.bag.words.weight)
            total, parts["language_model"] = total + self.config.lm_weight * words, words.detach()
        if state.personalisation is not None:
            parts["personalisation"] = state.personalisation.detach().mean()
        return Losses(total, parts)

    def save(self, folder: Path) -> None:
        """Words and weights."""
        self.query.vocabulary.save(folder / WORDS)
        save_weights(self, folder)


def _training_texts(config: ProductSearchConfig, resources: Resources) -> Iterable[str]:
    """Texts whose words can learn: queries of training searches and, with a language model, of all items."""
    dataset, catalogue = resources.dataset, resources.catalogue
    if dataset is None:
        raise ValueError("a new ranker needs resources.dataset; a saved one resources.folder")
    for row in np.unique(dataset.query[dataset.requests(Split.TRAIN, Task.SEARCH)]):
        yield catalogue.queries[int(row)]
    if config.lm_weight:
        yield from catalogue.text
