"""Every slot of GenSR takes every component of its kind: it trains, scores, and scores the same when reopened."""

import pytest
import torch

from gensr.data.batch import Batch
from gensr.data.loader import RequestLoader
from gensr.edits import Edit, apply_edits, parse_drop
from gensr.encoders.cf.folds import fit_table
from gensr.rankers.base import Ranker, Resources
from gensr.registry import slot_of
from gensr.spec import PipelineSpec, load_spec
from gensr.testing.data import tiny_dataset
from tests.parts import required_options

SLOTS = {
    name: slot for name, field in type(load_spec("preset:tiny").ranker).model_fields.items() if (slot := slot_of(field))
}
DROPS = ["soft_filter", "history", "contrastive", "cf+contrastive", "semantic+contrastive"]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return tiny_dataset(tmp_path_factory.mktemp("shop") / "data")


@pytest.fixture(scope="module")
def spec(tmp_path_factory) -> PipelineSpec:
    return apply_edits(load_spec("preset:tiny"), [Edit("set", "cf_folds", 2)])


def resources(shop, **given) -> Resources:
    return Resources(shop.catalogue, max_history=6, seed=0, **given)


def new_ranker(spec: PipelineSpec, dataset) -> Ranker:
    def cf_table(config, fold=None):
        return fit_table(config, dataset, seed=0, fold=fold)

    return spec.ranker.build(resources(dataset, dataset=dataset, cf_table=cf_table))


def check(spec: PipelineSpec, dataset, folder) -> None:
    torch.manual_seed(0)
    ranker = new_ranker(spec, dataset)
    batches = list(RequestLoader(dataset, 6).epoch(seed=0, epoch=0, batch_size=16, negatives=3))[:4]
    before = scores(ranker, batches[-1])
    optimizer = torch.optim.AdamW([p for p in ranker.parameters() if p.requires_grad], lr=1e-2)
    for batch in batches[:3]:
        optimizer.zero_grad()
        loss = ranker.train().loss(batch).total
        loss.backward()
        assert loss.isfinite()
        optimizer.step()
    after = scores(ranker, batches[-1])
    assert after.isfinite().all()
    assert not torch.equal(before, after)
    ranker.save(folder)
    assert torch.equal(scores(spec.ranker.build(resources(dataset, folder=folder)), batches[-1]), after)


def scores(ranker: Ranker, batch: Batch) -> torch.Tensor:
    with torch.inference_mode():
        return ranker.eval().score(batch)


@pytest.mark.parametrize(
    ("slot", "name"), [(slot, name) for slot, found in SLOTS.items() for name in found.registry.names()]
)
def test_every_slot_takes_every_component_of_its_kind(slot, name, spec, dataset, tmp_path):
    options = required_options(slot, name, dataset, tmp_path)
    changed = apply_edits(spec, [Edit("set", f"ranker.{slot}", {"type": name, **options})])
    check(changed, dataset, tmp_path / "ranker")


@pytest.mark.parametrize("slots", DROPS)
def test_what_may_be_dropped_can_be_done_without(slots, spec, dataset, tmp_path):
    check(apply_edits(spec, parse_drop(slots)), dataset, tmp_path / "ranker")


def test_all_slots_that_may_be_dropped_are_tried():
    dropped = {slot for slots in DROPS for slot in slots.split("+")}
    assert dropped == {name for name, slot in SLOTS.items() if slot.nullable}
