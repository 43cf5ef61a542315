"""Experts: PLE and MMoE against their equations, and linear maps of parts against those of the whole."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from gensr.rankers.blocks.experts import Experts, TaskExperts, linear_of_parts


@given(st.lists(st.integers(1, 5), min_size=1, max_size=4), st.integers(0, 99))
@settings(max_examples=25, deadline=None)
def test_a_linear_map_of_parts_is_that_of_their_concatenation(widths, seed):
    torch.manual_seed(seed)
    linear = nn.Linear(sum(widths), 7)
    parts = [torch.randn(2, 1 if at % 2 else 3, width) for at, width in enumerate(widths)]
    whole = torch.cat([part.expand(2, 3, -1) for part in parts], dim=-1)
    found = linear_of_parts(parts, linear.weight, linear.bias)
    torch.testing.assert_close(found.expand(2, 3, 7), linear(whole))


def by_hand(experts: TaskExperts, task: int, z: torch.Tensor) -> torch.Tensor:
    """Gated sum over the task's own experts, then the shared ones, expert by expert."""
    outputs = []
    for group in [*experts.own[task : task + 1], *([experts.shared] if experts.shared else [])]:
        weights, biases = group.linear.weight.split(group.out), group.linear.bias.split(group.out)
        outputs += [(z @ weight.T + bias).clamp(min=0) for weight, bias in zip(weights, biases, strict=True)]
    gate = torch.softmax(experts.gates[task](z), dim=-1)
    return sum(gate[..., at, None] * output for at, output in enumerate(outputs))


@pytest.mark.parametrize(("shared", "own"), [(4, 4), (3, 0), (0, 2), (1, 3)])
def test_a_task_gets_the_gated_sum_of_its_own_and_the_shared_experts(shared, own):
    torch.manual_seed(0)
    experts = TaskExperts(2, 10, 6, shared=shared, own=own)
    z = torch.randn(3, 5, 10)
    for task in range(2):
        torch.testing.assert_close(experts(task, [z]), by_hand(experts, task, z))


def test_the_experts_of_another_task_are_not_asked():
    torch.manual_seed(0)
    experts, z = TaskExperts(2, 10, 6, shared=2, own=2), torch.randn(3, 10)
    before = experts(0, [z])
    with torch.no_grad():
        experts.own[1].linear.weight.fill_(torch.nan)
    assert torch.equal(experts(0, [z]), before)


def test_dropout_is_for_training_alone():
    torch.manual_seed(0)
    experts, z = Experts(2, 4, 50, dropout=0.5), [torch.randn(3, 4)]
    assert torch.equal(experts.eval()(z), experts(z))
    assert (experts.train()(z) == 0).float().mean() > (experts.eval()(z) == 0).float().mean()


def test_no_experts_at_all_are_refused():
    with pytest.raises(ValueError, match="neither shared nor own experts: expected at least one"):
        TaskExperts(2, 10, 6, shared=0)
