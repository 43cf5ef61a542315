"""`gensr init`, `spec` and `components`."""

from __future__ import annotations

import json
import re
from importlib.metadata import EntryPoint

import pytest

import gensr.registry
from gensr.cli.components import schema_type
from gensr.spec import load_spec
from tests.cli.conftest import as_json
from tests.plugins import config, install


def test_init_writes_a_spec_that_is_the_demo_one_and_that_other_commands_find(call, tmp_path):
    assert "wrote spec.json" in call("init").stdout
    spec = load_spec("spec.json")
    assert spec.fingerprint() == load_spec("preset:demo").fingerprint()
    assert as_json(call("spec", "show"))["name"] == spec.name
    assert [path.name for path in tmp_path.iterdir()] == ["spec.json"]


def test_init_names_the_run_after_the_folder(call):
    call("init", "my shop/deep one")
    assert load_spec("my shop/deep one/spec.json").name == "deep-one"


def test_init_overwrites_only_when_told(call, tmp_path):
    (tmp_path / "spec.json").write_text("mine")
    assert "spec.json exists; --force overwrites it" in call("init", code=2).stderr
    assert (tmp_path / "spec.json").read_text() == "mine"
    call("init", "--force")
    assert load_spec("spec.json")


def test_init_writes_nothing_in_a_dry_run(call, tmp_path):
    assert "would write spec.json" in call("init", "--dry-run").stdout
    assert not list(tmp_path.iterdir())


def test_without_a_spec_the_demo_is_meant(call):
    assert as_json(call("spec", "show")) == load_spec("preset:demo").model_dump(mode="json")


def test_what_is_shown_is_a_spec_with_all_changes_in_it(call, tmp_path):
    text = call("spec", "show", "preset:tiny", "--set", "cf.dim=4", "--set", "soft_filter=mean", "--seed", 9).stdout
    (tmp_path / "again.json").write_text(text)
    spec = load_spec("again.json")
    assert (spec.ranker.cf.dim, spec.ranker.soft_filter.type, spec.seed) == (4, "mean", 9)


def test_check_says_ok_and_the_fingerprint(call):
    fingerprint = load_spec("preset:tiny").fingerprint()
    assert call("spec", "check", "preset:tiny").stdout == f"ok {fingerprint}\n"
    assert as_json(call("spec", "check", "preset:tiny", "--json")) == {"ok": True, "fingerprint": fingerprint}


def test_check_names_every_problem_of_a_file(call, tmp_path):
    (tmp_path / "spec.json").write_text(json.dumps({"sead": 1, "training": {"epochs": 0}}))
    text = call("spec", "check", code=2).stderr
    assert "gensr: spec.json has 2 problems:\n  training.epochs: " in text
    assert "sead: no option 'sead'; did you mean 'seed'?" in text


def test_schema_is_a_json_schema_that_knows_the_keys_of_files(call):
    schema = as_json(call("spec", "schema"))
    assert {"extends", "$schema", "ranker", "training"} <= set(schema["properties"])
    assert schema["additionalProperties"] is False


# Components


def test_components_lists_all_kinds_with_the_first_line_of_their_docs(call):
    text = call("components").stdout
    assert "\nsoft_filter\n  bilinear " in text
    assert "\n  cross_attention  Multi-head cross-attention importance of each history item" in text
    kinds = ["backbone", "candidates", "cf", "contrastive", "history", "ranker", "semantic", "soft_filter", "source"]
    assert list(as_json(call("components", "--json"))) == [*kinds, "split"]


def test_a_rankers_own_training_settings_are_shown_with_it(call):
    text = call("components", "ranker", "sasrec").stdout
    shown = text.partition("Its own defaults for the spec's training section:")[2]
    assert re.search(r'selection += "mrr"', shown)
    assert "Its own defaults" not in call("components", "ranker", "gensr").stdout
    assert as_json(call("components", "ranker", "fmlp", "--json"))["ranker"]["fmlp"]["training"]["patience"] == 10


def test_components_of_a_kind_come_with_their_options(call):
    text = call("components", "soft_filter").stdout
    assert "mean: Every history item weighs the same" in text
    assert "  heads    integer > 0              = 2         Attention heads; must divide the view's width.\n" in text


def test_one_component_comes_with_type_default_doc_and_source_of_each_option(call):
    text = call("components", "backbone", "t5").stdout
    assert "Source: Raffel et al., JMLR 2020" in text
    assert re.search(r"\n  scratch\.dropout +number >= 0 and < 1 +  = 0\.1 +Chance", text)
    assert "required" in call("components", "source", "table").stdout
    found = as_json(call("components", "ranker", "gensr", "--json"))["ranker"]["gensr"]["options"]
    assert (found["cf"]["type"], found["cf"]["default"]) == ("cf or null", "lightgcn")


def test_an_unknown_kind_or_component_is_answered_with_the_nearest(call):
    assert (
        "no kind of component named 'soft_filtr'; did you mean 'soft_filter'?"
        in call("components", "soft_filtr", code=2).stderr
    )
    assert "no soft_filter named 'men'; did you mean 'mean'?" in call("components", "soft_filter", "men", code=2).stderr


def test_a_broken_plug_in_is_marked_and_the_others_are_listed(call, monkeypatch):
    point = EntryPoint("mine", "no_such_package:Config", "gensr.history")
    monkeypatch.setattr(gensr.registry, "entry_points", lambda group: [point] if group == "gensr.history" else [])
    text = call("components").stdout
    assert "  mine         BROKEN: the history plug-in 'mine' of package 'no_such_package:Config' cannot be" in text
    assert "  transformer  Transformer encoder" in text
    assert "BROKEN" in call("components", "history", "mine").stdout
    assert "BROKEN" in call("components", "history").stdout


def test_every_broken_plug_in_is_marked_with_its_package_and_breaks_no_other_command(call, monkeypatch, tmp_path):
    home, base = "gensr.fusion.soft_filter.config", "SoftFilterConfig"
    points = {"torn": "acme_torn:Config", "plain": "json:dumps", "oval": "acme_oval:Config", "mean": "acme_mean:Config"}
    modules = {"acme_oval": config(home, base, "ellipse"), "acme_mean": config(home, base, "mean")}
    install(monkeypatch, tmp_path / "site", "acme-filters", "soft_filter", points, **modules)
    found = as_json(call("components", "soft_filter", "--json"))["soft_filter"]
    assert sorted(name for name in found if "broken" in found[name]) == ["mean", "oval", "plain", "torn"]
    assert all("package 'acme-filters'" in found[name]["broken"] for name in points)
    assert found["cross_attention"]["options"]
    lines = call("components", "soft_filter").stdout.splitlines()
    assert sum("BROKEN: " in line and "acme-filters" in line for line in lines) == 4
    assert call("spec", "check", "preset:tiny", "--set", "soft_filter=mean").stdout.startswith("ok ")
    refused = call("spec", "check", "preset:tiny", "--set", "soft_filter=torn", code=2).stderr
    assert "the soft_filter plug-in 'torn' of package 'acme-filters' cannot be imported" in refused
    assert '"ellipse"' not in call("spec", "schema").stdout


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        ({"type": "integer", "exclusiveMinimum": 0}, "integer > 0"),
        ({"type": "number", "minimum": 0, "exclusiveMaximum": 1}, "number >= 0 and < 1"),
        ({"anyOf": [{"type": "string"}, {"type": "null"}]}, "string or null"),
        ({"enum": ["a", "b"]}, "one of a, b"),
        ({"type": "array", "items": {"type": "string"}}, "list of string"),
        ({"type": "array", "prefixItems": [{}, {}]}, "list of 2"),
        ({}, "any"),
    ],
)
def test_a_schema_is_told_in_few_words(schema, words):
    assert schema_type(schema) == words
