"""A floor in trouble costs its own row of the table and nothing else."""

from __future__ import annotations

import pytest

from gensr.cache import StageCache
from gensr.device import choose_device
from gensr.errors import BadInputError, DamagedFileError
from gensr.evaluation.measure import Measurement
from gensr.progress import Progress
from gensr.rankers.config import RandomConfig
from gensr.spec import load_spec
from tests.toy import registered, toy_spec


@pytest.fixture(autouse=True)
def toys():
    with registered():
        yield


@pytest.fixture
def measured(tmp_path):
    """Measure popularity beside a floor, and what is needed to do so again."""
    cache = StageCache(tmp_path / ".cache")

    def measure(floors=("random",), candidates=(20,), predictions=None):
        lists = [{"type": "uniform", "count": count} for count in candidates]
        content = toy_spec(evaluation={"floors": list(floors)}).model_dump()
        spec = load_spec(content | {"ranker": "popularity", "data": content["data"] | {"candidates": lists}})
        dataset = cache.data(spec.data)
        resources = cache.resources(spec, dataset)
        device, shown = choose_device("cpu"), Progress(enabled=False)
        measurement = Measurement(spec, dataset, lists=dataset.candidate_names, device=device, progress=shown)
        evaluation, _ = measurement.test(spec.ranker.build(resources), resources, cache, predictions=predictions)
        return evaluation

    measure.cache = cache
    return measure


def test_a_floor_that_cannot_be_built_is_missing_with_the_reason(measured, monkeypatch):
    def refuse(self, resources):
        raise BadInputError("no recommendation events to learn from")

    monkeypatch.setattr(RandomConfig, "build", refuse)
    evaluation = measured()
    assert evaluation.missing == {"random": "not measured: no recommendation events to learn from"}
    assert set(evaluation.ranks) == {("uniform-20", "popularity")}


def test_a_damaged_cache_stops_the_evaluation_so_that_it_can_be_mended_and_gone_on_with(measured):
    whole = measured()
    (path,) = measured.cache.folder.glob("ranks-*.npz")
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(DamagedFileError, match=rf"{path.name} holds no ranks: .* Delete it"):
        measured()
    path.unlink()
    assert measured().metrics(metrics=["mrr"]) == whole.metrics(metrics=["mrr"])


def test_every_file_of_ranks_is_locked_while_it_is_made(measured, monkeypatch):
    held = []
    build = RandomConfig.build

    def look(self, resources):
        held.extend(path.name for path in measured.cache.folder.glob("ranks-*.lock"))
        return build(self, resources)

    monkeypatch.setattr(RandomConfig, "build", look)
    measured(candidates=(20, 30))
    assert sorted(name.removesuffix(".lock") for name in held) == sorted(
        path.name for path in measured.cache.folder.glob("ranks-*.npz")
    )
    assert len(held) == 2
    assert not list(measured.cache.folder.glob("*.lock"))


def test_names_with_options_make_plain_file_names(measured, tmp_path, monkeypatch):
    monkeypatch.setattr(
        "gensr.evaluation.measure.floor_names", lambda floors: ["popularity(a=x/y z)", *(f.type for f in floors[1:])]
    )
    (tmp_path / "predictions").mkdir()
    measured(predictions=tmp_path / "predictions")
    assert {path.name for path in (tmp_path / "predictions").iterdir()} == {
        "uniform-20.popularity(a=x-y-z).trec.gz",
        "uniform-20.qrels.gz",
    }
