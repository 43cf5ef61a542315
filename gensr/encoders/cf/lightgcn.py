"""LightGCN, trained with BPR on the interaction graph, without ever building a dense users x items matrix."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gensr.encoders.cf.table import CFTable, zero_untouched
from gensr.errors import BadInputError

STEPS = 16
"""Fewest steps of an epoch: a small log is cut into smaller batches, or it would be seen in a handful of steps."""


def normalised_adjacency(user_items: sp.csr_matrix) -> Tensor:
    """Symmetrically normalised adjacency of the bipartite graph, D^-1/2 A D^-1/2 (LightGCN eq. 3 and 7).

    Args:
        user_items: [U+1, I+1]; whatever is stored and not zero is one edge.

    Returns:
        Sparse CSR float32 [N, N], N = (U+1) + (I+1), users first; empty rows for nodes without edges.
    """
    edges = user_items.astype(bool).astype(np.float32)
    edges.eliminate_zeros()
    graph = sp.bmat([[None, edges], [edges.T, None]], format="csr", dtype=np.float32)
    degree = np.diff(graph.indptr).astype(np.float32)
    scale = sp.diags(np.divide(1.0, np.sqrt(degree), out=np.zeros_like(degree), where=degree > 0))
    graph = (scale @ graph @ scale).tocsr().astype(np.float32)
    rows, columns, values = map(torch.from_numpy, (graph.indptr, graph.indices, graph.data))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta", UserWarning)
        return torch.sparse_csr_tensor(rows, columns, values, graph.shape, check_invariants=True)


def _mean_over_layers(adjacency: Tensor, start: Tensor, layers: int) -> Tensor:
    total = start
    for _ in range(layers):
        total = torch.addmm(start, adjacency, total)  # Horner's scheme: E0 + A (E0 + A (...))
    return total / (layers + 1)


class _Propagate(torch.autograd.Function):
    """Mean over layers 0..K of A^k E0, with a backward pass of the same cost.

    A is symmetric, so the map is its own transpose. The product's own backward would also differentiate with respect
    to the sparse matrix.
    """

    @staticmethod
    def forward(ctx: Any, adjacency: Tensor, start: Tensor, layers: int) -> Tensor:
        ctx.adjacency, ctx.layers = adjacency, layers
        return _mean_over_layers(adjacency, start, layers)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[None, Tensor, None]:
        return None, _mean_over_layers(ctx.adjacency, gradients[0].contiguous(), ctx.layers), None


class LightGCN(nn.Module):
    """Embeddings of users and items, propagated on the graph of their interactions (He et al., SIGIR 2020).

    Args:
        user_items: sparse [U+1, I+1], row and column 0 empty; training events only.
        dim: width d.
        layers: propagation steps K; 0 is plain matrix factorisation.
        regularization: weight of the squared layer-0 embeddings of a batch.
        seed: for the starting values, normal with deviation 0.1.
    """

    adjacency: Tensor

    def __init__(
        self, user_items: sp.csr_matrix, *, dim: int = 64, layers: int = 2, regularization: float = 1e-4, seed: int = 0
    ) -> None:
        super().__init__()
        self.num_users, self.layers, self.regularization = user_items.shape[0], layers, regularization
        self.register_buffer("adjacency", normalised_adjacency(user_items), persistent=False)
        generator = torch.Generator().manual_seed(seed)
        self.embedding = nn.Parameter(torch.randn(sum(user_items.shape), dim, generator=generator) * 0.1)

    def propagate(self) -> tuple[Tensor, Tensor]:
        """Mean over layers 0..K: users [U+1, d] and items [I+1, d] (eq. 4 and 8, equal layer weights)."""
        nodes = self._nodes()
        return nodes[: self.num_users], nodes[self.num_users :]

    def loss(self, users: Tensor, positives: Tensor, negatives: Tensor) -> Tensor:
        """BPR (eq. 15): mean softplus(negative - positive score), plus the penalty on layer 0.

        Args:
            users: int64 [n] user rows.
            positives: int64 [n] rows of items they touched.
            negatives: int64 [n] rows of items they did not.
        """
        rows = torch.stack([users, positives + self.num_users, negatives + self.num_users])  # [3, n]
        user, positive, negative = F.embedding(rows, self._nodes())  # each [n, d]
        ranking = F.softplus((user * (negative - positive)).sum(1)).mean()
        penalty = 0.5 * F.embedding(rows, self.embedding).square().sum() / len(users)
        return ranking + self.regularization * penalty

    def _nodes(self) -> Tensor:
        nodes: Tensor = _Propagate.apply(self.adjacency, self.embedding, self.layers)  # type: ignore[no-untyped-call]
        return nodes


class BPRSampler:
    """Shuffled interactions with one uniform negative each; an epoch visits every interaction once.

    Negatives are uniform over the items that somebody touched (the others have no edge, and end as zero rows) and that
    the user did not. A user who touched all of them can have no negative and is left out.

    Raises:
        BadInputError: no user can have a negative.
    """

    def __init__(self, user_items: sp.csr_matrix, *, seed: int) -> None:
        edges = user_items.tocoo()
        edges.eliminate_zeros()
        self.width = user_items.shape[1]
        keys = np.unique(edges.row.astype(np.int64) * self.width + edges.col)  # sorted: looked up by bisection
        users = keys // self.width
        self.touched = np.unique(keys % self.width)
        self.keys = keys
        self.positives = keys[np.bincount(users)[users] < len(self.touched)] if len(keys) else keys
        if not len(self.positives):
            raise BadInputError(
                f"LightGCN learns from interactions compared with items a user did not touch, and there are none: "
                f"{len(keys)} interactions with {len(self.touched)} items"
            )
        self.generator = np.random.default_rng(seed)

    def epoch(self, batch_size: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Batches of (users, positives, negatives), int64 [n] each; the last one may be short."""
        order = self.generator.permutation(self.positives)
        for start in range(0, len(order), batch_size):
            users, positives = np.divmod(order[start : start + batch_size], self.width)
            yield tuple(map(torch.from_numpy, (users, positives, self._negatives(users))))  # type: ignore[misc]

    def _negatives(self, users: np.ndarray) -> np.ndarray:
        items = self.touched[self.generator.integers(len(self.touched), size=len(users))]
        wrong = np.flatnonzero(self._known(users, items))
        while len(wrong):
            items[wrong] = self.touched[self.generator.integers(len(self.touched), size=len(wrong))]
            wrong = wrong[self._known(users[wrong], items[wrong])]
        return items

    def _known(self, users: np.ndarray, items: np.ndarray) -> np.ndarray:
        keys = users * self.width + items
        place = np.searchsorted(self.keys, keys).clip(max=len(self.keys) - 1)
        return np.asarray(self.keys[place] == keys)


def fit_lightgcn(
    user_items: sp.csr_matrix,
    *,
    dim: int,
    layers: int,
    epochs: int,
    batch_size: int,
    learning_rate: float,
    regularization: float,
    layer0: bool = False,
    seed: int = 0,
    device: str = "cpu",
    progress: bool = False,
) -> CFTable:
    """Train LightGCN and export its tables; repeatable for one seed and number of threads.

    Args:
        user_items: sparse [U+1, I+1], row and column 0 empty; training events only.
        dim: width of the vectors.
        layers: propagation steps.
        epochs: passes over the interactions.
        batch_size: most interactions per step; fewer on a log too small for `STEPS` such batches.
        learning_rate: Adam step size.
        regularization: weight of the squared layer-0 embeddings of a batch.
        layer0: export layer 0 instead of the mean over layers (as the released GenSR code reads it).
        seed: for starting values, order and negatives.
        device: where to compute.
        progress: show a bar on stderr.

    Returns:
        Float32 tables on the CPU; zero in every row without an interaction.

    Raises:
        BadInputError: there is nothing to learn from (see `BPRSampler`), or the loss became NaN.
    """
    from gensr.progress import Progress

    sampler = BPRSampler(user_items, seed=seed)
    batch_size = min(batch_size, -(-len(sampler.positives) // STEPS))
    model = LightGCN(user_items, dim=dim, layers=layers, regularization=regularization, seed=seed).to(device)
    optimizer = torch.optim.Adam(model.parameters(), lr=learning_rate, fused=True)
    with Progress(enabled=progress).bar("LightGCN", epochs) as bar:
        for epoch in range(1, epochs + 1):
            loss = _train_epoch(model, optimizer, sampler.epoch(batch_size))
            if not np.isfinite(loss):
                raise BadInputError(
                    f"LightGCN diverged in epoch {epoch}: lower its learning_rate, which is {learning_rate:g}"
                )
            bar.advance()
            bar.say(f"loss {loss:.3f}")
    with torch.no_grad():
        nodes = (model.embedding if layer0 else torch.cat(model.propagate())).cpu()
        nodes = zero_untouched(nodes, (model.adjacency.crow_indices().diff() > 0).cpu())
    return CFTable(nodes[: model.num_users].contiguous(), nodes[model.num_users :].contiguous())


def _train_epoch(
    model: LightGCN, optimizer: torch.optim.Optimizer, batches: Iterator[tuple[Tensor, Tensor, Tensor]]
) -> float:
    """One pass; the mean loss of its steps."""
    losses = []
    for batch in batches:
        optimizer.zero_grad()
        loss = model.loss(*(part.to(model.embedding.device) for part in batch))
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        losses.append(loss.detach())
    return float(torch.stack(losses).mean())
