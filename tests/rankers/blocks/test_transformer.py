"""Attention and the transformer block, against torch's own layers and against the published formulas written out."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from gensr.rankers.blocks.transformer import Attention, Rows, TransformerBlock, causal

MASK = torch.arange(4) < torch.tensor([[4], [2]])


def shaken(module: nn.Module, seed: int = 0) -> nn.Module:
    """No parameter at a value that hides its effect."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in module.parameters():
            p.add_(0.3 * torch.randn(p.shape, generator=generator))
    return module.eval()


def tokens(*shape: int, seed: int = 1) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def block(**options) -> TransformerBlock:
    return shaken(TransformerBlock(8, heads=2, hidden=12, dropout=0.1, **options))


def test_a_post_norm_block_computes_what_torchs_own_layer_computes():
    ours = block()
    layer = nn.TransformerEncoderLayer(8, 2, 12, batch_first=True).train()  # train: not its fused path
    attention = layer.self_attn
    pairs = (
        (attention.out_proj, ours.attention.out),
        (layer.linear1, ours.feed_forward.inner),
        (layer.linear2, ours.feed_forward.outer),
        (layer.norm1, ours.norm1),
        (layer.norm2, ours.norm2),
    )
    with torch.no_grad():
        for theirs, mine in pairs:
            theirs.load_state_dict(mine.state_dict())
        attention.in_proj_weight.copy_(ours.attention.qkv.weight)
        attention.in_proj_bias.copy_(ours.attention.qkv.bias)
    for module in layer.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    attention.dropout = 0.0
    x = tokens(2, 4, 8)
    torch.testing.assert_close(ours(x, MASK.unsqueeze(1))[MASK], layer(x, src_key_padding_mask=~MASK)[MASK])


def by_hand(block: TransformerBlock, query, source, attend):
    """Attention with one loop over heads."""
    d = query.shape[-1]
    weight, bias = block.attention.qkv.weight, block.attention.qkv.bias
    q, k, v = (x @ w.T + b for x, w, b in zip((query, source, source), weight.split(d), bias.split(d), strict=True))
    heads = []
    for some in torch.arange(d).split(d // block.attention.heads):
        scores = q[..., some] @ k[..., some].mT / len(some) ** 0.5
        heads.append(scores.masked_fill(~attend, -torch.inf).softmax(-1) @ v[..., some])
    return block.attention.out(torch.cat(heads, -1))


def network(block: TransformerBlock, x):
    inner = x @ block.feed_forward.inner.weight.T + block.feed_forward.inner.bias
    return inner.relu() @ block.feed_forward.outer.weight.T + block.feed_forward.outer.bias


def test_pre_norm_normalises_what_enters_a_part_and_not_what_passes_it():
    pre, x, attend = block(norm="pre"), tokens(1, 4, 8), causal(torch.ones(1, 4, dtype=torch.bool))
    y = x + by_hand(pre, pre.norm1(x), pre.norm1(x), attend)
    torch.testing.assert_close(pre(x, attend), y + network(pre, pre.norm2(y)))


def test_the_original_sasrec_normalises_queries_and_residuals_but_neither_keys_nor_values():
    original, x = block(norm="original", output=False), tokens(1, 4, 8)
    attend = causal(torch.ones(1, 4, dtype=torch.bool))
    y = original.norm1(x) + by_hand(original, original.norm1(x), x, attend)
    y = original.norm2(y)
    torch.testing.assert_close(original(x, attend), y + network(original, y))


def test_a_query_without_a_key_mixes_nothing_and_is_never_nan():
    attention = shaken(Attention(8, heads=2, dropout=0.0)).train()
    x = tokens(2, 3, 8).requires_grad_()
    attend = torch.tensor([[[0, 0, 0], [1, 0, 0], [1, 1, 0]], [[0, 0, 0]] * 3], dtype=torch.bool)
    mixed = attention(x, x, attend)
    bias = attention.out.bias.expand(8)
    torch.testing.assert_close(mixed[0, 0], bias)
    torch.testing.assert_close(mixed[1], bias.expand(3, 8))
    mixed.square().sum().backward()
    assert x.grad.isfinite().all()


def test_causal_attention_sees_the_real_past_and_itself():
    assert causal(MASK)[1].int().tolist() == [[1, 0, 0, 0], [1, 1, 0, 0], [1, 1, 0, 0], [1, 1, 0, 0]]


@st.composite
def masks(draw):
    """Few rows or enough for groups, with gaps or without."""
    rows = draw(st.sampled_from([1, 3, 40]))
    lengths = draw(st.lists(st.integers(0, 5), min_size=rows, max_size=rows))
    mask = torch.arange(5) < torch.tensor(lengths).unsqueeze(1)
    return mask & ~torch.tensor(draw(st.lists(st.booleans(), min_size=5, max_size=5)))


@settings(max_examples=40, deadline=None)
@given(mask=masks(), norm=st.sampled_from(["post", "pre", "original"]))
def test_packed_rows_compute_what_padded_ones_do(mask, norm):
    rows, x, some = Rows(mask), tokens(len(mask), 5, 8), block(norm=norm)
    packed = some(rows.pack(x), causal(mask), rows)
    torch.testing.assert_close(rows.pad(packed)[mask], some(x, causal(mask))[mask])
    assert not rows.pad(packed)[~mask].any()


def test_attention_to_another_sequence_reads_that_alone():
    attention = shaken(Attention(8, heads=2, dropout=0.0))
    x, memory = tokens(2, 3, 8), tokens(2, 4, 8, seed=5)
    whole = attention(x, memory, MASK.unsqueeze(1))
    rows, source = Rows(torch.ones(2, 3, dtype=torch.bool)), Rows(MASK)
    packed = attention(rows.pack(x), source.pack(memory), MASK.unsqueeze(1), rows=rows, source_rows=source)
    torch.testing.assert_close(rows.pad(packed), whole)
    changed = memory.masked_fill(~MASK.unsqueeze(-1), 9.0)
    torch.testing.assert_close(attention(x, changed, MASK.unsqueeze(1)), whole)


@pytest.mark.parametrize("drops", [True, False])
def test_dropout_after_the_activation_is_an_option(drops):
    some = TransformerBlock(8, heads=2, hidden=4096, dropout=0.5, inner_dropout=drops).train()
    zeros = []
    some.feed_forward.outer.register_forward_pre_hook(lambda _, args: zeros.append((args[0] == 0).float().mean()))
    with torch.no_grad():
        some.feed_forward.inner.bias.fill_(10.0)  # no zero of the activation's own
        some.feed_forward.inner.weight.zero_()
    some(tokens(1, 2, 8), torch.ones(1, 1, 2, dtype=torch.bool))
    assert float(zeros[0]) == pytest.approx(0.5 if drops else 0.0, abs=0.05)
    assert F.relu is some.feed_forward.activation
