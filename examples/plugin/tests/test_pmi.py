import numpy as np
import pytest
import scipy.sparse as sp
import torch
from gensr_recency.pmi import fit_pmi, shifted_ppmi

from gensr.encoders.cf.config import CF_SOURCES
from gensr.errors import BadInputError
from gensr.testing.cf import CFContract, two_tastes


class TestPMIKeepsTheContractOfCFSources(CFContract):
    seeded = False  # nothing is random

    def config(self):
        return CF_SOURCES.parse({"type": "pmi", "dim": 8})


def by_hand(user_items, negatives):
    """The published formula, with loops over pairs."""
    dense = user_items.toarray() > 0
    n = dense.shape[1]
    together = [[int((dense[:, i] & dense[:, j]).sum()) if i != j else 0 for j in range(n)] for i in range(n)]
    counts = [sum(row) for row in together]
    values = np.zeros((n, n))
    for i in range(n):
        for j in range(n):
            if together[i][j]:
                values[i, j] = max(np.log(together[i][j] * sum(counts) / (counts[i] * counts[j]) / negatives), 0)
    return values


@pytest.mark.parametrize("negatives", [1.0, 1.3])
def test_associations_follow_levy_and_goldberg(negatives):
    interactions = two_tastes(users=20, items=12, each=3)
    found = shifted_ppmi(interactions, negatives=negatives).toarray()
    np.testing.assert_allclose(found, by_hand(interactions, negatives))


def test_vectors_are_the_best_of_their_width():
    """U S U^T of the singular values, up to signs: eigenvalues below zero have U = -V."""
    interactions = two_tastes()
    items = fit_pmi(interactions, dim=6).items.double().numpy()
    values, vectors = np.linalg.eigh(by_hand(interactions, 1.0))
    strongest = np.argsort(-abs(values))[:6]
    expected = (vectors[:, strongest] * abs(values[strongest])) @ vectors[:, strongest].T
    np.testing.assert_allclose(items @ items.T, expected, atol=1e-4)


def test_a_user_is_the_mean_of_their_items():
    interactions = two_tastes()
    table = fit_pmi(interactions, dim=8)
    for user in (1, 7):
        touched = interactions[user].nonzero()[1]
        torch.testing.assert_close(table.users[user], table.items[touched].mean(0))


def test_a_table_wider_than_its_log_ends_in_zero_columns():
    table = fit_pmi(two_tastes(items=12, each=4), dim=64)
    assert table.dim == 64
    assert not table.items[:, 11:].any()
    assert table.items[:, :11].any()


def test_a_log_without_company_is_refused():
    with pytest.raises(BadInputError, match="0 items are touched together with another more often than by chance"):
        fit_pmi(sp.identity(5, format="csr"), dim=2)
