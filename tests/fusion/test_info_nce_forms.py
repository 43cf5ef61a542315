"""InfoNCE with another similarity, a learnt temperature, and pairs against pools."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gensr.fusion.contrastive.info_nce import TanhBilinear, info_nce, pool_info_nce


def tanh_bilinear(x, y, form):
    return torch.tanh(sum(x[i] * form[i, j] * y[j] for i in range(len(x)) for j in range(len(y))))


@given(st.integers(2, 5), st.integers(1, 4), st.integers(0, 999))
@settings(max_examples=20, deadline=None)
def test_an_asymmetric_similarity_reads_each_row_as_its_first_argument(rows, groups, seed):
    torch.manual_seed(seed)
    a, b = torch.randn(2, rows, 3)
    group = torch.randint(groups, (rows,))
    similarity = TanhBilinear(3, temperature=0.4)
    total = torch.zeros(())
    for mine, other in ((a, b), (b, a)):
        for u in range(rows):
            positive = tanh_bilinear(mine[u], other[u], similarity.form) / 0.4
            rest = [
                tanh_bilinear(mine[u], view[v], similarity.form) / 0.4
                for v in range(rows)
                for view in (other, mine)
                if group[v] != group[u]
            ]
            total = total + torch.stack([positive, *rest]).logsumexp(0) - positive
    found = info_nce(a, b, group, temperature=similarity.temperature, similarity=similarity)
    torch.testing.assert_close(found, total / (2 * rows), atol=1e-4, rtol=1e-4)


def test_a_temperature_given_as_a_tensor_is_learnt():
    torch.manual_seed(0)
    temperature = torch.tensor(0.5, requires_grad=True)
    info_nce(*torch.randn(2, 4, 3), temperature=temperature).backward()
    assert temperature.grad.isfinite()
    assert temperature.grad != 0


@given(st.integers(1, 4), st.integers(1, 5), st.integers(1, 5), st.integers(0, 999))
@settings(max_examples=20, deadline=None)
def test_pairs_against_pools_follow_their_equation(pairs, firsts, seconds, seed):
    torch.manual_seed(seed)
    a, b = torch.randn(2, pairs, 3)
    pool_a, pool_b = torch.randn(firsts, 3), torch.randn(seconds, 3)
    same_a, same_b = torch.rand(pairs, firsts) < 0.3, torch.rand(pairs, seconds) < 0.3
    weight = torch.rand(pairs) + 0.1
    similarity = TanhBilinear(3, temperature=0.3)

    def sim(x, y):
        return tanh_bilinear(x, y, similarity.form) / 0.3

    losses = []
    for i in range(pairs):
        own = sim(a[i], b[i])
        items = [sim(a[i], other) for other, same in zip(pool_b, same_b[i], strict=True) if not same]
        queries = [sim(other, b[i]) for other, same in zip(pool_a, same_a[i], strict=True) if not same]
        losses.append(sum(torch.stack([own, *rest]).logsumexp(0) - own for rest in (items, queries)) / 2)
    expected = (torch.stack(losses) * weight).sum() / weight.sum()
    options = {"same_a": same_a, "same_b": same_b, "weight": weight}
    found = pool_info_nce(a, b, pool_a, pool_b, **options, temperature=similarity.temperature, similarity=similarity)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


def test_where_all_is_alike_a_pair_costs_ln_of_the_options():
    similarity = TanhBilinear(4, temperature=0.1)
    torch.nn.init.zeros_(similarity.form)
    a, b, pools = torch.randn(2, 4), torch.randn(2, 4), torch.randn(1024, 4)
    found = pool_info_nce(a, b, pools, pools, temperature=similarity.temperature, similarity=similarity)
    assert found.item() == pytest.approx(math.log(1025))


def test_left_out_pool_entries_leave_every_gradient_finite():
    torch.manual_seed(0)
    similarity = TanhBilinear(4, temperature=0.1)
    a = torch.randn(3, 4, requires_grad=True)
    everything = torch.ones(3, 5, dtype=torch.bool)
    options = {"same_a": everything, "same_b": everything}
    temperature = similarity.temperature
    pool = torch.randn(5, 4)
    pool_info_nce(a, a, pool, pool, **options, temperature=temperature, similarity=similarity).backward()
    assert not a.grad.any()
    assert not similarity.tau.grad.any()


def test_a_learnt_temperature_stays_away_from_zero():
    similarity = TanhBilinear(4, temperature=0.1)
    with torch.no_grad():
        similarity.tau.fill_(-3.0)
    assert similarity.temperature.item() == pytest.approx(0.01)
    with pytest.raises(ValueError, match="temperature=0: expected a number above 0"):
        TanhBilinear(4, temperature=0)
