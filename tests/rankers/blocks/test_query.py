"""The query encoder, and attention to items or to nothing against the unit checks of AEM and ZAM."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from gensr.rankers.blocks.query import QueryAttention, QueryEncoder
from gensr.rankers.blocks.words import Vocabulary
from tests.rankers.blocks.requests import asking

ITEMS = torch.eye(2).unsqueeze(0)
BOTH = torch.ones(1, 2, dtype=torch.bool)


def plain(zero: Any) -> QueryAttention:
    """One head, W_f = I, b_f = 0, W_h = 1, in two dimensions."""
    attention = QueryAttention(2, 1, zero)
    with torch.no_grad():
        attention.inquiries.weight.copy_(torch.eye(2))
        attention.mix.fill_(1.0)
    return attention


def some(zero: Any, *, seed: int = 0, dim: int = 4, heads: int = 3) -> QueryAttention:
    torch.manual_seed(seed)
    attention = QueryAttention(dim, heads, zero)
    for parameter in attention.parameters():
        torch.nn.init.normal_(parameter)
    return attention


def random_case(seed: int, length: int, dim: int = 4) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    query, items = torch.randn(3, dim, generator=generator), torch.randn(3, length, dim, generator=generator)
    mask = torch.rand(3, length, generator=generator) < 0.7
    mask[:, 0] = True
    return query, items, mask


@pytest.mark.parametrize(
    ("zero", "query", "weights"),
    [
        ("none", (0.462117, 0.462117), (0.5, 0.5)),
        ("none", (0.8, -0.2), (0.702956, 0.297044)),
        ("literal", (0.462117, 0.462117), (0.377453, 0.377453)),
        ("literal", (0.8, -0.2), (0.516173, 0.218117)),
    ],
)
def test_the_worked_examples_come_out(zero: str, query: tuple[float, float], weights: tuple[float, float]):
    """Check 1 of AEM and ZAM; with the items (1, 0) and (0, 1), u equals the weights."""
    found = plain(zero)(torch.tensor([query]), ITEMS, BOTH)
    torch.testing.assert_close(found.weights[0], torch.tensor(weights), atol=1e-6, rtol=0)
    torch.testing.assert_close(found.vector[0], torch.tensor(weights), atol=1e-6, rtol=0)
    assert found.mass.item() == pytest.approx(sum(weights), abs=1e-6)


@pytest.mark.parametrize("zero", ["none", "literal", "learnable"])
def test_it_is_the_published_formula(zero: str):
    """f head by head, the softmax by exponentials, one item at a time."""
    attention = some(zero)
    query, items, mask = random_case(1, 5)
    found = attention(query, items, mask)
    weight, bias = attention.inquiries.weight.view(3, 4, 4), attention.inquiries.bias.view(3, 4)

    def relevance(q: Tensor, item: Tensor) -> Tensor:
        heads = [attention.mix[h] * (item @ torch.tanh(weight[h] @ q + bias[h])) for h in range(3)]
        return torch.stack(heads).sum()

    for row in range(3):
        grown = [relevance(query[row], items[row, at]).exp() if mask[row, at] else 0.0 for at in range(5)]
        nothing = {"none": 0.0, "literal": 1.0}.get(zero)
        if nothing is None:
            nothing = relevance(query[row], attention.key).exp()
        expected = torch.stack([torch.as_tensor(one / (nothing + sum(grown))) for one in grown])
        torch.testing.assert_close(found.weights[row], expected)
        torch.testing.assert_close(found.vector[row], expected @ items[row])


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 10_000), length=st.integers(1, 7), zero=st.sampled_from(["none", "literal", "learnable"]))
def test_padding_gets_nothing_and_order_does_not_matter(seed: int, length: int, zero: str):
    attention = some(zero, seed=seed)
    query, items, mask = random_case(seed, length)
    found = attention(query, items, mask)
    assert not found.weights[~mask].any()
    total = found.mass
    if zero == "none":
        torch.testing.assert_close(total, torch.ones(3))
    else:
        assert bool(((total > 0) & (total < 1 + 1e-6)).all())
    order = torch.randperm(length, generator=torch.Generator().manual_seed(seed))
    turned = attention(query, items[:, order], mask[:, order])
    torch.testing.assert_close(turned.weights, found.weights[:, order])
    torch.testing.assert_close(turned.vector, found.vector)
    longer = torch.cat([items, torch.full((3, 4, 4), 9.0)], dim=1)
    padded = attention(query, longer, torch.cat([mask, torch.zeros(3, 4, dtype=torch.bool)], dim=1))
    torch.testing.assert_close(padded.vector, found.vector)


def test_another_item_never_adds_to_the_weight_of_one():
    attention = some("literal")
    query, items, mask = random_case(2, 6)
    mask[:] = True
    for length in range(1, 6):
        fewer = attention(query, items[:, :length], mask[:, :length]).weights
        more = attention(query, items[:, : length + 1], mask[:, : length + 1]).weights[:, :length]
        assert bool((more < fewer).all())


def test_one_item_is_all_that_aem_can_attend_to():
    query, items, _ = random_case(3, 1)
    found = some("none")(query, items, torch.ones(3, 1, dtype=torch.bool))
    torch.testing.assert_close(found.vector, items[:, 0])


@pytest.mark.parametrize("zero", ["none", "literal", "learnable"])
def test_an_empty_history_gives_zero(zero: str):
    found = some(zero)(torch.randn(2, 4), torch.randn(2, 3, 4), torch.zeros(2, 3, dtype=torch.bool))
    assert not found.vector.any()
    assert not found.mass.any()


def test_zam_is_aem_times_the_personalisation_mass():
    zam, aem = some("literal"), some("none")
    query, items, mask = random_case(4, 5)
    with_zero, without = zam(query, items, mask), aem(query, items, mask)
    torch.testing.assert_close(with_zero.weights, without.weights * with_zero.mass.unsqueeze(1))


@pytest.mark.parametrize(("push", "mass"), [(-50.0, 0.0), (50.0, 1.0)])
def test_relevance_of_50_either_way_leaves_nothing_or_all_to_the_zero_slot(push: float, mass: float):
    zam, aem = plain("literal"), plain("none")
    query = torch.tensor([[5.0, 5.0]])  # tanh is 1 in both dimensions: f = mix for both items
    with torch.no_grad():
        zam.mix.fill_(push)
        aem.mix.fill_(push)
    found = zam(query, ITEMS, BOTH)
    torch.testing.assert_close(found.mass, torch.tensor([mass]), atol=1e-6, rtol=0)
    torch.testing.assert_close(found.vector, aem(query, ITEMS, BOTH).vector * mass, atol=1e-6, rtol=0)


def test_a_learnable_zero_slot_starts_as_the_zero_vector_and_learns():
    literal, learnable = plain("literal"), plain("learnable")
    query = torch.tensor([[0.8, -0.2]])
    torch.testing.assert_close(learnable(query, ITEMS, BOTH).weights, literal(query, ITEMS, BOTH).weights)
    learnable(query, ITEMS, BOTH).vector.sum().backward()
    assert learnable.key.grad.any()


def test_a_query_is_read_from_the_catalogue_or_from_the_request():
    vocabulary = Vocabulary.build(["red shoe", "hat"])
    encoder = QueryEncoder(vocabulary, ["", "red shoe", "hat"], 3, length=4)
    vectors = encoder(asking([0, 1, 3, 4], queries=("shoe unheard red", "hat red")))
    words = encoder.bag.words.weight
    rows = {word: words[row] for row, word in enumerate(vocabulary.words)}
    means = [torch.zeros(3), (rows["red"] + rows["shoe"]) / 2] * 2
    means[2:] = [(rows["red"] + rows["shoe"]) / 2, (rows["red"] + rows["hat"]) / 2]
    torch.testing.assert_close(vectors, torch.tanh(encoder.bag.projection(torch.stack(means))))


@pytest.mark.parametrize("zero", ["none", "literal", "learnable"])
def test_in_bf16_items_and_nothing_are_weighed_alike_and_an_empty_history_gives_zero(zero: str):
    attention = some(zero)
    query, items, mask = random_case(0, 5)
    mask[0] = False
    with torch.autocast("cpu", torch.bfloat16):
        found = attention(query, items, mask)
    torch.testing.assert_close(found.weights, attention(query, items, mask).weights, atol=0.03, rtol=0)
    assert not found.weights[0].any()
    assert not found.vector[0].any()
