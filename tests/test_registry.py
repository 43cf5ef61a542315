"""Names, near misses, duplicates and plug-ins, on a fresh registry, so that nothing leaks into the real ones."""

from __future__ import annotations

import json
import sys
from importlib.metadata import EntryPoint
from types import ModuleType
from typing import Annotated, Literal

import pytest
from pydantic import PositiveInt, ValidationError

import gensr.registry
import gensr.spec
from gensr.errors import BadInputError
from gensr.registry import ComponentConfig, Registry, Section, UnknownComponentError, slot_of
from tests.plugins import config, install


class ShapeConfig(ComponentConfig):
    """Base of shapes."""


@pytest.fixture
def shapes(monkeypatch):
    monkeypatch.setattr(Registry, "all", {})
    registry = Registry("shape", ShapeConfig, builtins="gensr.errors")

    @registry.register
    class CircleConfig(ShapeConfig):
        """Round."""

        type: Literal["circle"] = "circle"
        radius: PositiveInt = 1
        """Half the width."""

    return registry


def holder(registry):
    class Drawing(Section):
        shape: Annotated[ShapeConfig, registry] | None = None
        more: tuple[Annotated[ShapeConfig, registry], ...] = ()
        frame: Annotated[ShapeConfig, registry] = registry.parse("circle")
        size: int = 1

    return Drawing


def plug_in(monkeypatch, value, *, name="square", kind="gensr.shape", times=1):
    points = [EntryPoint(name, value, kind)] * times
    monkeypatch.setattr(gensr.registry, "entry_points", lambda group: points if group == kind else [])


def module(monkeypatch, **content):
    made = ModuleType("some_plugin")
    for name, value in content.items():
        setattr(made, name, value)
        value.__module__, value.__qualname__ = "some_plugin", name
    monkeypatch.setitem(sys.modules, "some_plugin", made)


class SquareConfig(ShapeConfig):
    """Four corners."""

    type: Literal["square"] = "square"
    side: PositiveInt = 2


def test_a_component_is_read_from_a_name_an_object_or_an_instance(shapes):
    by_name = shapes.parse("circle")
    assert by_name == shapes.parse({"type": "circle"}) == shapes.parse(by_name)
    assert shapes.parse({"type": "circle", "radius": 3}).radius == 3


def test_an_unknown_name_is_answered_with_the_nearest_and_all_known_ones(shapes):
    with pytest.raises(UnknownComponentError) as caught:
        shapes.get("cirle")
    assert str(caught.value) == (
        "no shape named 'cirle'; did you mean 'circle'? Known: circle (a plug-in must be installed, or its module "
        "imported first)"
    )
    with pytest.raises(UnknownComponentError, match=r"no shape named 'xyz'\. Known: circle \("):
        shapes.get("xyz")


def test_an_unknown_option_is_answered_with_the_nearest_and_its_path(shapes):
    with pytest.raises(ValidationError) as caught:
        holder(shapes).model_validate({"shape": {"type": "circle", "radios": 2}})
    (problem,) = caught.value.errors()
    assert problem["loc"] == ("shape", "radios")
    assert problem["msg"] == "no option 'radios'; did you mean 'radius'? Options: radius"


def test_all_problems_of_nested_components_come_at_once(shapes):
    wrong = {"shape": "cube", "more": ["circle", {"type": "circle", "radius": 0}], "sizes": 1}
    with pytest.raises(ValidationError) as caught:
        holder(shapes).model_validate(wrong)
    assert {problem["loc"] for problem in caught.value.errors()} == {("shape",), ("more", 1, "radius"), ("sizes",)}


@pytest.mark.parametrize("value", [5, {"radius": 2}, {"type": 3}, ["circle"], True])
def test_what_is_no_component_is_refused_with_what_was_expected(shapes, value):
    with pytest.raises(ValueError, match=r'expected a shape: a name or an object with a "type", got .* Known: circle'):
        shapes.parse(value)


def test_two_classes_of_one_name_are_an_error_that_names_both(shapes):
    class Other(ShapeConfig):
        type: Literal["circle"] = "circle"

    with pytest.raises(ValueError, match=r"two shape components are named 'circle': .*CircleConfig and .*Other"):
        shapes.register(Other)


def test_a_notebook_cell_may_be_run_again(shapes):
    for _ in range(2):

        @shapes.register
        class Mine(ShapeConfig):
            type: Literal["mine"] = "mine"

    assert shapes.get("mine") is Mine


def test_a_class_of_another_kind_or_without_a_name_cannot_be_registered(shapes):
    with pytest.raises(TypeError, match="must derive from ShapeConfig"):
        shapes.register(ComponentConfig)

    class Nameless(ShapeConfig):
        pass

    with pytest.raises(TypeError, match="Nameless has no name"):
        shapes.register(Nameless)


def test_a_plug_in_is_known_before_and_imported_only_when_named(shapes, monkeypatch):
    module(monkeypatch, SquareConfig=SquareConfig)
    plug_in(monkeypatch, "some_plugin:SquareConfig")
    assert shapes.names() == ["circle", "square"]
    assert "square" not in shapes._classes
    assert shapes.parse({"type": "square", "side": 5}).side == 5
    assert shapes.broken() == {}


@pytest.mark.parametrize(
    ("value", "complaint"),
    [
        ("no_such_package:Config", "cannot be imported: ModuleNotFoundError: No module named 'no_such_package'"),
        ("gensr.errors:NoSuchClass", "cannot be imported: AttributeError"),
        ("gensr.errors:did_you_mean", "is broken: .* is no shape config: it must derive from ShapeConfig"),
    ],
)
def test_a_broken_plug_in_says_which_and_why_and_breaks_nothing_else(shapes, monkeypatch, value, complaint):
    plug_in(monkeypatch, value)
    with pytest.raises(BadInputError, match=f"the shape plug-in 'square' of package '{value}' {complaint}"):
        shapes.get("square")
    assert shapes.parse("circle").radius == 1
    assert list(shapes.broken()) == ["square"]
    with pytest.raises(ValidationError, match="plug-in 'square'"):
        holder(shapes).model_validate({"shape": "square"})


def test_a_plug_in_must_carry_the_name_it_declares(shapes, monkeypatch):
    module(monkeypatch, SquareConfig=SquareConfig)
    plug_in(monkeypatch, "some_plugin:SquareConfig", name="sqare")
    with pytest.raises(BadInputError, match="registers the name 'square'; the entry point must carry the same name"):
        shapes.get("sqare")


def test_two_packages_that_declare_one_name_are_an_error(shapes, monkeypatch):
    plug_in(monkeypatch, "some_plugin:SquareConfig", times=2)
    with pytest.raises(BadInputError, match="two installed packages declare a shape named 'square'"):
        shapes.get("square")


def test_a_plug_in_named_like_a_built_in_is_reported_and_not_used(shapes, monkeypatch):
    plug_in(monkeypatch, "some_plugin:SquareConfig", name="circle")
    assert shapes.get("circle").__name__ == "CircleConfig"
    assert "declares a shape of this name too" in shapes.broken()["circle"]


def test_every_way_to_be_broken_names_the_package_and_the_reason(shapes, monkeypatch, tmp_path):
    points = {
        "hollow": "acme_hollow:Config",
        "torn": "acme_torn:Config",
        "plain": "acme_plain:Config",
        "nameless": "acme_nameless:Config",
        "oval": "acme_oval:Config",
        "circle": "acme_circle:Config",
        "exits": "acme_exits:Config",
        "vague": "acme_vague:Config",
    }
    modules = {
        "acme_torn": "import no_such_module_of_acme",
        "acme_plain": "class Config: ...",
        "acme_nameless": "from tests.test_registry import ShapeConfig\nclass Config(ShapeConfig): ...",
        "acme_oval": config("tests.test_registry", "ShapeConfig", "ellipse"),
        "acme_circle": config("tests.test_registry", "ShapeConfig", "circle"),
        "acme_exits": "raise SystemExit('no GPU')",
        "acme_vague": config("tests.test_registry", "ShapeConfig", "vague") + "        size: 'NoSuchType' = 1",
    }
    install(monkeypatch, tmp_path, "acme-shapes", "shape", points, **modules)
    good = config("tests.test_registry", "ShapeConfig", "hexagon")
    install(monkeypatch, tmp_path, "good-shapes", "shape", {"hexagon": "good_hexagon:Config"}, good_hexagon=good)
    reasons = shapes.broken()
    where = "plug-in {} of package 'acme-shapes'"
    for name, reason in {
        "hollow": "cannot be imported: ModuleNotFoundError: No module named 'acme_hollow'",
        "torn": "cannot be imported: ModuleNotFoundError: No module named 'no_such_module_of_acme'",
        "plain": "is broken: <class 'acme_plain.Config'> is no shape config: it must derive from ShapeConfig",
        "nameless": 'is broken: Config has no name: give it `type: Literal["..."] = "..."`',
        "oval": "registers the name 'ellipse'; the entry point must carry the same name",
        "exits": "cannot be imported: SystemExit: no GPU",
        "vague": "is broken: `Config` is not fully defined; you should define `NoSuchType`, then call "
        "`Config.model_rebuild()`.",
    }.items():
        assert reasons[name] == f"the shape {where.format(repr(name))} {reason}"
    assert reasons["circle"] == "package 'acme-shapes' declares a shape of this name too; the other one is used"
    assert "hexagon" not in reasons
    assert shapes.parse("hexagon").type == "hexagon"
    assert shapes.parse("circle").radius == 1


def test_a_plug_in_may_be_declared_where_its_package_re_exports_it(shapes, monkeypatch, tmp_path):
    text = config("tests.test_registry", "ShapeConfig", "hexagon")
    modules = {"acme_inner": text, "acme_outer": "from acme_inner import Config"}
    install(monkeypatch, tmp_path, "acme-shapes", "shape", {"hexagon": "acme_outer:Config"}, **modules)
    assert shapes.broken() == {}
    assert shapes.parse("hexagon").type == "hexagon"


def test_a_plug_in_under_a_wrong_name_is_known_under_none(shapes, monkeypatch, tmp_path):
    text = config("tests.test_registry", "ShapeConfig", "rhombus")
    install(monkeypatch, tmp_path, "acme-wrong", "shape", {"romb": "acme_rhombus:Config"}, acme_rhombus=text)
    with pytest.raises(BadInputError, match="of package 'acme-wrong' registers the name 'rhombus'"):
        shapes.get("romb")
    with pytest.raises(UnknownComponentError):
        shapes.get("rhombus")


def test_the_json_schema_offers_plug_ins_with_their_options_and_no_broken_ones(shapes, monkeypatch):
    module(monkeypatch, SquareConfig=SquareConfig)
    points = [EntryPoint("square", "some_plugin:SquareConfig", "x"), EntryPoint("torn", "no_such_package:Config", "x")]
    monkeypatch.setattr(gensr.registry, "entry_points", lambda group: points)
    schema = json.dumps(holder(shapes).model_json_schema())
    assert '"enum": ["circle", "square"]' in schema
    assert '"side"' in schema


def test_a_component_may_hold_components_of_its_own_kind(shapes):
    @shapes.register
    class GroupConfig(ShapeConfig):
        type: Literal["group"] = "group"
        members: tuple[Annotated[ShapeConfig, shapes], ...] = ()

    nested = {"type": "group", "members": ["circle", {"type": "group", "members": ["circle"]}]}
    assert holder(shapes).model_validate({"shape": nested}).shape.members[1].members[0].radius == 1
    for cls in (GroupConfig, holder(shapes)):
        assert '"Half the width."' in json.dumps(cls.model_json_schema())


def test_slots_are_found_through_nullable_and_repeated_annotations(shapes):
    fields = holder(shapes).model_fields
    found = {name: slot_of(field) for name, field in fields.items()}
    assert found["size"] is None
    assert [found[name][1:] for name in ("shape", "more", "frame")] == [(True, False), (False, True), (False, False)]


def test_a_filled_section_reads_back_equal(shapes):
    cls = holder(shapes)
    drawing = cls(shape="circle", more=[{"type": "circle", "radius": 4}])
    assert cls.model_validate(json.loads(drawing.model_dump_json())) == drawing


def test_the_json_schema_offers_names_and_options(shapes):
    schema = json.dumps(holder(shapes).model_json_schema())
    for expected in ('"enum": ["circle"]', '"Half the width."', '"exclusiveMinimum": 0'):
        assert expected in schema


@pytest.mark.parametrize("kind", sorted(Registry.all))
def test_every_built_in_component_is_documented_and_buildable_from_its_name(kind):
    registry = Registry.all[kind]
    assert registry.names()
    for name in registry.names():
        cls = registry.get(name)
        assert cls.__doc__
        for option, field in cls.model_fields.items():
            assert option == "type" or field.description, f"{kind} {name}: {option} has no doc"
        if not any(field.is_required() for field in cls.model_fields.values()):
            assert registry.parse(name).type == name


@pytest.mark.parametrize("kind", sorted(Registry.all))
def test_the_json_schema_of_a_spec_holds_every_component(kind):
    schema = json.dumps(gensr.spec.PipelineSpec.model_json_schema())
    for name in Registry.all[kind].names():
        assert f'"const": "{name}"' in schema
