import math

import pytest
import torch
from torch import nn

from gensr.fusion import DINFilter, MeanFilter
from gensr.fusion.soft_filter.din import Dice, first_layer
from tests.fusion.soft_filter.cases import batch, every_parameter_gets_a_gradient, randomised


def concatenated(history, candidate):
    """[q; e; q - e; q * e] for all pairs, [B, C, L, 4d]."""
    q, e = torch.broadcast_tensors(candidate.unsqueeze(2), history.unsqueeze(1))
    return torch.cat([q, e, q - e, q * e], dim=-1)


@pytest.mark.parametrize("length", [3, 12], ids=["short", "longer than the layer is wide"])
def test_the_decomposed_first_layer_equals_the_concatenated_one(length):
    torch.manual_seed(0)
    layer = nn.Linear(24, 5)
    history, candidate = torch.randn(2, length, 6), torch.randn(2, 4, 6)
    expected = layer(concatenated(history, candidate))
    torch.testing.assert_close(first_layer(history, candidate, layer.weight, layer.bias), expected, atol=1e-5, rtol=0)


def units_by_hand(f, history, candidate, act):
    """The activation unit with its layers one after the other on the concatenated input."""
    x = f.first(concatenated(history, candidate))
    for layer in (m for m in f.rest if isinstance(m, nn.Linear)):
        x = layer(act(x))
    return x.squeeze(-1)


@pytest.mark.parametrize("hidden", [(7,), (7, 5), (7, 5, 3)])
def test_weights_are_the_softmax_of_the_scaled_activation_unit(hidden):
    f = randomised(DINFilter(6, hidden=hidden))
    history, candidate, mask, context = batch()
    tokens, weights = f(history, candidate, mask, context)
    asked = candidate + (context @ f.context.weight.T).unsqueeze(1)
    scores = units_by_hand(f, history, asked, torch.sigmoid) / math.sqrt(6)
    expected = scores.masked_fill(~mask.unsqueeze(1), -torch.inf).softmax(-1)
    torch.testing.assert_close(weights, expected)
    torch.testing.assert_close(tokens.squeeze(2), torch.einsum("bcl,bld->bcd", expected, history))


def test_relu_weights_are_the_papers_raw_ones_where_those_are_positive():
    f = randomised(DINFilter(6, weights="relu"))
    history, candidate, mask, _ = batch()
    with torch.no_grad():  # some above 0, some below
        f.rest[-1].bias -= units_by_hand(f, history, candidate, torch.sigmoid).median()
    weights = f(history, candidate, mask).weights
    raw = units_by_hand(f, history, candidate, torch.sigmoid).masked_fill(~mask.unsqueeze(1), 0.0)
    assert (raw > 0).any()
    assert (raw < 0).any()
    torch.testing.assert_close(weights, raw.clamp(min=0))


def test_prelu_has_one_slope_a_layer():
    f = randomised(DINFilter(6, activation="prelu", hidden=(7,)))
    history, candidate, mask, _ = batch()
    slope = next(m for m in f.rest if isinstance(m, nn.PReLU)).weight
    scores = units_by_hand(f, history, candidate, lambda x: torch.where(x > 0, x, slope * x)) / math.sqrt(6)
    expected = scores.masked_fill(~mask.unsqueeze(1), -torch.inf).softmax(-1)
    torch.testing.assert_close(f(history, candidate, mask).weights, expected)


def test_a_unit_of_zeros_gives_the_mean_under_softmax_and_nothing_under_relu():
    for weights in ("softmax", "relu"):
        f = DINFilter(6, weights=weights)
        for parameter in f.parameters():
            nn.init.zeros_(parameter)
        tokens = f(*batch()).tokens
        torch.testing.assert_close(tokens, MeanFilter()(*batch()).tokens * (weights == "softmax"))


def test_relu_starts_near_sum_pooling():
    torch.manual_seed(0)
    history, candidate, mask, _ = batch()
    tokens, weights = DINFilter(6, weights="relu")(history, candidate, mask)
    assert (weights[mask.unsqueeze(1).expand_as(weights)] - 1).abs().max() < 0.5
    total = (history * mask.unsqueeze(-1)).sum(1)
    assert torch.cosine_similarity(tokens.squeeze(2), total.unsqueeze(1), dim=-1).min() > 0.99


def test_it_learns_to_weigh_the_item_that_equals_the_candidate():
    def toy(seed):
        """Four orthogonal items each; the candidate is one of them."""
        frames = torch.linalg.qr(torch.randn(128, 8, 4, generator=torch.Generator().manual_seed(seed)))[0].mT
        place = torch.arange(128) % 4
        return frames * 8**0.5, frames[torch.arange(128), place].unsqueeze(1) * 8**0.5, place

    torch.manual_seed(0)
    f = DINFilter(8, hidden=(16,), activation="prelu")
    mask = torch.ones(128, 4, dtype=torch.bool)
    optimizer = torch.optim.Adam(f.parameters(), 1e-2)
    for step in range(60):
        history, candidate, _ = toy(step)
        loss = -(f(history, candidate, mask).tokens.squeeze(2) * candidate).sum(-1).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    history, candidate, place = toy(1000)
    assert (f(history, candidate, mask).weights.squeeze(1).argmax(1) == place).float().mean() > 0.95


def test_dice_with_alpha_one_is_the_identity():
    dice = Dice(5)
    nn.init.ones_(dice.alpha)
    s = torch.randn(9, 5)
    torch.testing.assert_close(dice.train()(s), s)
    torch.testing.assert_close(dice.eval()(s), s)


def test_dice_with_standard_statistics_and_alpha_zero_is_s_times_its_sigmoid():
    s = torch.randn(9, 5)
    torch.testing.assert_close(Dice(5).eval()(s), s * s.sigmoid())


def test_dice_uses_the_batch_in_training_and_running_statistics_in_eval_mode():
    dice, norm = Dice(5), nn.BatchNorm1d(5, eps=1e-9, affine=False)
    s = 3 * torch.randn(50, 5) + 2
    torch.testing.assert_close(dice(s), s * norm(s).sigmoid())
    torch.testing.assert_close(dice.mean, 0.1 * s.mean(0))
    torch.testing.assert_close(dice.var, 0.9 + 0.1 * s.var(0, correction=0))
    expected = s * ((s - dice.mean) / dice.var.sqrt()).sigmoid()
    torch.testing.assert_close(dice.eval()(s), expected)


def test_padding_does_not_enter_the_statistics_of_dice():
    history, candidate, mask, _ = batch()
    f = DINFilter(6, activation="dice").train()
    f(history, candidate, mask)
    inputs = f.first(concatenated(history, candidate))
    real = inputs[mask.unsqueeze(1).expand(-1, 3, -1)]
    assert len(real) == 3 * (4 + 2)
    dice = next(m for m in f.rest if isinstance(m, Dice))
    torch.testing.assert_close(dice.mean, 0.1 * real.mean(0))
    torch.testing.assert_close(dice.var, 0.9 + 0.1 * real.var(0, correction=0))


def test_a_batch_without_history_leaves_the_statistics_of_dice_alone():
    history, candidate, mask, _ = batch()
    f = DINFilter(6, activation="dice").train()
    f(history, candidate, torch.zeros_like(mask))
    dice = next(m for m in f.rest if isinstance(m, Dice))
    assert not dice.mean.any()
    assert (dice.var == 1).all()


@pytest.mark.parametrize("activation", ["sigmoid", "prelu", "dice"])
@pytest.mark.parametrize("weights", ["softmax", "relu"])
def test_every_parameter_gets_a_gradient(activation, weights):
    torch.manual_seed(0)
    assert every_parameter_gets_a_gradient(DINFilter(6, activation=activation, weights=weights))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"hidden": ()}, r"hidden=\(\): expected at least one hidden layer"),
        ({"hidden": (8, 0)}, r"hidden=\(8, 0\).*width 1 or more"),
        ({"weights": "raw"}, "weights='raw': expected 'softmax' or 'relu'"),
        ({"activation": "gelu"}, "activation='gelu': expected 'sigmoid', 'prelu' or 'dice'"),
    ],
)
def test_options_that_do_not_exist_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        DINFilter(6, **options)
