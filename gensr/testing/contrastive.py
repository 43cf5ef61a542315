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

    def test_aligned_views_cost_less_than_unrelated_ones(self) -> None:
        """What the loss is for."""
        a, b, group = self.inputs()
        loss = self.loss()
        assert loss(a, a + 0.01 * b, group) < loss(a, b, group)

    def test_a_step_downhill_aligns_the_views(self) -> None:
        """The gradient raises the cosine of matching rows."""
        a, b, group = self.inputs()
        a.requires_grad_()
        self.loss()(a, b, group).backward()
        assert a.grad is not None
        moved = a.detach() - 0.1 * a.grad / a.grad.norm(dim=1, keepdim=True)
        assert torch.cosine_similarity(moved, b).mean() > torch.cosine_similarity(a.detach(), b).mean()

    def test_the_order_of_rows_does_not_matter(self) -> None:
        """A batch is a set."""
        a, b, group = self.inputs()
        order = torch.randperm(self.rows, generator=torch.Generator().manual_seed(2))
        loss = self.loss()
        torch.testing.assert_close(loss(a, b, group), loss(a[order], b[order], group[order]), atol=1e-5, rtol=1e-5)

    def test_one_row_gives_no_nan(self) -> None:
        """The last batch of an epoch may hold a single row."""
        self._assert_finite(*(part[:1].clone() for part in self.inputs()))

    def test_one_group_gives_no_nan(self) -> None:
        """A batch may hold a single user."""
        a, b, group = self.inputs()
        self._assert_finite(a, b, torch.zeros_like(group))

    def test_zero_vectors_give_no_nan(self) -> None:
        """A view may have nothing to say about a user."""
        a, b, group = self.inputs()
        a[:3] = 0
        b[2:4] = 0
        self._assert_finite(a, b, group)

    def _assert_finite(self, a: Tensor, b: Tensor, group: Tensor) -> None:
        a.requires_grad_()
        b.requires_grad_()
        value = self.loss()(a, b, group)
        value.backward()
        assert value.isfinite()
        assert a.grad is not None
        assert b.grad is not None
        assert a.grad.isfinite().all()
        assert b.grad.isfinite().all()
        assert max(a.grad.abs().max(), b.grad.abs().max()) < 1e3
