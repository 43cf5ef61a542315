import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gensr.fusion import CrossAttentionFilter, Filtered, MeanFilter
from gensr.fusion.soft_filter.base import masked_softmax
from gensr.fusion.soft_filter.config import SOFT_FILTERS
from gensr.testing.soft_filter import SoftFilterContract
from tests.fusion.soft_filter.cases import batch, every_parameter_gets_a_gradient, randomised

VARIANTS = [
    {"type": "bilinear", "context": False},
    {"type": "cross_attention", "output": "sequence", "heads": 4},
    {"type": "din", "activation": "dice", "weights": "relu", "hidden": [6]},
    {"type": "din", "activation": "prelu"},
    {"type": "gated", "output": "sequence", "heads": 4},
    {"type": "top_k", "k": 2, "heads": 1},
]


class TestEverySoftFilter(SoftFilterContract):
    @pytest.fixture(autouse=True, params=SOFT_FILTERS.names())
    def _name(self, request):
        self.name = request.param

    def make(self):
        return SOFT_FILTERS.get(self.name)().build(dim=self.dim)


class TestEveryVariant(SoftFilterContract):
    @pytest.fixture(autouse=True, params=VARIANTS, ids=str)
    def _config(self, request):
        self.config = SOFT_FILTERS.parse(request.param)

    def make(self):
        return self.config.build(dim=self.dim)


class Silent(MeanFilter):
    """Keeps every promise about padding by never saying anything."""

    def forward(self, history, candidate, mask, context=None):
        return Filtered(*(0 * part for part in super().forward(history.nan_to_num(), candidate, mask)))


class Detached(CrossAttentionFilter):
    def weigh(self, query, key, mask):
        return super().weigh(query, key, mask).detach()


@pytest.mark.parametrize(
    ("broken", "promise"),
    [
        (Silent, "test_the_history_comes_through"),
        (lambda: Detached(8), "test_gradients_reach_the_history_and_every_parameter"),
    ],
)
def test_the_contract_refuses_a_filter_that_breaks_it(broken, promise):
    contract = SoftFilterContract()
    contract.make = broken
    with pytest.raises(AssertionError):
        getattr(contract, promise)()


@pytest.mark.parametrize("name", ["bilinear", "cross_attention", "din", "gated", "mean", "top_k"])
def test_the_order_of_items_does_not_matter_to_our_filters(name):
    f = randomised(SOFT_FILTERS.parse(name).build(dim=6))
    history, candidate, mask, context = batch()
    order = [2, 0, 3, 1]
    tokens, weights = f(history, candidate, mask, context)
    shuffled = f(history[:, order], candidate, mask[:, order], context)
    torch.testing.assert_close(shuffled.tokens, tokens)
    torch.testing.assert_close(shuffled.weights, weights[..., order])


@pytest.mark.parametrize("name", ["bilinear", "cross_attention", "din", "gated", "top_k"])
def test_the_query_changes_what_matters_to(name):
    config = SOFT_FILTERS.parse({"type": name, "k": 1} if name == "top_k" else name)
    f = randomised(config.build(dim=6))
    history, candidate, mask, context = batch()
    one, other = f(history, candidate, mask, context), f(history, candidate, mask, -5 * context)
    assert (one.weights - other.weights).abs().max() > 1e-3


def weights_by_hand(f, history, candidate, mask, context):
    """Equation 5 with loops and a softmax over the real items alone."""
    dim, heads = history.shape[-1], f.heads
    size = dim // heads
    weights = torch.zeros(len(history), candidate.shape[1], history.shape[1])
    for b in range(len(history)):
        real = mask[b].nonzero().flatten()
        for c in range(candidate.shape[1]):
            asked = f.query.weight @ (candidate[b, c] + f.context.weight @ context[b])
            for h in range(heads):
                part = slice(h * size, (h + 1) * size)
                scores = [asked[part] @ (f.key.weight @ history[b, i])[part] / math.sqrt(size) for i in real]
                weights[b, c, real] += torch.stack(scores).softmax(0) / heads
    return weights


@pytest.mark.parametrize("heads", [1, 2, 3])
def test_weights_follow_equation_5(heads):
    f = randomised(CrossAttentionFilter(6, heads=heads))
    inputs = batch()
    torch.testing.assert_close(f(*inputs).weights, weights_by_hand(f, *inputs))


def test_pooled_tokens_are_the_weighted_sum_of_projected_items():
    f = randomised(CrossAttentionFilter(6))
    history, candidate, mask, context = batch()
    tokens, weights = f(history, candidate, mask, context)
    expected = torch.einsum("bcl,bld->bcd", weights, history @ f.value.weight.T)
    torch.testing.assert_close(tokens.squeeze(2), expected)


def test_sequence_tokens_follow_equation_6_times_the_number_of_real_items():
    f = randomised(CrossAttentionFilter(6, output="sequence"))
    history, candidate, mask, context = batch()
    tokens, weights = f(history, candidate, mask, context)
    count = torch.tensor([4.0, 2.0])
    expected = torch.einsum("b,bcl,bld->bcld", count, weights, history @ f.value.weight.T)
    torch.testing.assert_close(tokens, expected)


def test_sequence_and_pooled_agree_up_to_the_number_of_items():
    history, candidate, mask, context = batch()
    pooled, sequence = (randomised(CrossAttentionFilter(6, output=o)) for o in ("pooled", "sequence"))
    total = sequence(history, candidate, mask, context).tokens.sum(2) / mask.sum(1)[:, None, None]
    torch.testing.assert_close(total, pooled(history, candidate, mask, context).tokens.squeeze(2))


def test_a_similar_item_weighs_most_from_the_start():
    torch.manual_seed(0)
    f = CrossAttentionFilter(32).eval()
    history = torch.randn(64, 5, 32)
    weights = f(history, history[:, 2:3], torch.ones(64, 5, dtype=torch.bool)).weights.squeeze(1)
    assert (weights.argmax(1) == 2).all()


def test_a_filtered_history_starts_in_the_space_of_the_candidate():
    history, candidate, mask, _ = batch(length=1)
    tokens, _ = CrossAttentionFilter(6)(history, candidate, mask)
    torch.testing.assert_close(tokens.squeeze(2), history.expand(-1, 3, -1))


def test_dropout_acts_in_training_only_and_leaves_the_reported_weights_whole():
    f = CrossAttentionFilter(6, dropout=0.5)
    history, candidate, mask, _ = batch()
    trained, evaluated = f.train()(history, candidate, mask), f.eval()(history, candidate, mask)
    assert not torch.allclose(trained.tokens, evaluated.tokens)
    torch.testing.assert_close(trained.weights, evaluated.weights)


def test_every_parameter_gets_a_gradient():
    assert every_parameter_gets_a_gradient(CrossAttentionFilter(6))


def test_heads_that_do_not_divide_the_width_are_refused():
    with pytest.raises(ValueError, match="heads=4 does not divide dim=6"):
        CrossAttentionFilter(6, heads=4)


def test_an_unknown_output_is_refused():
    with pytest.raises(ValueError, match="output='sum': expected 'pooled' or 'sequence'"):
        CrossAttentionFilter(6, output="sum")


def test_mean_filter_is_the_mean_over_real_items():
    history, candidate, mask, _ = batch()
    tokens, weights = MeanFilter()(history, candidate, mask)
    assert tokens.shape == (2, 3, 1, 6)
    for row, count in enumerate((4, 2)):
        for c in range(3):
            torch.testing.assert_close(tokens[row, c, 0], history[row, :count].mean(0))
            torch.testing.assert_close(weights[row, c, :count], torch.full((count,), 1 / count))


def test_cross_attention_with_equal_weights_is_the_mean_filter():
    f = CrossAttentionFilter(6)
    torch.nn.init.zeros_(f.query.weight)
    inputs = batch()
    torch.testing.assert_close(f(*inputs).tokens, MeanFilter()(*inputs).tokens)


@given(st.integers(0, 2**16), st.floats(0, 1e4))
@settings(max_examples=30, deadline=None)
def test_weights_of_any_history_sum_to_one_or_to_nothing(seed, size):
    generator = torch.Generator().manual_seed(seed)
    mask = torch.rand(4, 6, generator=generator) < 0.4
    weights = masked_softmax(torch.randn(4, 6, generator=generator) * size, mask)
    assert (weights[~mask] == 0).all()
    torch.testing.assert_close(weights.sum(1), mask.any(1).float())
