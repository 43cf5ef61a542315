"""The spec on every page of docs/sources: it is one, and the data section it recommends prepares such a log."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from gensr.data.prepare import prepare
from gensr.data.split import Split
from gensr.spec import DataSpec, load_spec
from tests.parts import required_options

PAGES = sorted((Path(__file__).parents[3] / "docs" / "sources").glob("*.md"))


def documented(page):
    return re.findall(r"```json\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)[0]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_log_of_its_format_prepares_as_its_page_recommends(page, tmp_path):
    (tmp_path / "spec.json").write_text(documented(page))
    data = load_spec(str(tmp_path / "spec.json")).data
    assert data.source.type == page.stem
    if any(recipe.type == "bm25" for recipe in data.candidates):
        pytest.importorskip("bm25s")
    mapping = json.loads(documented(page))["data"]
    logs = tmp_path / "logs"
    logs.mkdir()
    # A few users, nine items and no words: thresholds and lists shrink with them, and no extra is needed.
    mapping["source"] |= required_options("source", page.stem, None, logs)
    for option in ("stemmer", "min_count", "columns"):
        mapping["source"].pop(option, None)
    if "metadata" in mapping["source"]:
        mapping["source"]["metadata"] = str(logs / "meta_Books.json")
    if isinstance(mapping.get("core"), dict):
        mapping["core"] = {**mapping["core"], **dict.fromkeys(mapping["core"].keys() & {"users", "items"}, 2)}
    elif "core" in mapping:
        mapping["core"] = 2
    mapping["candidates"] = [{"type": recipe.type, "count": 1} for recipe in data.candidates]
    prepared = prepare(DataSpec.model_validate(mapping), tmp_path / "prepared")
    assert {Split.TRAIN, Split.VALID, Split.TEST} <= set(prepared.split.tolist())
    assert prepared.manifest["spec"]["split"]["type"] == data.split.type
