"""The contract refuses rankers that break it: a test that nothing fails proves nothing."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from gensr.encoders.cf.table import CFTable
from gensr.rankers.base import Losses, Ranker, Resources, mask_padding
from gensr.testing.data import tiny_dataset
from gensr.testing.rankers import RankerContract, contract_batch


class Honest(Ranker):
    """A bilinear toy that keeps the contract."""

    def __init__(self, items, seed=0):
        super().__init__()
        self.table = nn.Embedding(items + 2, 8)
        generator = torch.Generator().manual_seed(seed)
        nn.init.normal_(self.table.weight, std=0.1, generator=generator)

    def profile(self, batch):
        mask = batch.hist_mask.unsqueeze(2)
        return (self.embed(batch.hist_item) * mask).sum(1) / mask.sum(1).clamp(min=1)

    def embed(self, items):
        return self.table(items.clamp(max=self.table.num_embeddings - 1))

    def score(self, batch, state=None):
        return mask_padding(self.raw(batch), batch)

    def raw(self, batch):
        return torch.einsum("bd,bcd->bc", self.profile(batch) + self.table.weight[1], self.embed(batch.cand))

    def loss(self, batch):
        total = nn.functional.cross_entropy(self.score(batch), batch.label)
        return Losses(total, {"task": total.detach()})

    def save(self, folder):
        folder.mkdir()
        save_file(self.state_dict(), folder / "weights")


class ReadsMates(Honest):
    def raw(self, batch):
        return super().raw(batch) + self.profile(batch).mean() * batch.cand


class LikesTheFirst(Honest):
    def raw(self, batch):
        return super().raw(batch) + torch.linspace(1, 0, batch.cand.shape[1])


class CountsPadding(Honest):
    def profile(self, batch):
        return super().profile(batch) * batch.hist_item.shape[1]


class ReadsMaskedHistory(Honest):
    def profile(self, batch):
        return self.embed(batch.hist_item).mean(1)


class ReadsTheLabel(Honest):
    def raw(self, batch):
        return super().raw(batch) + batch.label


class IgnoresPaddingCandidates(Honest):
    def score(self, batch, state=None):
        return self.raw(batch).float()


class ReadsHistoriesInSpiteOfItsState(Honest):
    def encode_request(self, batch):
        return self.profile(batch)


class DividesByNothing(Honest):
    def profile(self, batch):
        mask = batch.hist_mask.unsqueeze(2)
        return (self.embed(batch.hist_item) * mask).sum(1) / mask.sum(1)


class Forgets(Honest):
    def embed(self, items):
        return self.table(items)


class Noisy(Honest):
    def raw(self, batch):
        return super().raw(batch) + torch.rand(batch.cand.shape)


class Doubles(Honest):
    def score(self, batch, state=None):
        return super().score(batch).double()


class LearnsNothing(Honest):
    def loss(self, batch):
        total = super().loss(batch).total
        return Losses(total.detach() + 0 * total, {})


class HasDeadWeight(Honest):
    def __init__(self, *args):
        super().__init__(*args)
        self.unused = nn.Linear(2, 2)


class Unseeded(Honest):
    def __init__(self, items):
        super().__init__(items, seed=int(torch.randint(1 << 30, ())))


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    return tiny_dataset(tmp_path_factory.mktemp("shop") / "data")


def contract_of(cls):
    class Contract(RankerContract):
        @classmethod
        def make_ranker(cls_, resources):
            ranker = cls(resources.catalogue.num_items)
            if resources.folder is not None:
                ranker.load_state_dict(load_file(resources.folder / "weights"))
            return ranker

    return Contract()


def run(cls, shop, test, tmp_path):
    contract = contract_of(cls)
    resources = Resources(
        shop.catalogue, max_history=8, dataset=shop, cf_table=lambda _: CFTable(torch.zeros(1, 2), torch.zeros(1, 2))
    )
    ranker = contract.make_ranker(resources).eval()
    known = {
        "ranker": ranker,
        "dataset": shop,
        "resources": resources,
        "tmp_path": tmp_path,
        "batch": contract_batch(shop, ranker),
    }
    method = getattr(contract, test)
    names = method.__code__.co_varnames[1 : method.__code__.co_argcount]
    method(**{name: known[name] for name in names})


TESTS = [name for name in vars(RankerContract) if name.startswith("test_")]


@pytest.mark.parametrize("test", TESTS)
def test_an_honest_ranker_passes(test, shop, tmp_path):
    run(Honest, shop, test, tmp_path)


@pytest.mark.parametrize(
    ("cls", "test"),
    [
        (ReadsMates, "test_scores_do_not_depend_on_batch_mates"),
        (LikesTheFirst, "test_scores_do_not_depend_on_candidate_order"),
        (CountsPadding, "test_scores_do_not_depend_on_padding_length"),
        (ReadsMaskedHistory, "test_scores_do_not_depend_on_values_under_a_mask"),
        (ReadsTheLabel, "test_scores_do_not_depend_on_the_label"),
        (IgnoresPaddingCandidates, "test_scores_are_one_float32_for_each_candidate"),
        (Doubles, "test_scores_are_one_float32_for_each_candidate"),
        (ReadsHistoriesInSpiteOfItsState, "test_a_kept_state_scores_any_candidates_of_its_requests"),
        (DividesByNothing, "test_an_empty_history_gets_finite_scores"),
        (Forgets, "test_what_the_catalogue_lacks_gets_finite_scores"),
        (Noisy, "test_scoring_again_gives_the_same_scores"),
        (LearnsNothing, "test_training_lowers_the_loss_of_a_batch"),
        (HasDeadWeight, "test_every_trainable_parameter_gets_a_gradient"),
        (Unseeded, "test_one_seed_makes_one_ranker"),
    ],
)
def test_a_ranker_that_breaks_the_contract_is_caught(cls, test, shop, tmp_path):
    with pytest.raises((AssertionError, IndexError)):
        run(cls, shop, test, tmp_path)
