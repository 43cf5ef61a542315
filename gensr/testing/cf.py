"""What every CF source owes its users, as a pytest base class."""

from __future__ import annotations

from functools import cached_property

import numpy as np
import pytest
import scipy.sparse as sp
import torch

from gensr.encoders.cf.config import CFConfig
from gensr.encoders.cf.table import CFTable


def two_tastes(*, users: int = 40, items: int = 24, each: int = 8, seed: int = 0) -> sp.csr_matrix:
    """Interactions of two crowds that never touch each other's items.

    Odd users touch `each` of the odd items, even users of the even ones; the last two users and items touch nothing.

    Returns:
        Binary float32 csr [users + 3, items + 3], row and column 0 empty.
    """
    generator = np.random.default_rng(seed)
    rows = np.repeat(np.arange(1, users + 1), each)
    pools = [np.arange(1 if user % 2 else 2, items + 1, 2) for user in range(1, users + 1)]
    columns = np.concatenate([generator.choice(pool, each, replace=False) for pool in pools])
    return sp.csr_matrix((np.ones(len(rows), np.float32), (rows, columns)), shape=(users + 3, items + 3))


class CFContract:
    """Derive from it, return your config from `config`, and pytest does the rest.

    Example:
        >>> class TestMyCF(CFContract):
        ...     def config(self):
        ...         return MyCFConfig(dim=8)
    """

    learns: bool = True
    """Whether the vectors say who is like whom; a control's do not."""
    seeded: bool = True
    """Whether another seed gives another table."""

    def config(self) -> CFConfig:
        """The config under test, small enough for a second."""
        raise NotImplementedError

    @cached_property
    def interactions(self) -> sp.csr_matrix:
        """What is fitted: see `two_tastes`."""
        return two_tastes()

    def table(self, seed: int = 0, interactions: sp.csr_matrix | None = None) -> CFTable:
        """The table fitted to `interactions`."""
        return self.config().fit(self.interactions if interactions is None else interactions, seed=seed)

    def test_tables_have_a_float32_row_for_everybody(self) -> None:
        """Users [U+1, d], items [I+1, d], finite."""
        table = self.table()
        users, items = self.interactions.shape
        assert table.users.shape == (users, table.dim)
        assert table.items.shape == (items, table.dim)
        assert table.users.dtype == table.items.dtype == torch.float32
        assert table.users.isfinite().all()
        assert table.items.isfinite().all()

    def test_rows_without_interactions_are_zero(self) -> None:
        """Padding row 0 and everybody untouched; nobody else."""
        table = self.table()
        for rows, axis in ((table.users, 1), (table.items, 0)):
            touched = torch.from_numpy(np.asarray(self.interactions.sum(axis)).ravel() > 0)
            assert torch.equal(rows.abs().sum(1) > 0, touched)

    def test_items_of_one_crowd_are_closer_than_items_of_two(self) -> None:
        """What the vectors are for."""
        self._require("learns")
        items = torch.nn.functional.normalize(self.table().items[1:-2], dim=1)
        cosine = (items @ items.T).fill_diagonal_(0)
        number = torch.arange(len(items))
        own = (number.unsqueeze(0) - number.unsqueeze(1)) % 2 == 0
        # By item and in sign only: a wide table may fit so small a log almost without generalising.
        closer = (cosine * own).sum(1) / (own.sum(1) - 1) > (cosine * ~own).sum(1) / (~own).sum(1)
        assert closer.float().mean() > 0.9

    def test_users_prefer_items_of_their_own_crowd(self) -> None:
        """Users and items share one space."""
        self._require("learns")
        table = self.table()
        scores = table.users[1:-2] @ table.items[1:-2].T
        odd = scores[:, ::2].mean(1) - scores[:, 1::2].mean(1)
        assert (odd[::2] > 0).all()
        assert (odd[1::2] < 0).all()

    def test_one_seed_gives_one_table(self) -> None:
        """Bit for bit."""
        assert_same_table(self.table(), self.table())

    def test_two_seeds_give_two_tables(self) -> None:
        """The seed reaches the method."""
        self._require("seeded")
        assert not torch.equal(self.table(0).items, self.table(1).items)

    def test_the_matrix_is_left_as_it_was(self) -> None:
        """Fitting does not write into what it reads."""
        before = self.interactions.copy()
        self.table()
        assert (before != self.interactions).nnz == 0

    def test_raw_ids_change_nothing_for_a_source_that_has_none(self) -> None:
        """What the pipeline calls gives what `fit` gives."""
        users, items = ([""] + [str(row) for row in range(1, size)] for size in self.interactions.shape)
        table = self.config().table(self.interactions, user_ids=users, item_ids=items, seed=0)
        assert_same_table(table, self.table())

    def test_only_the_interactions_given_matter(self) -> None:
        """Held-out pairs cannot leak: the table is a function of the training matrix, its values 0, and the seed."""
        held_out = self.interactions.copy()
        held_out.data[::5] = 0
        training = held_out.copy()
        training.eliminate_zeros()
        table = self.table(interactions=training)
        assert_same_table(self.table(interactions=held_out), table)
        if self.config().fitted:
            assert not torch.equal(table.items, self.table().items)

    def _require(self, claim: str) -> None:
        if not getattr(self, claim):
            pytest.skip(f"{type(self.config()).__name__} does not claim that it is: {claim}")


def assert_same_table(one: CFTable, other: CFTable) -> None:
    """Bit for bit."""
    assert torch.equal(one.users, other.users)
    assert torch.equal(one.items, other.items)
