import math

import pytest
import torch

from gensr.fusion import BilinearFilter, CrossAttentionFilter
from tests.fusion.soft_filter.cases import batch, every_parameter_gets_a_gradient, randomised


def test_weights_are_the_softmax_of_the_bilinear_form_over_real_items():
    f = randomised(BilinearFilter(6))
    history, candidate, mask, context = batch()
    tokens, weights = f(history, candidate, mask, context)
    for b, count in enumerate((4, 2)):
        for c in range(3):
            asked = candidate[b, c] + f.context.weight @ context[b]
            scores = torch.stack([history[b, i] @ f.form @ asked for i in range(count)])
            torch.testing.assert_close(weights[b, c, :count], scores.softmax(0))
            torch.testing.assert_close(tokens[b, c, 0], scores.softmax(0) @ history[b, :count])


def test_it_is_one_head_of_cross_attention_without_its_projections():
    attention, bilinear = randomised(CrossAttentionFilter(6, heads=1)), BilinearFilter(6, context=False)
    with torch.no_grad():
        torch.nn.init.eye_(attention.value.weight)
        bilinear.form.copy_(attention.key.weight.T @ attention.query.weight / math.sqrt(6))
    for one, other in zip(attention(*batch()[:3]), bilinear(*batch()[:3]), strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("context", [True, False])
def test_the_query_matters_iff_asked_for(context):
    f = randomised(BilinearFilter(6, context=context))
    difference = (f(*batch()).weights - f(*batch()[:3]).weights).abs().max()
    assert bool(difference > 1e-3) is context
    assert f.uses_context is context


def test_as_released_it_has_one_square_form_and_nothing_else():
    f = BilinearFilter(64, context=False)
    assert [tuple(p.shape) for p in f.parameters()] == [(64, 64)]
    assert f.form.abs().max() <= math.sqrt(6 / 128)


@pytest.mark.parametrize("context", [True, False])
def test_every_parameter_gets_a_gradient(context):
    assert every_parameter_gets_a_gradient(BilinearFilter(6, context=context))
