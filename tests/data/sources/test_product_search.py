from __future__ import annotations

import gzip
import json

import pytest

from gensr.data.check import recognise
from gensr.data.sources.published import ProductSearchConfig
from gensr.data.split import Split
from gensr.errors import BadInputError

DAY, START = 86_400, 1_356_998_400
QUERIES = ["store kindle ebook", "books romance", "movies tv"]
TRAIN = ["A_1_2_0 0 B1 1", "A_1_2_1 0 B1 1", "U2_1 0 B2 1"]
TEST = ["A_1_2_2 0 B2 1", "U2_2 0 B1 1"]
REVIEWS = [("A_1_2", "B1", 3), ("A_1_2", "B2", 4), ("U2", "B2", 1), ("U2", "B1", 1), ("U3", "B3", 2)]
TRAIN_LINES = ["line_0", "line_2", "line_4"]
FILES = {"query_text.txt": QUERIES, "train.qrels": TRAIN, "test.qrels": TEST, "train_review_id.txt": TRAIN_LINES}


def write(folder, **changes):
    folder.mkdir(parents=True, exist_ok=True)
    for name, lines in {**FILES, **{name.replace("__", "."): lines for name, lines in changes.items()}}.items():
        path = folder / f"{name}.gz"
        if lines is None:
            path.unlink(missing_ok=True)
        else:
            path.write_bytes(gzip.compress("".join(f"{line}\n" for line in lines).encode(), mtime=0))
    return folder


def reviews(folder, rows=REVIEWS):
    path = folder / "reviews_Shop_5.json.gz"
    records = [
        {"reviewerID": user, "asin": item, "unixReviewTime": START + day * DAY, "overall": 5.0}
        for user, item, day in rows
    ]
    path.write_bytes(gzip.compress("".join(f"{json.dumps(record)}\n" for record in records).encode(), mtime=0))
    return str(path)


@pytest.fixture
def folder(tmp_path):
    return write(tmp_path / "released" / "reviews_Shop_5.json.gz")  # the released folders are called like files


def read(folder, **options):
    return ProductSearchConfig(path=str(folder), **options).read()


def rows(log, *names):
    return [tuple(event[name] for name in names) for event in log.events.to_pylist()]


def failure(folder, **options):
    with pytest.raises(BadInputError) as caught:
        read(folder, **options)
    return str(caught.value).replace(f"{folder}/", "")


ALONE = [
    ("A_1_2", "B1", "store kindle ebook", Split.TRAIN),
    ("A_1_2", "B1", "books romance", Split.TRAIN),
    ("U2", "B2", "books romance", Split.TRAIN),
    ("A_1_2", "B2", "movies tv", Split.TEST),
    ("U2", "B1", "movies tv", Split.TEST),
]


def test_alone_the_files_are_searches_at_time_zero_divided_as_published(folder):
    log = read(folder)
    assert rows(log, "user_id", "item_id", "query", "split") == ALONE
    assert set(rows(log, "task", "timestamp")) == {(2, 0)}
    assert log.time.unit == "none"
    assert sorted(log.items["item_id"].to_pylist()) == ["B1", "B2"]
    assert log.report["files"] == {"query_text.txt.gz": 3, "train.qrels.gz": 3, "test.qrels.gz": 2}
    assert log.report["searches"] == {"train": 3, "test": 2}


@pytest.mark.parametrize(("absent", "left"), [("train__qrels", ALONE[3:]), ("test__qrels", ALONE[:3])])
def test_either_part_may_be_absent_as_it_is_in_most_released_folders(tmp_path, absent, left):
    assert rows(read(write(tmp_path / "f", **{absent: None})), "user_id", "item_id", "query", "split") == left


def test_with_the_reviews_every_search_stands_beside_its_purchase(folder, tmp_path):
    log = read(folder, reviews=reviews(tmp_path))
    train, test = int(Split.TRAIN), int(Split.TEST)
    assert rows(log, "user_id", "item_id", "timestamp", "task", "query", "order", "split") == [
        ("A_1_2", "B1", START + 3 * DAY, 1, "", 0, train),
        ("A_1_2", "B1", START + 3 * DAY, 2, "store kindle ebook", 0, train),
        ("A_1_2", "B1", START + 3 * DAY, 2, "books romance", 0, train),
        ("A_1_2", "B2", START + 4 * DAY, 1, "", 1, test),
        ("A_1_2", "B2", START + 4 * DAY, 2, "movies tv", 1, test),
        ("U2", "B2", START + 1 * DAY, 1, "", 2, train),
        ("U2", "B2", START + 1 * DAY, 2, "books romance", 2, train),
        ("U2", "B1", START + 1 * DAY, 1, "", 3, test),
        ("U2", "B1", START + 1 * DAY, 2, "movies tv", 3, test),
        ("U3", "B3", START + 2 * DAY, 1, "", 4, train),
    ]
    assert log.time.unit == "s"
    assert log.report["reviews"] == {"train": 3, "hidden": 2, "searches_placed": 5}
    assert log.report["dropped"] == {}


def test_of_an_item_bought_twice_the_review_of_the_right_part_is_taken(folder, tmp_path):
    twice = [("A_1_2", "B2", 0), *REVIEWS[1:], ("A_1_2", "B1", 9)]
    write(folder, train_review_id__txt=["line_0", "line_2", "line_4", "line_5"])
    log = read(folder, reviews=reviews(tmp_path, twice))
    searches = [row for row in rows(log, "item_id", "order", "split", "query") if row[-1]]
    assert searches == [
        ("B2", 1, Split.TEST, "movies tv"),
        ("B2", 2, Split.TRAIN, "books romance"),
        ("B1", 3, Split.TEST, "movies tv"),
        ("B1", 5, Split.TRAIN, "store kindle ebook"),
        ("B1", 5, Split.TRAIN, "books romance"),
    ]


def test_pairs_that_no_review_of_their_part_explains_are_dropped_and_counted(folder, tmp_path):
    write(folder, train_review_id__txt=["line_0", "line_3", "line_77", "two", "line_-1"])
    log = read(folder, reviews=reviews(tmp_path))
    assert log.report["dropped"] == {
        "train_review_id.txt.gz: not line_<number>": {"rows": 2, "first_lines": [4, 5]},
        "train_review_id.txt.gz: reviews_Shop_5.json.gz has no such review": {"rows": 1},
        "train.qrels.gz: no such purchase among the reviews that train": {"rows": 1, "first_lines": [3]},
        "test.qrels.gz: no such purchase among the hidden reviews": {"rows": 1, "first_lines": [2]},
    }


def test_the_reviews_of_another_shop_are_refused(folder, tmp_path):
    text = failure(folder, reviews=reviews(tmp_path, [("X", "Y", 1)]))
    assert "no relevant pair is left. train_review_id.txt.gz" in text
    assert "test.qrels.gz: no such purchase among the hidden reviews: 2" in text


def test_metadata_gives_texts(folder, tmp_path):
    (tmp_path / "meta.json").write_text(
        "{'asin': 'B2', 'title': 'Ufo', 'categories': [['Books', 'Sci-Fi']]}\n{'asin': 'Z', 'title': 'Z'}\n"
    )
    log = read(folder, metadata=str(tmp_path / "meta.json"))
    assert log.items.to_pylist() == [
        {"item_id": "B2", "title": "Ufo", "categories": "Books|Sci-Fi"},
        {"item_id": "B1", "title": "", "categories": ""},
    ]
    assert log.report["items"]["without_metadata"] == 1
    assert log.report["files"]["meta.json"] == 2
    assert read(folder, metadata=str(tmp_path / "meta.json"), all_items=True).items.num_rows == 3


def test_the_id_of_a_query_is_its_line_even_where_lines_are_blank(folder):
    write(
        folder,
        query_text__txt=["first", "", "  ", "fourth"],
        train__qrels=["u_3 0 B1 1", "u_0 0 B2 1"],
        test__qrels=["u_1 0 B1 1", "u_2 0 B1 1", "u_4 0 B1 1", "u_3 0 B9 1"],
    )
    log = read(folder)
    assert rows(log, "query", "split") == [("fourth", Split.TRAIN), ("first", Split.TRAIN), ("fourth", Split.TEST)]
    assert log.report["dropped"]["test.qrels.gz: query_text.txt has no such line"]["first_lines"] == [1, 2, 3]


def test_bad_lines_are_dropped_and_counted(folder):
    bad = ["A_0 0 B1", "A 0 B1 1", "_0 0 B1 1", "A_x 0 B1 1", "A_-1 0 B1 1", "A_² 0 B1 1", "A_0 0 B1 2", "A_9 0 B1 1"]
    write(folder, train__qrels=[*TRAIN, *bad, "A_" + "9" * 5000 + " 0 B1 1", "A_0 0 B1 0"])
    log = read(folder)
    assert rows(log, "user_id", "item_id", "query", "split") == ALONE
    assert log.report["dropped"] == {
        "train.qrels.gz: not <user>_<query line> 0 <item> <0 or 1>": {"rows": 8, "first_lines": [4, 5, 6, 7, 8]},
        "train.qrels.gz: query_text.txt has no such line": {"rows": 1, "first_lines": [11]},
        "train.qrels.gz: judged as not relevant": {"rows": 1, "first_lines": [13]},
    }
    write(folder, train__qrels=bad, test__qrels=None)
    assert "no relevant pair is left. train.qrels.gz: not <user>_<query line> 0 <item> <0 or 1>: 7" in failure(folder)


def test_missing_files_are_named(folder, tmp_path):
    path = reviews(tmp_path)
    write(folder, train_review_id__txt=None)
    assert failure(folder, reviews=path).startswith("data.source.path: no train_review_id.txt (or .gz, .zst) in ")
    write(folder, train__qrels=None, test__qrels=None)
    assert "no train.qrels or test.qrels (or .gz, .zst)" in failure(folder)
    write(folder, query_text__txt=None)
    assert "no query_text.txt" in failure(folder)
    assert "no folder" in failure(tmp_path / "nowhere")


def test_reviews_of_another_publication_are_refused(folder, tmp_path):
    (tmp_path / "r.jsonl").write_text('{"user_id": "u", "parent_asin": "B1", "timestamp": 1588687728923}\n')
    text = failure(folder, reviews=str(tmp_path / "r.jsonl"))
    assert "expected reviewerID, asin and unixReviewTime, as version 2014 has them" in text


def test_a_truncated_archive_is_refused(folder):
    path = folder / "test.qrels.gz"
    path.write_bytes(path.read_bytes()[:-9])
    assert "cannot read test.qrels.gz" in failure(folder)


def test_the_folder_is_recognised_and_its_place_does_not_matter(folder, tmp_path):
    config = ProductSearchConfig(path=str(folder))
    assert recognise(str(folder)) == config
    assert recognise(str(tmp_path)) is None
    other = write(tmp_path / "other")
    assert ProductSearchConfig(path=str(other)).identity() == config.identity()
    assert ProductSearchConfig(path=str(other), reviews=reviews(tmp_path)).identity() != config.identity()
    # A training file is not a testing one, though its content be the same.
    write(other, train__qrels=None, test__qrels=TRAIN)
    write(folder, train__qrels=TRAIN, test__qrels=None)
    assert ProductSearchConfig(path=str(other)).identity() != config.identity()
