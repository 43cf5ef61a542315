"""Counted work equals a count by hand."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
import torch
import torch.nn.functional as F
import transformers

from gensr.bench import floor
from gensr.bench.floor import Work, count_work
from tests.bench.toys import case

B, T, D, H, W, FF = 2, 7, 32, 4, 8, 64


def counted(run):
    return count_work(case(run=run))


@pytest.mark.parametrize("context", [torch.inference_mode, torch.no_grad, nullcontext])
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_the_flops_of_a_t5_block_are_those_of_its_products(context, attention):
    config = transformers.T5Config(
        vocab_size=50, d_model=D, d_kv=W, d_ff=FF, num_heads=H, num_layers=1, feed_forward_proj="gated-gelu"
    )
    block = transformers.T5EncoderModel._from_config(config, attn_implementation=attention).eval()
    states = torch.randn(B, T, D)

    def run():
        with context():
            block(inputs_embeds=states)

    projections = 4 * B * T * D * (H * W)  # queries, keys, values, output
    attended = 2 * B * H * T * T * W  # scores and weighted sum
    feed_forward = 3 * B * T * D * FF  # gate, up, down
    assert counted(run).flops == 2 * (projections + attended + feed_forward)


def test_attention_of_the_cpu_counts_forwards_and_backwards():
    query, key, value = (torch.randn(B, H, length, W, requires_grad=True) for length in (T, 5, 5))
    forward = 2 * 2 * B * H * T * 5 * W
    assert counted(lambda: F.scaled_dot_product_attention(query, key, value)).flops == forward
    backward = forward * 5 // 2
    assert counted(lambda: F.scaled_dot_product_attention(query, key, value).sum().backward()).flops == (
        forward + backward
    )


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="this torch has no oneDNN")
def test_fused_linear_maps_of_the_cpu_are_counted():
    rows, weight, other = torch.randn(B, T, D), torch.randn(FF, D), torch.randn(B, T, FF)
    fused, flops = torch.ops.mkldnn._linear_pointwise, 2 * B * T * D * FF
    assert counted(lambda: fused(rows, weight, None, "none", [], "tanh")).flops == flops
    assert counted(lambda: fused.binary(rows, other, weight, None, "mul")).flops == flops


def test_a_backward_pass_costs_two_forwards_of_a_linear_layer():
    layer, rows = torch.nn.Linear(D, FF), torch.randn(B, D, requires_grad=True)
    forward = 2 * B * D * FF
    assert counted(lambda: layer(rows)).flops == forward
    assert counted(lambda: layer(rows).sum().backward()).flops == 3 * forward


def test_weights_are_read_once_and_what_a_call_makes_is_read_by_each_product():
    rows, weight = torch.randn(B, D), torch.randn(D, D)

    def twice():
        hidden = rows @ weight  # reads both, writes [B, D]
        return hidden @ weight  # reads what was written, writes [B, D]

    assert counted(twice) == Work(flops=2 * 2 * B * D * D, bytes=4 * (B * D + D * D + B * D + B * D + B * D))


def test_the_transpose_of_a_weight_is_the_same_weight():
    rows, weight = torch.randn(D, D), torch.randn(D, D)
    once = counted(lambda: rows @ weight).bytes
    both = counted(lambda: (rows @ weight, rows @ weight.T)).bytes
    assert both - once == 4 * D * D  # the second result alone


def test_an_expanded_tensor_counts_as_what_is_stored():
    left, right = torch.randn(5, B, D), torch.randn(D, FF)
    expanded = right.expand(5, D, FF)
    assert counted(lambda: torch.bmm(left, expanded)).bytes == 4 * (5 * B * D + D * FF + 5 * B * FF)


def test_sums_and_sparse_products_are_no_dense_products():
    sparse = torch.eye(D).to_sparse()
    dense = torch.randn(D, D)
    assert counted(lambda: (sparse @ dense, dense.sum())) == Work(0, 0)


def test_a_case_that_counts_itself_is_believed():
    assert count_work(case(flops=lambda: 12)) == Work(12, None)


def test_limits_are_measured_and_the_floor_is_the_longer_time():
    assert floor.peak("cpu", "fp32", quick=True) > 0
    assert floor.copy_rate("cpu", quick=True) > 0
    assert floor.floor_seconds(Work(100, 10), peak=50, copy_rate=10) == 2
    assert floor.floor_seconds(Work(100, 50), peak=50, copy_rate=10) == 5
    assert floor.floor_seconds(Work(100, None), peak=50, copy_rate=10) == 2
    assert floor.utilisation(Work(100, None), 4.0, peak=50) == 0.5


def test_a_whole_job_is_extrapolated_by_units():
    assert floor.seconds_for(6_822_300, case(units=100), 0.5) == pytest.approx(34_111.5)
