"""Objectives against their formulas, and samplers against their distributions."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from gensr.rankers.blocks import losses
from gensr.rankers.blocks.samplers import PowerSampler


def numbers(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_bce_starts_at_two_ln_two_for_one_negative():
    assert float(losses.bce(torch.zeros(()), torch.zeros(1))) == pytest.approx(2 * math.log(2))


def test_bce_is_the_cross_entropy_of_the_labels():
    positive, negatives = numbers(5), numbers(5, 3, seed=1)
    logits = torch.cat([positive.unsqueeze(1), negatives], 1)
    labels = torch.tensor([1.0, 0.0, 0.0, 0.0]).expand(5, 4)
    expected = F.binary_cross_entropy_with_logits(logits, labels, reduction="none").sum(1)
    torch.testing.assert_close(losses.bce(positive, negatives), expected)


def test_bce_of_huge_logits_is_finite():
    assert float(losses.bce(torch.tensor(-1e4), torch.tensor([1e4]))) == pytest.approx(2e4)


def test_the_calibration_of_gbce_runs_from_plain_bce_to_the_sampling_rate():
    assert losses.gbce_beta(1, 1001, 0.0) == pytest.approx(1.0)
    assert losses.gbce_beta(10, 1001, 1.0) == pytest.approx(0.01)
    assert losses.gbce_beta(256, 3417, 0.75) == pytest.approx(0.75 * (256 / 3416 - 1) + 1)
    assert losses.gbce_beta(5000, 1001, 0.75) == pytest.approx(1.0)  # more draws than items: nothing to correct


@pytest.mark.parametrize("chunk", [2, 100])
def test_the_softmax_runs_over_all_items_but_the_padding(chunk):
    states, items = numbers(5, 3).requires_grad_(), numbers(8, 3, seed=1).requires_grad_()
    target = torch.tensor([1, 7, 3, 3, 2])
    found = losses.softmax(states, items, target, chunk=chunk)
    expected = F.cross_entropy((states @ items.T)[:, 1:], target - 1, reduction="none")
    torch.testing.assert_close(found, expected)
    grads = [torch.autograd.grad(loss.sum(), (states, items), retain_graph=True) for loss in (found, expected)]
    torch.testing.assert_close(*grads)
    assert not grads[0][1][0].any()


def test_equal_scores_cost_ln_of_the_catalogue():
    assert float(losses.softmax(torch.zeros(1, 3), numbers(51, 3), torch.tensor([4]))) == pytest.approx(math.log(50))


def test_the_sampled_softmax_corrects_logits_and_leaves_the_target_out_of_the_samples():
    states, items = numbers(2, 3), numbers(6, 3, seed=1)
    target, samples = torch.tensor([1, 4]), torch.tensor([4, 2, 5])
    log_chance = torch.tensor([0.0, -1.0, -2.0, -3.0, -4.0, -5.0])
    found = losses.sampled_softmax(states, items, target, samples, log_chance)
    for row, (goal, others) in enumerate([(1, [4, 2, 5]), (4, [2, 5])]):
        logits = torch.stack([states[row] @ items[i] - log_chance[i] for i in (goal, *others)])
        assert float(found[row]) == pytest.approx(-float(logits.log_softmax(0)[0]), abs=1e-6)


def test_many_uniform_samples_estimate_the_whole_softmax():
    states, items, target = numbers(4, 3), numbers(21, 3, seed=1), torch.tensor([1, 5, 9, 20])
    torch.manual_seed(0)
    sampler = PowerSampler(torch.ones(21, dtype=torch.int64), power=0.0)
    drawn = sampler.draw(40_000)
    # Of S uniform samples each item comes S / 20 times; the truth, left out among them, comes once.
    log_chance = sampler.log_chance + math.log(len(drawn))
    log_one = log_chance.clone()
    log_one[target] = 0.0
    found = torch.stack(
        [losses.sampled_softmax(states[i : i + 1], items, target[i : i + 1], drawn, log_chance)[0] for i in range(4)]
    )
    positive = (states * items[target]).sum(1)
    others = (states @ items[1:].T).exp().sum(1) - positive.exp()
    corrected = positive - log_chance[target]
    expected = torch.log(corrected.exp() + others) - corrected
    torch.testing.assert_close(found, expected, atol=0.05, rtol=0.05)


@settings(deadline=None)
@given(power=st.sampled_from([0.0, 0.5, 0.75, 1.0]), seed=st.integers(0, 99))
def test_rows_are_drawn_in_proportion_to_a_power_of_their_counts(power, seed):
    torch.manual_seed(seed)
    sampler = PowerSampler(torch.tensor([999, 1, 16, 0, 81]), power=power)
    drawn = sampler.draw(100, 300)
    shares = torch.bincount(drawn.flatten(), minlength=5) / drawn.numel()
    weights = torch.tensor([0.0, 1.0, 16.0**power, 1.0, 81.0**power])
    torch.testing.assert_close(shares, weights / weights.sum(), atol=0.015, rtol=0)
    torch.testing.assert_close(sampler.log_chance.exp(), weights / weights.sum())
