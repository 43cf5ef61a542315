"""What every history encoder owes its users, as a pytest base class."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class HistoryContract:
    """Derive from it, return your encoder from `make`, and pytest does the rest.

    Events stand oldest first with padding on the right. Whether order and task types matter is the encoder's affair;
    whether it needs `gensr.encoders.HistoryEncoder`, which keeps the promises about padding and empty histories, too.

    Example:
        >>> class TestMyEncoder(HistoryContract):
        ...     def make(self):
        ...         return MyEncoder(self.dim, max_length=self.max_length)
    """

    dim = 8
    max_length = 6

    def make(self) -> nn.Module:
        """A new encoder of width `dim` for histories of up to `max_length`."""
        raise NotImplementedError

    def encoder(self) -> nn.Module:
        """The encoder under test: seeded, in eval mode."""
        torch.manual_seed(0)
        return self.make().eval()

    def inputs(self) -> tuple[Tensor, Tensor, Tensor]:
        """Histories of 5, 2 and no events: x [3, 5, dim], mask [3, 5], task [3, 5]."""
        x = torch.randn(3, 5, self.dim, generator=torch.Generator().manual_seed(1))
        mask = torch.arange(5) < torch.tensor([[5], [2], [0]])
        return x, mask, torch.tensor([1, 2, 2, 1, 2]) * mask

    def test_shape_is_kept(self) -> None:
        """[B, L, dim] in and out."""
        assert self.encoder()(*self.inputs()).shape == (3, 5, self.dim)

    def test_padding_gives_zeros(self) -> None:
        """Beside real events, padded positions are exactly 0."""
        assert not self.encoder()(*self.inputs())[1, 2:].any()

    def test_values_under_the_mask_do_not_matter(self) -> None:
        """Not even NaN."""
        x, mask, task = self.inputs()
        encoder = self.encoder()
        garbage = x.masked_fill(~mask.unsqueeze(-1), float("nan"))
        torch.testing.assert_close(encoder(x, mask, task), encoder(garbage, mask, task))

    def test_padding_length_does_not_matter(self) -> None:
        """Cutting padding, or adding it, changes nothing for the events."""
        x, mask, task = self.inputs()
        encoder = self.encoder()
        short = encoder(x[1:, :2], mask[1:, :2], task[1:, :2])
        torch.testing.assert_close(encoder(x, mask, task)[1:, :2], short, atol=1e-5, rtol=1e-5)

    def test_requests_do_not_see_each_other(self) -> None:
        """One history alone gives what it gives in a batch."""
        x, mask, task = self.inputs()
        encoder = self.encoder()
        whole = encoder(x, mask, task)
        for row in range(3):
            part = slice(row, row + 1)
            alone = encoder(x[part], mask[part], task[part])
            torch.testing.assert_close(whole[part], alone, atol=1e-5, rtol=1e-5)

    def test_an_empty_history_gives_one_learned_vector(self) -> None:
        """Finite, the same for everybody and at every position, and trained."""
        x, _, task = self.inputs()
        encoder = self.encoder()
        empty = encoder(x, torch.zeros(3, 5, dtype=torch.bool), torch.zeros_like(task))
        assert empty.isfinite().all()
        assert (empty == empty[0, 0]).all()
        empty[:, 0].sum().backward()
        assert any(p.grad is not None and bool(p.grad.any()) for p in encoder.parameters())

    def test_what_happened_matters(self) -> None:
        """Other events give other vectors."""
        x, mask, task = self.inputs()
        encoder = self.encoder()
        difference = (encoder(x, mask, task) - encoder(-x, mask, task)).flatten(1).abs().amax(dim=1)
        assert (difference[:2] > 1e-4).all()

    def test_gradients_reach_the_events_and_every_parameter(self) -> None:
        """Nothing is detached that is to be learnt, and nothing is learnt from what stands under the mask."""
        x, mask, task = self.inputs()
        encoder = self.encoder()
        with torch.no_grad():  # off starting values that let nothing through
            for parameter in encoder.parameters():
                parameter.add_(0.1 * torch.randn_like(parameter))
        towards = torch.randn(x.shape, generator=torch.Generator().manual_seed(2))
        (encoder(x.requires_grad_(), mask, task) * towards).sum().backward()
        assert x.grad is not None
        assert x.grad[:2].flatten(1).any(dim=1).all()
        assert not x.grad[~mask].any()
        trained = [parameter for parameter in encoder.parameters() if parameter.requires_grad]
        assert all(parameter.grad is not None and parameter.grad.any() for parameter in trained)

    def test_gradients_are_finite(self) -> None:
        """A batch that holds an empty history trains without NaN."""
        x, mask, task = self.inputs()
        encoder = self.encoder().train()
        x.requires_grad_()
        encoder(x, mask, task).square().sum().backward()
        gradients = [leaf.grad for leaf in (x, *encoder.parameters()) if leaf.grad is not None]
        assert gradients
        assert all(bool(gradient.isfinite().all()) for gradient in gradients)

    def test_a_batch_of_empty_histories_trains_without_nan(self) -> None:
        """In training mode, a batch of new users only."""
        x, mask, task = self.inputs()
        encoder = self.encoder().train()
        x.requires_grad_()
        encoder(x, torch.zeros_like(mask), torch.zeros_like(task)).square().sum().backward()
        gradients = [leaf.grad for leaf in (x, *encoder.parameters()) if leaf.grad is not None]
        assert all(bool(gradient.isfinite().all()) for gradient in gradients)

    def test_it_is_deterministic_in_eval_mode(self) -> None:
        """Scores must be repeatable."""
        encoder = self.encoder()
        assert torch.equal(encoder(*self.inputs()), encoder(*self.inputs()))

    def test_the_longest_history_fits(self) -> None:
        """L = max_length works."""
        x = torch.randn(2, self.max_length, self.dim)
        mask = torch.ones(2, self.max_length, dtype=torch.bool)
        assert self.encoder()(x, mask, mask.long()).isfinite().all()

    def test_one_slot_is_enough(self) -> None:
        """L = 1 works, with and without an event in it."""
        x, mask, task = (part[:, :1] for part in self.inputs())
        encoded = self.encoder()(x, mask, task)
        assert encoded.shape == (3, 1, self.dim)
        assert encoded.isfinite().all()

    def test_it_runs_in_mixed_precision(self) -> None:
        """Under bfloat16 autocast, on bfloat16 inputs."""
        x, mask, task = self.inputs()
        encoder = self.encoder()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            encoded = encoder(x.bfloat16(), mask, task)
        assert encoded.isfinite().all()
        assert not encoded[1, 2:].any()
        assert encoded.shape == x.shape
