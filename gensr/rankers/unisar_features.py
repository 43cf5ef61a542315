"""What UniSAR knows of items, queries and users, each as one vector of the model's width."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gensr.data.batch import Extra
from gensr.rankers.blocks.words import Vocabulary, WordBag, text_words
from gensr.rankers.floors import known_rows

if TYPE_CHECKING:
    from gensr.data.dataset import Catalogue
    from gensr.rankers.peers import UniSARConfig

LEVELS = 2
"""Category levels that are a feature of an item."""


class FeatureVector(nn.Module):
    """Several ids, and vectors that are there already, as one vector: ``tanh(W [e_1; ...; e_n; more] + b)``.

    Args:
        sizes: rows of each id's table; row 0 is the zero vector.
        dim: width of each id's vector.
        out: width of the result.
        more: width of the vectors that come in.

    Input: ids int64 [...], one a table, and the other vectors [..., more]. Output: float32 [..., out].
    """

    def __init__(self, sizes: Sequence[int], dim: int, out: int, *, more: int = 0) -> None:
        super().__init__()
        self.tables = nn.ModuleList(nn.Embedding(size, dim, padding_idx=0) for size in sizes)
        self.linear = nn.Linear(len(sizes) * dim + more, out)

    def forward(self, ids: Sequence[Tensor], more: Sequence[Tensor] = ()) -> Tensor:
        """See the class."""
        vectors = [table(rows) for table, rows in zip(self.tables, ids, strict=True)]
        return torch.tanh(self.linear(torch.cat([*vectors, *more], dim=-1)))


class Features(nn.Module):
    """Items, queries and users as vectors. Whatever has row 0 is zero; queries and item texts share their words.

    An item or a query that the catalogue lacks is the words of its text in ``batch.extra``, its id the zero vector.

    Args:
        config: widths, and which features an item has.
        catalogue: texts and categories.
        vocabulary: the words that have vectors.
        users: U, users with an id of their own; any other user is the zero vector.
    """

    query_table: Tensor
    text_table: Tensor
    levels: Tensor

    def __init__(self, config: UniSARConfig, catalogue: Catalogue, vocabulary: Vocabulary, users: int) -> None:
        super().__init__()
        self.features, self.vocabulary = frozenset(config.item_features), vocabulary
        self.num_items, self.num_queries, self.num_users = catalogue.num_items, catalogue.num_queries, users
        texts = catalogue.text if "text" in self.features else [""]
        levels = category_levels(list(catalogue.categories)) if "categories" in self.features else torch.zeros(1, 0)
        self.register_buffer("query_table", vocabulary.encode(catalogue.queries, config.words), persistent=False)
        self.register_buffer("text_table", vocabulary.encode(texts, config.words), persistent=False)
        self.register_buffer("levels", levels.long(), persistent=False)
        width, dim = config.feature_dim, config.dim
        self.bag = WordBag(len(vocabulary), width, projection="tanh", out=dim)
        sizes = [self.num_items + 1] * ("id" in self.features) + (self.levels.amax(0) + 1).tolist()
        self.item = FeatureVector(sizes, width, dim, more=dim * ("text" in self.features))
        self.user = FeatureVector([users + 1], width, dim)

    def items(self, rows: Tensor, extra: Extra | None = None) -> Tensor:
        """Vectors of items, int64 [...]: [..., dim]. Each item is computed once, however often it stands there."""
        items, places = torch.unique(rows, return_inverse=True)
        known = known_rows(items, self.num_items + 1)
        ids = [known] * ("id" in self.features)
        if "categories" in self.features:
            ids += self.levels[known].unbind(1)
        new = extra.items if extra is not None else ()
        more = [self.bag(text_words(items, self.text_table, self.vocabulary, new))] if "text" in self.features else []
        vectors = self.item(ids, more) * (items > 0).unsqueeze(1)
        return F.embedding(places, vectors)

    def queries(self, rows: Tensor, extra: Extra | None = None) -> Tensor:
        """Vectors of queries, int64 [...]: [..., dim]. Without known words it is ``tanh(b)``."""
        queries, places = torch.unique(rows, return_inverse=True)
        new = extra.queries if extra is not None else ()
        words = text_words(queries, self.query_table, self.vocabulary, new)
        return F.embedding(places, self.bag(words))

    def users(self, rows: Tensor) -> Tensor:
        """Vectors of users, int64 [...]: [..., dim]."""
        rows = known_rows(rows, self.num_users + 1)
        vectors: Tensor = self.user([rows])
        return vectors * (rows > 0).unsqueeze(-1)


def category_levels(categories: Sequence[str]) -> Tensor:
    """The first levels of each item's first hierarchy as numbers from 1, 0 = it has none: int64 [n, LEVELS].

    Args:
        categories: ``|`` between the levels of a hierarchy and ``||`` between hierarchies.

    Example:
        >>> category_levels(["", "Home|Kitchen||Gifts", "Home"]).tolist()
        [[0, 0], [1, 1], [1, 0]]
    """
    paths = [path.split("||")[0].split("|") for path in categories]
    names = [np.array([path[level] if level < len(path) else "" for path in paths]) for level in range(LEVELS)]
    # An empty name first, so that "none" is 0 whether or not every item has a category.
    numbers = [np.unique(np.append(column, ""), return_inverse=True)[1][:-1] for column in names]
    return torch.from_numpy(np.stack(numbers, axis=1))
