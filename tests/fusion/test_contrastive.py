import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gensr.fusion import InfoNCE
from gensr.fusion.contrastive.config import CONTRASTIVE_LOSSES
from gensr.fusion.contrastive.info_nce import info_nce
from gensr.testing.contrastive import ContrastiveContract


class TestEveryContrastiveLoss(ContrastiveContract):
    @pytest.fixture(autouse=True, params=CONTRASTIVE_LOSSES.names())
    def _name(self, request):
        self.config = CONTRASTIVE_LOSSES.get(request.param)()
        self.has_negatives, self.pairs_rows = self.config.has_negatives, self.config.pairs_rows

    def make(self):
        return self.config.build(dim=self.dim)


def by_hand(a, b, group, temperature):
    """Equation 10 with loops over users."""

    def sim(x, y):
        return torch.cosine_similarity(x, y, dim=0) / temperature

    total = torch.zeros(())
    for mine, other in ((a, b), (b, a)):
        for u in range(len(a)):
            positive = sim(mine[u], other[u]).exp()
            rest = sum(
                (
                    sim(mine[u], other[v]).exp() + sim(mine[u], mine[v]).exp()
                    for v in range(len(a))
                    if group[v] != group[u]
                ),
                start=torch.zeros(()),
            )
            total = total - (positive / (positive + rest)).log()
    return total / (2 * len(a))


@given(st.integers(2, 6), st.integers(1, 4), st.integers(0, 999), st.sampled_from([0.07, 0.5, 2.0]))
@settings(max_examples=30, deadline=None)
def test_the_loss_follows_equation_10(rows, groups, seed, temperature):
    generator = torch.Generator().manual_seed(seed)
    a, b = (torch.randn(rows, 5, generator=generator) for _ in range(2))
    group = torch.randint(groups, (rows,), generator=generator)
    expected = by_hand(a, b, group, temperature)
    torch.testing.assert_close(info_nce(a, b, group, temperature=temperature), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("rows", [32, 200])
def test_unrelated_views_start_within_a_tenth_of_ln_2b_minus_1(rows):
    torch.manual_seed(0)
    value = InfoNCE()(torch.randn(rows, 768), torch.randn(rows, 768), torch.arange(rows))
    assert value.item() == pytest.approx(math.log(2 * rows - 1), rel=0.1)


def test_it_is_symmetric_in_the_views():
    torch.manual_seed(0)
    a, b = torch.randn(2, 8, 5)
    torch.testing.assert_close(info_nce(a, b), info_nce(b, a))


def test_the_length_of_vectors_does_not_matter():
    torch.manual_seed(0)
    a, b = torch.randn(2, 8, 5)
    torch.testing.assert_close(info_nce(a * 100, b * 0.01), info_nce(a, b))


@pytest.mark.parametrize("rows", [1, 6])
def test_rows_without_negatives_cost_nothing_and_pull_nothing(rows):
    a, b = torch.randn(2, rows, 5).requires_grad_()
    a.retain_grad()
    value = info_nce(a, b, torch.ones(rows, dtype=torch.int64))
    value.backward()
    assert value == 0
    assert not a.grad.any()


def test_rows_of_one_user_are_not_pushed_apart():
    a, b = torch.eye(4)[[0, 0, 1]], torch.eye(4)[[0, 0, 1]]
    assert info_nce(a, b, torch.tensor([7, 7, 8])) < 1e-5
    assert info_nce(a, b, torch.tensor([7, 9, 8])) > 0.5


def test_it_computes_in_float32_under_autocast():
    torch.manual_seed(0)
    a, b = torch.randn(2, 16, 32)
    with torch.autocast("cpu", torch.bfloat16):
        value = info_nce(a, b)
    assert torch.equal(value, info_nce(a, b))


def test_a_temperature_of_zero_is_refused():
    with pytest.raises(ValueError, match="temperature=0: expected a number above 0"):
        InfoNCE(temperature=0)
