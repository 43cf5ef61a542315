"""Options that change how much memory or time a training takes, and not where it ends."""

import pytest
import torch
from torch import nn

from gensr.backbones.config import T5Config, T5Sizes
from gensr.data.loader import RequestLoader
from gensr.encoders.cf.config import ALSConfig
from gensr.encoders.cf.folds import fit_table
from gensr.errors import BadInputError
from gensr.progress import Progress
from gensr.rankers.base import Resources
from gensr.rankers.config import GenSRConfig
from gensr.spec import TrainingSpec, load_spec
from gensr.testing.data import tiny_dataset
from gensr.training import trainer
from gensr.training.footprint import Footprint, measure
from gensr.training.trainer import train
from tests.toy import digest, registered, toy_spec, train_toy

SIZES = T5Sizes(width=16, layers=2, heads=2, head_width=8, hidden=32, vocabulary=400, dropout=0.3)
GENSR = GenSRConfig(cf=ALSConfig(dim=8), backbone=T5Config(scratch=SIZES), cf_folds=0)


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    return tiny_dataset(tmp_path_factory.mktemp("shop") / "data")


def gensr(shop, config=GENSR):
    resources = Resources(shop.catalogue, 6, dataset=shop, cf_table=lambda cf, fold=None: fit_table(cf, shop, seed=0))
    return config.build(resources).train()


def some_batch(shop, size=24):
    return next(RequestLoader(shop, 6).epoch(seed=0, epoch=0, batch_size=size, negatives=3))


def gradients(ranker, batch):
    """Loss and gradients under one seed of the dropout."""
    torch.manual_seed(0)
    total = ranker.loss(batch).total
    total.backward()
    return total.detach(), {name: p.grad for name, p in ranker.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("layout", ["packed", "interleaved"])
def test_recomputed_activations_give_the_same_loss_and_gradients_under_dropout(shop, layout):
    config = GENSR.model_copy(update={"layout": layout})
    batch = some_batch(shop)
    kept_loss, kept = gradients(gensr(shop, config), batch)
    ranker = gensr(shop, config)
    ranker.checkpoint_activations()
    loss, recomputed = gradients(ranker, batch)
    assert torch.equal(loss, kept_loss)
    assert kept.keys() == recomputed.keys()
    for name, gradient in kept.items():
        torch.testing.assert_close(recomputed[name], gradient, msg=name)


def test_recomputed_activations_are_not_kept(shop):
    class Objective(nn.Module):
        def __init__(self):
            super().__init__()
            self.ranker = gensr(shop)

        def forward(self, batch):
            return self.ranker.loss(batch)

    objective = Objective()
    optimizer = torch.optim.AdamW(objective.parameters())
    full = measure(objective, optimizer, some_batch(shop, 16), device="cpu")
    objective.ranker.checkpoint_activations()
    less = measure(objective, optimizer, some_batch(shop, 16), device="cpu")
    assert less.request < 0.7 * full.request
    assert less.model == full.model


def short_training(shop, folder, progress=None, **options):
    spec = TrainingSpec(batch_size=16, epochs=1, max_steps=2, warmup_steps=0, **options)
    ranker = gensr(shop)
    loader = RequestLoader(shop, 6)
    result = train(
        ranker,
        loader,
        spec,
        negatives=3,
        seed=0,
        folder=folder,
        validate=lambda: {"ndcg@5": {"search": 0.5}},
        progress=progress,
    )
    return ranker, result


def test_a_compiled_training_ends_where_another_ends(shop, tmp_path, monkeypatch):
    compiled = torch.compile
    monkeypatch.setattr(torch, "compile", lambda function, **options: compiled(function, backend="eager"))
    plain, _ = short_training(shop, tmp_path / "plain")
    other, _ = short_training(shop, tmp_path / "compiled", compile=True)
    for name, tensor in plain.state_dict().items():
        torch.testing.assert_close(other.state_dict()[name], tensor, msg=name)


def test_a_training_goes_on_where_compiling_fails(shop, tmp_path, monkeypatch):
    def broken(function, **options):
        raise RuntimeError("no compiler here")

    monkeypatch.setattr(torch, "compile", broken)
    plain, _ = short_training(shop, tmp_path / "plain")
    other, _ = short_training(shop, tmp_path / "compiled", compile=True)
    assert digest(other) == digest(plain)


@pytest.mark.parametrize(("option", "word"), [("compile", "compile"), ("gradient_checkpointing", "activations")])
def test_a_ranker_that_cannot_says_so(tmp_path, data, option, word):
    with pytest.raises(BadInputError, match=f"ToyRanker.*{word}"):
        train_toy(tmp_path, data, **{option: True})


def test_measuring_memory_does_not_move_the_weights(tmp_path, data, monkeypatch):
    measured = train_toy(tmp_path / "measured", data)[0]
    monkeypatch.setattr(trainer, "measure", lambda *_, **__: Footprint(0, 0.0, 1.0, 1 << 30))
    assert digest(train_toy(tmp_path / "faked", data)[0]) == digest(measured)


def with_memory(monkeypatch, available):
    """Pretend that a request needs a byte, and that there are `available`."""
    monkeypatch.setattr(trainer, "measure", lambda *_, **__: Footprint(0, 0.0, 1.0, available))


def test_an_automatic_batch_size_trains_as_the_same_number_does(tmp_path, data, monkeypatch):
    with_memory(monkeypatch, 40)
    ranker, result = train_toy(tmp_path / "auto", data, batch_size="auto")
    assert result.batch_size == 16
    assert result.memory_mib == {"model": 0.0, "activations": 0.0, "available": 0.0}
    assert digest(ranker) == digest(train_toy(tmp_path / "16", data, batch_size=16)[0])


def test_a_resumed_training_keeps_the_size_it_chose_whatever_the_memory_now(tmp_path, data, monkeypatch):
    options = {"batch_size": "auto", "evaluate_every": 7, "patience": 0}
    with_memory(monkeypatch, 40)
    whole, _ = train_toy(tmp_path / "whole", data, **options)

    def interrupted():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_toy(tmp_path / "cut", data, checkpoint_every=5, validate=interrupted, **options)
    with_memory(monkeypatch, 1000)
    resumed, result = train_toy(tmp_path / "cut", data, checkpoint_every=5, **options)
    assert (result.resumed_from, result.batch_size) == (5, 16)
    assert digest(resumed) == digest(whole)


def test_no_automatic_batch_size_where_not_even_the_smallest_batch_fits(tmp_path, data, monkeypatch):
    with_memory(monkeypatch, 15)
    with pytest.raises(BadInputError, match="even 8 requests need about 0 MiB"):
        train_toy(tmp_path, data, batch_size="auto")


def test_memory_is_told_before_the_first_update_and_not_when_nothing_is_left_to_do(shop, tmp_path):
    class Listening(Progress):
        lines: list[str]

        def note(self, text):
            self.lines.append(text)

    progress = Listening(enabled=False)
    progress.lines = []
    _, result = short_training(shop, tmp_path, progress)
    assert progress.lines[0].startswith("  memory: about")
    assert result.memory_mib is not None
    assert "at batch_size 16 (weights, gradients and Adam" in progress.lines[0]
    progress.lines = []
    _, again = short_training(shop, tmp_path, progress)
    assert progress.lines == []
    assert (again.memory_mib, again.batch_size) == (None, 16)


@pytest.mark.parametrize("value", [0, -3, 1.5, "aut", None])
def test_a_batch_size_that_is_none_is_one_problem_with_what_was_expected(value):
    with pytest.raises(BadInputError) as error:
        load_spec({"training": {"batch_size": value}})
    text = str(error.value)
    assert "has 1 problem" in text
    assert 'training.batch_size: expected a positive number of requests, or "auto"' in text
    assert ("did you mean 'auto'" in text) == (value == "aut")


def test_auto_is_a_batch_size():
    with registered():
        assert toy_spec(batch_size="auto").training.batch_size == "auto"
