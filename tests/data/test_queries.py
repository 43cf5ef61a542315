from __future__ import annotations

import csv
import gzip
import re
import sys
from collections import defaultdict
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gensr.data.queries import STOP_WORDS, hierarchies, item_queries, krovetz, read_stop_words, topic, words_of
from gensr.errors import BadInputError, MissingExtraError

SHARED = Path(__file__).parents[3] / "shared" / "data"

KROVETZ = {"ebooks": "ebook", "lenses": "lens", "players": "player", "accessories": "accessory", "cases": "case"}
"""What the Krovetz stemmer makes of the words below; it leaves the others, `books`, `cds`, `electronics` among them."""

PLAIN = [
    ("Camera & Photo > Digital Camera Lenses", "photo digital camera lenses"),
    ("Movies & TV > Movies", "tv movies"),
    ("Movies & TV > TV", "movies tv"),
    ("Books > Literature & Fiction", "books literature fiction"),
    ("Books > Self-Help", "books selfhelp"),
]
STEMMED = [
    ("Electronics > Camera & Photo > Digital Camera Lenses", "electronics photo digital camera lens"),
    (
        "Kindle Store > Kindle eBooks > Mystery, Thriller & Suspense > Crime Fiction > Murder",
        "store kindle ebook mystery thriller suspense crime fiction murder",
    ),
    (
        "Electronics > Portable Audio & Video > MP3 Players & Accessories > MP3 Player Accessories > Cases",
        "electronics portable audio video mp player accessory case",
    ),
]


def levels(path):
    return path.split(" > ")


def stub(word):
    return KROVETZ.get(word, word)


@pytest.mark.parametrize(("path", "query"), PLAIN)
def test_published_examples_need_no_stemmer_where_no_word_changes(path, query):
    assert topic(levels(path)) == query
    assert item_queries("|".join(levels(path))) == [query]


@pytest.mark.parametrize(("path", "query"), STEMMED)
def test_published_examples_come_out_with_stemming(path, query):
    assert topic(levels(path), stem=stub) == query


@pytest.mark.parametrize(("path", "query"), [*PLAIN[1:], *STEMMED])
def test_published_examples_come_out_with_the_real_stemmer(path, query):
    pytest.importorskip("krovetzstemmer", reason="the extra 'krovetz' is not installed")
    stem = krovetz()
    assert topic(levels(path), stem=stem) == query
    assert {word: stem(word) for word in [*KROVETZ, "books", "cds"]} == KROVETZ | {"books": "books", "cds": "cds"}


def test_a_missing_stemmer_names_its_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "krovetzstemmer", None)
    with pytest.raises(MissingExtraError, match=re.escape("pip install 'gensr[krovetz]'")):
        krovetz()


def test_a_hierarchy_of_one_level_is_too_general():
    assert item_queries("Books") == []
    assert item_queries("Books", min_levels=1) == ["books"]
    assert item_queries("Books||Kindle Store|Kindle eBooks", min_levels=2) == ["store kindle ebooks"]
    assert item_queries("A & B|C x|D y", min_levels=4) == []


def test_the_last_of_equal_words_stays_and_equality_is_judged_after_stemming():
    assert topic(["Red Shoes", "Blue Red", "Shoes Green"]) == "blue red shoes green"
    assert topic(["Case", "Cases", "Green"], stem=stub) == "case green"


def test_stop_words_and_their_stems_are_dropped_before_stemming():
    stem = {"days": "day", "daily": "day"}.get
    words = frozenset({"days", "the"})
    # `day` goes as the stem of a stop word; `daily` is neither, though it becomes `day`.
    assert topic(["The Day", "Days Daily"], stop_words=words, stem=lambda word: stem(word, word)) == "day"
    assert topic(["The Day", "Days"], stop_words=words) == "day"
    assert topic(["Day", "Days"], stop_words=words, stem=lambda word: stem(word, word)) == ""


def test_words_outside_the_vocabulary_are_dropped_after_stemming():
    assert topic(["Lenses Old", "Cases"], stem=stub, vocabulary={"lens", "case"}) == "lens case"
    assert item_queries("Lenses|Cases", vocabulary=set()) == []


def test_equal_queries_of_an_item_are_one_and_keep_their_order():
    assert item_queries("Bb|Cars||Aa|Boats||Bb & the|Cars") == ["bb cars", "aa boats"]


def test_our_categories_text_is_taken_apart():
    assert hierarchies("Home|Kitchen||Gifts") == [["Home", "Kitchen"], ["Gifts"]]
    assert hierarchies("") == hierarchies(" || | ") == []


def test_readable_wording_divides_where_the_published_one_joins():
    assert words_of("Self-Help & MP3 Men's T-Shirts") == ["selfhelp", "mp", "mens", "tshirts"]
    assert words_of("Self-Help & MP3 Men's T-Shirts", "readable") == ["self", "help", "mp3", "mens", "shirts"]


def test_function_words_are_stop_words_and_content_words_are_not():
    assert {"and", "for", "of", "the", "to", "with", "in", "on", "by", "or", "other", "it", "own"} <= STOP_WORDS
    assert not {"day", "new", "self", "used", "first", "home", "top", "back", "plus"} & STOP_WORDS


def test_a_list_of_ones_own_is_one_word_a_line(tmp_path):
    path = tmp_path / "stop.txt"
    path.write_text("Store\n\ndon't\n")
    assert read_stop_words(path) == {"store", "dont"}
    path.write_text("store\nthe shop\n")
    with pytest.raises(BadInputError, match=r"stop\.txt: line 2 holds 'the shop'; expected one stop word a line"):
        read_stop_words(path)
    path.write_text("\n&\n")
    with pytest.raises(BadInputError, match="holds no stop words"):
        read_stop_words(path)
    with pytest.raises(BadInputError, match=r"data\.source\.stop_words: no file .*did you mean 'stop\.txt'"):
        read_stop_words(tmp_path / "stp.txt")


NAMES = st.lists(st.text("abcABC -&'3é the", max_size=20), max_size=5)


@given(NAMES, st.sampled_from(["published", "readable"]))
def test_a_topic_repeats_no_word_and_holds_only_words_of_its_levels(names, wording):
    found = topic(names, wording=wording).split()
    assert len(found) == len(set(found))
    assert set(found) == set(words_of(" ".join(names), wording)) - STOP_WORDS
    # Reading order is that of last occurrences.
    words = words_of(" ".join(names), wording)
    last = [len(words) - 1 - words[::-1].index(word) for word in found]
    assert last == sorted(last)


@pytest.mark.shared
@pytest.mark.skipif(not SHARED.is_dir(), reason="the real datasets are not in ../shared/data")
@pytest.mark.parametrize(("name", "published"), [("beauty", 0.989), ("toys", 0.951), ("yelp", 0.937)])
def test_the_queries_that_others_made_of_the_same_categories_come_out(name, published):
    made = defaultdict(list)
    for row in _rows(name, "item_queries"):
        made[row["item_id"]].append(row["query"])
    items = [(row["item_id"], row["categories"]) for row in _rows(name, "items")]
    assert all(item_queries(categories, wording="readable") == made[item] for item, categories in items)
    # The papers' rule joins what a hyphen or slash divides (`selftanners`), which those files did not.
    share = sum(item_queries(categories) == made[item] for item, categories in items) / len(items)
    assert share == pytest.approx(published, abs=1e-3)


def _rows(name, table):
    with gzip.open(SHARED / name / f"{table}.csv.gz", "rt", encoding="utf-8") as stream:
        yield from csv.DictReader(stream)
