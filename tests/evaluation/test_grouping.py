"""Finished runs as variants: grouped by spec, named by what differs, refused where they cannot be compared."""

from __future__ import annotations

import json
import shutil

import pytest

import gensr
from gensr.errors import BadInputError, DamagedFileError
from gensr.evaluation.grouping import describe_changes
from gensr.pipeline import build
from gensr.rankers.config import RANKERS
from gensr.spec import load_spec
from tests.toy import registered, toy_spec


@pytest.fixture(autouse=True)
def toys():
    with registered():
        yield


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    root = tmp_path_factory.mktemp("runs")

    def quick(**options):
        return build(toy_spec(max_steps=3, **options), root=root, progress=False)

    with registered():
        return {
            "base": quick(),
            "again": quick(seed=2),
            "dropout": quick(ranker={"dropout": 0.1}),
            "few": quick(evaluation={"max_requests": 5}),
            "other data": build(
                load_spec(
                    toy_spec(max_steps=3).model_dump()
                    | {"data": toy_spec().data.model_copy(update={"seed": 5}).model_dump()}
                ),
                root=root,
                progress=False,
            ),
        }


def compare(runs, *names, **options):
    return gensr.compare([runs[name].path for name in names], **options)


def test_runs_of_one_spec_are_the_seeds_of_a_variant_named_by_what_differs(runs):
    found = compare(runs, "base", "again", "dropout")
    assert [variant.name for variant in found.variants] == [runs["base"].path.name, "dropout=0.1"]
    assert list(found.base.results) == [1, 2]
    assert found.metrics == ("recall@5", "recall@10", "ndcg@5", "ndcg@10", "mrr")
    cell = found.cell("uniform-20", "search", "dropout=0.1", "ndcg@5")
    assert cell.seeds == (1,)
    numbers = runs["dropout"].metrics["candidates"]["uniform-20"]["rankers"]["toy"]["search"]
    assert cell.value == pytest.approx(numbers["ndcg@5"]["value"])


def test_an_ablations_runs_compare_as_the_ablation_did(tmp_path):
    found = gensr.ablate(toy_spec(max_steps=3), root=tmp_path, grid="ranker.dropout=0.1", progress=False)
    again = gensr.compare([result.path for variant in found.variants for result in variant.results.values()])
    first, second = (c.cell("uniform-20", "search", "dropout=0.1", "ndcg@5") for c in (found, again))
    assert first == second


def test_different_rankers_are_named_by_themselves_and_have_dashes_where_they_do_nothing(runs, tmp_path):
    floors = [
        build(toy_spec().model_copy(update={"ranker": RANKERS.parse(name)}), root=tmp_path, progress=False)
        for name in ("lexical", "popularity")
    ]
    found = gensr.compare([floors[0], runs["base"], floors[1]])
    assert [variant.name for variant in found.variants] == ["lexical", "toy", "popularity"]
    lexical, toy, popularity = found.variants
    assert (lexical.peak("parameters"), lexical.mean("rows_per_second"), lexical.mean("training_seconds")) == (
        0, None, None,
    )  # fmt: skip
    assert toy.peak("parameters") == runs["base"].manifest["parameters"]["total"] > 0
    assert toy.mean("rows_per_second") == runs["base"].manifest["training"]["rows_per_second"]
    assert popularity.mean("requests_per_second") == floors[1].manifest["scoring"]["requests_per_second"]
    assert found.cell("uniform-20", "recommendation", "lexical", "ndcg@5") is None
    assert found.cell("uniform-20", "recommendation", "toy", "ndcg@5").difference is None
    assert found.cell("uniform-20", "search", "toy", "ndcg@5").difference is not None
    assert "No differences in recommendation: nothing of lexical is there to compare with." in str(found)


def test_a_rankers_second_run_is_named_by_what_it_changes_beside_other_rankers(runs, tmp_path):
    specs = {"tuned": {"type": "lexical", "k1": 0.3}, "plain": "lexical", "other": "popularity"}
    plain, other, tuned = (
        build(toy_spec().model_copy(update={"ranker": RANKERS.parse(specs[name])}), root=tmp_path, progress=False)
        for name in ("plain", "other", "tuned")
    )
    found = gensr.compare([runs["base"], plain, runs["dropout"], other, tuned])
    assert [variant.name for variant in found.variants] == [
        "toy", "lexical", "toy(dropout=0.1)", "popularity", "lexical(k1=0.3)",
    ]  # fmt: skip


def test_what_runs_lose_without_the_query_or_the_history_is_compared_too(runs):
    found = compare(runs, "base", "again", "dropout")
    without = {(cell.task, cell.variant, cell.withheld) for cell in found.withheld}
    assert without == {
        (task, variant.name, part)
        for variant in found.variants
        for task, part in (("search", "no_query"), ("search", "shuffled_query"), ("recommendation", "no_history"))
    }
    cell = found.cell("uniform-20", "search", "dropout=0.1", "ndcg@5", "no_query")
    metrics = runs["dropout"].metrics
    assert cell.value == pytest.approx(metrics["ablations"]["uniform-20"]["no_query"]["search"]["ndcg@5"]["value"])
    numbers = metrics["candidates"]["uniform-20"]["rankers"]["toy"]["search"]
    assert cell.base == pytest.approx(numbers["ndcg@5"]["value"])


def test_other_metrics_can_be_asked_of_stored_ranks(runs):
    assert compare(runs, "base", "dropout", metrics=["recall@1"]).primary == "recall@1"


def test_other_candidates_are_refused_with_both_runs_the_list_and_the_hashes(runs):
    with pytest.raises(BadInputError) as error:
        compare(runs, "base", "other data")
    text = str(error.value)
    assert f"{runs['base'].path} and {runs['other data'].path} cannot be compared" in text
    shas = [runs[name].metrics["candidates"]["uniform-20"]["sha256"][:12] for name in ("base", "other data")]
    assert f"uniform-20 has the sha256 {shas[0]} in the first and {shas[1]} in the second" in text


def test_other_requests_are_refused(runs):
    with pytest.raises(BadInputError, match=r"they ranked different requests on uniform-20 .*max_requests"):
        compare(runs, "base", "few")


def test_seeds_alone_one_run_and_the_same_run_twice_are_nothing_to_compare(runs):
    with pytest.raises(BadInputError, match="differ in their seed alone"):
        compare(runs, "base", "again")
    with pytest.raises(BadInputError, match="two runs or more"):
        compare(runs, "base")
    with pytest.raises(BadInputError, match="is given twice"):
        compare(runs, "base", "dropout", "base")


def test_the_same_spec_and_seed_built_elsewhere_is_a_variant_of_its_own(runs, tmp_path):
    elsewhere = build(toy_spec(max_steps=3), root=tmp_path, run_dir=tmp_path / "elsewhere", progress=False)
    found = gensr.compare([runs["base"], elsewhere])
    assert [variant.name for variant in found.variants] == [runs["base"].path.name, "elsewhere"]
    assert all(cell.difference in (None, 0.0) for cell in found.cells)


def test_no_two_variants_bear_one_name_and_none_bears_none(runs, tmp_path, monkeypatch):
    name = runs["base"].path.name
    build(toy_spec(max_steps=3), root=tmp_path, progress=False)
    monkeypatch.chdir(tmp_path)
    found = gensr.compare([runs["base"].path, name])
    assert [variant.name for variant in found.variants] == [name, str(tmp_path / name)]
    monkeypatch.chdir(tmp_path / name)
    assert gensr.compare([".", runs["dropout"].path]).base.name == name


@pytest.mark.parametrize(("file", "lost"), [("metrics.json", "candidates"), ("manifest.json", "memory_mib")])
def test_a_damaged_run_is_told_with_its_file(runs, tmp_path, file, lost):
    damaged = tmp_path / "damaged"
    shutil.copytree(runs["dropout"].path, damaged)
    content = json.loads((damaged / file).read_text())
    del content[lost]
    (damaged / file).write_text(json.dumps(content))
    with pytest.raises(DamagedFileError, match=rf"{file} cannot be read, .*'{lost}'.*build its spec again"):
        gensr.compare([runs["base"].path, damaged])


def test_an_unfinished_run_is_refused(runs, tmp_path):
    spec = toy_spec(max_steps=3)
    unfinished = build(spec, root=tmp_path, progress=False)
    (unfinished.path / "manifest.json").unlink()
    with pytest.raises(BadInputError, match=r"is not finished: it has no manifest\.json"):
        gensr.compare([runs["dropout"].path, unfinished.path])


def test_differences_of_specs_are_told_in_few_words():
    base = load_spec("preset:tiny")
    spec = base.model_dump() | {"name": "other", "seed": 3}
    spec["ranker"] |= {"soft_filter": "mean", "contrastive": None}
    spec["ranker"]["history"]["heads"] = 1
    spec["training"]["epochs"] = 4
    assert describe_changes(base, load_spec(spec)) == [
        "history.heads=1", "soft_filter=mean", "no contrastive", "training.epochs=4",
    ]  # fmt: skip
    assert describe_changes(base, base) == []
