import math

import numpy as np
import pytest
import scipy.sparse as sp
import torch

from gensr.encoders import CFTable, LightGCN, fit_als, fit_lightgcn
from gensr.encoders.cf.config import CF_SOURCES
from gensr.encoders.cf.lightgcn import STEPS, BPRSampler, normalised_adjacency
from gensr.errors import BadInputError
from gensr.testing.cf import CFContract, two_tastes


class TestEveryCFSource(CFContract):
    @pytest.fixture(autouse=True, params=CF_SOURCES.names())
    def _name(self, request):
        self.name = request.param

    def config(self):
        return CF_SOURCES.get(self.name)()


SMALL = dict(dim=8, layers=2, epochs=3, batch_size=64, learning_rate=1e-2, regularization=1e-4)


def graph(seed=0):
    dense = (np.random.default_rng(seed).random((6, 8)) < 0.4).astype(np.float32)
    dense[0] = dense[:, 0] = dense[4] = 0
    return sp.csr_matrix(dense)


def dense_adjacency(user_items):
    a = np.zeros((sum(user_items.shape),) * 2)
    a[: user_items.shape[0], user_items.shape[0] :] = user_items.toarray()
    a += a.T
    degree = a.sum(1)
    scale = np.where(degree > 0, 1 / np.sqrt(np.maximum(degree, 1)), 0)
    return torch.from_numpy(scale[:, None] * a * scale[None, :]).float()


def dense_mean(user_items, start, layers):
    a = dense_adjacency(user_items)
    return sum(torch.linalg.matrix_power(a, k) @ start for k in range(layers + 1)) / (layers + 1)


def test_the_adjacency_is_normalised_on_both_sides():
    torch.testing.assert_close(normalised_adjacency(graph()).to_dense(), dense_adjacency(graph()))


def test_the_strength_of_an_interaction_does_not_matter():
    strong = graph() * 7
    assert torch.equal(normalised_adjacency(strong).to_dense(), normalised_adjacency(graph()).to_dense())


@pytest.mark.parametrize("layers", [0, 1, 2, 3])
def test_propagation_is_the_mean_over_powers_of_the_adjacency(layers):
    model = LightGCN(graph(), dim=5, layers=layers, seed=1)
    users, items = model.propagate()
    assert (users.shape, items.shape) == ((6, 5), (8, 5))
    torch.testing.assert_close(torch.cat([users, items]), dense_mean(graph(), model.embedding, layers))


@pytest.mark.parametrize("layers", [0, 2, 3])
def test_the_loss_and_its_gradient_equal_those_of_dense_matrices(layers):
    model = LightGCN(graph(), dim=5, layers=layers, regularization=0.3, seed=1)
    u, i, j = torch.tensor([1, 1, 2, 3]), torch.tensor([1, 5, 2, 7]), torch.tensor([3, 3, 6, 1])
    model.loss(u, i, j).backward()

    start = model.embedding.detach().clone().requires_grad_()
    nodes = dense_mean(graph(), start, layers)
    margin = (nodes[u] * (nodes[6 + i] - nodes[6 + j])).sum(1)
    squares = start[u].square().sum() + start[6 + i].square().sum() + start[6 + j].square().sum()
    expected = -torch.nn.functional.logsigmoid(margin).mean() + 0.3 * 0.5 * squares / 4
    expected.backward()

    torch.testing.assert_close(model.loss(u, i, j), expected)
    torch.testing.assert_close(model.embedding.grad, start.grad)


def test_bpr_starts_at_ln_2():
    interactions = two_tastes(users=200, items=100)
    model = LightGCN(interactions, dim=64)
    users, positives, negatives = next(BPRSampler(interactions, seed=0).epoch(2048))
    assert model.loss(users, positives, negatives).item() == pytest.approx(math.log(2), abs=0.01)


def test_an_epoch_visits_every_interaction_once_and_never_draws_a_known_item():
    interactions = two_tastes()
    dense = torch.from_numpy(interactions.toarray())
    seen = []
    for users, positives, negatives in BPRSampler(interactions, seed=0).epoch(50):
        assert not (dense[users, negatives]).any()
        assert negatives.max() <= 24  # the last two items have no interaction: nothing is learnt from them
        seen += list(zip(users.tolist(), positives.tolist(), strict=True))
    assert sorted(seen) == sorted(zip(*(axis.tolist() for axis in interactions.nonzero()), strict=True))


def test_negatives_are_uniform_over_what_a_user_did_not_touch():
    interactions = sp.csr_matrix(([1.0] * 7, ([1, 1, 2, 2, 2, 2, 2], [1, 2, 1, 2, 3, 4, 5])), shape=(3, 6))
    sampler = BPRSampler(interactions, seed=0)
    drawn = torch.cat([n for _ in range(1500) for _, _, n in sampler.epoch(8)])
    counts = drawn.bincount(minlength=6)
    assert counts[:3].sum() == 0
    assert counts.sum() == 3000  # user 2 touched everything and is left out
    assert ((counts[3:] - 1000).abs() < 120).all()


def test_layer_0_is_exported_on_request():
    table = fit_lightgcn(graph(), **SMALL | {"layers": 0})
    same = fit_lightgcn(graph(), **SMALL | {"layers": 0}, layer0=True)
    torch.testing.assert_close(table.items, same.items)
    assert not torch.allclose(fit_lightgcn(graph(), **SMALL).items, fit_lightgcn(graph(), **SMALL, layer0=True).items)


def test_a_small_log_is_still_seen_in_many_steps():
    calls = []

    class Spy(LightGCN):
        def loss(self, *batch):
            calls.append(len(batch[0]))
            return super().loss(*batch)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("gensr.encoders.cf.lightgcn.LightGCN", Spy)
        fit_lightgcn(two_tastes(), **SMALL | {"epochs": 1, "batch_size": 8192})
    assert len(calls) == STEPS
    assert sum(calls) == two_tastes().nnz


def test_only_the_interactions_given_matter():
    """Held-out pairs cannot leak: the table is a function of the training matrix and the seed alone."""
    full = two_tastes()
    training = full.tolil()
    training[3, full[3].nonzero()[1][-1]] = 0
    training = training.tocsr()
    explicit = training.copy()
    training.eliminate_zeros()
    assert torch.equal(fit_lightgcn(training, **SMALL).items, fit_lightgcn(explicit, **SMALL).items)
    assert not torch.equal(fit_lightgcn(training, **SMALL).items, fit_lightgcn(full, **SMALL).items)


@pytest.mark.parametrize("nothing", [sp.csr_matrix((4, 5)), sp.csr_matrix(([1.0], ([1], [1])), shape=(4, 5))])
def test_a_log_without_a_comparison_to_learn_from_is_refused(nothing):
    with pytest.raises(
        BadInputError, match="LightGCN learns from interactions compared with items a user did not touch"
    ):
        fit_lightgcn(nothing, **SMALL)


def test_divergence_is_named():
    with pytest.raises(BadInputError, match=r"LightGCN diverged in epoch 1: lower its learning_rate"):
        fit_lightgcn(two_tastes(), **SMALL | {"learning_rate": 1e30})


def test_als_equals_a_fit_without_the_padding_row_and_column():
    from implicit.als import AlternatingLeastSquares

    interactions = two_tastes()
    table = fit_als(interactions, dim=4, iterations=3, regularization=0.1, alpha=2.0, seed=5)
    model = AlternatingLeastSquares(4, regularization=0.1, alpha=2.0, iterations=3, random_state=5, num_threads=1)
    model.fit(interactions[1:, 1:], show_progress=False)
    torch.testing.assert_close(table.users[1:-2], torch.from_numpy(model.user_factors[:-2]))
    torch.testing.assert_close(table.items[1:-2], torch.from_numpy(model.item_factors[:-2]))


def test_fitting_says_nothing_unless_asked(capfd):
    for name in CF_SOURCES.names():
        CF_SOURCES.get(name)(dim=4).fit(two_tastes(), seed=0)
    assert capfd.readouterr() == ("", "")


def test_progress_leaves_stdout_to_results(capfd):
    fit_lightgcn(two_tastes(), **SMALL, progress=True)
    assert capfd.readouterr().out == ""


def test_a_saved_table_is_read_back_bit_for_bit(tmp_path):
    table = fit_lightgcn(graph(), **SMALL)
    table.save(tmp_path / "cf.safetensors")
    again = CFTable.load(tmp_path / "cf.safetensors")
    assert torch.equal(table.users, again.users)
    assert torch.equal(table.items, again.items)
    assert [path.name for path in tmp_path.iterdir()] == ["cf.safetensors"]


def test_a_truncated_table_is_named_with_the_cure(tmp_path):
    path = tmp_path / "cf.safetensors"
    CFTable(torch.ones(2, 3), torch.ones(4, 3)).save(path)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(BadInputError, match=r"cf\.safetensors cannot be read, .* Delete it"):
        CFTable.load(path)
