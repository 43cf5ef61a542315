"""Words: the vocabulary, means that ignore padding, and queries of and beyond the catalogue."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gensr.errors import DamagedFileError
from gensr.rankers.blocks.pooling import masked_mean
from gensr.rankers.blocks.words import Vocabulary, WordBag, query_words, text_words
from tests.rankers.blocks.requests import asking

TEXTS = ["Red shoe", "red  Hat, RED!", "Ärmel_3 größe"]


def test_frequent_words_come_first_and_row_0_is_padding():
    vocabulary = Vocabulary.build(TEXTS)
    assert vocabulary.words == ("", "red", "3", "größe", "hat", "shoe", "ärmel")
    assert vocabulary.counts.tolist() == [0, 3, 1, 1, 1, 1, 1]
    assert len(vocabulary) == 7


def test_rare_words_are_left_out():
    assert Vocabulary.build(TEXTS, min_count=2).words == ("", "red")


def test_a_text_is_encoded_in_order_with_its_repeats_and_without_unknown_words():
    vocabulary = Vocabulary.build(TEXTS)
    rows = vocabulary.encode(["shoe, never seen, red; red", "", "hat shoe hat shoe hat"], length=4)
    assert rows.tolist() == [[5, 1, 1, 0], [0, 0, 0, 0], [4, 5, 4, 5]]


def test_a_saved_vocabulary_loads_as_it_was(tmp_path: Path):
    vocabulary = Vocabulary.build(TEXTS)
    vocabulary.save(tmp_path / "words.json")
    loaded = Vocabulary.load(tmp_path / "words.json")
    assert loaded.words == vocabulary.words
    assert torch.equal(loaded.counts, vocabulary.counts)
    assert torch.equal(loaded.encode(TEXTS, 3), vocabulary.encode(TEXTS, 3))


def test_a_damaged_vocabulary_says_what_to_do(tmp_path: Path):
    (tmp_path / "words.json").write_text('{"words": ["", "red"')
    with pytest.raises(DamagedFileError, match=r"words\.json cannot be read.*build that again"):
        Vocabulary.load(tmp_path / "words.json")


@settings(deadline=None)
@given(st.lists(st.lists(st.booleans(), min_size=3, max_size=3), min_size=1, max_size=4))
def test_a_masked_mean_is_the_mean_of_what_is_there(mask: list[list[bool]]):
    there = torch.tensor(mask)
    x = torch.randn(*there.shape, 2, generator=torch.Generator().manual_seed(0))
    found = masked_mean(x.masked_fill(~there.unsqueeze(-1), torch.nan), there, dim=1)
    for row, shown, mean in zip(x, there, found, strict=True):
        torch.testing.assert_close(mean, row[shown].mean(0) if shown.any() else torch.zeros(2))
    torch.testing.assert_close(masked_mean(x, there, dim=-2), found)


def test_padding_and_order_do_not_change_a_bag_but_repeats_do():
    """QEM's unit checks 1 and 5: the mean of (1, 0) and (0, 1) through tanh."""
    bag = WordBag(3, 2, projection="tanh")
    with torch.no_grad():
        bag.words.weight[1:] = torch.eye(2)
        bag.projection.weight.copy_(torch.eye(2))
        bag.projection.bias.zero_()
    expected = torch.full((2,), 0.462117)
    for words in ([1, 2], [2, 1], [1, 2, 0, 0], [0, 2, 0, 1]):
        torch.testing.assert_close(bag(torch.tensor([words]))[0], expected, atol=1e-6, rtol=0)
    torch.testing.assert_close(bag(torch.tensor([1, 1, 2])), torch.tensor([2 / 3, 1 / 3]).tanh())


def test_a_bag_without_words_is_the_bias_alone():
    bag = WordBag(3, 2, projection="tanh", out=4)
    torch.testing.assert_close(bag(torch.zeros(2, 5, 3, dtype=torch.int64)), bag.projection.bias.tanh().expand(2, 5, 4))
    assert not WordBag(3, 2)(torch.zeros(1, 3, dtype=torch.int64)).any()


def test_a_bag_is_the_masked_mean_of_its_words():
    bag = WordBag(9, 4)
    words = torch.randint(9, (3, 5, 6), generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(bag(words), masked_mean(bag.words(words), words > 0, dim=2))


def test_padding_learns_nothing():
    bag = WordBag(3, 2, projection="tanh")
    bag(torch.tensor([[1, 0, 2, 0]])).sum().backward()
    assert not bag.words.weight.grad[0].any()
    assert bag.words.weight.grad[1:].all()


def test_without_a_projection_a_bag_keeps_its_width():
    with pytest.raises(ValueError, match="the output has the words' width 2, got out=4"):
        WordBag(3, 2, out=4)


def test_new_queries_are_read_beside_those_of_the_catalogue():
    vocabulary = Vocabulary.build(TEXTS)
    table = vocabulary.encode(["", *TEXTS], 3)
    batch = asking([0, 2, 4, 5], queries=("a hat", "Shoe red shoe red"))
    assert query_words(batch, table, vocabulary).tolist() == [[0, 0, 0], [1, 4, 1], [4, 0, 0], [5, 1, 5]]
    assert text_words(torch.tensor([[4, 1]]), table, vocabulary, ["a hat"]).tolist() == [[[4, 0, 0], [1, 5, 0]]]


def test_queries_beyond_the_catalogue_without_a_text_are_blank():
    vocabulary = Vocabulary.build(TEXTS)
    table = vocabulary.encode(["", *TEXTS], 3)
    assert not query_words(asking([4]), table, vocabulary).any()
    assert not query_words(asking([5], queries=("red",)), table, vocabulary).any()
