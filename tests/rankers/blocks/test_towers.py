"""Towers: an MLP whose last layer gives a logit."""

from __future__ import annotations

import torch

from gensr.rankers.blocks.towers import Tower


def test_a_tower_is_relu_between_linear_maps_and_a_bare_logit():
    torch.manual_seed(0)
    tower, x = Tower(5, (4, 3)), torch.randn(2, 7, 5)
    first, second, last = (layer for layer in tower.layers if isinstance(layer, torch.nn.Linear))
    expected = last(second(first(x).clamp(min=0)).clamp(min=0))[..., 0]
    torch.testing.assert_close(tower(x), expected)
    assert tower(x).shape == (2, 7)


def test_without_hidden_layers_it_is_a_linear_map():
    tower, x = Tower(5, ()), torch.randn(2, 5)
    torch.testing.assert_close(tower(x), tower.layers[0](x)[:, 0])


def test_dropout_is_for_training_alone():
    torch.manual_seed(0)
    tower, x = Tower(5, (64,), dropout=0.5), torch.randn(4, 5)
    assert torch.equal(tower.eval()(x), tower(x))
    assert not torch.equal(tower.train()(x), tower(x))
