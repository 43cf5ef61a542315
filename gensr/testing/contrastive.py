"""What every contrastive loss owes its users, as a pytest base class."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class ContrastiveContract:
    """Derive from it, return your loss from `make`, and pytest does the rest.

    Example:
        >>> class TestMyLoss(ContrastiveContract):
        ...     def make(self):
        ...         return MyLoss(self.dim)
    """

    dim = 32
    rows = 16
    has_negatives = True
    """Whether rows of other groups are pushed away, as `ContrastiveConfig.has_negatives` says."""
    pairs_rows = True
    """Whether row u of one view belongs to row u of the other, as `ContrastiveConfig.pairs_rows` says."""

    def make(self) -> nn.Module:
        """A new loss for views of width `dim`."""
        raise NotImplementedError

    def loss(self) -> nn.Module:
        """The loss under test: seeded, in training mode."""
        torch.manual_seed(0)
        return self.make()

    def inputs(self) -> tuple[Tensor, Tensor, Tensor]:
        """Two unrelated views [rows, dim], and the rows' groups, all different."""
        generator = torch.Generator().manual_seed(1)
        a, b = (torch.randn(self.rows, self.dim, generator=generator) for _ in range(2))
        return a, b, torch.arange(self.rows)

    def test_it_is_a_finite_scalar(self) -> None:
        """Float32, whatever comes in."""
        value = self.loss()(*self.inputs())
        assert value.shape == ()
        assert value.dtype == torch.float32
        assert value.isfinite()

    def test_bfloat16_views_are_accepted(self) -> None:
        """Mixed precision gives a float32 loss that is about the same."""
        a, b, group = self.inputs()
        loss = self.loss()
        value = loss(a.bfloat16(), b.bfloat16(), group)
        assert value.dtype == torch.float32
        torch.testing.assert_close(value, loss(a, b, group), atol=0.1, rtol=0.1)

    def test_it_computes_in_float32_under_autocast(self) -> None:
        """Sums over a batch lose too much in bfloat16."""
        loss = self.loss()
        with torch.autocast("cpu", torch.bfloat16):
            value = loss(*self.inputs())
        assert torch.equal(value, loss(*self.inputs()))

    def test_aligned_views_cost_less_than_unrelated_ones(self) -> None:
        """What the loss is for."""
        a, b, group = self.inputs()
        loss = self.loss()
        assert loss(a, a + 0.01 * b, group) < loss(a, b, group)

    def test_a_step_downhill_aligns_the_views(self) -> None:
        """The gradient lowers the loss and, where rows belong together, raises their cosine."""
        a, b, group = self.inputs()
        a.requires_grad_()
        loss = self.loss()
        before = loss(a, b, group)
        before.backward()
        assert a.grad is not None
        moved = a.detach() - 0.1 * a.grad / a.grad.norm(dim=1, keepdim=True)
        assert loss(moved, b, group) < before
        if self.pairs_rows:
            assert torch.cosine_similarity(moved, b).mean() > torch.cosine_similarity(a.detach(), b).mean()

    def test_gradients_reach_every_row_of_both_views_and_every_parameter(self) -> None:
        """Nothing is detached that is to be learnt."""
        a, b, group = (part.clone() for part in self.inputs())
        loss = self.loss()
        value = loss(a.requires_grad_(), b.requires_grad_(), group)
        value.backward()
        for view in (a, b):
            assert view.grad is not None
            assert view.grad.any(dim=1).all()
        assert all(part.grad is not None and part.grad.any() for part in loss.parameters())

    def test_the_order_of_rows_does_not_matter(self) -> None:
        """A batch is a set."""
        a, b, group = self.inputs()
        order = torch.randperm(self.rows, generator=torch.Generator().manual_seed(2))
        loss = self.loss()
        torch.testing.assert_close(loss(a, b, group), loss(a[order], b[order], group[order]), atol=1e-5, rtol=1e-5)

    def test_who_belongs_to_whom_matters_where_rows_are_paired(self) -> None:
        """Shuffling one view alone mixes up the users."""
        a, b, group = self.inputs()
        loss = self.loss()
        kept, shuffled = loss(a, a + 0.1 * b, group), loss(a, (a + 0.1 * b).roll(1, 0), group)
        if self.pairs_rows:
            assert kept < shuffled
        else:
            torch.testing.assert_close(kept, shuffled, atol=1e-5, rtol=1e-5)

    def test_without_groups_every_row_is_its_own(self) -> None:
        """`group` may be None."""
        a, b, group = self.inputs()
        loss = self.loss()
        assert torch.equal(loss(a, b, None), loss(a, b, group))

    def test_rows_of_one_group_are_no_negatives_of_each_other(self) -> None:
        """The fewer negatives, the lower the loss; a loss without negatives does not look."""
        a, b, group = self.inputs()
        loss = self.loss()
        alone, in_pairs = loss(a, b, group), loss(a, b, group // 2)
        if self.has_negatives:
            assert in_pairs < alone
        else:
            assert torch.equal(in_pairs, alone)

    def test_groups_are_names(self) -> None:
        """User rows are no range, and not sorted."""
        a, b, group = self.inputs()
        loss = self.loss()
        assert torch.equal(loss(a, b, group // 3), loss(a, b, 1000 - 7 * (group // 3)))

    def test_one_row_costs_nothing(self) -> None:
        """The last batch of an epoch may hold a single row: exactly 0, with zero gradient."""
        a, b, group = (part[:1].clone() for part in self.inputs())
        self._assert_free(a, b, group)
        self._assert_free(a, b, None)

    def test_one_group_costs_nothing(self) -> None:
        """A batch may hold a single user: exactly 0, with zero gradient."""
        a, b, group = self.inputs()
        self._assert_free(a, b, torch.full_like(group, 5))

    def test_zero_vectors_give_no_nan(self) -> None:
        """A view may have nothing to say about a user, or about anybody."""
        a, b, group = self.inputs()
        a[:3] = 0
        b[2:4] = 0
        self._assert_finite(a, b, group)
        self._assert_finite(torch.zeros_like(a), b, group)
        self._assert_finite(torch.zeros_like(a), torch.zeros_like(b), group)

    def _assert_finite(self, a: Tensor, b: Tensor, group: Tensor) -> None:
        value, gradients = self._gradients(a, b, group)
        assert value.isfinite()
        for gradient in gradients:
            assert gradient.isfinite().all()
            assert gradient.abs().max() < 1e3

    def _assert_free(self, a: Tensor, b: Tensor, group: Tensor | None) -> None:
        value, gradients = self._gradients(a, b, group)
        assert value == 0
        assert not any(gradient.any() for gradient in gradients)

    def _gradients(self, a: Tensor, b: Tensor, group: Tensor | None) -> tuple[Tensor, list[Tensor]]:
        a, b = (view.detach().clone().requires_grad_() for view in (a, b))
        loss = self.loss()
        value = loss(a, b, group)
        value.backward()
        gradients = [part.grad for part in (a, b, *loss.parameters())]
        return value, [gradient for gradient in gradients if gradient is not None]
