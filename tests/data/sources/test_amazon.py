from __future__ import annotations

import gzip
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gensr.data.check import recognise
from gensr.data.prepare import prepare
from gensr.data.sources.amazon_files import MAX_LITERAL, parse_record
from gensr.data.sources.published import AmazonConfig
from gensr.data.split import Split
from gensr.errors import BadInputError, MissingExtraError
from gensr.spec import DataSpec

DAY = 86_400
START = 1_356_998_400  # 2013-01-01 UTC
REVIEW_2014 = (
    '{{"reviewerID": "{user}", "asin": "{item}", "reviewerName": "M. \\"Red\\" Fox", "helpful": [0, 1], "reviewText": '
    '"{text}", "overall": {stars}, "summary": "Good", "unixReviewTime": {time}, "reviewTime": "01 1, 2013"}}'
)
META_2014 = [
    "{'asin': 'A', 'title': \"Camera's bag\", 'price': 9.99, 'imUrl': 'http://x/a.jpg', 'related': {'also_bought': "
    "['B', 'C']}, 'salesRank': {'Books': 7}, 'categories': [['Shop', 'Bags'], ['Shop', 'Camera & Photo'], ['Shop']]}",
    "{'asin': 'B', 'categories': [['Shop']], 'title': 'Plain'}",
    "{'asin': 'C', 'categories': [['Books', 'Self-Help | Love']], 'title': 'Us &amp; Them'}",
    "{'asin': 'D', 'categories': [['Movies & TV', 'Movies']]}",
    "{'asin': 'Z', 'categories': [['Never', 'Reviewed']], 'title': 'Z'}",
]


def review(user, item, day=0, *, text="fine", stars=5.0):
    return REVIEW_2014.format(user=user, item=item, time=START + day * DAY, text=text, stars=stars)


def shop(folder, reviews, metadata=META_2014, name="Shop"):
    (folder / f"reviews_{name}_5.json").write_text("".join(f"{line}\n" for line in reviews), encoding="utf-8")
    (folder / f"meta_{name}.json").write_text("".join(f"{line}\n" for line in metadata), encoding="utf-8")
    return AmazonConfig(reviews=str(folder / f"reviews_{name}_5.json"))


def variant(config, **options):
    return AmazonConfig(**(config.model_dump() | options))


def events(log, *names):
    return [tuple(event[name] for name in names) for event in log.events.to_pylist()]


def failure(config):
    with pytest.raises(BadInputError) as caught:
        config.read()
    assert caught.value.exit_code == 2
    return str(caught.value).replace(str(Path(config.reviews).parent) + "/", "")


@pytest.fixture
def four(tmp_path):
    """The worked example: A has two queries, B none, C and D one; all on two days."""
    return shop(tmp_path, [review("u_1", item, day) for item, day in (("A", 0), ("B", 0), ("C", 0), ("D", 1))])


def test_every_review_is_a_purchase_and_a_search_where_its_item_has_a_query(four):
    log = four.read()
    found = events(log, "item_id", "task", "query", "timestamp", "order")
    chosen = found[1][2]
    assert chosen in ("shop bags", "shop camera photo")
    assert found == [
        ("A", 1, "", START, 0),
        ("A", 2, chosen, START, 0),
        ("B", 1, "", START, 1),
        ("C", 1, "", START, 2),
        ("C", 2, "books selfhelp love", START, 2),
        ("D", 1, "", START + DAY, 3),
        ("D", 2, "tv movies", START + DAY, 3),
    ]
    assert set(log.events["user_id"].to_pylist()) == {"u_1"}
    assert log.time.unit == "s"
    assert log.report["version"] == "2014"
    assert log.report["files"] == {"reviews_Shop_5.json": 4, "meta_Shop.json": 5}
    assert log.report["searches"] == {
        "events": 3,
        "queries": 3,
        "reviews_of_items_without_a_query": 1,
        "reviews_left_out_by_keep": 0,
    }


def test_the_published_targets_come_out_of_it(tmp_path):
    """Of the worked example: both tasks test D and validate C, and no face of a purchase precedes the other."""
    reviews = [review("u", item, day) for item, day in (("A", 0), ("B", 0), ("C", 0), ("D", 1))]
    others = [review(f"v{n}", "ABCDZ"[(n + day) % 5], day) for n in range(4) for day in range(4)]
    spec = DataSpec(source=shop(tmp_path, [*reviews, *others]), candidates=[{"type": "uniform", "count": 1}])
    data = prepare(spec, tmp_path / "prepared")
    u = slice(0, 7)
    assert data.task[u].tolist() == [1, 2, 1, 1, 2, 1, 2]
    assert data.ordinal[u].tolist() == [0, 0, 1, 2, 2, 3, 3]
    train, valid, test = int(Split.TRAIN), int(Split.VALID), int(Split.TEST)
    assert data.split[u].tolist() == [train, train, train, valid, valid, test, test]


def test_items_have_clean_titles_and_our_categories(four):
    log = four.read()
    assert log.items.to_pylist() == [
        {"item_id": "A", "title": "Camera's bag", "categories": "Shop|Bags||Shop|Camera & Photo||Shop"},
        {"item_id": "B", "title": "Plain", "categories": "Shop"},
        {"item_id": "C", "title": "Us & Them", "categories": "Books|Self-Help Love"},
        {"item_id": "D", "title": "", "categories": "Movies & TV|Movies"},
    ]
    assert log.report["items"]["without_title"] == 1
    assert "Z" in variant(four, all_items=True).read().items["item_id"].to_pylist()


def test_all_queries_of_an_item_can_be_searched(four):
    found = events(variant(four, queries_per_review="all").read(), "item_id", "task", "query")
    assert found[:3] == [("A", 1, ""), ("A", 2, "shop bags"), ("A", 2, "shop camera photo")]
    assert len(found) == 8


def test_queries_are_drawn_evenly_and_by_the_seed(tmp_path):
    config = shop(tmp_path, [review(f"u{n}", "A") for n in range(400)])
    searches = [query for _, query in events(config.read(), "task", "query") if query]
    assert len(searches) == 400
    assert 150 < searches.count("shop bags") < 250
    again = [query for _, query in events(variant(config, seed=7).read(), "task", "query") if query]
    assert searches != again
    assert variant(config, seed=7).identity() != config.identity()


def test_a_share_of_the_searches_can_be_kept(tmp_path):
    config = variant(shop(tmp_path, [review(f"u{n}", "C") for n in range(400)]), keep=0.5)
    log = config.read()
    report = log.report["searches"]
    assert 150 < report["events"] < 250
    assert report["events"] + report["reviews_left_out_by_keep"] == 400
    assert sum(task == 1 for (task,) in events(log, "task")) == 400


def test_options_of_the_queries_reach_them(four, tmp_path):
    (tmp_path / "stop.txt").write_text("shop\nmovies\n")
    found = variant(four, min_levels=1, wording="readable", stop_words=str(tmp_path / "stop.txt")).read()
    queries = {item: query for item, query in events(found, "item_id", "query") if query}
    # The one level of B is a stop word.
    assert queries.keys() == {"A", "C", "D"}
    assert queries["C"] == "books self help love"
    assert queries["D"] == "tv"


def test_rare_words_are_dropped_where_a_least_count_is_asked(tmp_path):
    texts = ["Selfhelp books!", "books", "nothing", "Books of love"]
    config = shop(tmp_path, [review(f"u{n}", "C", text=text) for n, text in enumerate(texts)])
    found = {query for (query,) in events(variant(config, min_count=2).read(), "query") if query}
    assert found == {"books"}
    assert variant(config, min_count=2).identity() != config.identity()
    assert not [query for (query,) in events(variant(config, min_count=9).read(), "query") if query]


def test_stemming_needs_its_extra(four, monkeypatch):
    stemmed = variant(four, stemmer="krovetz")
    monkeypatch.setitem(sys.modules, "krovetzstemmer", None)
    with pytest.raises(MissingExtraError, match="krovetz"):
        stemmed.read()


def test_reviews_can_be_chosen_by_their_stars(tmp_path):
    config = shop(tmp_path, [review("u", "A", stars=2.0), review("u", "C", stars=4.0)])
    log = variant(config, min_rating=4).read()
    assert {item for (item,) in events(log, "item_id")} == {"C"}
    assert log.report["dropped"] == {"reviews_Shop_5.json: overall is not at least 4": {"rows": 1, "first_lines": [1]}}


def test_items_without_metadata_have_no_text_and_are_counted(tmp_path):
    log = shop(tmp_path, [review("u", "A"), review("u", "X")]).read()
    assert log.items.to_pylist()[-1] == {"item_id": "X", "title": "", "categories": ""}
    assert log.report["items"]["without_metadata"] == 1


def test_of_repeated_metadata_the_first_line_counts(tmp_path):
    again = "{'asin': 'A', 'title': 'Other', 'categories': [['Other', 'Place']]}"
    log = shop(tmp_path, [review("u", "A")], [*META_2014, again]).read()
    assert log.items["title"].to_pylist() == ["Camera's bag"]
    assert log.report["items"]["repeated_metadata_lines"] == 1


def test_reviews_may_be_literals_too_as_in_the_oldest_files(tmp_path):
    literals = [repr(json.loads(review("u", item, text='It\'s \\"it\\"'))) for item in "AC"]
    assert literals[0].startswith("{'reviewerID'")
    assert {item for (item,) in events(shop(tmp_path, literals).read(), "item_id")} == {"A", "C"}


def write_jsonl(path, rows):
    text = "".join(json.dumps(row) + "\n" for row in rows).encode()
    path.write_bytes(gzip.compress(text) if path.suffix == ".gz" else text)


def test_the_2018_files_have_flat_categories_and_page_code(tmp_path):
    reviews = [
        {"overall": 5.0, "verified": True, "reviewTime": "01 1, 2018", "reviewerID": "u", "asin": item}
        | {"reviewText": "x", "summary": "y", "unixReviewTime": START + day * DAY, "style": {"Format:": " Kindle"}}
        for day, item in enumerate("ABC")
    ]
    span = '</span></span></span>\n<span class="x">'
    code = "var aPageStart = (new Date()).getTime(); <span id='ftr'>Lamp</span>"
    items = [
        {"category": ["Clothing, Shoes &amp; Jewelry", "Men's Shoes", span], "title": "Red <b>shoe</b>", "asin": "A"},
        {"category": [], "title": code, "asin": "B", "also_buy": []},
        {"category": ["Books", "Sci-Fi"], "title": "Ufo", "asin": "C"},
    ]
    write_jsonl(tmp_path / "Shop_5.json.gz", reviews)
    write_jsonl(tmp_path / "meta_Shop.json.gz", items)
    log = AmazonConfig(reviews=str(tmp_path / "Shop_5.json.gz")).read()
    assert log.report["version"] == "2018"
    assert log.items.to_pylist() == [
        {"item_id": "A", "title": "Red shoe", "categories": "Clothing, Shoes & Jewelry|Men's Shoes"},
        {"item_id": "B", "title": "", "categories": ""},
        {"item_id": "C", "title": "Ufo", "categories": "Books|Sci-Fi"},
    ]
    assert log.report["items"]["texts_with_page_code"] == 3
    assert [query for (query,) in events(log, "query") if query] == ["clothing jewelry mens shoes", "books scifi"]


def test_an_angle_that_never_closes_is_text(tmp_path):
    """And does not have the rest of a long line searched for its end, once for every angle."""
    log = shop(tmp_path, [review("u", "A")], ["{'asin': 'A', 'title': 'a <b <i>c</i> " + "<a" * 100_000 + "'}"]).read()
    assert log.items["title"].to_pylist() == ["a <b c " + "<a" * 100_000]


def test_the_2023_files_count_milliseconds_and_parents(tmp_path):
    reviews = [
        {
            "rating": 4.0,
            "title": "Nice",
            "text": "so",
            "images": [],
            "asin": "child",
            "parent_asin": item,
            "user_id": "u",
        }
        | {"timestamp": 1_588_687_728_923 + day, "helpful_vote": 0, "verified_purchase": True}
        for day, item in enumerate("AB")
    ]
    items = [
        {"main_category": "Books", "title": "Ufo", "parent_asin": "A", "categories": ["Books", "Science"]},
        {"main_category": None, "title": None, "parent_asin": "B", "categories": []},
    ]
    write_jsonl(tmp_path / "Shop.jsonl.gz", reviews)
    write_jsonl(tmp_path / "meta_Shop.jsonl.gz", items)
    log = AmazonConfig(reviews=str(tmp_path / "Shop.jsonl.gz")).read()
    assert log.report["version"] == "2023"
    assert log.time.unit == "ms"
    assert events(log, "item_id", "timestamp", "query") == [
        ("A", 1_588_687_728_923, ""),
        ("A", 1_588_687_728_923, "books science"),
        ("B", 1_588_687_728_924, ""),
    ]
    assert log.items["title"].to_pylist() == ["Ufo", ""]


def test_files_are_recognised_by_their_published_names(tmp_path, four):
    assert recognise(str(tmp_path)) == recognise(four.reviews) == four
    (tmp_path / "interactions.csv").write_text("user_id\n")
    assert recognise(str(tmp_path / "interactions.csv")) is None
    assert AmazonConfig.recognise(tmp_path / "nowhere") is None
    shop(tmp_path, [review("u", "A")], name="Toys")
    assert recognise(str(tmp_path)) is None  # two shops: which one?
    assert recognise(four.reviews) == four


def test_reviews_alone_are_recognised_and_asked_for_their_metadata(tmp_path, four):
    (tmp_path / "meta_Shop.json").unlink()
    assert recognise(four.reviews) == four
    assert failure(four).startswith("no metadata beside reviews_Shop_5.json")
    (tmp_path / "part_5.jsonl").write_text("{}\n")
    assert recognise(str(tmp_path / "part_5.jsonl")) is None


def test_the_metadata_of_another_shop_are_refused(tmp_path):
    config = shop(tmp_path, [review("u", "X"), review("u", "Y")], [*META_2014, "junk"])
    expected = (
        "meta_Shop.json: none of its 6 lines describes one of the 2 items of the events, by asin; is it the metadata "
        "of another shop or publication? meta_Shop.json: neither a JSON object nor a Python dictionary: 1"
    )
    assert failure(config) == expected
    assert failure(variant(config, all_items=True)) == expected
    assert "none of its 0 lines" in failure(shop(tmp_path, [review("u", "A")], []))


def test_places_and_explicit_defaults_do_not_change_the_identity(four, tmp_path):
    for name in ("reviews_Shop_5.json", "meta_Shop.json"):
        (tmp_path / "there").mkdir(exist_ok=True)
        (tmp_path / "there" / f"other_{name}").write_text((tmp_path / name).read_text())
    there = AmazonConfig(
        reviews=str(tmp_path / "there" / "other_reviews_Shop_5.json"),
        metadata=str(tmp_path / "there" / "other_meta_Shop.json"),
    )
    assert there.identity() == four.identity()
    (tmp_path / "there" / "other_meta_Shop.json").write_text("{'asin': 'A'}\n")
    assert there.identity() != four.identity()


BROKEN = {
    "{'asin': 'A', 'title': __import__('os').system('touch hacked')}": "code",
    "{'asin': 'A', 'title': 'x'": "unfinished",
    "{'asin': " + "[" * 100_000 + "]" * 100_000 + "}": "deep literal",
    '{"asin": ' + "[" * 100_000 + "]" * 100_000 + "}": "deep JSON",
    "{'asin': 'A', 'n': " + "-" * 50_000 + "1}": "deep signs",
    "{'asin': 'A', 'n': 1" + "0" * 5_000 + "}": "endless number",
    "{'asin': 'A', 'n': [" + "1," * MAX_LITERAL + "]}": "huge literal",
    "['asin', 'A']": "no record",
    '"asin"': "a text",
}


@pytest.mark.parametrize("line", BROKEN, ids=BROKEN.values())
def test_a_line_that_is_no_record_is_dropped_counted_and_executes_nothing(line, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert parse_record(line) is None
    log = shop(tmp_path, [review("u", "A"), line, review("u", "C")], [*META_2014[1:], line, META_2014[0]]).read()
    dropped = log.report["dropped"]
    assert dropped["reviews_Shop_5.json: neither a JSON object nor a Python dictionary"] == {
        "rows": 1,
        "first_lines": [2],
    }
    assert dropped["meta_Shop.json: neither a JSON object nor a Python dictionary"]["first_lines"] == [5]
    assert [order for (order,) in events(log, "order")] == [0, 0, 2, 2]
    assert not (tmp_path / "hacked").exists()


def test_reviews_without_user_item_or_time_are_dropped_and_counted(tmp_path):
    lines = [review("", "A"), review("u", "A"), review("u", " ")]
    odd = json.loads(review("u", "A"))
    lines += [json.dumps(odd | {"unixReviewTime": time}) for time in (None, -1, "2013", True, float("nan"), 1e300)]
    lines += [json.dumps(odd | {"asin": 7}), json.dumps(odd | {"reviewerID": "\ud800"})]
    log = shop(tmp_path, lines).read()
    assert [order for (order,) in events(log, "order")] == [1, 1]
    assert log.report["dropped"] == {
        "reviews_Shop_5.json: no reviewerID or asin": {"rows": 4, "first_lines": [1, 3, 10, 11]},
        "reviews_Shop_5.json: unixReviewTime is no positive number": {"rows": 6, "first_lines": [4, 5, 6, 7, 8]},
    }


def test_a_log_of_which_nothing_is_left_says_why(tmp_path):
    config = variant(shop(tmp_path, [review("u", "A", stars=1.0)] * 3), min_rating=4)
    assert failure(config) == (
        "reviews_Shop_5.json: no review is left of 3 lines. reviews_Shop_5.json: overall is not at least 4: 3"
    )


def test_another_file_than_one_of_reviews_is_refused(tmp_path):
    config = shop(tmp_path, ['{"user": 1, "name": "x"}'])
    assert failure(config) == (
        "reviews_Shop_5.json: the first record has the fields user, name; expected user_id, parent_asin and timestamp, "
        "or reviewerID, asin and unixReviewTime"
    )
    assert "holds no reviews" in failure(shop(tmp_path, ["a,b,c", "1,2,3"]))
    of_2014 = variant(shop(tmp_path, [review("u", "A")]), version="2023")
    assert "expected user_id, parent_asin and timestamp, as version 2023 has them" in failure(of_2014)


def test_missing_files_are_named(tmp_path, four):
    (tmp_path / "meta_Shop.json").unlink()
    assert failure(four).startswith("no metadata beside reviews_Shop_5.json: it holds the titles")
    assert "data.source.metadata: no file" in failure(variant(four, metadata=str(tmp_path / "m.json")))
    assert "data.source.reviews: no file" in failure(AmazonConfig(reviews=str(tmp_path / "reviews_Shp_5.json")))
    assert "did you mean 'reviews_Shop_5.json'?" in failure(AmazonConfig(reviews=str(tmp_path / "reviews_Shp_5.json")))


def test_broken_files_are_refused_with_their_line(tmp_path, four):
    path = tmp_path / "reviews_Shop_5.json"
    whole = gzip.compress(path.read_bytes() * 50)
    (tmp_path / "reviews_Shop_5.json.gz").write_bytes(whole[: len(whole) // 2])
    assert "cannot read reviews_Shop_5.json.gz" in failure(AmazonConfig(reviews=str(path) + ".gz"))
    path.write_bytes(path.read_bytes() + b'{"reviewerID": "\0"}\n')
    assert "a NUL byte in line 5" in failure(four)
    path.write_bytes(review("u", "A").encode() + b"\n" + b"x" * 10_000_000 + b"\n")
    assert "line 2 is longer than" in failure(four)


def test_times_that_cannot_be_are_refused_with_their_line(tmp_path):
    late = review("u", "A", day=200_000)
    assert "reviews_Shop_5.json: " in (text := failure(shop(tmp_path, [review("u", "A"), review("u", "B"), late])))
    assert "line 3" in text


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_searches_and_purchases_of_a_review_share_all_but_task_and_query(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("shop")
    rows = data.draw(
        st.lists(st.tuples(st.sampled_from("uvw"), st.sampled_from("ABCDX"), st.integers(0, 3)), max_size=20)
    )
    rows.append(("u", "A", 0))  # metadata that describe nothing are refused
    every = data.draw(st.sampled_from(["one", "all"]))
    log = variant(shop(folder, [review(*row) for row in rows]), queries_per_review=every).read()
    bought = [row for row in events(log, "order", "user_id", "item_id", "timestamp", "task") if row[-1] == 1]
    assert bought == [(n, user, item, START + DAY * day, 1) for n, (user, item, day) in enumerate(rows)]
    times = {"A": 2 if every == "all" else 1, "B": 0, "C": 1, "D": 1, "X": 0}
    searched = [row for row in events(log, "order", "user_id", "item_id", "timestamp")]
    assert len(searched) == len(rows) + sum(times[item] for _, item, _ in rows)
    assert {row[:4] for row in bought} == set(searched)
    assert np.all(np.diff([row[0] for row in searched]) >= 0)
