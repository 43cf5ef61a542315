from __future__ import annotations

import pytest

from gensr.data.catalogue import Catalogue
from tests.data.logs import prepared, recs, searches


@pytest.fixture
def catalogue():
    return Catalogue(
        ["", "a", "b", "c"],
        ["", "Red Kettle", "", "Mat"],
        ["", "Home|Kitchen||Gifts", "Home", ""],
        ["", "tea pot", "größe 🫖"],
    )


def test_text_joins_the_fields_and_spells_out_hierarchies(catalogue):
    assert catalogue.text == ["", "Red Kettle, Home Kitchen, Gifts", "Home", "Mat"]


def test_item_text_names_the_fields_and_their_order():
    ids, titles, categories = ["", "a"], ["", "Kettle"], ["", "Home|Kitchen"]
    assert Catalogue(ids, titles, categories, [""], ["title"]).text[1] == "Kettle"
    assert Catalogue(ids, titles, categories, [""], ["categories", "title"]).text[1] == "Home Kitchen, Kettle"


def test_an_item_the_catalogue_lacks_is_described_alike(catalogue):
    assert catalogue.describe("Red Kettle", "Home|Kitchen||Gifts") == catalogue.text[1]
    assert catalogue.describe("Lamp") == "Lamp"


def test_rows_are_found_by_raw_id_and_text_and_unknown_is_zero(catalogue):
    assert [catalogue.item_row(raw) for raw in ("a", "c", "zzz", "")] == [1, 3, 0, 0]
    assert catalogue.query_row("  tea   pot ") == 1
    assert [catalogue.query_row(text) for text in ("nothing", "")] == [0, 0]
    assert (catalogue.num_items, catalogue.num_queries) == (3, 2)


def test_a_saved_catalogue_reopens_equal(catalogue, tmp_path):
    catalogue.save(tmp_path / "somewhere")
    again = Catalogue.load(tmp_path / "somewhere")
    for name in ("item_ids", "titles", "categories", "queries", "text", "item_text"):
        assert getattr(again, name) == getattr(catalogue, name)


def test_the_spec_chooses_the_item_text(tmp_path):
    rows = recs("u", "1 2 3") + searches("u", "1", "thing")
    assert prepared(rows, tmp_path / "a").catalogue.text[1] == "thing 1, Shop Things"
    assert prepared(rows, tmp_path / "b", item_text=("title",)).catalogue.text[1] == "thing 1"
