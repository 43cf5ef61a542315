"""LightGCN, trained with BPR on the interaction graph, without ever building a dense users x items matrix."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import scipy.sparse as sp
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gensr.data.negatives import Touched
from gensr.encoders.cf.propagation import MeanOverLayers, normalised_adjacency, sum_over_layers
from gensr.encoders.cf.table import CFTable, zero_untouched
from gensr.errors import BadInputError

STEPS = 16
"""Fewest steps of an epoch: a small log is cut into smaller batches, or it would be seen in a handful of steps."""


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
        rows = self._rows(users, positives, negatives)
        return self._loss_of_rows(F.embedding(rows, self._nodes()), F.embedding(rows, self.embedding))

    def backward(self, users: Tensor, positives: Tensor, negatives: Tensor, *, memory: Tensor) -> Tensor:
        """`loss`, without its graph: its gradient is left in `embedding.grad`, in place of what was there.

        What ``loss(...).backward()`` does, in memory that serves every step. Fresh memory of the size of a big graph
        takes the system longer to hand out than a product takes to compute.

        Args:
            users: as in `loss`.
            positives: as in `loss`.
            negatives: as in `loss`.
            memory: float32 [3, N, d], overwritten; the gradient is a part of it.
        """
        rows = self._rows(users, positives, negatives)
        spare, scattered = memory[:2], memory[2]
        with torch.no_grad():
            nodes = F.embedding(rows, self._sum(self.embedding, spare)) / (self.layers + 1)
            starts = F.embedding(rows, self.embedding)
        loss = self._loss_of_rows(nodes.requires_grad_(), starts.requires_grad_())
        of_nodes, of_starts = (part.flatten(0, 1) for part in torch.autograd.grad(loss, (nodes, starts)))
        rows = rows.flatten()
        scattered = scattered.zero_().index_add_(0, rows, of_nodes / (self.layers + 1))
        self.embedding.grad = self._sum(scattered, spare).index_add_(0, rows, of_starts)
        return loss.detach()

    def _rows(self, users: Tensor, positives: Tensor, negatives: Tensor) -> Tensor:
        """Nodes of a batch, int64 [3, n]."""
        return torch.stack([users, positives + self.num_users, negatives + self.num_users])

    def _loss_of_rows(self, nodes: Tensor, starts: Tensor) -> Tensor:
        """`loss` from the batch's rows [3, n, d] of the mean over layers and of layer 0."""
        user, positive, negative = nodes
        ranking = F.softplus((user * (negative - positive)).sum(1)).mean()
        return ranking + self.regularization * 0.5 * starts.square().sum() / len(user)

    def _nodes(self) -> Tensor:
        nodes: Tensor = MeanOverLayers.apply(self.adjacency, self.embedding, self.layers)  # type: ignore[no-untyped-call]
        return nodes

    def _sum(self, start: Tensor, memory: Tensor) -> Tensor:
        return sum_over_layers(self.adjacency, start, self.layers, memory)


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
        self.known = Touched(edges.row, edges.col, *(size - 1 for size in user_items.shape))
        keys = self.known.keys
        self.touched = np.unique(keys % self.width)
        self.positives = keys[self.known.counts[keys // self.width] < len(self.touched)]
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
        wrong = np.flatnonzero(self.known.contains(users, items))
        while len(wrong):
            items[wrong] = self.touched[self.generator.integers(len(self.touched), size=len(wrong))]
            wrong = wrong[self.known.contains(users[wrong], items[wrong])]
        return items


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
    """Train LightGCN and export its tables; on a CPU repeatable for one seed.

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
    memory = model.embedding.new_empty(3, *model.embedding.shape)
    with Progress(enabled=progress).bar("LightGCN", epochs) as bar:
        for epoch in range(1, epochs + 1):
            loss = _train_epoch(model, optimizer, sampler.epoch(batch_size), memory)
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
    model: LightGCN, optimizer: torch.optim.Optimizer, batches: Iterator[tuple[Tensor, Tensor, Tensor]], memory: Tensor
) -> float:
    """One pass; the mean loss of its steps."""
    losses = []
    for batch in batches:
        losses.append(model.backward(*(part.to(memory.device) for part in batch), memory=memory))
        optimizer.step()
    return float(torch.stack(losses).mean())
