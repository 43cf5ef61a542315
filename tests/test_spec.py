"""Reading, checking, extending and fingerprinting specs."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import ClassVar, Literal

import pytest
from pydantic_core import to_jsonable_python

from gensr.backbones.templates import DEFAULTS
from gensr.encoders.cf.config import LightGCNConfig
from gensr.errors import BadInputError
from gensr.rankers.config import GenSRConfig, LexicalConfig, RandomConfig
from gensr.registry import ComponentConfig, Registry, Section
from gensr.spec import PipelineSpec, fingerprint, load_spec
from gensr.spec_file import merge, preset_names, read_spec

GOLDEN = Path(__file__).parent / "golden" / "defaults.json"


def complaint(data) -> str:
    with pytest.raises(BadInputError) as caught:
        load_spec(data)
    return str(caught.value)


def write(path: Path, data) -> Path:
    path.write_text(data if isinstance(data, str) else json.dumps(data), encoding="utf-8")
    return path


# Checking


def test_an_empty_spec_is_the_default_one():
    assert load_spec({}) == PipelineSpec()


def test_all_problems_of_a_spec_come_at_once_each_with_its_path():
    text = complaint(
        {
            "rankr": 1,
            "data": {"item_text": ["titel"], "candidates": ["uniform", "uniform"]},
            "ranker": {
                "type": "gensr",
                "soft_filtr": "mean",
                "soft_filter": "cross_atention",
                "cf": {"type": "als", "dims": 3, "iterations": -1},
            },
            "training": {"epochs": 0, "learning_rate": "fast", "precison": "bf16"},
            "evaluation": {
                "metrics": ["ndgc@5"],
                "tasks": ["serch"],
                "floors": ["random", {"type": "lexical", "k": 1}],
            },
        }
    )
    for expected in (
        "spec has 13 problems:",
        "data.item_text.0: Input should be 'title' or 'categories' (got 'titel')",
        "data.candidates: given more than once: uniform-99",
        "ranker.soft_filtr: no option 'soft_filtr'; did you mean 'soft_filter'? Options: cf, semantic,",
        "ranker.soft_filter: no soft_filter named 'cross_atention'; did you mean 'cross_attention'? Known:",
        "ranker.cf.dims: no option 'dims'; did you mean 'dim'? Options: dim, iterations,",
        "ranker.cf.iterations: Input should be greater than 0 (got -1)",
        "training.epochs: Input should be greater than 0 (got 0)",
        "training.learning_rate: Input should be a valid number, unable to parse string as a number (got 'fast')",
        "training.precison: no option 'precison'; did you mean 'precision'?",
        "evaluation.metrics: no metric named 'ndgc@5'; did you mean 'ndcg@5'? Known: recall@k, ndcg@k, mrr",
        "evaluation.tasks: unknown task 'serch'; did you mean 'search'?",
        "evaluation.floors.1.k: no option 'k'; did you mean 'k1'? Options: fields, k1, b",
        "rankr: no option 'rankr'; did you mean 'ranker'? Options: version, name,",
    ):
        assert f"\n  {expected}" in text or text.startswith(expected)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ({"version": 2}, "version: Input should be 1 (got 2)"),
        ({"name": "a/b"}, "name: String should match pattern"),
        ({"seed": -1}, "seed: Input should be greater than or equal to 0 (got -1)"),
        ({"data": None}, "data: Input should be a valid dictionary"),
        ({"data": {"users": 1.5}}, "data.users: Input should be a valid integer"),
        ({"data": {"item_text": []}}, "data.item_text: expected at least one"),
        ({"ranker": 5}, 'ranker: expected a ranker: a name or an object with a "type", got 5. Known: cf, fmlp, gensr,'),
        ({"ranker": {"type": "gensr", "backbone": None}}, "ranker.backbone: expected a backbone"),
        ({"ranker": {"type": "gensr", "layout": "paper"}}, "ranker.layout: Input should be 'packed' or 'interleaved'"),
        ({"training": {"epochs": True}}, "training.epochs: Input should be a valid integer"),
        ({"training": {"max_steps": False}}, "training.max_steps: Input should be a valid integer"),
        ({"training": {"learning_rate": float("inf")}}, "training.learning_rate: Input should be a finite number"),
        ({"training": {"precision": "fp16"}}, "training.precision: fp16 overflows in T5"),
        ({"evaluation": {"tasks": 5}}, "evaluation.tasks: Input should be a valid tuple (got 5)"),
        (
            {"evaluation": {"tasks": ["rec", "recommendation"]}},
            "evaluation.tasks: given more than once: recommendation",
        ),
        ({"evaluation": {"metrics": ["recall@0"]}}, "evaluation.metrics: no metric named 'recall@0'"),
        ({"evaluation": {"metrics": ["recall@\u00b2"]}}, "evaluation.metrics: no metric named 'recall@\u00b2'"),
    ],
)
def test_a_wrong_type_or_range_names_field_value_and_expectation(data, expected):
    text = complaint(data)
    assert text.startswith("spec has 1 problem:\n")
    assert expected in text


def test_what_belongs_together_is_checked_together():
    gone = {"type": "gensr", "cf": None}
    assert "drop it as well: --drop cf+contrastive" in complaint({"ranker": gone})
    assert "nothing is left to describe an item" in complaint({"ranker": {**gone, "semantic": None}})
    both = {"type": "gensr", "backbone": {"type": "t5", "pretrained": "some/t5", "scratch": {}}}
    assert "pretrained and scratch exclude each other" in complaint({"ranker": both})


def test_a_ranker_that_needs_training_is_no_floor():
    with pytest.raises(BadInputError, match=r"evaluation\.floors: 'gensr' must be trained, and floors are measured as"):
        load_spec({"evaluation": {"floors": ["random", "gensr"]}})


def test_usual_spellings_of_tasks_are_accepted_and_one_is_written():
    assert load_spec({"evaluation": {"tasks": ["src", "Rec"]}}).evaluation.tasks == ("search", "recommendation")


def test_one_value_stands_for_a_list_of_one():
    spec = load_spec(
        {"data": {"item_text": "title", "candidates": "uniform"}, "evaluation": {"metrics": "mrr", "tasks": "search"}}
    )
    assert (spec.data.item_text, spec.evaluation.metrics, spec.evaluation.tasks) == (("title",), ("mrr",), ("search",))
    assert len(spec.data.candidates) == 1


def test_a_spec_cannot_be_changed_in_place():
    with pytest.raises(ValueError, match="frozen"):
        load_spec({}).seed = 3


# Files


@pytest.mark.parametrize("name", preset_names())
def test_every_preset_loads_and_bears_its_name(name):
    assert load_spec(f"preset:{name}").name == name


@pytest.mark.parametrize(
    "path", sorted((Path(__file__).parents[1] / "specs").glob("*.json")), ids=lambda path: path.stem
)
def test_every_example_spec_loads_and_bears_its_name(path):
    assert load_spec(path).name == path.stem


@pytest.mark.parametrize("name", preset_names())
def test_a_filled_spec_reads_back_equal(name, tmp_path):
    spec = load_spec(f"preset:{name}")
    again = load_spec(write(tmp_path / "spec.json", spec.to_json()))
    assert again == spec
    assert again.fingerprint() == spec.fingerprint()


def test_json_yaml_and_toml_say_the_same(tmp_path):
    pytest.importorskip("yaml")
    json_file = write(tmp_path / "a.json", {"seed": 7, "ranker": {"type": "gensr", "cf": {"type": "als", "dim": 8}}})
    yaml_file = write(tmp_path / "a.yaml", "seed: 7\nranker:\n  type: gensr\n  cf: {type: als, dim: 8}\n")
    toml_file = write(tmp_path / "a.toml", 'seed = 7\n[ranker]\ntype = "gensr"\n[ranker.cf]\ntype = "als"\ndim = 8\n')
    assert load_spec(json_file) == load_spec(yaml_file) == load_spec(toml_file)


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("a.json", '{"seed": }', "is no valid json: Expecting value: line 1 column 10"),
        ("a.yaml", "seed: [1", "is no valid yaml"),
        ("a.toml", "seed = ", "is no valid toml"),
        ("a.json", "[1]", "a spec is an object, got list"),
        ("a.yaml", "", "a spec is an object, got NoneType"),
        ("a.json", '{"extends": 3}', 'extends: expected a file or "preset:NAME", got 3'),
    ],
)
def test_a_file_that_is_no_spec_is_named_with_the_reason(tmp_path, name, text, expected):
    assert expected in complaint(str(write(tmp_path / name, text)))


def test_broken_utf8_is_named_with_the_file(tmp_path):
    path = tmp_path / "a.json"
    path.write_bytes(b'{"name": "\xff"}')
    assert f"{path} is no valid json" in complaint(path)


def test_a_missing_file_is_answered_with_the_nearest_file_or_preset(tmp_path):
    write(tmp_path / "yelp.json", {})
    assert "did you mean 'yelp.json'?" in complaint(tmp_path / "yelp.jsn")
    assert complaint("demo") == "no spec file 'demo'; did you mean 'preset:demo'?"
    assert "no preset named 'dmeo'; did you mean 'demo'? Known: " in complaint("preset:dmeo")


def test_a_problem_is_told_with_the_file_it_is_in(tmp_path):
    path = write(tmp_path / "a.json", {"sead": 1})
    assert complaint(path).startswith(f"{path} has 1 problem:\n  sead: no option 'sead'; did you mean 'seed'?")


def test_the_json_schema_accepts_the_short_forms_that_specs_accept():
    sections = PipelineSpec.model_json_schema()["$defs"]
    for section, option in (
        ("DataSpec", "item_text"),
        ("DataSpec", "candidates"),
        ("EvaluationSpec", "metrics"),
        ("EvaluationSpec", "tasks"),
    ):
        *one, several = sections[section]["properties"][option]["anyOf"]
        assert several["items"] in (*one, {"anyOf": one})


def test_an_editors_schema_key_is_accepted(tmp_path):
    assert load_spec(write(tmp_path / "a.json", {"$schema": "spec.schema.json", "seed": 3})).seed == 3


# Extending


def test_a_spec_extends_a_file_beside_it_that_extends_a_preset(tmp_path):
    (tmp_path / "deep").mkdir()
    write(tmp_path / "base.json", {"extends": "preset:demo", "name": "base", "training": {"batch_size": 7}})
    spec = load_spec(write(tmp_path / "deep" / "a.json", {"extends": "../base.json", "name": "leaf"}))
    demo = load_spec("preset:demo")
    assert (spec.name, spec.training.batch_size) == ("leaf", 7)
    assert spec.ranker == demo.ranker
    assert spec.training.epochs == demo.training.epochs


def test_specs_that_extend_each_other_are_told_the_circle(tmp_path):
    write(tmp_path / "a.json", {"extends": "b.json"})
    write(tmp_path / "b.json", {"extends": "a.json"})
    assert "specs extend each other in a circle: " in complaint(tmp_path / "a.json")
    assert "a.json -> " in complaint(tmp_path / "a.json")


def test_a_missing_base_is_an_error(tmp_path):
    assert "no spec file" in complaint(write(tmp_path / "a.json", {"extends": "gone.json"}))


def test_reading_does_not_change_the_mapping_given():
    data = {"extends": "preset:demo", "seed": 3}
    read_spec(data)
    assert data == {"extends": "preset:demo", "seed": 3}


@pytest.mark.parametrize(
    ("base", "over", "expected"),
    [
        ({"a": {"x": 1}}, {"a": {"y": 2}}, {"a": {"x": 1, "y": 2}}),
        ({"a": {"type": "s", "x": 1}}, {"a": {"y": 2}}, {"a": {"type": "s", "x": 1, "y": 2}}),
        ({"a": {"type": "s", "x": 1}}, {"a": {"type": "s", "y": 2}}, {"a": {"type": "s", "x": 1, "y": 2}}),
        ({"a": {"type": "s", "x": 1}}, {"a": {"type": "t", "y": 2}}, {"a": {"type": "t", "y": 2}}),
        ({"a": {"type": "s", "x": 1}}, {"a": "s"}, {"a": {"type": "s", "x": 1}}),
        ({"a": {"type": "s", "x": 1}}, {"a": "t"}, {"a": "t"}),
        ({"a": "s"}, {"a": {"x": 1}}, {"a": {"type": "s", "x": 1}}),
        ({"a": "s"}, {"a": {"type": "t"}}, {"a": {"type": "t"}}),
        ({"a": {"type": "s"}}, {"a": None}, {"a": None}),
        ({"a": [1, 2]}, {"a": [3]}, {"a": [3]}),
    ],
)
def test_merging_keeps_a_components_options_only_while_its_type_stays(base, over, expected):
    assert merge(base, over) == expected


# Fingerprint


class OldConfig(ComponentConfig):
    type: Literal["part"] = "part"
    width: int = 4


class GrownConfig(ComponentConfig):
    type: Literal["part"] = "part"
    width: int = 4
    colour: str = "red"


class RaisedConfig(OldConfig):
    revision: ClassVar[int] = 2


def test_the_name_does_not_count_and_everything_else_does():
    spec = load_spec({})
    assert load_spec({"name": "other"}).fingerprint() == spec.fingerprint()
    for change in (
        {"seed": 1},
        {"data": {"seed": 1}},
        {"ranker": "random"},
        {"ranker": {"type": "gensr", "history": None}},
    ):
        assert load_spec(change).fingerprint() != spec.fingerprint()


def test_a_default_written_down_equals_a_default_left_out():
    filled = load_spec(json.loads(load_spec({}).to_json()))
    assert filled.fingerprint() == load_spec({}).fingerprint()
    given = load_spec({"seed": 42, "training": {}, "ranker": {"type": "gensr", "cf": "lightgcn", "templates": None}})
    assert given.fingerprint() == load_spec({}).fingerprint()
    spelt = load_spec({"training": {"learning_rate": "1e-3", "clip_norm": 1}})
    assert spelt.fingerprint() == load_spec({}).fingerprint()


def test_an_option_added_with_a_default_does_not_move_it_but_its_value_does():
    assert fingerprint(GrownConfig()) == fingerprint(OldConfig())
    assert fingerprint(GrownConfig(width=5)) == fingerprint(OldConfig(width=5)) != fingerprint(OldConfig())
    assert fingerprint(GrownConfig(colour="blue")) != fingerprint(OldConfig())


def test_a_raised_revision_moves_it_even_where_the_component_is_the_default(monkeypatch):
    assert fingerprint(RaisedConfig()) != fingerprint(OldConfig())
    before = load_spec({}).fingerprint()
    for cls in (LightGCNConfig, LexicalConfig, RandomConfig):
        monkeypatch.setattr(cls, "revision", 2)
        after = load_spec({}).fingerprint()
        assert after != before
        before = after


def test_a_raised_revision_of_a_plain_section_moves_it(monkeypatch):
    before = load_spec({}).fingerprint()
    monkeypatch.setattr(type(load_spec({}).training), "revision", 2)
    assert load_spec({}).fingerprint() != before


def test_null_differs_from_the_default_component():
    class Whole(Section):
        part: OldConfig | None = OldConfig()

    assert fingerprint(Whole(part=None)) != fingerprint(Whole())


def test_an_empty_section_differs_from_none():
    class Inner(Section):
        size: int = 1

    class Outer(Section):
        inner: Inner | None = None

    assert fingerprint(Outer(inner=Inner())) != fingerprint(Outer())


# Defaults


def sections(cls: type[Section]) -> dict[str, type[Section]]:
    found = {}
    for member in cls.__subclasses__():
        if member.__module__.startswith("gensr.") and not member.__module__.startswith("gensr.testing"):
            found[f"{member.__module__}.{member.__qualname__}"] = member
        found |= sections(member)
    return found


def own(default):
    """A default as its owner decides it: of a component the type and what differs from the component's own defaults."""
    if isinstance(default, tuple):
        return [own(member) for member in default]
    if isinstance(default, Section):
        named = {"type": default.type} if isinstance(default, ComponentConfig) else {}
        return named | default.model_dump(mode="json", exclude_defaults=True)
    return to_jsonable_python(default)


def current_defaults() -> dict[str, dict]:
    for registry in Registry.all.values():
        registry.names()
    options = {
        name: (cls.revision, {option: field for option, field in cls.model_fields.items() if not field.is_required()})
        for name, cls in sorted(sections(Section).items())
    }
    found = {
        name: {
            "revision": revision,
            "defaults": {
                option: own(field.get_default(call_default_factory=True, validated_data={}))
                for option, field in fields.items()
            },
        }
        for name, (revision, fields) in options.items()
    }
    # The wording behind `templates: null` is a default of the ranker, though it stands in another file.
    prompts = {layout: templates.model_dump() for layout, templates in DEFAULTS.items()}
    found["prompts of gensr.rankers.config.GenSRConfig"] = {"revision": GenSRConfig.revision, "defaults": prompts}
    return found


def test_a_changed_default_raises_the_revision():
    """Fingerprints leave defaults out, so a default may only change together with `revision`.

    After doing so, or after adding options or classes: ``GENSR_UPDATE_GOLDEN=1 pytest tests/test_spec.py``.
    """
    current = current_defaults()
    if os.environ.get("GENSR_UPDATE_GOLDEN"):
        GOLDEN.write_text(json.dumps(current, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    golden = json.loads(GOLDEN.read_text(encoding="utf-8"))
    for name, old in golden.items():
        new = current.get(name)
        if new is None or new["revision"] > old["revision"]:
            continue
        changed = {option for option, value in old["defaults"].items() if new["defaults"].get(option, value) != value}
        assert not changed, f"{name}: the default of {sorted(changed)} changed; raise its `revision`"
    assert current == golden, "defaults were added, or revisions raised: write the golden file anew (see above)"
