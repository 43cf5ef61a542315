"""What `--set`, `--drop` and `--swap` do to a spec."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gensr.edits import (
    SUITES,
    Edit,
    apply_edits,
    drop,
    parse_drop,
    parse_grid,
    parse_set,
    parse_swap,
    set_value,
    swap,
    value_at,
)
from gensr.errors import BadInputError
from gensr.spec import PipelineSpec, load_spec

SPEC = load_spec({"ranker": {"type": "gensr", "soft_filter": {"type": "cross_attention", "heads": 4}}})


def complaint(function, *args) -> str:
    with pytest.raises(BadInputError) as caught:
        function(*args)
    return str(caught.value)


# Set


def test_a_path_may_be_cut_on_the_left_while_it_stays_unambiguous():
    for path in ("ranker.contrastive.weight", "contrastive.weight", "weight"):
        assert set_value(SPEC, path, "0.5").ranker.contrastive.weight == 0.5


def test_an_ambiguous_path_lists_what_it_could_be():
    assert complaint(set_value, SPEC, "heads", "1") == (
        "'heads' is ambiguous: ranker.history.heads, ranker.soft_filter.heads, ranker.backbone.scratch.heads"
    )


def test_a_full_path_wins_over_longer_paths_that_end_in_it():
    changed = set_value(SPEC, "seed", "7")
    assert (changed.seed, changed.data.seed) == (7, SPEC.data.seed)


def test_a_place_in_a_list_is_meant_only_where_it_is_named_or_alone():
    changed = set_value(SPEC, "cf.dim", "8")
    assert (changed.ranker.cf.dim, changed.evaluation.floors) == (8, SPEC.evaluation.floors)
    assert set_value(SPEC, "floors.4.cf.dim", "8").evaluation.floors[4].cf.dim == 8
    assert set_value(SPEC, "count", "9").data.candidates[0].count == 9
    assert set_value(SPEC, "metrics.0", "recall@1").evaluation.metrics[0] == "recall@1"


def test_a_wrong_path_is_answered_with_the_nearest_one():
    text = complaint(set_value, SPEC, "contrastve.weight", "1")
    assert text.startswith("no option 'contrastve.weight'; did you mean 'contrastive.weight'?")
    text = complaint(set_value, SPEC, "soft_filter.headz", "1")
    assert "did you mean 'heads'? ranker.soft_filter is 'cross_attention', whose options are: heads, output" in text
    assert "no option 'floors.9.k1'" in complaint(set_value, SPEC, "floors.9.k1", "1")


def test_a_wrong_value_is_told_with_its_edit_and_path():
    assert complaint(set_value, SPEC, "soft_filter.heads", "0") == (
        "--set soft_filter.heads=0 has 1 problem:\n  ranker.soft_filter.heads: Input should be greater than 0 (got 0)"
    )


@pytest.mark.parametrize(
    ("text", "value"),
    [("10", 10), ("1e-4", 1e-4), ("null", None), ("true", True), ("[1, 2]", [1, 2]), ("bf16", "bf16"), ("a=b", "a=b")],
)
def test_a_value_is_json_where_it_can_be_else_a_string(text, value):
    edit = parse_set(f"training.epochs={text}")
    assert edit.path == "training.epochs"
    try:
        assert json.loads(edit.value) == value
    except json.JSONDecodeError:
        assert edit.value == value


def test_digits_stay_a_text_where_a_text_stood():
    assert set_value(SPEC, "name", "2024").name == "2024"


def test_options_of_an_absent_section_create_it():
    scratch = set_value(SPEC, "scratch.width", "64").ranker.backbone.scratch
    assert (scratch.width, scratch.layers) == (64, 2)


def test_free_keys_can_be_set():
    edits = [parse_set("source=table"), parse_set("source.path=log.csv"), parse_set("columns.item_id=sku")]
    source = apply_edits(SPEC, edits).data.source
    assert (source.path, source.columns) == ("log.csv", {"item_id": "sku"})


def test_setting_a_component_or_its_type_is_a_swap():
    for path, value in (("ranker.cf", "als"), ("cf.type", "als"), ("ranker.cf", '{"type": "als"}')):
        if path == "cf.type":
            path = "ranker.cf.type"
        assert set_value(SPEC, path, value).ranker.cf.type == "als"
    assert set_value(SPEC, "ranker", "popularity").ranker.type == "popularity"


def test_an_edit_without_an_equals_sign_is_told_the_form():
    assert complaint(parse_set, "seed") == "--set 'seed': expected path=value, as in --set contrastive.weight=0.1"
    assert "expected slot=name" in complaint(parse_swap, "soft_filter")


# Drop


@pytest.mark.parametrize("slot", ["semantic+contrastive", "cf+contrastive", "history", "soft_filter", "contrastive"])
def test_dropping_sets_nullable_slots_to_null(slot):
    dropped = drop(SPEC, slot).ranker
    assert all(getattr(dropped, name) is None for name in slot.split("+"))


def test_a_required_slot_cannot_be_dropped():
    assert complaint(drop, SPEC, "backbone").startswith("backbone cannot be dropped: swap it; known: ")
    assert complaint(drop, SPEC, "floors.0").startswith("floors.0 cannot be dropped: swap it; known: cf, ")


def test_dropping_one_view_alone_is_advised_to_drop_the_loss_as_well():
    assert "contrastive compares two views, but cf is null; drop it as well: --drop cf+contrastive" in complaint(
        drop, SPEC, "cf"
    )


def test_what_is_no_slot_cannot_be_dropped():
    assert complaint(drop, SPEC, "soft_filtr").startswith("no slot 'soft_filtr'; did you mean 'soft_filter'? Known: ")
    assert "Known: data.source, data.split, ranker, ranker.cf, ranker.semantic," in complaint(drop, SPEC, "epochs")


def test_an_option_of_a_dropped_component_is_told_so():
    edits = [*parse_drop("soft_filter"), parse_set("soft_filter.heads=2")]
    assert "ranker.soft_filter is null; swap a component in first" in complaint(apply_edits, SPEC, edits)


# Swap


def test_swapping_keeps_options_only_while_the_type_stays():
    assert swap(SPEC, "soft_filter", "cross_attention") == SPEC
    assert swap(SPEC, "soft_filter", "mean").ranker.soft_filter.type == "mean"
    back = swap(swap(SPEC, "soft_filter", "mean"), "soft_filter", "cross_attention")
    assert back.ranker.soft_filter.heads == 2


def test_a_swapped_in_component_can_be_set_in_the_same_breath():
    changed = apply_edits(SPEC, [*parse_swap("cf=als+soft_filter=mean"), parse_set("cf.iterations=3")])
    assert (changed.ranker.cf.iterations, changed.ranker.soft_filter.type) == (3, "mean")


def test_an_unknown_name_is_answered_with_the_nearest():
    text = complaint(swap, SPEC, "soft_filter", "men")
    assert (
        "--swap soft_filter=men has 1 problem:\n  ranker.soft_filter: no soft_filter named 'men'; did you mean" in text
    )


def test_a_component_can_be_swapped_in_with_options():
    (edit,) = parse_swap('backbone={"type": "t5", "scratch": {"width": 64}, "answers": ["a+b", "c=d"]}')
    backbone = swap(SPEC, "backbone", edit.value).ranker.backbone
    assert (backbone.scratch.width, backbone.answers) == (64, ("a+b", "c=d"))
    edits = parse_swap('soft_filter={"type": "cross_attention", "heads": 1}+cf=als')
    changed = apply_edits(SPEC, edits).ranker
    assert (changed.soft_filter.heads, changed.cf.type) == (1, "als")


def test_an_object_replaces_a_component_of_the_same_name_and_its_name_alone_does_not():
    changed = swap(SPEC, "soft_filter", {"type": "cross_attention", "output": "sequence"})
    assert changed.ranker.soft_filter.heads == 2  # 4 in the base, 2 by default
    assert swap(SPEC, "soft_filter", "cross_attention").ranker.soft_filter.heads == 4


def test_swapping_for_null_is_dropping():
    assert parse_swap("contrastive=null+soft_filter=mean") == [
        Edit("drop", "contrastive"),
        Edit("swap", "soft_filter", "mean"),
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('cf={"dim": 4}', '--swap cf={"dim": 4}: expected an object with a "type"'),
        ('cf={"type": "als"', "is no JSON object"),
        ('cf={"type": als}', "is no JSON object"),
        ("=als", "expected slot=name"),
    ],
)
def test_a_component_that_cannot_be_read_is_told_with_its_flag(text, expected):
    message = complaint(parse_swap, text)
    assert expected in message
    assert message.startswith("--swap ")


# Grid


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("0.05,0.1, 0.5", ["0.05", "0.1", "0.5"]),
        ("mean", ["mean"]),
        ("null,[1,2],bf16", ["null", "[1,2]", "bf16"]),
        ('{"type": "als", "dim": 4},"a,b"', ['{"type": "als", "dim": 4}', '"a,b"']),
    ],
)
def test_a_grid_is_an_edit_a_value_and_json_is_not_cut(text, values):
    path, edits = parse_grid(f"training.epochs={text}")
    assert path == "training.epochs"
    assert [edit.value for edit in edits] == values


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("weight=0.1,", "--grid weight=0.1,: value 2 is empty"),
        ("weight=", "--grid weight=: value 1 is empty"),
        ("weight", "--grid 'weight': expected path=value,value, as in --grid contrastive.temperature=0.05,0.1"),
    ],
)
def test_an_empty_grid_value_is_refused(text, expected):
    assert expected in complaint(parse_grid, text)


def test_the_value_of_an_option_can_be_asked():
    assert value_at(SPEC, "soft_filter.heads") == 4
    assert value_at(SPEC, "cf")["type"] == "lightgcn"
    assert value_at(SPEC, "scratch.width") is None


# All of them


def test_the_papers_suite_is_four_drops_that_are_specs():
    assert set(SUITES["paper"]) == {"CF only", "semantic only", "no soft filter", "no contrastive"}
    specs = {name: drop(SPEC, slots).ranker for name, slots in SUITES["paper"].items()}
    assert specs["CF only"].semantic is None
    assert specs["CF only"].cf is not None
    assert specs["semantic only"].cf is None
    assert len({spec.model_dump_json() for spec in specs.values()}) == 4


def test_errors_name_where_edits_came_from():
    with pytest.raises(BadInputError, match=r"^--grid heads=0 has 1 problem"):
        apply_edits(SPEC, [Edit("set", "soft_filter.heads", "0")], origin="--grid heads=0")
    with pytest.raises(BadInputError, match=r"^--drop backbone: backbone cannot be dropped: swap it; known: "):
        apply_edits(SPEC, parse_drop("backbone"), origin="--drop backbone")


def test_no_edits_leave_the_spec_as_it_is():
    assert apply_edits(SPEC, []) is SPEC


def test_an_edit_prints_as_it_is_written():
    edits = [Edit("set", "a.b", 0.1), Edit("swap", "soft_filter", "mean"), Edit("drop", "cf")]
    assert list(map(str, edits)) == ["--set a.b=0.1", "--swap soft_filter=mean", "--drop cf"]


def paths(value, prefix=()):
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
        yield (*prefix, str(key)), inner
        if isinstance(inner, dict | list):
            yield from paths(inner, (*prefix, str(key)))


FILLED = list(paths(SPEC.model_dump(mode="json")))


@given(st.sampled_from(FILLED))
def test_setting_any_option_to_what_it_is_changes_nothing(option):
    path, value = option
    same = set_value(SPEC, ".".join(path), json.dumps(value))
    assert same == SPEC
    assert same.fingerprint() == SPEC.fingerprint()


NUMBERS = {
    "training.batch_size": st.integers(1, 4096),
    "ranker.contrastive.weight": st.floats(0, 10),
    "ranker.cf.dim": st.integers(1, 512),
    "ranker.history.dropout": st.floats(0, 0.99),
    "data.max_history": st.integers(1, 200),
    "evaluation.floors.2.b": st.floats(0, 1),
    "ranker.soft_filter.heads": st.integers(1, 16),
}
EDITS = st.one_of(
    *(
        st.builds(Edit, st.just("set"), st.just(path), values.map(lambda value: json.dumps(value)))
        for path, values in NUMBERS.items()
    )
)


@settings(max_examples=60, deadline=None)
@given(st.lists(EDITS, max_size=4, unique_by=lambda edit: edit.path), st.randoms(use_true_random=False))
def test_edits_of_different_options_hold_in_any_order_and_survive_writing(edits, random):
    changed = apply_edits(SPEC, edits)
    shuffled = random.sample(edits, len(edits))
    assert apply_edits(SPEC, shuffled) == changed
    assert load_spec(json.loads(changed.to_json())) == changed
    dumped = changed.model_dump(mode="json")
    for edit in edits:
        value = dumped
        for part in edit.path.split("."):
            value = value[int(part) if part.isdigit() else part]
        assert value == json.loads(edit.value)
    assert (changed.fingerprint() == SPEC.fingerprint()) == (changed == SPEC)
    assert isinstance(changed, PipelineSpec)
