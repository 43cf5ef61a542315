"""LightGCN as it is usually written, for `gensr bench cf` to be measured against.

A coordinate-list adjacency multiplied under autograd once a layer, the layers stacked and averaged, BPR on gathered
rows, Adam as it comes, and negatives drawn one interaction at a time against a set per user.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import scipy.sparse as sp
import torch
import torch.nn.functional as F
from torch import Tensor, nn


def normalised_adjacency(user_items: sp.csr_matrix) -> Tensor:
    """D^-1/2 A D^-1/2 of the graph of `user_items` [U, I] as a coalesced sparse COO tensor [U+I, U+I]."""
    edges = user_items.tocoo()
    users, items = edges.row.astype(np.int64), edges.col.astype(np.int64) + user_items.shape[0]
    rows, columns = np.concatenate([users, items]), np.concatenate([items, users])
    degree = np.bincount(rows, minlength=sum(user_items.shape))
    values = 1 / np.sqrt(degree[rows].astype(np.float64) * degree[columns])
    places, size = torch.from_numpy(np.stack([rows, columns])), (len(degree), len(degree))
    values = torch.from_numpy(values).float()
    return torch.sparse_coo_tensor(places, values, size, check_invariants=True).coalesce()


class LightGCN(nn.Module):
    """Embeddings of users and items, propagated `layers` times (He et al., SIGIR 2020).

    Args:
        user_items: sparse [U, I], every stored value an edge.
        dim: width of the vectors.
        layers: propagation steps.
        regularization: weight of the squared layer-0 embeddings of a batch.
    """

    def __init__(self, user_items: sp.csr_matrix, *, dim: int, layers: int, regularization: float) -> None:
        super().__init__()
        self.layers, self.regularization = layers, regularization
        self.register_buffer("adjacency", normalised_adjacency(user_items), persistent=False)
        self.users, self.items = (nn.Embedding(size, dim) for size in user_items.shape)
        nn.init.normal_(self.users.weight, std=0.1)
        nn.init.normal_(self.items.weight, std=0.1)

    @torch.no_grad()
    def start_from(self, nodes: Tensor) -> None:
        """Copy the embeddings [U+I, d], users first."""
        users, items = nodes.split([len(self.users.weight), len(self.items.weight)])
        self.users.weight.copy_(users)
        self.items.weight.copy_(items)

    def propagate(self) -> tuple[Tensor, Tensor]:
        """Users [U, d] and items [I, d], the mean over layers 0..K."""
        nodes = torch.cat([self.users.weight, self.items.weight])
        layers = [nodes]
        for _ in range(self.layers):
            nodes = torch.sparse.mm(self.adjacency, nodes)
            layers.append(nodes)
        users, items = torch.stack(layers, dim=1).mean(dim=1).split([len(self.users.weight), len(self.items.weight)])
        return users, items

    def loss(self, users: Tensor, positives: Tensor, negatives: Tensor) -> Tensor:
        """BPR with the penalty on layer 0, for int64 [n] rows each."""
        user_nodes, item_nodes = self.propagate()
        user, positive, negative = user_nodes[users], item_nodes[positives], item_nodes[negatives]
        ranking = F.softplus((user * negative).sum(1) - (user * positive).sum(1)).mean()
        starts = (self.users(users), self.items(positives), self.items(negatives))
        penalty = 0.5 * sum(start.square().sum() for start in starts) / len(users)
        return ranking + self.regularization * penalty


def optimizer(model: LightGCN, *, learning_rate: float) -> torch.optim.Optimizer:
    """Adam with its defaults."""
    return torch.optim.Adam(model.parameters(), lr=learning_rate)


def known_items(user_items: sp.csr_matrix) -> list[set[int]]:
    """The items [U] each user touched."""
    return [set(items.tolist()) for items in np.split(user_items.indices, user_items.indptr[1:-1])]


def epoch(
    user_items: sp.csr_matrix, known: list[set[int]], batch_size: int, draw: Callable[[int], int], *, seed: int = 0
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Shuffled batches (users, positives, negatives), int64 [n] each.

    Args:
        user_items: the interactions [U, I].
        known: `known_items` of them.
        batch_size: interactions of a batch.
        draw: gives an item below a bound, as `random.randrange` and `numpy.random.randint` do. Published samplers call
            the latter, which takes most of their time.
        seed: of the order.
    """
    edges, items = user_items.tocoo(), user_items.shape[1]
    order = np.random.default_rng(seed).permutation(edges.nnz)
    users, positives = edges.row[order].astype(np.int64), edges.col[order].astype(np.int64)
    negatives = np.empty_like(users)
    for place, user in enumerate(users.tolist()):
        negative = draw(items)
        while negative in known[user]:
            negative = draw(items)
        negatives[place] = negative
    for start in range(0, len(users), batch_size):
        part = slice(start, start + batch_size)
        yield torch.from_numpy(users[part]), torch.from_numpy(positives[part]), torch.from_numpy(negatives[part])
