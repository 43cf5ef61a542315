"""CrossFusion is the decoder layer that everybody knows, on packed rows."""

from __future__ import annotations

import torch
from torch import nn

from gensr.rankers.blocks.cross_fusion import CrossFusion
from gensr.rankers.blocks.transformer import Rows


def same_weights(block: CrossFusion) -> nn.TransformerDecoderLayer:
    """torch's decoder layer with the weights of `block`."""
    layer = nn.TransformerDecoderLayer(8, 2, 12, dropout=0.0, batch_first=True)
    with torch.no_grad():
        for theirs, ours in ((layer.self_attn, block.within), (layer.multihead_attn, block.across)):
            theirs.in_proj_weight.copy_(ours.qkv.weight)
            theirs.in_proj_bias.copy_(ours.qkv.bias)
            theirs.out_proj.load_state_dict(ours.out.state_dict())
        layer.linear1.load_state_dict(block.feed_forward.inner.state_dict())
        layer.linear2.load_state_dict(block.feed_forward.outer.state_dict())
        for number in (1, 2, 3):
            getattr(layer, f"norm{number}").load_state_dict(getattr(block, f"norm{number}").state_dict())
    return layer


def test_it_computes_what_torchs_decoder_layer_computes():
    torch.manual_seed(0)
    block = CrossFusion(8, heads=2, hidden=12, dropout=0.0)
    x, memory = torch.randn(2, 3, 5, 8)
    mask = torch.arange(5) < torch.tensor([[5], [2], [1]])
    rows = Rows(mask)
    found = rows.pad(block(rows.pack(x), rows.pack(memory), rows))
    expected = same_weights(block)(x, memory, tgt_key_padding_mask=~mask, memory_key_padding_mask=~mask)
    torch.testing.assert_close(found, expected.masked_fill(~mask.unsqueeze(2), 0.0), atol=1e-5, rtol=1e-5)


def test_rows_without_tokens_are_no_trouble():
    block = CrossFusion(8, heads=2, hidden=12, dropout=0.0)
    rows = Rows(torch.tensor([[True, True], [False, False]]))
    x = torch.randn(2, 8)
    assert bool(block(x, x, rows).isfinite().all())
