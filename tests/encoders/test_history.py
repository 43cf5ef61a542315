import numpy as np
import pytest
import torch
import torch.nn.functional as F

from gensr.encoders import FilterMLPHistoryEncoder, GRUHistoryEncoder, NoHistory, TransformerHistoryEncoder
from gensr.encoders.history.config import HISTORY_ENCODERS
from gensr.encoders.history.transformer import positions_from_newest
from gensr.rankers.blocks.frequency import frequency_filter
from gensr.testing.history import HistoryContract


class TestEveryHistoryEncoder(HistoryContract):
    @pytest.fixture(autouse=True, params=HISTORY_ENCODERS.names())
    def _name(self, request):
        self.name = request.param

    def make(self):
        return HISTORY_ENCODERS.get(self.name)().build(dim=self.dim, max_length=self.max_length)


VARIANTS = [
    {"type": "filter_mlp", "layers": 1, "positions": False, "task_types": False},
    {"type": "gru", "layers": 2, "hidden": 5, "residual": False},
    {"type": "transformer", "layers": 3, "heads": 4, "hidden": 20},
]


class TestEveryVariant(HistoryContract):
    max_length = 200

    @pytest.fixture(autouse=True, params=VARIANTS, ids=str)
    def _config(self, request):
        self.config = HISTORY_ENCODERS.parse(request.param)

    def make(self):
        return self.config.build(dim=self.dim, max_length=self.max_length)


class Constant(NoHistory):
    """Keeps every promise about padding by saying the same of every event."""

    def encode(self, x, mask, task):
        return self.empty.expand_as(x)


class Detached(NoHistory):
    def encode(self, x, mask, task):
        return x.detach()


@pytest.mark.parametrize(
    ("broken", "promise"),
    [
        (Constant, "test_what_happened_matters"),
        (Detached, "test_gradients_reach_the_events_and_every_parameter"),
    ],
)
def test_the_contract_refuses_an_encoder_that_breaks_it(broken, promise):
    contract = HistoryContract()
    contract.make = lambda: broken(8, max_length=6)
    with pytest.raises(AssertionError):
        getattr(contract, promise)()


OURS = ["filter_mlp", "gru", "none", "transformer"]


def built(name, **options):
    """An encoder of width 8 for histories of up to 6 with weights off their starting values."""
    torch.manual_seed(0)
    encoder = HISTORY_ENCODERS.parse({"type": name, **options}).build(dim=8, max_length=6).eval()
    with torch.no_grad():
        for p in encoder.parameters():
            p.add_(0.3 * torch.randn_like(p))
    return encoder


def history(seed=0):
    x = torch.randn(2, 4, 8, generator=torch.Generator().manual_seed(seed))
    return x, torch.arange(4) < torch.tensor([[4], [2]])


def swapped(x):
    return x[:, [1, 0, 2, 3]]


def test_positions_count_from_the_newest_event():
    mask = torch.tensor([[1, 1, 1, 0], [1, 0, 0, 0], [0, 0, 0, 0]]).bool()
    assert positions_from_newest(mask).tolist() == [[2, 1, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]]


@pytest.mark.parametrize(
    ("name", "options", "matters"),
    [
        ("transformer", {"positions": True}, True),
        ("transformer", {"positions": False}, False),
        ("filter_mlp", {"positions": True}, True),
        ("filter_mlp", {"positions": False}, True),
        ("gru", {}, True),
        ("none", {}, False),
    ],
)
def test_the_order_of_events_matters_iff_something_knows_it(name, options, matters):
    encoder = built(name, **options)
    x, mask = history()
    one, other = encoder(x, mask), swapped(encoder(swapped(x), mask))
    assert torch.allclose(one, other, atol=1e-6) is not matters


@pytest.mark.parametrize("task_types", [True, False])
@pytest.mark.parametrize("name", ["filter_mlp", "gru", "transformer"])
def test_the_task_of_an_event_matters_iff_task_types_are_on(name, task_types):
    encoder = built(name, task_types=task_types)
    x, mask = history()
    assert torch.allclose(encoder(x, mask, mask * 1), encoder(x, mask, mask * 2), atol=1e-6) is not task_types


@pytest.mark.parametrize("name", OURS)
def test_padding_may_stand_anywhere(name):
    encoder = built(name)
    x, _ = history()
    right, mixed = torch.tensor([[1, 1, 1, 0], [1, 1, 0, 0]]).bool(), torch.tensor([[0, 1, 1, 1], [1, 0, 0, 1]]).bool()
    moved = torch.zeros_like(x).masked_scatter(mixed.unsqueeze(-1), x[right])
    tasks = torch.tensor([1, 2, 1, 2, 1])
    one = encoder(x, right, torch.zeros(2, 4, dtype=torch.int64).masked_scatter(right, tasks))
    other = encoder(moved, mixed, torch.zeros(2, 4, dtype=torch.int64).masked_scatter(mixed, tasks))
    torch.testing.assert_close(other[mixed], one[right])


@pytest.mark.parametrize("name", OURS)
def test_every_parameter_gets_a_gradient_from_a_batch_with_and_without_history(name):
    encoder = built(name)
    x, mask = history()
    mask[1] = False
    tasks = torch.tensor([[1, 2, 1, 2], [0, 0, 0, 0]])
    encoder(x, mask, tasks).square().sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in encoder.parameters())


@pytest.mark.parametrize("name", OURS)
def test_a_history_longer_than_promised_is_refused(name):
    x = torch.randn(2, 7, 8)
    with pytest.raises(ValueError, match=r"history of 7 slots.*max_length=6"):
        built(name)(x, torch.ones(2, 7, dtype=torch.bool))


def test_older_events_that_are_cut_do_not_shift_the_positions_of_the_rest():
    torch.manual_seed(0)
    encoder = TransformerHistoryEncoder(8, max_length=4)
    mask = torch.ones(1, 4, dtype=torch.bool)
    assert positions_from_newest(mask)[:, 2:].tolist() == positions_from_newest(mask[:, 2:]).tolist()
    assert encoder.positions.num_embeddings == 4


def test_heads_that_do_not_divide_the_width_are_refused():
    with pytest.raises(ValueError, match="heads=3 does not divide dim=8"):
        TransformerHistoryEncoder(8, max_length=3, heads=3)


def test_without_an_encoder_events_are_as_they_came():
    x, mask = history()
    encoder = NoHistory(8, max_length=4)
    torch.testing.assert_close(encoder(x, mask, mask * 2), x * mask.unsqueeze(-1))
    assert [name for name, _ in encoder.named_parameters()] == ["empty"]


def gru_by_hand(gru, x):
    """States [L, hidden] of one layer after each of the events [L, d]; PyTorch's cell."""
    w, u, b, c = gru.weight_ih_l0, gru.weight_hh_l0, gru.bias_ih_l0, gru.bias_hh_l0
    h, states = torch.zeros(gru.hidden_size), []
    for event in x:
        (wr, wz, wn), (ur, uz, un) = (w @ event + b).chunk(3), (u @ h + c).chunk(3)
        r, z = torch.sigmoid(wr + ur), torch.sigmoid(wz + uz)
        h = (1 - z) * torch.tanh(wn + r * un) + z * h
        states.append(h)
    return torch.stack(states)


@pytest.mark.parametrize("residual", [True, False])
def test_gru_vectors_are_projected_states_after_each_event(residual):
    encoder = built("gru", hidden=5, residual=residual)
    x, mask = history()
    tasks = torch.tensor([1, 2, 2, 1])
    encoded = encoder(x, mask, tasks * mask)
    for row, count in enumerate((4, 2)):
        events = x[row, :count]
        states = gru_by_hand(encoder.gru, events + encoder.task_types.weight[tasks[:count]])
        expected = states @ encoder.out.weight.T + encoder.out.bias + (events if residual else 0)
        torch.testing.assert_close(encoded[row, :count], expected)


def test_gru_is_causal():
    encoder = built("gru", layers=2)
    x, mask = history()
    later = x.clone()
    later[0, 2] = -later[0, 2]
    one, other = encoder(x, mask)[0], encoder(later, mask)[0]
    torch.testing.assert_close(one[:2], other[:2])
    assert ((one[2:] - other[2:]).abs().amax(1) > 1e-4).all()


def test_gru_dropout_acts_in_training_only():
    encoder = GRUHistoryEncoder(8, max_length=4, dropout=0.5)
    x, mask = history()
    assert not torch.allclose(encoder.train()(x, mask), encoder.eval()(x, mask))


def complex_weight(length, dim=3, seed=0):
    return torch.randn(length // 2 + 1, dim, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("length", [1, 2, 7, 8, 51])
def test_the_frequency_filter_is_a_circular_convolution(length):
    x = torch.randn(2, length, 3, dtype=torch.float64)
    weight = complex_weight(length)
    kernel = torch.fft.irfft(torch.view_as_complex(weight), n=length, dim=0)  # [L, d]
    expected = torch.zeros_like(x)
    for t in range(length):
        for s in range(length):
            expected[:, t] += kernel[(t - s) % length] * x[:, s]
    torch.testing.assert_close(frequency_filter(x, weight), expected, atol=1e-10, rtol=0)


@pytest.mark.parametrize("length", [7, 8])
def test_a_filter_of_ones_changes_nothing(length):
    x = torch.randn(2, length, 3)
    ones = torch.tensor([1.0, 0.0]).expand(length // 2 + 1, 3, 2)
    torch.testing.assert_close(frequency_filter(x, ones), x)


@pytest.mark.parametrize("length", [7, 8])
def test_the_frequency_filter_moves_with_its_input(length):
    x, weight = torch.randn(2, length, 3, dtype=torch.float64), complex_weight(length)
    torch.testing.assert_close(frequency_filter(x.roll(3, 1), weight), frequency_filter(x, weight).roll(3, 1))


@pytest.mark.parametrize("length", [7, 8])
def test_imaginary_parts_of_the_first_bin_and_of_an_even_last_one_have_no_effect(length):
    x, weight = torch.randn(2, length, 3, dtype=torch.float64), complex_weight(length).requires_grad_()
    (frequency_filter(x, weight) * torch.randn_like(x)).sum().backward()
    silent = weight.grad[..., 1].abs().amax(1) == 0
    assert silent.nonzero().flatten().tolist() == ([0] if length % 2 else [0, length // 2])
    assert weight.grad[..., 0].all()


def test_the_frequency_filter_keeps_a_low_precision_dtype_and_computes_above_it():
    x, weight = torch.randn(2, 7, 3).bfloat16(), complex_weight(7).float()
    filtered = frequency_filter(x, weight)
    assert filtered.dtype == torch.bfloat16
    torch.testing.assert_close(filtered, frequency_filter(x.float(), weight).bfloat16())


def fmlp_by_hand(encoder, x):
    """FMLP-Rec on full histories [B, max_length, d], in numpy's transforms and torch's functions."""
    x = F.layer_norm(x + encoder.positions, (8,), encoder.norm.weight, encoder.norm.bias, 1e-12)
    for block in encoder.blocks:
        spectrum = np.fft.rfft(x.detach().numpy(), axis=1) * torch.view_as_complex(block.filter.detach()).numpy()
        y = x + torch.from_numpy(np.fft.irfft(spectrum, n=x.shape[1], axis=1)).float()
        y = F.layer_norm(y, (8,), block.norm1.weight, block.norm1.bias, 1e-12)
        inner = y @ block.inner.weight.T + block.inner.bias
        gelu = inner * 0.5 * (1 + torch.erf(inner / 2**0.5))
        y = y + gelu @ block.outer.weight.T + block.outer.bias
        x = F.layer_norm(y, (8,), block.norm2.weight, block.norm2.bias, 1e-12)
    return x


def test_filter_mlp_computes_fmlp_rec_on_full_histories():
    encoder = built("filter_mlp", task_types=False)
    x = torch.randn(3, 6, 8)
    encoded = encoder(x, torch.ones(3, 6, dtype=torch.bool))
    torch.testing.assert_close(encoded, fmlp_by_hand(encoder, x), atol=1e-5, rtol=1e-5)


def test_filter_mlp_reads_short_histories_as_if_nothing_had_happened_before():
    encoder = built("filter_mlp", layers=1, positions=False, task_types=False)
    x = torch.randn(1, 2, 8)
    normed = F.layer_norm(x, (8,), encoder.norm.weight, encoder.norm.bias)
    full = F.pad(normed, (0, 0, 4, 0))
    expected = encoder.blocks[0](full)[:, 4:]
    torch.testing.assert_close(encoder(x, torch.ones(1, 2, dtype=torch.bool)), expected)


def test_filter_mlp_is_not_causal():
    encoder = built("filter_mlp")
    x, mask = history()
    later = x.clone()
    later[0, 3] = -later[0, 3]
    assert (encoder(x, mask)[0, 0] - encoder(later, mask)[0, 0]).abs().max() > 1e-4


def test_filter_mlp_has_the_parameters_of_the_published_model_without_its_item_table():
    encoder = FilterMLPHistoryEncoder(64, max_length=50, task_types=False)
    assert sum(p.numel() for p in encoder.parameters()) - encoder.empty.numel() == 851_200 - 12_102 * 64
