import math

import pytest
import torch

from gensr.fusion import GatedFilter, MeanFilter
from tests.fusion.soft_filter.cases import batch, every_parameter_gets_a_gradient, randomised


def gates_by_hand(f, history, candidate, context):
    """Sigmoid of scaled dot products plus bias, mean over heads, with loops."""
    size = history.shape[-1] // f.heads
    gates = torch.zeros(len(history), candidate.shape[1], history.shape[1])
    for b, c, i in torch.cartesian_prod(*(torch.arange(n) for n in gates.shape)).tolist():
        query = f.query.weight @ (candidate[b, c] + f.context.weight @ context[b])
        key = f.key.weight @ history[b, i]
        for h in range(f.heads):
            part = slice(h * size, (h + 1) * size)
            gates[b, c, i] += torch.sigmoid(query[part] @ key[part] / math.sqrt(size) + f.bias[h]) / f.heads
    return gates


@pytest.mark.parametrize("heads", [1, 3])
def test_gates_are_sigmoids_of_scaled_dot_products(heads):
    f = randomised(GatedFilter(6, heads=heads))
    history, candidate, mask, context = batch()
    gates = f(history, candidate, mask, context).weights * mask.sum(1)[:, None, None]
    torch.testing.assert_close(gates, gates_by_hand(f, history, candidate, context) * mask.unsqueeze(1))


def test_pooled_is_the_mean_of_the_gated_items_and_sequence_the_gated_items_themselves():
    history, candidate, mask, context = batch()
    pooled, sequence = (randomised(GatedFilter(6, output=o)) for o in ("pooled", "sequence"))
    gates = gates_by_hand(pooled, history, candidate, context) * mask.unsqueeze(1)
    gated = gates.unsqueeze(-1) * (history @ pooled.value.weight.T).unsqueeze(1)  # [B, C, L, d]
    torch.testing.assert_close(sequence(history, candidate, mask, context).tokens, gated)
    expected = gated.sum(2) / mask.sum(1)[:, None, None]
    torch.testing.assert_close(pooled(history, candidate, mask, context).tokens.squeeze(2), expected)


def test_items_do_not_compete():
    f = randomised(GatedFilter(6))
    history, candidate, mask, _ = batch()
    less = mask.clone()
    less[0, 3] = False
    all_four, three = f(history, candidate, mask).weights[0] * 4, f(history, candidate, less).weights[0] * 3
    torch.testing.assert_close(all_four[:, :3], three[:, :3])


def test_open_gates_are_the_mean_filter_and_closed_ones_let_nothing_through():
    f = GatedFilter(6)
    torch.nn.init.constant_(f.bias, 50.0)
    torch.testing.assert_close(f(*batch()).tokens, MeanFilter()(*batch()).tokens)
    torch.nn.init.constant_(f.bias, -50.0)
    assert f(*batch()).tokens.abs().max() < 1e-6


def test_every_parameter_gets_a_gradient():
    assert every_parameter_gets_a_gradient(GatedFilter(6))


def test_heads_that_do_not_divide_the_width_are_refused():
    with pytest.raises(ValueError, match="heads=4 does not divide dim=6"):
        GatedFilter(6, heads=4)
