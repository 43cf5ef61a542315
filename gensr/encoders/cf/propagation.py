"""Propagation on the interaction graph, fast on sparse graphs and without a matrix of users x items.

A product with the adjacency is a gather of neighbours' rows, so memory decides its speed. On the CPU it runs as an
embedding bag, whose kernel asks for rows ahead of their use and takes half the time of the sparse library's product;
and in blocks of rows, whose sums find room in memory that the allocator keeps at hand. As much as all rows need would
come fresh from the system each time.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
import torch.nn.functional as F
from torch import Tensor

BLOCK = 1 << 22
"""Numbers of a product computed together: 16 MiB. In many small blocks, threads would mostly wait for one another."""


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


def sum_over_layers(adjacency: Tensor, start: Tensor, layers: int, memory: Tensor) -> Tensor:
    """The sum over layers 0..K of A^k E0, by Horner's scheme: E0 + A (E0 + A (...)).

    Args:
        adjacency: A, sparse CSR [N, N].
        start: E0, float32 [N, d], contiguous; not part of `memory`.
        layers: K.
        memory: float32 [2, N, d], overwritten; the result is one of its halves, or `start` where K is 0.
    """
    total = start
    for layer in range(layers):
        total = _add_product(start, adjacency, total, out=memory[layer % 2])
    return total


class MeanOverLayers(torch.autograd.Function):
    """Mean over layers 0..K of A^k E0, for a symmetric A, with a backward pass of the same cost.

    A is symmetric, so the map is its own transpose. The product's own backward would also differentiate with respect
    to the sparse matrix.
    """

    @staticmethod
    def forward(ctx: Any, adjacency: Tensor, start: Tensor, layers: int) -> Tensor:
        """See `sum_over_layers`."""
        ctx.adjacency, ctx.layers = adjacency, layers
        memory = start.new_empty(2, *start.shape)
        return sum_over_layers(adjacency, start, layers, memory) / (layers + 1)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[None, Tensor, None]:
        """The same map, of the gradient."""
        return None, MeanOverLayers.forward(ctx, ctx.adjacency, gradients[0].contiguous(), ctx.layers), None


def _add_product(start: Tensor, adjacency: Tensor, factor: Tensor, *, out: Tensor) -> Tensor:
    """`start` + `adjacency` @ `factor`, written to `out`."""
    if out.device.type != "cpu":
        return torch.addmm(start, adjacency, factor, out=out)
    ends, columns, values = adjacency.crow_indices(), adjacency.col_indices(), adjacency.values()
    step = max(1, BLOCK // out.shape[1])
    for begin in range(0, len(out), step):
        rows = slice(begin, begin + step)
        offsets = ends[begin : begin + step + 1]
        edges = slice(int(offsets[0]), int(offsets[-1]))
        product = F.embedding_bag(
            columns[edges],
            factor,
            offsets - offsets[0],
            per_sample_weights=values[edges],
            mode="sum",
            include_last_offset=True,
        )
        torch.add(start[rows], product, out=out[rows])
    return out
