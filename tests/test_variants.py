"""What an ablation plans for each flag, and what it refuses."""

from __future__ import annotations

import pytest

from gensr.errors import BadInputError
from gensr.pipeline import run_directory
from gensr.spec import load_spec
from gensr.variants import make_plan, read_grids, read_variants

GENSR = load_spec("preset:tiny")


def planned(base=GENSR, *, drop=(), swap=(), grid=(), suite=None, **options):
    variants = read_variants(suite=suite, drops=drop, swaps=swap)
    return make_plan(base, variants, read_grids(grid), **options)


def complaint(**flags):
    with pytest.raises(BadInputError) as caught:
        planned(**flags)
    return str(caught.value)


def names(plan):
    return [variant.name for variant, _ in plan.variants]


def test_each_flag_is_a_variant_and_plus_joins_changes_into_one():
    plan = planned(drop=["soft_filter", "cf+contrastive"], swap=["soft_filter=mean", "soft_filter=mean+history=null"])
    assert names(plan) == ["base", "no soft_filter", "no cf, no contrastive", "soft_filter=mean",
                           "soft_filter=mean, no history"]  # fmt: skip
    specs = {variant.name: spec.ranker for variant, spec in plan.variants}
    assert specs["no soft_filter"].soft_filter is None
    assert (specs["no cf, no contrastive"].cf, specs["no cf, no contrastive"].contrastive) == (None, None)
    assert specs["soft_filter=mean, no history"].history is None


def test_a_grid_is_a_variant_a_value_and_two_are_two_sweeps():
    plan = planned(grid=["contrastive.temperature=0.05,0.5", "contrastive.weight=0.1"])
    assert names(plan) == ["base", "contrastive.temperature=0.05", "contrastive.temperature=0.5",
                           "contrastive.weight=0.1"]  # fmt: skip
    own = GENSR.ranker.contrastive
    (temperature, points), (weight, others) = plan.sweeps
    assert (temperature, weight) == ("contrastive.temperature", "contrastive.weight")
    assert sorted(points) == list(points)
    assert dict(points)[own.temperature] == "base"
    assert dict(others) == {0.1: "contrastive.weight=0.1", own.weight: "base"}


def test_a_grid_may_run_over_components_and_then_keeps_its_order():
    plan = planned(grid=["ranker.soft_filter=mean,cross_attention"])
    assert plan.sweeps[0][1] == (("mean", "soft_filter=mean"), ("cross_attention", "base"))
    assert plan.remarks == ("--grid ranker.soft_filter=cross_attention is the same as base: built once",)


def test_the_papers_suite_is_its_figure_4():
    plan = planned(suite="paper")
    assert names(plan) == ["base", "CF only", "semantic only", "no soft filter", "no contrastive"]


def test_a_name_too_long_for_a_table_leaves_options_out_unless_another_then_has_the_same():
    swap = 'backbone={"type":"discriminative","scratch":{"hidden":64,"width":16}}'
    long, other = swap, swap.replace("16", "32")
    assert planned(swap=[long]).variants[1][0].name == "backbone=discriminative(...)"
    names = [variant.name for variant, _ in planned(swap=[long, other]).variants[1:]]
    assert names[0].endswith('{"hidden":64,"width":16})')
    assert len(set(names)) == 2


def test_a_component_with_options_names_its_variant():
    plan = planned(swap=['backbone={"type":"t5","scratch":{"width":8}}'])
    assert names(plan)[1] == 'backbone=t5(scratch={"width":8})'


def test_all_variants_of_a_seed_come_before_the_next_seed_and_the_data_keep_theirs(tmp_path):
    plan = planned(drop=["soft_filter"], seeds=2, root=tmp_path)
    assert [(r.variant, r.seed) for r in plan.runs] == [
        ("base", 42), ("no soft_filter", 42), ("base", 43), ("no soft_filter", 43),
    ]  # fmt: skip
    assert {r.spec.data.seed for r in plan.runs} == {GENSR.data.seed}
    assert all(r.path == run_directory(r.spec, tmp_path) and r.spec.seed == r.seed for r in plan.runs)


def test_equal_variants_are_built_once_and_it_is_told():
    plan = planned(suite="paper", drop=["soft_filter"], grid=["contrastive.weight=0.5,0.50"])
    assert "no soft_filter" not in names(plan)
    assert len(plan.variants) == 6
    assert plan.remarks == (
        "--drop soft_filter is the same as no soft filter: built once",
        "--grid contrastive.weight=0.50 is the same as contrastive.weight=0.5: built once",
    )


def test_another_plan_has_another_folder_and_the_same_plan_the_same(tmp_path):
    folders = [
        planned(root=tmp_path, drop=["soft_filter"], seeds=seeds, base=base).folder
        for base, seeds in ((GENSR, 1), (GENSR, 2), (GENSR.model_copy(update={"seed": 1}), 1), (GENSR, 1))
    ]
    assert len(set(folders)) == 3
    assert folders[0] == folders[3]
    assert folders[0].parent == tmp_path / "ablations"


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ({}, "nothing to ablate: give --drop SLOT, --swap SLOT=NAME, --grid PATH=VALUE,VALUE or --suite paper"),
        ({"drop": ["backbone"]}, "--drop backbone: backbone cannot be dropped: swap it; known: "),
        ({"drop": ["cf"]}, "contrastive compares two views, but cf is null; drop it as well: --drop cf+contrastive"),
        ({"drop": ["soft_filtr"]}, "--drop soft_filtr: no slot 'soft_filtr'; did you mean 'soft_filter'?"),
        ({"swap": ["soft_filter=men"]}, "no soft_filter named 'men'; did you mean 'mean'?"),
        ({"swap": ["soft_filter=cross_attention"]}, "--swap soft_filter=cross_attention changes nothing: the base is"),
        ({"swap": ["soft_filter"]}, "--swap 'soft_filter': expected slot=name"),
        ({"grid": ["heads=1,2"]}, "--grid heads=1: 'heads' is ambiguous: ranker.history.heads, "),
        ({"grid": ["contrastive.temprature=1,2"]}, "did you mean 'temperature'?"),
        ({"grid": ["contrastive.temperature=0.1,,0.2"]}, "value 2 is empty"),
        ({"grid": ["contrastive.temperature=warm"]}, "--grid contrastive.temperature=warm has 1 problem:"),
        ({"grid": ["contrastive.temperature=0.07"], "base": load_spec("preset:demo")}, "Nothing is left to ablate"),
        ({"grid": ["training.seed=1,2"]}, "no option 'training.seed'"),
        ({"grid": ["seed=1,2"]}, "--grid seed=1 changes the seed, which makes no variant: give --seeds N"),
        ({"grid": ["max_requests=5"]}, "--grid max_requests=5 changes how runs are measured"),
        ({"grid": ["ties=optimistic"]}, "--grid ties=optimistic changes how runs are measured"),
        ({"suite": "papr"}, "no suite named 'papr'; did you mean 'paper'? Known: paper"),
        ({"drop": ["soft_filter"], "seeds": 0}, "seeds: expected 1 or more, got 0"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_bad_input_is_told_with_its_flag_before_anything_runs(flags, expected):
    assert expected in complaint(**flags)
