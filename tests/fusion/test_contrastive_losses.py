"""Each contrastive loss against its published formula, written again with loops over users in float64."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gensr.fusion import (
    MMD,
    BarlowTwins,
    LayerNormNCE,
    SigmoidContrast,
    SymmetricInfoNCE,
    barlow_twins,
    layernorm_nce,
    mmd,
    sigmoid_contrast,
    symmetric_info_nce,
)
from gensr.fusion.contrastive.config import CONTRASTIVE_LOSSES


def views(rows, dim, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(rows, dim, generator=generator) for _ in range(2))


def cosine(x, y):
    return x @ y / np.sqrt((x @ x) * (y @ y))


def stretched(x, gain=1.0, shift=0.0):
    """A row at length 1, then through a LayerNorm."""
    x = x / np.sqrt(x @ x)
    return (x - x.mean()) / np.sqrt(((x - x.mean()) ** 2).mean() + 1e-5) * gain + shift


def cross_entropies(sim, group):
    """Both directions: the row's own counterpart among those of other groups."""
    total, rows = 0.0, range(len(sim))
    for u in rows:
        for s in (sim[u], sim[:, u]):
            options = [s[v] for v in rows if v == u or group[v] != group[u]]
            total += np.log(sum(np.exp(option - s[u]) for option in options))
    return total / (2 * len(sim))


def symmetric_by_hand(a, b, group):
    return cross_entropies(np.array([[cosine(x, y) / 0.3 for y in b] for x in a]), group)


def layernorm_by_hand(a, b, group):
    gain, shift = np.linspace(0.5, 1.5, a.shape[1]), np.linspace(-1, 1, a.shape[1])
    sim = [[stretched(x, gain, shift) @ stretched(y) / 0.3 for y in b] for x in a]
    return cross_entropies(np.array(sim), group)


def layernorm(a, b, group):
    affine = torch.linspace(0.5, 1.5, a.shape[1]), torch.linspace(-1, 1, a.shape[1])
    return layernorm_nce(a, b, group, affine_a=affine, temperature=0.3)


def sigmoid_by_hand(a, b, group):
    if len(set(group)) == 1:
        return 0.0
    total = 0.0
    for u in range(len(a)):
        for v in range(len(a)):
            if u == v or group[u] != group[v]:
                z = 1 if u == v else -1
                total += np.log(1 + np.exp(-z * (3.0 * cosine(a[u], b[v]) - 1.5)))
    return total / len(a)


def barlow_by_hand(a, b, group):
    if len(set(group)) == 1:
        return 0.0
    a, b = ((x - x.mean(0)) / np.sqrt(x.var(0) + 1e-5) for x in (a, b))
    total, width = 0.0, a.shape[1]
    for i in range(width):
        for j in range(width):
            c = sum(a[u, i] * b[u, j] for u in range(len(a))) / len(a)
            total += (1 - c) ** 2 if i == j else 0.1 * c**2
    return total / width


def mmd_by_hand(a, b, group):
    if len(set(group)) == 1:
        return 0.0
    both = [*a, *b]
    pairs = [(x - y) @ (x - y) for i, x in enumerate(both) for j, y in enumerate(both) if i != j]

    def k(x, y):
        return np.mean([np.exp(-((x - y) @ (x - y)) / (m * np.mean(pairs))) for m in (0.5, 3.0)])

    return sum(k(a[u], a[v]) + k(b[u], b[v]) - 2 * k(a[u], b[v]) for u in range(len(a)) for v in range(len(a))) / (
        len(a) ** 2
    )


FORMULAS = {
    "symmetric_info_nce": (lambda a, b, group: symmetric_info_nce(a, b, group, temperature=0.3), symmetric_by_hand),
    "layernorm_nce": (layernorm, layernorm_by_hand),
    "sigmoid": (lambda a, b, group: sigmoid_contrast(a, b, group, scale=3.0, bias=-1.5), sigmoid_by_hand),
    "barlow_twins": (lambda a, b, group: barlow_twins(a, b, group, redundancy=0.1), barlow_by_hand),
    "mmd": (lambda a, b, group: mmd(a, b, group, bandwidths=(0.5, 3.0)), mmd_by_hand),
}


def test_every_loss_is_checked_against_its_formula():
    assert {*FORMULAS, "info_nce"} == set(CONTRASTIVE_LOSSES.names())  # info_nce: tests/fusion/test_contrastive.py


@pytest.mark.parametrize("name", FORMULAS)
@given(st.integers(1, 6), st.integers(1, 4), st.integers(0, 999))
@settings(max_examples=25, deadline=None)
def test_the_loss_follows_its_formula_for_any_groups(name, rows, groups, seed):
    loss, by_hand = FORMULAS[name]
    a, b = views(rows, 5, seed)
    group = torch.randint(groups, (rows,), generator=torch.Generator().manual_seed(seed))
    expected = by_hand(a.double().numpy(), b.double().numpy(), group.tolist())
    assert loss(a, b, group).item() == pytest.approx(expected, rel=1e-3, abs=1e-5)


@pytest.mark.parametrize("name", CONTRASTIVE_LOSSES.names())
@given(st.integers(2, 8), st.integers(1, 5), st.integers(0, 999))
@settings(max_examples=15, deadline=None)
def test_joining_two_groups_never_raises_the_loss(name, rows, groups, seed):
    """Fewer negatives, fewer ways to be wrong."""
    a, b = views(rows, 6, seed)
    group = torch.randint(groups, (rows,), generator=torch.Generator().manual_seed(seed))
    loss = CONTRASTIVE_LOSSES.get(name)().build(dim=6)
    assert loss(a, b, torch.where(group == 1, 0, group)) <= loss(a, b, group) + 1e-5


@pytest.mark.parametrize("name", CONTRASTIVE_LOSSES.names())
def test_equal_views_whose_users_differ_cost_least(name):
    loss = CONTRASTIVE_LOSSES.get(name)().build(dim=64)
    a, b = views(64, 64)
    best = loss(a, a, None)
    for share in (0.1, 0.5):
        assert best <= loss(a, (1 - share) * a + share * b, None)
    assert best < loss(a, b, None)


# Chosen inputs whose value is known in closed form


def test_orthogonal_users_seen_alike_cost_what_the_softmax_says():
    value = symmetric_info_nce(torch.eye(4), torch.eye(4), temperature=0.5)
    assert value.item() == pytest.approx(math.log(1 + 3 * math.exp(-2)))


def test_users_seen_alike_by_everybody_cost_ln_b():
    ones = torch.ones(7, 3)
    assert symmetric_info_nce(ones, ones).item() == pytest.approx(math.log(7))
    assert layernorm_nce(ones, ones).item() == pytest.approx(math.log(7))


def test_sigmoid_of_orthogonal_users_is_a_sum_of_two_kinds_of_pairs():
    value = sigmoid_contrast(torch.eye(4), torch.eye(4), scale=10.0, bias=-10.0)
    assert value.item() == pytest.approx(math.log(2) + 3 * math.log1p(math.exp(-10)))


def test_barlow_twins_of_equal_uncorrelated_features_is_zero_and_of_opposite_ones_four():
    a = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])
    assert barlow_twins(a, a).item() == pytest.approx(0, abs=1e-6)
    assert barlow_twins(a, -a).item() == pytest.approx(4, rel=1e-4)


def test_barlow_twins_of_repeated_features_costs_lambda_for_each_other_feature():
    a = torch.tensor([[1.0], [-1.0]]).repeat(3, 4)
    assert barlow_twins(a, a, redundancy=0.2).item() == pytest.approx(3 * 0.2, rel=1e-3)


def test_mmd_of_two_points_is_known():
    a, b = torch.zeros(2, 3), torch.tensor([[1.0, 0, 0]]).repeat(2, 1)
    # 8 of the 12 ordered pairs of different rows lie at distance 1: the mean squared distance is 2/3
    assert mmd(a, b, bandwidths=(1.5,)).item() == pytest.approx(2 - 2 * math.exp(-1))


# Start values: A.12 check 5 and what the facts say about each form


@pytest.mark.parametrize("rows", [32, 200])
def test_unrelated_views_start_within_a_tenth_of_ln_b(rows):
    assert SymmetricInfoNCE()(*views(rows, 768)).item() == pytest.approx(math.log(rows), rel=0.1)


def test_the_released_form_starts_at_the_largest_of_b_normals_times_its_scale():
    """Dot products of unrelated rows of length sqrt(d) deviate by sqrt(d)."""
    largest = np.random.default_rng(0).standard_normal((20_000, 199)).max(1).clip(min=0).mean()
    expected = math.sqrt(768) / 0.07 * largest
    assert LayerNormNCE(768)(*views(200, 768)).item() == pytest.approx(expected, rel=0.1)


def test_the_released_form_starts_where_the_released_log_does():
    """854.6 in the log. Its 200 rows are 40 users with 5 candidates, alike before training, and it masks no group."""
    values = []
    for seed in range(5):
        a, b = (view.repeat_interleave(5, 0) for view in views(40, 768, seed))
        values.append(LayerNormNCE(768)(a, b).item())
    assert np.mean(values) == pytest.approx(854.6, rel=0.1)


def test_sigmoid_starts_at_minus_its_bias_plus_little_for_the_negatives():
    value = SigmoidContrast()(*views(200, 768)).item()
    # cosines of unrelated rows deviate by 1/sqrt(768), so exp(10 cos) is exp(100 / 768 / 2) on average
    assert value == pytest.approx(10 + 199 * math.exp(-10 + 50 / 768), rel=0.02)


def test_barlow_twins_starts_near_one():
    value = BarlowTwins()(*views(200, 768)).item()
    assert value == pytest.approx(1 + (1 + 5e-3 * 767) / 199, rel=0.02)


def test_mmd_is_small_for_one_distribution_and_grows_with_a_shift():
    a, b = views(200, 16)
    near, shifted, far = (MMD()(a, b + shift).item() for shift in (0.0, 0.5, 5.0))
    assert 0 <= near < 2 / 200
    assert shifted > 5 * near
    assert far > 0.5


@pytest.mark.parametrize("size", [1e-3, 1.0, 1e3])
def test_mmd_looks_at_no_scale_and_no_origin(size):
    a, b = views(20, 8)
    torch.testing.assert_close(mmd(size * (a + 3), size * (b + 3)), mmd(a, b), rtol=1e-3, atol=1e-5)


@given(st.integers(1, 12), st.integers(0, 999), st.floats(0, 10))
@settings(max_examples=30, deadline=None)
def test_mmd_is_never_negative(rows, seed, shift):
    a, b = views(rows, 3, seed)
    assert mmd(a, b + shift) >= 0
    assert mmd(a, a) >= 0


# What is learnt


def test_scale_and_bias_of_sigmoid_start_as_published_and_are_learnt():
    loss = SigmoidContrast()
    assert loss.log_scale.item() == pytest.approx(math.log(10))
    assert loss.bias.item() == -10
    assert sum(part.numel() for part in loss.parameters()) == 2


def test_the_released_form_learns_a_layer_norm_per_view():
    assert sum(part.numel() for part in LayerNormNCE(768).parameters()) == 3072


@pytest.mark.parametrize("name", CONTRASTIVE_LOSSES.names())
def test_a_plain_training_loop_brings_two_tables_together(name):
    torch.manual_seed(0)
    a, b = (torch.nn.Parameter(torch.randn(24, 12)) for _ in range(2))
    loss = CONTRASTIVE_LOSSES.get(name)().build(dim=12)
    optimizer = torch.optim.Adam([a, b, *loss.parameters()], lr=0.05)
    values = []
    for _ in range(40):
        optimizer.zero_grad()
        value = loss(a, b, None)
        value.backward()
        optimizer.step()
        values.append(value.item())
    assert values[-1] < 0.7 * values[0]


# Options


@pytest.mark.parametrize(
    ("make", "complaint"),
    [
        (lambda: SymmetricInfoNCE(temperature=0), "temperature=0: expected a number above 0"),
        (lambda: LayerNormNCE(8, temperature=-1), "temperature=-1: expected a number above 0"),
        (lambda: SigmoidContrast(scale=0), "scale=0: expected a number above 0"),
        (lambda: BarlowTwins(redundancy=-0.1), r"redundancy=-0\.1: expected a number not below 0"),
        (lambda: MMD(bandwidths=(1.0, 0.0)), r"bandwidth=0\.0: expected a number above 0"),
        (lambda: MMD(bandwidths=()), "expected at least one number above 0"),
    ],
)
def test_an_impossible_option_is_refused(make, complaint):
    with pytest.raises(ValueError, match=complaint):
        make()


@pytest.mark.parametrize(
    ("name", "options", "field", "value"),
    [
        ("symmetric_info_nce", {"temperature": 0.5}, "temperature", 0.5),
        ("layernorm_nce", {"temperature": 0.5}, "temperature", 0.5),
        ("barlow_twins", {"redundancy": 0.5}, "redundancy", 0.5),
        ("mmd", {"bandwidths": [1, 2]}, "bandwidths", (1.0, 2.0)),
    ],
)
def test_options_of_a_spec_reach_the_module(name, options, field, value):
    module = CONTRASTIVE_LOSSES.parse({"type": name, **options}).build(dim=8)
    assert getattr(module, field) == value


def test_start_values_of_a_spec_reach_sigmoid():
    module = CONTRASTIVE_LOSSES.parse({"type": "sigmoid", "scale": 5, "bias": -2}).build(dim=8)
    assert (module.log_scale.exp().item(), module.bias.item()) == (pytest.approx(5), -2)
