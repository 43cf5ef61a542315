import pytest
import torch
from torch import nn

from gensr.encoders import TransformerHistoryEncoder
from gensr.encoders.history.config import HISTORY_ENCODERS
from gensr.encoders.history.transformer import Block, positions_from_newest
from gensr.testing.history import HistoryContract


class TestEveryHistoryEncoder(HistoryContract):
    @pytest.fixture(autouse=True, params=HISTORY_ENCODERS.names())
    def _name(self, request):
        self.name = request.param

    def make(self):
        return HISTORY_ENCODERS.get(self.name)().build(dim=self.dim, max_length=self.max_length)


class TestDeepTransformer(HistoryContract):
    def make(self):
        return TransformerHistoryEncoder(self.dim, max_length=self.max_length, layers=3, heads=4, hidden=20)


def history(seed=0):
    x = torch.randn(2, 4, 8, generator=torch.Generator().manual_seed(seed))
    return x, torch.arange(4) < torch.tensor([[4], [2]])


def swapped(x):
    return x[:, [1, 0, 2, 3]]


def test_a_block_computes_what_torchs_own_post_norm_layer_computes():
    torch.manual_seed(0)
    block = Block(8, heads=2, hidden=12, dropout=0.1).eval()
    layer = nn.TransformerEncoderLayer(8, 2, 12, batch_first=True).train()  # train: not its fused path
    with torch.no_grad():
        for p in block.parameters():
            p.add_(0.1 * torch.randn_like(p))
        attention = layer.self_attn
        pairs = ((attention.out_proj, block.out), (layer.linear1, block.inner), (layer.linear2, block.outer))
        for ours, mine in (*pairs, (layer.norm1, block.norm1), (layer.norm2, block.norm2)):
            ours.load_state_dict(mine.state_dict())
        attention.in_proj_weight.copy_(block.qkv.weight)
        attention.in_proj_bias.copy_(block.qkv.bias)
    for module in layer.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    attention.dropout = 0.0
    x, mask = history()
    torch.testing.assert_close(block(x, mask)[mask], layer(x, src_key_padding_mask=~mask)[mask])


def test_positions_count_from_the_newest_event():
    mask = torch.tensor([[1, 1, 1, 0], [1, 0, 0, 0], [0, 0, 0, 0]]).bool()
    assert positions_from_newest(mask).tolist() == [[2, 1, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]]


@pytest.mark.parametrize("positions", [True, False])
def test_the_order_of_events_matters_iff_positions_are_on(positions):
    torch.manual_seed(0)
    encoder = TransformerHistoryEncoder(8, max_length=4, positions=positions).eval()
    x, mask = history()
    one, other = encoder(x, mask), swapped(encoder(swapped(x), mask))
    assert torch.allclose(one, other, atol=1e-6) is not positions


@pytest.mark.parametrize("task_types", [True, False])
def test_the_task_of_an_event_matters_iff_task_types_are_on(task_types):
    torch.manual_seed(0)
    encoder = TransformerHistoryEncoder(8, max_length=4, task_types=task_types).eval()
    x, mask = history()
    assert torch.allclose(encoder(x, mask, mask * 1), encoder(x, mask, mask * 2), atol=1e-6) is not task_types


def test_older_events_that_are_cut_do_not_shift_the_positions_of_the_rest():
    torch.manual_seed(0)
    encoder = TransformerHistoryEncoder(8, max_length=4)
    mask = torch.ones(1, 4, dtype=torch.bool)
    assert positions_from_newest(mask)[:, 2:].tolist() == positions_from_newest(mask[:, 2:]).tolist()
    assert encoder.positions.num_embeddings == 4


def test_every_parameter_gets_a_gradient_from_a_batch_with_and_without_history():
    torch.manual_seed(0)
    encoder = TransformerHistoryEncoder(8, max_length=4)
    x, mask = history()
    mask[1] = False
    encoder(x, mask, mask * 2).square().sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in encoder.parameters())


def test_a_history_longer_than_promised_is_refused():
    x, mask = history()
    with pytest.raises(ValueError, match=r"history of 4 slots.*max_length=3"):
        TransformerHistoryEncoder(8, max_length=3)(x, mask)


def test_heads_that_do_not_divide_the_width_are_refused():
    with pytest.raises(ValueError, match="heads=3 does not divide dim=8"):
        TransformerHistoryEncoder(8, max_length=3, heads=3)
