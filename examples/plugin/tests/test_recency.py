import math

import pytest
import torch
from gensr_recency.recency import RecencyFilter, recency_weights

from gensr.fusion import MeanFilter
from gensr.fusion.soft_filter.config import SOFT_FILTERS
from gensr.testing.soft_filter import SoftFilterContract


class TestRecencyKeepsTheContractOfSoftFilters(SoftFilterContract):
    def make(self):
        return SOFT_FILTERS.parse("recency").build(dim=self.dim)


def test_an_item_weighs_half_after_one_half_life():
    mask = torch.ones(1, 5, dtype=torch.bool)
    weights = recency_weights(mask, torch.tensor(math.log(2) / 2))[0]
    expected = torch.tensor([0.5 ** (age / 2) for age in (4, 3, 2, 1, 0)])
    torch.testing.assert_close(weights, expected / expected.sum())


def test_only_real_events_count_as_following():
    mask = torch.tensor([[True, True, False, False]])
    weights = recency_weights(mask, torch.tensor(math.log(3)))
    torch.testing.assert_close(weights, torch.tensor([[0.25, 0.75, 0.0, 0.0]]))


def test_without_decay_it_is_the_mean_filter():
    history, candidate = torch.randn(2, 4, 3), torch.randn(2, 2, 3)
    mask = torch.tensor([[True] * 4, [True, False, False, False]])
    recency = RecencyFilter()
    torch.nn.init.constant_(recency.raw_rate, -100)
    torch.testing.assert_close(recency(history, candidate, mask), MeanFilter()(history, candidate, mask))


def test_the_rate_starts_at_the_half_life_and_is_learnt():
    recency = RecencyFilter(half_life=3)
    assert recency.rate.item() == pytest.approx(math.log(2) / 3)
    recency(torch.randn(2, 4, 3), torch.randn(2, 1, 3), torch.ones(2, 4, dtype=torch.bool)).tokens.sum().backward()
    assert recency.raw_rate.grad


def test_a_half_life_of_zero_is_refused():
    with pytest.raises(ValueError, match="half_life=0: expected a number above 0"):
        RecencyFilter(half_life=0)
