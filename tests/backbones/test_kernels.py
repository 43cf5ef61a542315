"""Single passes of a T5's layers: transformers' own numbers on every way they may take."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from transformers import T5Config
from transformers.models.t5.modeling_t5 import T5LayerFF, T5LayerNorm

from gensr.backbones import kernels

WAYS = ("plain", "fused", "mixed")


def feed_forward_layer(kind: str) -> T5LayerFF:
    torch.manual_seed(0)
    layer = T5LayerFF(T5Config(d_model=16, d_ff=24, feed_forward_proj=kind, dropout_rate=0.5)).eval()
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.normal_(std=0.3)
    return layer


def run(way: str, function, *arguments) -> torch.Tensor:
    """With gradients (plain operations), without (one oneDNN call each), or in mixed precision."""
    with torch.set_grad_enabled(way == "plain"), torch.autocast("cpu", torch.bfloat16, enabled=way == "mixed"):
        return function(*arguments)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", ["gated-gelu", "gated-gelu_pytorch_tanh", "gated-silu", "relu", "gelu_new"])
def test_a_feed_forward_layer_is_transformers_own(kind, way):
    layer, x = feed_forward_layer(kind), torch.randn(2, 3, 5, 16)
    found, expected = (run(way, function, x) for function in (lambda x: kernels.feed_forward(layer, x), layer))
    assert found.dtype == expected.dtype
    tolerance = 0.05 if way == "mixed" else 1e-5
    torch.testing.assert_close(found, expected, atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("kind", ["gated-gelu", "relu"])
def test_a_feed_forward_layer_in_bfloat16_is_transformers_own_but_for_rounding(kind):
    layer, x = feed_forward_layer(kind).to(torch.bfloat16), torch.randn(4, 16, dtype=torch.bfloat16)
    with torch.no_grad():
        found, expected = kernels.feed_forward(layer, x), layer(x)
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found, expected, atol=0.1, rtol=0.05)


def test_a_norm_divides_by_the_root_mean_square():
    norm = T5LayerNorm(16, eps=1e-6)
    nn.init.normal_(norm.weight)
    x = 100 * torch.randn(3, 5, 16)
    torch.testing.assert_close(kernels.rms_norm(norm, x), norm(x))
    torch.testing.assert_close(
        kernels.rms_norm(norm, x[:, ::2].to(torch.bfloat16)), norm(x[:, ::2]), atol=0.1, rtol=0.01
    )


@pytest.mark.parametrize("way", WAYS)
def test_strides_of_inputs_and_weights_do_not_matter(way):
    layer, other = nn.Linear(6, 4, bias=False), torch.randn(3, 5, 4)
    layer.weight = nn.Parameter(torch.randn(6, 4).T)
    x = torch.randn(5, 3, 6).transpose(0, 1)
    expected = torch.einsum("abi,oi->abo", x, layer.weight)
    tolerance = {"atol": 0.1, "rtol": 0.05} if way == "mixed" else {"atol": 1e-5, "rtol": 1e-5}
    for found, wanted in (
        (run(way, kernels.linear, layer, x), expected),
        (run(way, lambda: kernels.linear(layer, x, times=other)), expected * other),
        (run(way, kernels.residual, other[:1].expand(3, 5, 4), layer, x, nn.Dropout(0.0)), expected + other[:1]),
    ):
        torch.testing.assert_close(found.float(), wanted, **tolerance)


@pytest.mark.parametrize("way", WAYS)
def test_no_rows_stay_no_rows(way):
    layer = feed_forward_layer("gated-gelu")
    assert run(way, kernels.feed_forward, layer, torch.zeros(0, 3, 16)).shape == (0, 3, 16)


@pytest.mark.parametrize("way", WAYS)
def test_a_residual_drops_what_it_adds_in_training_alone(way):
    layer, x, hidden = nn.Linear(8, 1000, bias=False), torch.randn(8), torch.full((1000,), 3.0)
    dropout = nn.Dropout(0.5).train()
    kept = run(way, kernels.residual, hidden, layer, x, dropout) == 3.0
    assert 400 < int(kept.sum()) < 600
    assert int((run(way, kernels.residual, hidden, layer, x, dropout.eval()) == 3.0).sum()) < 20


def test_what_is_more_than_a_matrix_is_called(monkeypatch):
    """An adapter, a bias, weights of another dtype, mixed precision, gradients: each needs torch's own operations."""

    def refuse():
        raise AssertionError("one pass")

    class Adapter(nn.Linear):
        def forward(self, x):
            return super().forward(x) + 1

    monkeypatch.setattr(kernels, "_fused", refuse)
    layer, x = nn.Linear(4, 4, bias=False), torch.randn(2, 4)
    with torch.no_grad():
        adapter = Adapter(4, 4, bias=False)
        torch.testing.assert_close(kernels.linear(adapter, x), x @ adapter.weight.T + 1)
        biased = nn.Linear(4, 4)
        torch.testing.assert_close(kernels.linear(biased, x), biased(x))
        with torch.autocast("cpu", torch.bfloat16):
            assert kernels.linear(layer, x).dtype == torch.bfloat16
    assert kernels.linear(layer, x).requires_grad


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="this torch has no oneDNN")
def test_a_matrix_without_gradients_is_one_pass(monkeypatch):
    calls = []
    fused = kernels._fused()
    monkeypatch.setattr(kernels, "_fused", lambda: calls.append(1) or fused)
    with torch.inference_mode():
        kernels.feed_forward(feed_forward_layer("gated-gelu"), torch.randn(2, 16))
    assert len(calls) == 3
