"""What a training will hold: counted exactly where it can be, without leaving a trace in what is trained."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.utils.checkpoint import checkpoint

from gensr.data.batch import Batch
from gensr.errors import BadInputError
from gensr.rankers.base import Losses
from gensr.training.footprint import LARGEST, LEAST, SHARE, Footprint, automatic_batch_size, measure, peak_bytes

MIB = 2**20


def requests(count):
    zeros = torch.zeros(count, 1, dtype=torch.int64)
    one = zeros[:, 0]
    return Batch(
        task=one + 1, user=one, time=one, query=one, hist_item=zeros, hist_task=zeros, hist_query=zeros,
        hist_time=zeros, cand=zeros, cand_mask=zeros > 0, label=zeros.float(), request=one,
    )  # fmt: skip


class Chain(nn.Module):
    """`steps` times exp on `width` floats a request; keeps a running mean as Dice does."""

    def __init__(self, *, steps=1, width=100, recompute=False):
        super().__init__()
        self.steps, self.recompute = steps, recompute
        self.weight = nn.Parameter(torch.zeros(width))
        self.frozen = nn.Parameter(torch.zeros(7), requires_grad=False)
        self.register_buffer("mean", torch.zeros(()))

    def forward(self, batch):
        self.mean += 1
        x = self.weight.expand(len(batch), -1)
        for _ in range(self.steps):
            x = checkpoint(exp_of_sine, x, use_reentrant=False) if self.recompute else exp_of_sine(x)
        return Losses(x.sum(), {})


def exp_of_sine(x):
    """Saves its argument for the sine and its result for exp: two tensors a step, one of them shared with the next."""
    return x.sin().exp()


def footprint(**changes):
    values = {"model": 100 * MIB, "shared": 10 * MIB, "request": MIB, "available": 1000 * MIB}
    return Footprint(**{**values, **changes})


def test_what_the_backward_pass_needs_adds_up():
    # Of each step the sine's argument is saved, which is the result that the step before it saved.
    tensor = 16 * 100 * 4
    peaks = [peak_bytes(Chain(steps=steps), requests(16)) for steps in (4, 5, 6)]
    assert [later - earlier for earlier, later in pairwise(peaks)] == [tensor, tensor]


def test_recomputing_holds_one_step_at_a_time():
    def step_sizes(x):
        return x.sin().exp().sin().exp()

    class Long(Chain):
        def forward(self, batch):
            x = self.weight.expand(len(batch), -1)
            for _ in range(self.steps):
                x = checkpoint(step_sizes, x, use_reentrant=False) if self.recompute else step_sizes(x)
            return Losses(x.sum(), {})

    kept, recomputed = (peak_bytes(Long(steps=10, recompute=recompute), requests(16)) for recompute in (False, True))
    tensor = 16 * 100 * 4
    assert kept >= 20 * tensor
    assert 10 * tensor < recomputed < 16 * tensor


def test_views_weights_and_their_gradients_are_not_counted():
    class Views(Chain):
        def forward(self, batch):
            wide = self.weight.view(10, 10).view(-1).expand(len(batch), -1)
            return Losses((wide * 1.0).view(-1).view(len(batch), -1).sum(), {})

    product = 16 * 100 * 4
    assert product <= peak_bytes(Views(), requests(16)) < 1.2 * product


def test_weights_gradients_and_moments_are_counted_exactly_and_activations_by_request():
    model = Chain()
    optimizer = torch.optim.AdamW([model.weight])
    found = measure(model, optimizer, requests(16), device="cpu")
    assert found.model == 4 * (100 + 7 + 1) + 3 * 4 * 100
    assert found.request >= 2 * 400
    assert found.request == int(found.request)
    assert found.activations(16) == peak_bytes(model, requests(16))
    assert found.available > 1000


def test_a_single_request_is_enough_to_count():
    model = Chain()
    found = measure(model, torch.optim.AdamW([model.weight]), requests(1), device="cpu")
    assert found.activations(1) == peak_bytes(model, requests(1))


def test_measuring_leaves_weights_gradients_and_running_means_alone():
    model = Chain()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    measure(model, torch.optim.AdamW([model.weight]), requests(16), device="cpu")
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert model.weight.grad is None


@given(st.integers(0, 2**34), st.floats(0, 2**32), st.floats(1, 2**28), st.integers(1, 2**36))
def test_the_automatic_batch_is_the_largest_power_of_two_within_half_of_the_memory(model, shared, request, available):
    found = Footprint(model, shared, request, available)
    fitting = [size for size in (8, 16, 32, 64, 128, 256, 512) if found.total(size) <= available / 2]
    if fitting:
        assert automatic_batch_size(found) == fitting[-1]
    else:
        with pytest.raises(BadInputError, match=r"even 8 requests need about .* more than half"):
            automatic_batch_size(found)


def test_ends_of_the_automatic_range():
    assert automatic_batch_size(footprint(available=10**15)) == LARGEST
    assert automatic_batch_size(footprint(available=int((100 + 10 + LEAST) * MIB / SHARE))) == LEAST


def test_the_line_tells_what_is_needed_and_of_how_much():
    assert footprint(available=20 << 30).describe(128) == (
        "  memory: about 238 MiB of 20.0 GiB at batch_size 128 (weights, gradients and Adam 100 MiB, activations "
        "138 MiB)"
    )


def test_a_batch_that_may_not_fit_is_warned_of_with_what_helps():
    line = footprint(available=200 * MIB).describe(128)
    assert line.startswith("  memory may not suffice: about 238 MiB of 200 MiB at batch_size 128")
    assert line.endswith("try gradient_checkpointing, precision bf16, batch_size 64")
    assert footprint(available=MIB).describe(8).endswith("try gradient_checkpointing, precision bf16")


def test_the_manifest_gets_mebibytes():
    assert footprint().mib(8) == {"model": 100.0, "activations": 18.0, "available": 1000.0}
