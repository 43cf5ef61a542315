"""Experts that several tasks share, mixed by a gate for each task: MMoE, and a level of PLE."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from itertools import accumulate
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def linear_of_parts(parts: Sequence[Tensor], weight: Tensor, bias: Tensor) -> Tensor:
    """A linear map of the concatenation of `parts`, which is never made.

    What is the same for all candidates of a request is thus multiplied once.

    Args:
        parts: [..., d_i], broadcast against each other.
        weight: [out, sum of d_i].
        bias: [out].

    Returns:
        [..., out].
    """
    ends = list(accumulate(part.shape[-1] for part in parts))
    pieces = (weight[:, end - part.shape[-1] : end] for part, end in zip(parts, ends, strict=True))
    mapped = [part @ piece.T for part, piece in zip(parts, pieces, strict=True)]
    # Small ones first: what is broadcast last is added to the large tensor once.
    return reduce(torch.add, sorted(mapped, key=torch.Tensor.numel), bias)


class Experts(nn.Module):
    """`count` networks of one layer: linear, ReLU, dropout.

    Args:
        count: experts.
        dim: width of the input.
        out: width of each output.
        dropout: in training.

    Input: parts [..., d_i] of `dim` in sum. Output: [..., count, out].
    """

    def __init__(self, count: int, dim: int, out: int, *, dropout: float = 0.0) -> None:
        super().__init__()
        self.out, self.dropout = out, dropout
        self.linear = nn.Linear(dim, count * out)  # side by side: one product for all

    def forward(self, parts: Sequence[Tensor]) -> Tensor:
        """See the class."""
        mapped = linear_of_parts(parts, self.linear.weight, self.linear.bias).relu()
        mapped = F.dropout(mapped, self.dropout, self.training)
        return mapped.view(*mapped.shape[:-1], -1, self.out)


class TaskExperts(nn.Module):
    """For each task, a gated mixture of its own experts and of those all tasks share.

    With experts of both kinds it is one level of PLE, the last one, which needs no shared output (Tang et al., RecSys
    2020, eq. 1-5); without own ones it is MMoE (Ma et al., KDD 2018, eq. 6-7).

    Args:
        tasks: number of tasks.
        dim: width of the input.
        out: width of the output.
        shared: experts that all tasks share.
        own: experts of each task.
        dropout: in training, behind each expert.

    Input: parts [..., d_i] of `dim` in sum, and the task they belong to. Output: [..., out].
    """

    def __init__(self, tasks: int, dim: int, out: int, *, shared: int, own: int = 0, dropout: float = 0.0) -> None:
        super().__init__()
        if shared + own < 1:
            raise ValueError("neither shared nor own experts: expected at least one")
        self.shared = Experts(shared, dim, out, dropout=dropout) if shared else None
        self.own = nn.ModuleList(Experts(own, dim, out, dropout=dropout) for _ in range(tasks if own else 0))
        self.gates = nn.ModuleList(nn.Linear(dim, shared + own) for _ in range(tasks))

    def forward(self, task: int, parts: Sequence[Tensor]) -> Tensor:
        """See the class.

        Args:
            task: from 0.
            parts: what stands side by side in the input.
        """
        gate = cast(nn.Linear, self.gates[task])
        weights = linear_of_parts(parts, gate.weight, gate.bias).softmax(-1).unsqueeze(-2)  # [..., 1, experts]
        experts = [*([self.own[task]] if len(self.own) else []), *([self.shared] if self.shared else [])]
        found = torch.cat([expert(parts) for expert in experts], dim=-2)  # [..., experts, out]
        return (weights @ found).squeeze(-2)
