"""Ablations: what is built, shared, survived and left behind."""

from __future__ import annotations

import errno
import gc
import json
from typing import ClassVar, Literal

import pytest
import torch

from gensr import ablation
from gensr.ablation import ablate, run_plan
from gensr.encoders.cf.config import CFConfig
from gensr.encoders.cf.table import CFTable
from gensr.encoders.semantic.config import SemanticConfig
from gensr.encoders.semantic.table import TextTable
from gensr.errors import BadInputError, FullDiskError, GensrError, MissingExtraError
from gensr.files import locked
from gensr.pipeline import build
from gensr.rankers.config import RANKERS
from gensr.spec import load_spec
from gensr.training import trainer
from gensr.variants import make_plan, read_grids
from tests.toy import ToyRankerConfig, ToySourceConfig, registered, toy_spec


@pytest.fixture(scope="module", autouse=True)
def _quick_collections():
    """Memory is collected after each run; what the tests imported need not be looked through every time."""
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(autouse=True)
def toys():
    with registered():
        yield


@pytest.fixture
def spec():
    return toy_spec(max_steps=3, evaluation={"metrics": ["recall@5", "ndcg@5"], "floors": [], "ablations": False})


@pytest.fixture
def builds(monkeypatch):
    """The specs that were built, opened ones included."""
    calls = []

    def counted(spec, **options):
        calls.append(spec)
        return build(spec, **options)

    monkeypatch.setattr(ablation, "build", counted)
    return calls


@pytest.fixture
def trained(monkeypatch):
    """One entry a training step."""
    steps, update = [], trainer._Loop.update
    monkeypatch.setattr(trainer._Loop, "update", lambda self, batch: steps.append(self) or update(self, batch))
    return steps


def run(spec, root, **flags):
    return ablate(spec, root=root, progress=False, **flags)


# Running


def test_an_ablation_leaves_runs_tables_and_a_plan(tmp_path, spec, builds):
    found = run(spec, tmp_path, grid=["ranker.dropout=0.1"], swap=["ranker=popularity"], seeds=2)
    assert [variant.name for variant in found.variants] == ["base", "ranker=popularity", "dropout=0.1"]
    assert len(builds) == 6
    assert {len(variant.results) for variant in found.variants} == {2}
    (folder,) = (tmp_path / "ablations").iterdir()
    assert {path.name for path in folder.iterdir()} == {
        ".lock", "plan.json", "results.json", "log.txt", "table.txt", "table.md", "table.csv", "table.tex",
    }  # fmt: skip
    assert (folder / "table.txt").read_text() == str(found)
    plan = json.loads((folder / "plan.json").read_text())
    assert load_spec(plan["base"]) == spec
    assert len(plan["runs"]) == 6
    assert all((tmp_path / entry["path"] / "manifest.json").is_file() for entry in plan["runs"])
    assert json.loads((folder / "results.json").read_text()) == json.loads(json.dumps(found.to_dict()))
    assert found.sweeps[0].points == ((0.1, "dropout=0.1"), (0.3, "base"))
    untrained = next(variant for variant in found.variants if variant.name == "ranker=popularity")
    assert untrained.mean("training_seconds") is None
    assert untrained.mean("total_seconds") > 0
    assert found.base.peak("process_mib") > 0


def test_rankers_of_one_task_stand_beside_those_of_both(tmp_path, spec):
    asked = spec.model_dump()
    asked["evaluation"]["ablations"] = True
    found = run(asked, tmp_path, swap=["ranker=lexical", "ranker=popularity"])
    assert not found.failed
    assert found.cell("uniform-20", "search", "ranker=lexical", "ndcg@5").difference is not None
    assert found.cell("uniform-20", "recommendation", "ranker=lexical", "ndcg@5") is None
    assert "No recommendation requests were ranked by ranker=lexical" in str(found)
    assert "search, parts of the request withheld, candidates uniform-20" in str(found)
    blind = found.cell("uniform-20", "search", "ranker=lexical", "ndcg@5", "no_query")
    assert blind.difference < 0
    again = run(asked | {"ranker": {"type": "lexical"}}, tmp_path, swap=["ranker=popularity"])
    assert again.cell("uniform-20", "recommendation", "ranker=popularity", "ndcg@5").difference is None


def test_the_second_call_builds_nothing_and_gives_the_same_numbers(tmp_path, spec, trained):
    first = run(spec, tmp_path, grid=["ranker.dropout=0.1"])
    assert len(trained) == 6
    second = run(spec, tmp_path, grid=["ranker.dropout=0.1"])
    assert len(trained) == 6
    assert second.cells == first.cells


def test_a_run_built_alone_is_taken_into_an_ablation(tmp_path, spec, trained):
    build(spec, root=tmp_path, progress=False)
    run(spec, tmp_path, grid=["ranker.dropout=0.1"])
    assert len(trained) == 6


def test_an_interrupted_ablation_goes_on_with_what_is_missing(tmp_path, spec, trained, monkeypatch, capsys):
    calls = []

    def interrupted(spec, **options):
        calls.append(spec)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return build(spec, **options)

    flags = {"grid": ["ranker.dropout=0.1,0.2"]}
    with monkeypatch.context() as patch:
        patch.setattr(ablation, "build", interrupted)
        with pytest.raises(KeyboardInterrupt):
            ablate(spec, root=tmp_path, **flags)
    assert "interrupted: the same command goes on from here" in capsys.readouterr().err
    (folder,) = (tmp_path / "ablations").iterdir()
    assert "dropout=0.1 (to come)" in (folder / "table.txt").read_text()
    assert len(trained) == 3
    found = run(spec, tmp_path, **flags)
    assert len(trained) == 9
    assert len(found.cells) == 3 * 2 * len(spec.evaluation.metrics)
    assert "to come" not in (folder / "table.txt").read_text()


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (GensrError("it broke off"), "it broke off"),
        (MemoryError(), "MemoryError"),
        (RuntimeError("out of\nmemory"), "RuntimeError: out of memory"),
    ],
)
def test_a_failing_variant_does_not_stop_the_others_and_is_tried_again(tmp_path, spec, monkeypatch, error, reason):
    def failing(spec, **options):
        if spec.ranker.dropout == 0.1:
            raise error
        return build(spec, **options)

    flags = {"grid": ["ranker.dropout=0.1,0.2"]}
    with monkeypatch.context() as patch:
        patch.setattr(ablation, "build", failing)
        found = run(spec, tmp_path, **flags)
    assert found.failed == [f"dropout=0.1, seed 1: {reason}"]
    assert "dropout=0.1 (failed)" in str(found)
    assert found.cell("uniform-20", "search", "dropout=0.2", "ndcg@5").difference is not None
    (log,) = tmp_path.glob("ablations/*/log.txt")
    assert ("Traceback" in log.read_text()) == (not isinstance(error, GensrError))
    assert run(spec, tmp_path, **flags).failed == []


def test_a_failing_base_leaves_a_table_of_values(tmp_path, spec, monkeypatch):
    def failing(spec, **options):
        if spec.ranker.dropout == 0.3:
            raise GensrError("no")
        return build(spec, **options)

    monkeypatch.setattr(ablation, "build", failing)
    found = run(spec, tmp_path, grid=["ranker.dropout=0.1"])
    assert found.cell("uniform-20", "search", "dropout=0.1", "ndcg@5").value > 0
    assert "base (failed)" in str(found)


@pytest.mark.parametrize("error", [FullDiskError("the disk is full"), OSError(errno.ENOSPC, "No space left on device")])
def test_a_full_disk_stops_all(tmp_path, spec, monkeypatch, error):
    def full(spec, **options):
        raise error

    monkeypatch.setattr(ablation, "build", full)
    with pytest.raises(type(error)):
        run(spec, tmp_path, grid=["ranker.dropout=0.1"])


def test_a_run_whose_data_changed_meanwhile_is_not_compared_and_the_others_are(tmp_path, spec, monkeypatch):
    def changed(spec, **options):
        if spec.ranker.dropout == 0.1:
            spec = spec.model_copy(update={"data": spec.data.model_copy(update={"seed": 5})})
        return build(spec, **options)

    monkeypatch.setattr(ablation, "build", changed)
    found = run(spec, tmp_path, grid=["ranker.dropout=0.1,0.2"])
    (reason,) = found.failed
    assert "ranked other candidates than the runs beside it: its uniform-20 has the sha256" in reason
    assert found.cell("uniform-20", "search", "dropout=0.2", "ndcg@5").difference is not None


def test_progress_tells_run_seed_and_time_and_the_log_that_shared_stages_took_none(tmp_path, spec, capsys):
    ablate(spec, root=tmp_path, grid=["ranker.dropout=0.1"])
    shown = capsys.readouterr()
    assert shown.out == ""
    (log,) = tmp_path.glob("ablations/*/log.txt")
    for text in (shown.err, log.read_text()):
        assert "[run 1/2] base, seed 1 (0 s so far)" in text
        assert "[run 2/2] dropout=0.1, seed 1 (" in text
        assert "about " in text
        assert "seconds: data 0.0, ranker 0.0, training " in text.split("[run 2/2]")[1]
    assert "\n  [1/4] data: toy_log\n" in shown.err
    assert "[1/4]" not in log.read_text()


def test_an_ablation_in_use_is_refused(tmp_path, spec):
    plan = make_plan(spec, [], read_grids(["ranker.dropout=0.1"]), root=tmp_path)
    with locked(plan.folder / ".lock"), pytest.raises(BadInputError, match="is in use by another process"):
        run_plan(plan, progress=False)


def test_bad_data_stop_everything_and_leave_nothing(tmp_path, spec, builds):
    bad = spec.model_dump()
    bad["data"]["source"] = {"type": "table", "path": str(tmp_path / "gone.csv")}
    with pytest.raises(BadInputError, match=r"gone\.csv"):
        run(bad, tmp_path / "runs", grid=["ranker.dropout=0.1"])
    assert not builds
    assert not list(tmp_path.iterdir())


def test_a_variant_with_other_candidates_is_refused_before_anything_is_built(tmp_path, spec, builds):
    for grid in ("data.seed=7", "count=30", "data.users=20"):
        with pytest.raises(BadInputError, match=f"--grid {grid} changes the candidates or the requests"):
            run(spec, tmp_path, grid=[grid])
    assert not builds
    run(spec, tmp_path, grid=["max_history=3"])
    assert len(builds) == 2


def test_a_plot_without_matplotlib_is_refused_before_anything_is_built(tmp_path, spec, builds, monkeypatch):
    monkeypatch.setattr("gensr.evaluation.figures.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match="plots"):
        run(spec, tmp_path, grid=["ranker.dropout=0.1"], plot=True)
    assert not list(tmp_path.iterdir())


def test_a_plot_leaves_figures(tmp_path, spec):
    pytest.importorskip("matplotlib")
    run(spec, tmp_path, grid=["ranker.dropout=0.1"], plot=True)
    assert {path.suffix for path in tmp_path.glob("ablations/*/figure.*")} == {".png", ".pdf"}


# What variants share


class CountedCF(CFConfig):
    type: Literal["counted"] = "counted"
    fits: ClassVar[list[int]] = []

    def fit(self, user_items, *, seed, device="cpu", progress=False):
        self.fits.append(seed)
        return CFTable(*(torch.zeros(size, 4) for size in user_items.shape))


class CountedText(SemanticConfig):
    type: Literal["counted"] = "counted"
    tables: ClassVar[list[int]] = []

    def table(self, texts, *, item_ids, seed, device="cpu", progress=False):
        self.tables.append(seed)
        return TextTable(torch.zeros(len(texts), 4), {})


class SharingToyConfig(ToyRankerConfig):
    """A toy that asks for a CF table, one of a fold, and a text table, as GenSR does."""

    type: Literal["sharing_toy"] = "sharing_toy"

    def build(self, resources):
        if resources.dataset is not None:
            resources.cf_table(CountedCF())
            resources.cf_table(CountedCF(), (0, 2))
            resources.semantic_table(CountedText())
        return super().build(resources)


@pytest.fixture
def sharing():
    RANKERS.register(SharingToyConfig)
    CountedCF.fits.clear()
    CountedText.tables.clear()
    yield
    RANKERS._classes.pop("sharing_toy")


@pytest.mark.usefixtures("sharing")
def test_the_second_variant_spends_nothing_on_shared_stages(tmp_path, spec, monkeypatch):
    reads, read = [], ToySourceConfig.read
    monkeypatch.setattr(ToySourceConfig, "read", lambda self: reads.append(1) or read(self))
    base = spec.model_dump() | {"ranker": "sharing_toy"}
    build(base, root=tmp_path, progress=False)
    once = (len(reads), len(CountedCF.fits), len(CountedText.tables))
    assert once == (1, 2, 1)
    found = run(base, tmp_path, grid=["ranker.dropout=0.1,0.2"])
    assert len(found.variants) == 3
    assert (len(reads), len(CountedCF.fits), len(CountedText.tables)) == once


@pytest.mark.usefixtures("sharing")
def test_another_seed_has_tables_of_its_own_and_the_same_data(tmp_path, spec, monkeypatch):
    reads, read = [], ToySourceConfig.read
    monkeypatch.setattr(ToySourceConfig, "read", lambda self: reads.append(1) or read(self))
    run(spec.model_dump() | {"ranker": "sharing_toy"}, tmp_path, grid=["ranker.dropout=0.1"], seeds=2)
    assert len(reads) == 1
    assert (sorted(CountedCF.fits), sorted(CountedText.tables)) == ([1, 1, 2, 2], [1, 2])
