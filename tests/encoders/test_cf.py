import math
import warnings

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from threadpoolctl import threadpool_limits

from gensr.bench.run import BASELINES, baselines_in
from gensr.bench.suites.cf import Size, long_tailed
from gensr.encoders import CFTable, LightGCN, fit_als, fit_bpr, fit_lightgcn, fit_lmf, random_table
from gensr.encoders.cf import propagation
from gensr.encoders.cf.config import CF_SOURCES
from gensr.encoders.cf.lightgcn import STEPS, BPRSampler
from gensr.encoders.cf.propagation import normalised_adjacency, sum_over_layers
from gensr.errors import BadInputError
from gensr.testing.cf import CFContract, assert_same_table, two_tastes


def _file(folder):
    table = fit_als(two_tastes(), dim=8, iterations=5, regularization=0.01, alpha=1.0)
    table.save(folder / "table.safetensors")
    return {"path": str(folder / "table.safetensors"), "key": "items", "user_key": "users"}


REQUIRED = {"file": _file}
"""How to write what a source needs into a folder, and the options that name it."""
CONTROLS = {"random"}
SEEDLESS = {"file"}


def small_config(name, folder):
    cls = CF_SOURCES.get(name)
    if any(field.is_required() for field in cls.model_fields.values()) and name not in REQUIRED:
        pytest.fail(f"the CF source {name!r} has required options: add it to REQUIRED, so that its contract is tested")
    return cls(**REQUIRED[name](folder)) if name in REQUIRED else cls()


class TestEveryCFSource(CFContract):
    @pytest.fixture(autouse=True, params=CF_SOURCES.names())
    def _name(self, request, tmp_path):
        self.learns, self.seeded = request.param not in CONTROLS, request.param not in SEEDLESS
        self._config = small_config(request.param, tmp_path)

    def config(self):
        return self._config


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


@pytest.mark.parametrize("block", [1, 15, 1 << 22])
@pytest.mark.parametrize("layers", [0, 1, 3])
def test_blocks_of_any_size_sum_to_the_same_layers(layers, block, monkeypatch):
    monkeypatch.setattr(propagation, "BLOCK", block)
    start = torch.randn(14, 5, generator=torch.Generator().manual_seed(0))
    memory = torch.full((2, 14, 5), torch.nan)  # what it held before does not matter
    total = sum_over_layers(normalised_adjacency(graph()), start, layers, memory)
    torch.testing.assert_close(total, (layers + 1) * dense_mean(graph(), start, layers))


def test_a_graph_without_edges_keeps_the_start():
    model = LightGCN(sp.csr_matrix((3, 4)), dim=2, layers=2)
    torch.testing.assert_close(torch.cat(model.propagate()), model.embedding.detach() / 3)


@pytest.mark.parametrize("layers", [0, 1, 2, 3])
def test_a_step_in_kept_memory_has_the_gradient_of_the_loss(layers):
    model = LightGCN(graph(), dim=5, layers=layers, regularization=0.3, seed=1)
    memory = torch.full((3, 14, 5), torch.nan)
    for batch in BPRSampler(graph(), seed=0).epoch(7):
        model.embedding.grad = None
        loss = model.loss(*batch)
        loss.backward()
        expected = model.embedding.grad
        found = model.backward(*batch, memory=memory)
        torch.testing.assert_close(found, loss.detach())
        torch.testing.assert_close(model.embedding.grad, expected)


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_losses_and_gradients_equal_those_of_the_usual_form(layers):
    usual = baselines_in(BASELINES)("lightgcn")
    interactions = long_tailed(Size("toy", users=300, items=100, edges=2000))
    shape = {"dim": 16, "layers": layers, "regularization": 1e-2}
    ours, theirs = LightGCN(interactions, **shape, seed=1), usual.LightGCN(interactions, **shape)
    theirs.start_from(ours.embedding)
    batch = next(BPRSampler(interactions, seed=0).epoch(512))

    expected = theirs.loss(*batch)
    expected.backward()
    loss = ours.backward(*batch, memory=ours.embedding.new_empty(3, *ours.embedding.shape))

    assert abs(loss - expected) < 1e-6
    gradient = torch.cat([theirs.users.weight.grad, theirs.items.weight.grad])
    assert (ours.embedding.grad - gradient).abs().max() < 1e-6


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


def test_a_sampler_gives_one_stream_for_one_seed():
    one, other, another = (list(BPRSampler(graph(), seed=seed).epoch(4)) for seed in (3, 3, 4))
    for left, right in zip(one, other, strict=True):
        assert all(map(torch.equal, left, right))
    assert not torch.equal(torch.cat([users for users, _, _ in one]), torch.cat([users for users, _, _ in another]))


@settings(max_examples=50, deadline=None)
@given(st.integers(2, 12), st.integers(2, 12), st.floats(0.1, 0.9), st.integers(0, 1000), st.integers(1, 9))
def test_on_any_graph_negatives_are_touched_by_somebody_else(users, items, density, seed, batch_size):
    dense = np.random.default_rng(seed).random((users + 1, items + 1)) < density
    dense[0] = dense[:, 0] = False
    some = dense.any(0)  # items that somebody touched
    able = [user for user in range(users + 1) if dense[user].any() and (some & ~dense[user]).any()]
    if not able:
        return
    seen = []
    for rows in BPRSampler(sp.csr_matrix(dense.astype(np.float32)), seed=seed).epoch(batch_size):
        assert {len(part) for part in rows} == {len(rows[0])}
        assert len(rows[0]) <= batch_size
        for user, positive, negative in zip(*(part.tolist() for part in rows), strict=True):
            assert dense[user, positive]
            assert some[negative]
            assert not dense[user, negative]
            seen.append((user, positive))
    assert sorted(seen) == [(user, int(item)) for user in able for item in np.flatnonzero(dense[user])]


@pytest.mark.parametrize("name", ["lightgcn", "als"])
def test_the_number_of_threads_changes_nothing(name):
    config = CF_SOURCES.get(name)()
    before = torch.get_num_threads()
    try:
        tables = []
        for threads in (1, 3):
            torch.set_num_threads(threads)
            tables.append(config.fit(two_tastes(users=400, items=90), seed=0))
            assert torch.get_num_threads() == threads  # a fit leaves torch's as they were
    finally:
        torch.set_num_threads(before)
    assert_same_table(*tables)


def test_als_uses_as_many_threads_as_torch(monkeypatch):
    import implicit.als

    made = []
    model = implicit.als.AlternatingLeastSquares

    def spy(**options):
        made.append(options["num_threads"])
        return model(**options)

    monkeypatch.setattr(implicit.als, "AlternatingLeastSquares", spy)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    common = dict(dim=8, iterations=1, regularization=0.1, alpha=1.0)
    fit_als(two_tastes(), **common)
    fit_als(two_tastes(), **common, threads=2)
    assert made == [3, 2]


def test_layer_0_is_exported_on_request():
    table = fit_lightgcn(graph(), **SMALL | {"layers": 0})
    same = fit_lightgcn(graph(), **SMALL | {"layers": 0}, layer0=True)
    torch.testing.assert_close(table.items, same.items)
    assert not torch.allclose(fit_lightgcn(graph(), **SMALL).items, fit_lightgcn(graph(), **SMALL, layer0=True).items)


def test_a_small_log_is_still_seen_in_many_steps():
    calls = []

    class Spy(LightGCN):
        def backward(self, *batch, memory):
            calls.append(len(batch[0]))
            return super().backward(*batch, memory=memory)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("gensr.encoders.cf.lightgcn.LightGCN", Spy)
        fit_lightgcn(two_tastes(), **SMALL | {"epochs": 1, "batch_size": 8192})
    assert len(calls) == STEPS
    assert sum(calls) == two_tastes().nnz


@pytest.mark.parametrize("nothing", [sp.csr_matrix((4, 5)), sp.csr_matrix(([1.0], ([1], [1])), shape=(4, 5))])
def test_a_log_without_a_comparison_to_learn_from_is_refused(nothing):
    with pytest.raises(
        BadInputError, match="LightGCN learns from interactions compared with items a user did not touch"
    ):
        fit_lightgcn(nothing, **SMALL)


def test_divergence_is_named():
    with pytest.raises(BadInputError, match=r"LightGCN diverged in epoch 1: lower its learning_rate"):
        fit_lightgcn(two_tastes(), **SMALL | {"learning_rate": 1e30})


def library_model(name, interactions):
    """The library's own fit, without our padding row and column."""
    from implicit.als import AlternatingLeastSquares
    from implicit.bpr import BayesianPersonalizedRanking
    from implicit.lmf import LogisticMatrixFactorization

    common = dict(random_state=5, num_threads=1, regularization=0.1, iterations=3)
    model = {
        "als": lambda: AlternatingLeastSquares(8, alpha=2.0, **common),
        "bpr": lambda: BayesianPersonalizedRanking(7, learning_rate=0.05, **common),
        "lmf": lambda: LogisticMatrixFactorization(6, learning_rate=0.5, neg_prop=3, **common),
    }[name]()
    model.fit(interactions[1:, 1:], show_progress=False)
    return model


FITS = {
    "als": lambda x: fit_als(x, dim=8, iterations=3, regularization=0.1, alpha=2.0, seed=5),
    "bpr": lambda x: fit_bpr(x, dim=8, epochs=3, regularization=0.1, learning_rate=0.05, seed=5),
    "lmf": lambda x: fit_lmf(x, dim=8, epochs=3, regularization=0.1, learning_rate=0.5, negatives=3, seed=5),
}


@pytest.mark.parametrize("name", FITS)
def test_users_and_items_multiply_to_the_librarys_scores_in_dim_columns(name):
    interactions = two_tastes()
    table, model = FITS[name](interactions), library_model(name, interactions)
    assert table.dim == 8
    scores = table.users[1:-2] @ table.items[1:-2].T
    for user in (0, 17, 39):
        items, expected = model.recommend(user, interactions[user + 1, 1:], N=24, filter_already_liked_items=False)
        real = items < 24  # the others have no interaction, and no vector here
        torch.testing.assert_close(scores[user, items[real]], torch.from_numpy(expected[real]))
        assert real.sum() >= 22


def test_the_columns_of_biases_are_constant_on_the_other_side():
    bpr, lmf = FITS["bpr"](two_tastes()), FITS["lmf"](two_tastes())
    assert bpr.users[1:-2, -1].unique().tolist() == [1]
    assert bpr.items[1:-2, -1].unique().numel() > 1
    assert lmf.users[1:-2, -2].unique().tolist() == lmf.items[1:-2, -1].unique().tolist() == [1]


@pytest.mark.parametrize(("name", "dim", "least"), [("bpr", 1, 2), ("lmf", 2, 3)])
def test_a_width_without_room_beside_the_biases_is_refused(name, dim, least):
    with pytest.raises(ValueError, match=f"greater than or equal to {least}"):
        CF_SOURCES.get(name)(dim=dim)


@pytest.mark.parametrize("name", ["bpr", "lmf"])
def test_sampling_methods_refuse_a_log_without_interactions(name):
    with pytest.raises(BadInputError, match=f"{name.upper()} learns from interactions, and there are none"):
        FITS[name](sp.csr_matrix((4, 5)))


def test_divergence_of_the_library_is_named():
    common = dict(dim=8, regularization=0.1)
    with pytest.raises(BadInputError, match=r"BPR diverged: lower its learning_rate, which is 1e\+30"):
        fit_bpr(two_tastes(), epochs=3, learning_rate=1e30, **common)
    with pytest.raises(BadInputError, match="LMF diverged: lower its learning_rate"):
        fit_lmf(two_tastes(), epochs=3, learning_rate=1e38, negatives=2, **common)
    with pytest.raises(BadInputError, match="ALS diverged: lower its alpha"):
        fit_als(two_tastes(), iterations=3, alpha=1e38, **common)


@pytest.mark.parametrize("name", FITS)
def test_a_blas_with_threads_of_its_own_draws_no_warning(name, monkeypatch):
    import implicit.als  # noqa: F401 -- loads the BLAS whose threads are counted

    monkeypatch.setattr("implicit.utils._checked_blas_config", False)
    with threadpool_limits(limits=2, user_api="blas"), warnings.catch_warnings():
        warnings.simplefilter("error")
        FITS[name](two_tastes())


def test_the_control_draws_from_a_standard_normal():
    table = random_table(sp.csr_matrix(np.ones((300, 400))), dim=64, seed=3)
    for rows in table:
        assert abs(rows.mean()) < 0.02
        assert rows.std().item() == pytest.approx(1, abs=0.02)
    assert not torch.equal(table.users, table.items[:300])


def test_a_vector_of_the_control_does_not_depend_on_who_else_has_one():
    interactions = two_tastes()
    fewer = interactions.copy()
    fewer.data[: fewer.indptr[11]] = 0
    one, other = (random_table(m, dim=4, seed=0).users for m in (interactions, fewer))
    assert torch.equal(one[11:], other[11:])
    assert not other[:11].any()


def test_sources_that_do_not_fit_say_so():
    assert [name for name in CF_SOURCES.names() if not CF_SOURCES.get(name).fitted] == ["file", "random"]


def test_fitting_says_nothing_unless_asked(capfd, tmp_path):
    for name in CF_SOURCES.names():
        small_config(name, tmp_path).fit(two_tastes(), seed=0)
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
