"""What every soft filter owes its users, as a pytest base class."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from gensr.fusion.soft_filter.base import Filtered, SoftFilter


class FilterInputs(NamedTuple):
    """Arguments of `SoftFilter.forward`: three histories, of 5, 2 and no items, and four candidates each."""

    history: Tensor  # [3, 5, DIM]
    candidate: Tensor  # [3, 4, DIM]
    mask: Tensor  # [3, 5]
    context: Tensor  # [3, DIM]


class SoftFilterContract:
    """Derive from it, return your filter from `make`, and pytest does the rest.

    What a filter promises in return is free: how many vectors a candidate gets, whether weights sum to 1, whether order
    matters. What every filter must do is what the ranker relies on, one test each.

    Example:
        >>> class TestMyFilter(SoftFilterContract):
        ...     def make(self):
        ...         return MyFilter(self.dim)
    """

    dim = 8

    def make(self) -> SoftFilter:
        """A new filter for vectors of width `dim`."""
        raise NotImplementedError

    def filter(self) -> SoftFilter:
        """The filter under test: seeded, in eval mode, with weights off their special starting values."""
        torch.manual_seed(0)
        soft_filter = self.make().eval()
        with torch.no_grad():
            for parameter in soft_filter.parameters():
                parameter.add_(0.1 * torch.randn_like(parameter))
        return soft_filter

    def inputs(self) -> FilterInputs:
        """Random inputs; whatever stands under the mask is random as well."""
        generator = torch.Generator().manual_seed(1)
        shapes = ((3, 5, self.dim), (3, 4, self.dim), (3, self.dim))
        history, candidate, context = (torch.randn(shape, generator=generator) for shape in shapes)
        return FilterInputs(history, candidate, torch.arange(5) < torch.tensor([[5], [2], [0]]), context)

    def test_shapes_are_as_promised(self) -> None:
        """Tokens [B, C, K, d] with K = tokens(L); weights [B, C, L]."""
        soft_filter = self.filter()
        tokens, weights = soft_filter(*self.inputs())
        assert tokens.shape == (3, 4, soft_filter.tokens(5), self.dim)
        assert weights.shape == (3, 4, 5)

    def test_weights_are_never_negative(self) -> None:
        """Importance is >= 0."""
        assert (self.filter()(*self.inputs()).weights >= 0).all()

    def test_padding_never_receives_weight(self) -> None:
        """Exactly 0, not nearly."""
        inputs = self.inputs()
        weights = self.filter()(*inputs).weights
        assert not weights[~inputs.mask.unsqueeze(1).expand_as(weights)].any()

    def test_values_under_the_mask_do_not_matter(self) -> None:
        """Not even NaN."""
        inputs = self.inputs()
        soft_filter = self.filter()
        garbage = inputs.history.masked_fill(~inputs.mask.unsqueeze(-1), float("nan"))
        _assert_same(soft_filter(*inputs), soft_filter(*inputs._replace(history=garbage)))

    def test_the_history_comes_through(self) -> None:
        """A history of real items has weight, and another history gives other tokens."""
        inputs = self.inputs()
        soft_filter = self.filter()
        tokens, weights = soft_filter(*inputs)
        other = soft_filter(*inputs._replace(history=-inputs.history)).tokens
        assert weights[:2].flatten(1).any(dim=1).all()
        assert ((tokens - other)[:2].flatten(1).abs().amax(dim=1) > 1e-4).all()

    def test_gradients_reach_the_history_and_every_parameter(self) -> None:
        """Nothing is detached that is to be learnt."""
        inputs = self.inputs()
        soft_filter = self.filter()
        inputs.history.requires_grad_()
        soft_filter(*inputs).tokens.square().sum().backward()
        assert inputs.history.grad is not None
        assert inputs.history.grad[:2].flatten(1).any(dim=1).all()
        trained = [parameter for parameter in soft_filter.parameters() if parameter.requires_grad]
        assert all(parameter.grad is not None and parameter.grad.any() for parameter in trained)

    def test_an_empty_history_gives_zeros(self) -> None:
        """Weights and tokens are 0, never NaN."""
        tokens, weights = self.filter()(*self.inputs())
        assert not tokens[2].any()
        assert not weights[2].any()

    def test_an_empty_history_gives_finite_gradients(self) -> None:
        """Training on it does no harm."""
        inputs = self.inputs()
        soft_filter = self.filter()
        for leaf in inputs[:2]:
            leaf.requires_grad_()
        soft_filter(*inputs).tokens.square().sum().backward()
        gradients = [leaf.grad for leaf in (*inputs[:2], *soft_filter.parameters()) if leaf.grad is not None]
        assert all(bool(gradient.isfinite().all()) for gradient in gradients)

    def test_a_batch_of_empty_histories_trains_without_nan(self) -> None:
        """In training mode too, where statistics over the batch would have nothing to count."""
        inputs = self.inputs()
        soft_filter = self.filter().train()
        history, candidate = inputs.history.requires_grad_(), inputs.candidate.requires_grad_()
        tokens, weights = soft_filter(history, candidate, torch.zeros_like(inputs.mask), inputs.context)
        assert not tokens.any()
        assert not weights.any()
        tokens.sum().backward()
        gradients = [leaf.grad for leaf in (history, candidate, *soft_filter.parameters()) if leaf.grad is not None]
        assert all(bool(gradient.isfinite().all()) for gradient in gradients)
        assert all(bool(state.isfinite().all()) for state in soft_filter.state_dict().values())

    def test_candidates_do_not_see_each_other(self) -> None:
        """Vectorised over C: one candidate alone gives what it gives among others."""
        inputs = self.inputs()
        soft_filter = self.filter()
        tokens, weights = soft_filter(*inputs)
        alone = soft_filter(*inputs._replace(candidate=inputs.candidate[:, 2:3]))
        _assert_same(Filtered(tokens[:, 2:3], weights[:, 2:3]), alone)

    def test_requests_do_not_see_each_other(self) -> None:
        """One request alone gives what it gives in a batch."""
        inputs = self.inputs()
        soft_filter = self.filter()
        tokens, weights = soft_filter(*inputs)
        _assert_same(Filtered(tokens[1:2], weights[1:2]), soft_filter(*(part[1:2] for part in inputs)))

    def test_padding_length_does_not_matter(self) -> None:
        """Cutting columns that hold padding only changes nothing for the rest."""
        inputs = self.inputs()._replace(mask=torch.arange(5) < torch.tensor([[3], [2], [0]]))
        soft_filter = self.filter()
        tokens, weights = soft_filter(*inputs)
        short = soft_filter(*inputs._replace(history=inputs.history[:, :3], mask=inputs.mask[:, :3]))
        _assert_same(Filtered(tokens[:, :, : soft_filter.tokens(3)], weights[:, :, :3]), short)

    def test_a_zero_context_is_no_context(self) -> None:
        """Requests without a query carry zeros beside those that have one."""
        inputs = self.inputs()
        soft_filter = self.filter()
        zero = soft_filter(*inputs._replace(context=torch.zeros_like(inputs.context)))
        _assert_same(zero, soft_filter(*inputs[:3]))

    def test_a_filter_that_uses_no_context_reads_none(self) -> None:
        """Where `uses_context` is False nobody prepares one, so it must change nothing."""
        inputs = self.inputs()
        soft_filter = self.filter()
        if not soft_filter.uses_context:
            _assert_same(soft_filter(*inputs), soft_filter(*inputs[:3]), atol=0.0)

    def test_it_is_deterministic_in_eval_mode(self) -> None:
        """Scores must be repeatable."""
        soft_filter = self.filter()
        _assert_same(soft_filter(*self.inputs()), soft_filter(*self.inputs()), atol=0.0)

    def test_a_candidate_may_have_no_competitor(self) -> None:
        """C = 1 and L = 1 work."""
        inputs = self.inputs()
        soft_filter = self.filter()
        tokens, _ = soft_filter(inputs.history[:, :1], inputs.candidate[:, :1], inputs.mask[:, :1])
        assert tokens.shape == (3, 1, soft_filter.tokens(1), self.dim)

    def test_long_histories_work(self) -> None:
        """A history of token vectors may have hundreds of slots."""
        inputs = self.inputs()
        soft_filter = self.filter()
        history = torch.randn(3, 200, self.dim, generator=torch.Generator().manual_seed(2))
        mask = torch.arange(200) < torch.tensor([[200], [70], [0]])
        tokens, weights = soft_filter(history, inputs.candidate, mask, inputs.context)
        assert tokens.shape == (3, 4, soft_filter.tokens(200), self.dim)
        assert tokens.isfinite().all()
        assert weights[:2].sum(-1).isfinite().all()
        assert not weights[~mask.unsqueeze(1).expand_as(weights)].any()

    def test_it_runs_in_mixed_precision(self) -> None:
        """Under bfloat16 autocast, on bfloat16 inputs, the promises about weights hold."""
        inputs = self.inputs()
        soft_filter = self.filter()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            history, candidate, context = (x.bfloat16() for x in (inputs.history, inputs.candidate, inputs.context))
            tokens, weights = soft_filter(history, candidate, inputs.mask, context)
        assert tokens.isfinite().all()
        assert (weights >= 0).all()
        assert not weights[~inputs.mask.unsqueeze(1).expand_as(weights)].any()


def _assert_same(one: Filtered, other: Filtered, *, atol: float = 1e-5) -> None:
    for a, b in zip(one, other, strict=True):
        torch.testing.assert_close(a, b, atol=atol, rtol=atol)
