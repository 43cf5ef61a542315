import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gensr.fusion import CrossAttentionFilter, MeanFilter, TopKFilter
from gensr.fusion.soft_filter.top_k import straight_through_top_k
from tests.fusion.soft_filter.cases import batch, every_parameter_gets_a_gradient, randomised


def pair(k):
    """A hard filter and the soft one with the same weights."""
    hard, soft = randomised(TopKFilter(6, k=k)), CrossAttentionFilter(6)
    soft.load_state_dict(hard.state_dict())
    return hard, soft.eval()


@given(st.integers(0, 2**16), st.integers(1, 8))
@settings(max_examples=40, deadline=None)
def test_the_k_largest_real_ones_share_the_weight(seed, k):
    generator = torch.Generator().manual_seed(seed)
    soft = torch.rand(3, 2, 6, generator=generator)
    mask = torch.rand(3, 6, generator=generator) < 0.6
    hard = straight_through_top_k(soft * mask.unsqueeze(1), mask, k)
    for b in range(3):
        real = mask[b].nonzero().flatten().tolist()
        for c in range(2):
            best = set(sorted(real, key=lambda i: -soft[b, c, i])[:k])
            expected = torch.tensor([1 / len(best) if i in best else 0.0 for i in range(6)])
            assert torch.equal(hard[b, c], expected)


def test_the_selection_is_of_the_items_that_eq_5_finds_most_important():
    hard, soft = pair(2)
    inputs = batch()
    chosen, importance = hard(*inputs).weights, soft(*inputs).weights
    assert ((chosen > 0).sum(-1) == 2).all()
    torch.testing.assert_close(chosen[0] > 0, importance[0] >= importance[0].topk(2).values[:, -1:])


def test_gradients_are_those_of_the_soft_weights():
    hard, soft = pair(2)
    towards = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(5))
    for f in (hard, soft):
        (f(*batch()).weights * towards).sum().backward()
    for one, other in ((hard.query, soft.query), (hard.key, soft.key), (hard.context, soft.context)):
        assert one.weight.grad.any()
        torch.testing.assert_close(one.weight.grad, other.weight.grad)


def test_an_item_that_was_dropped_gets_a_gradient():
    hard, _ = pair(1)
    history, candidate, mask, context = batch()
    history.requires_grad_()
    tokens, weights = hard(history, candidate, mask, context)
    tokens[0, 0].sum().backward()
    assert history.grad[0][weights[0, 0] == 0].abs().sum(-1).min() > 0


def test_of_equals_the_newer_is_kept():
    soft, mask = torch.full((1, 1, 5), 0.25), torch.tensor([[True, True, True, True, False]])
    assert straight_through_top_k(soft, mask, 2).flatten().tolist() == [0, 0, 0.5, 0.5, 0]


def test_an_item_without_weight_goes_before_padding():
    soft, mask = torch.tensor([[[1.0, 0.0, 0.0]]]), torch.tensor([[True, True, False]])
    assert straight_through_top_k(soft, mask, 2).flatten().tolist() == [0.5, 0.5, 0]


def test_a_history_shorter_than_k_is_kept_whole():
    f = TopKFilter(6, k=50)
    for one, other in zip(f(*batch()), MeanFilter()(*batch()), strict=True):
        torch.testing.assert_close(one, other)


def test_every_parameter_gets_a_gradient():
    assert every_parameter_gets_a_gradient(TopKFilter(6, k=2))


@pytest.mark.parametrize(
    ("options", "message"), [({"heads": 4}, "heads=4 does not divide dim=6"), ({"k": 0}, "k=0: a filter keeps")]
)
def test_options_that_do_not_fit_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        TopKFilter(6, **options)
