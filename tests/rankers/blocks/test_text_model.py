"""Paragraph vectors: which words are drawn, how often, and what predicting them costs and teaches."""

from __future__ import annotations

import math

import pytest
import torch

from gensr.rankers.blocks.text_model import ItemLanguageModel, keep_probability

TEXTS = torch.tensor([[0, 0, 0], [1, 2, 0], [3, 3, 4], [0, 0, 0]])


def model(*, words: int = 1, threshold: float = 1.0, negatives: int = 5) -> ItemLanguageModel:
    """Over five words; a threshold of 1 keeps them all."""
    return ItemLanguageModel(TEXTS, 6, words=words, negatives=negatives, threshold=threshold)


def test_frequent_words_are_kept_as_word2vec_does():
    counts = torch.tensor([0, 100, 1_000, 10_000, 100_000, 888_900])
    expected = [1.0, 1.0, 0.4162, 0.11, 0.0326]
    assert keep_probability(counts, 1e-4)[:5].tolist() == pytest.approx(expected, abs=5e-5)


def test_words_come_from_the_items_text_as_often_as_they_stand_there():
    torch.manual_seed(0)
    words, drawn = model(words=3).draw(torch.tensor([1, 2, 3]))
    assert [sorted(row[there].tolist()) for row, there in zip(words, drawn, strict=True)] == [[1, 2], [3, 3, 4], []]


def test_every_word_of_a_text_is_drawn_equally_often():
    torch.manual_seed(0)
    words, drawn = model().draw(torch.full((9_000,), 2))
    assert bool(drawn.all())
    assert float((words == 3).float().mean()) == pytest.approx(2 / 3, abs=0.02)


def test_a_frequent_word_is_drawn_with_its_chance():
    """Of the text (3, 3, 4), words that are dropped leave their place to those that are kept."""
    torch.manual_seed(0)
    some = model(threshold=0.1)
    three, four = (float(some.keep[row]) for row in (3, 4))
    words, drawn = some.draw(torch.full((20_000,), 2))
    assert float(drawn.float().mean()) == pytest.approx(1 - (1 - three) ** 2 * (1 - four), abs=0.02)
    share = {0: (1 - three) ** 2, 1: 2 * three * (1 - three) / 2, 2: three**2 / 3}  # threes kept -> chance of the four
    assert float(((words == 4) & drawn).float().mean()) == pytest.approx(four * sum(share.values()), abs=0.02)


def test_other_words_are_drawn_in_proportion_to_count_to_the_three_quarters():
    torch.manual_seed(0)
    drawn = torch.bincount(model().others.draw(60_000), minlength=6) / 60_000
    weights = torch.tensor([0, 1, 1, 2**0.75, 1, 1])  # word 5 stands in no text and counts as seen once
    torch.testing.assert_close(drawn, weights / weights.sum(), atol=0.01, rtol=0)


def test_at_zero_vectors_a_word_costs_six_ln_2():
    loss = model(words=2)(torch.tensor([1, 2]), torch.zeros(2, 4), torch.zeros(6, 4))
    assert loss.item() == pytest.approx(6 * math.log(2), abs=1e-5) == pytest.approx(4.158883, abs=1e-5)


def test_items_without_text_cost_nothing():
    items = torch.randn(2, 4, requires_grad=True)
    loss = model()(torch.tensor([3, 0]), items, torch.randn(6, 4))
    assert loss.item() == 0
    loss.backward()
    assert not items.grad.any()


def test_items_learn_the_words_of_their_text():
    torch.manual_seed(0)
    some, items, table = model(), torch.nn.Embedding(4, 8), torch.nn.Embedding(6, 8)
    optimizer = torch.optim.Adam([*some.parameters(), *items.parameters(), *table.parameters()], lr=0.05)
    rows = torch.tensor([1, 2]).repeat(8)
    for _ in range(120):
        optimizer.zero_grad()
        some(rows, items(rows), table.weight).backward()
        optimizer.step()
    logits = items.weight[1:3] @ table.weight[1:].T + some.bias[1:]  # [2, 5], words 1..5
    assert set((1 + logits[0].topk(2).indices).tolist()) == {1, 2}
    assert set((1 + logits[1].topk(2).indices).tolist()) == {3, 4}
