from __future__ import annotations

import gzip
import json

import pytest

from gensr.data.sources.config import SOURCES
from gensr.data.sources.published import BeirConfig
from gensr.data.split import Split
from gensr.errors import BadInputError

DOCUMENTS = [
    {"_id": "d1", "title": "Red kettles", "text": "A kettle  that is\nred.", "metadata": {"url": "x"}},
    {"_id": "d2", "title": "", "text": "A mat"},
    {"_id": "d_3", "title": "Ärger", "text": ""},
    {"_id": "4", "title": "Nobody asked", "text": "for this"},
]
QUERIES = [
    {"_id": "q1", "text": "red  kettle", "metadata": {}},
    {"_id": "q2", "text": "mat"},
    {"_id": "q3", "text": "mat"},
    {"_id": "q4", "text": "unjudged"},
]
HEADER = "query-id\tcorpus-id\tscore\n"


def lines(entries):
    return "".join(json.dumps(entry) + "\n" for entry in entries)


def write(folder, name, text):
    path = folder / name
    path.parent.mkdir(exist_ok=True)
    data = text if isinstance(text, bytes) else text.encode()
    path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)


@pytest.fixture
def folder(tmp_path):
    write(tmp_path, "corpus.jsonl", lines(DOCUMENTS))
    write(tmp_path, "queries.jsonl", lines(QUERIES))
    write(tmp_path, "qrels/train.tsv", HEADER + "q1\td1\t1\nq1\td2\t0\n")
    write(tmp_path, "qrels/dev.tsv", HEADER + "q2\td2\t1\n")
    write(tmp_path, "qrels/test.tsv", HEADER + "q3\td2\t2\nq3\td_3\t1\n")
    return tmp_path


@pytest.fixture
def trec(tmp_path):
    write(tmp_path, "collection.tsv", "d1\tA kettle that is red\nd2\tA mat\twith a tab\n")
    write(tmp_path, "queries.train.tsv", "q1\tred kettle\n")
    write(tmp_path, "queries.dev.tsv", "q2\tmat\n")
    write(tmp_path, "qrels.train.tsv", "q1\t0\td1\t1\n")
    write(tmp_path, "qrels.dev.txt", "q2 Q0 d2 3\nq2 0 d1 -1\n")
    return tmp_path


def read(path, **options):
    return BeirConfig(path=str(path), **options).read()


def rows(path, **options):
    events = read(path, **options).events.to_pylist()
    return [(e["user_id"], e["item_id"], e["query"], Split(e["split"]).label) for e in events]


def failure(path, **options):
    with pytest.raises(BadInputError) as caught:
        read(path, **options)
    return str(caught.value).replace(str(path) + "/", "").replace(str(path), "FOLDER")


def dropped(path, **options):
    return read(path, **options).report["dropped"]


PAIRS = [
    ("q1", "d1", "red kettle", "train"),
    ("q2", "d2", "mat", "valid"),
    ("q3", "d2", "mat", "test"),
    ("q3", "d_3", "mat", "test"),
]


def test_every_relevant_pair_is_a_search_whose_user_is_the_query(folder):
    log = read(folder)
    assert rows(folder) == PAIRS
    assert set(log.events["task"].to_pylist()) == {2}
    assert set(log.events["timestamp"].to_pylist()) == {0}
    assert log.time.unit == "none"
    assert log.report == {
        "files": {
            "qrels/train.tsv": 2,
            "qrels/dev.tsv": 1,
            "qrels/test.tsv": 2,
            "queries.jsonl": 4,
            "corpus.jsonl": 4,
        },
        "dropped": {},
        "pairs": {"train": 1, "valid": 1, "test": 2, "also_in_another_split": 0, "judged_below_min_score": 1},
        "queries": {"with_a_relevant_pair": 3, "without": 1},
        "documents": {"with_a_relevant_pair": 3, "without": 1, "without_text": 0, "cut_to_64_words": 0},
        "users": "none: every query stands in for its own",
    }


def test_an_item_has_title_and_text_in_one_line(folder):
    titles = dict(zip(*(read(folder).items[name].to_pylist() for name in ("item_id", "title")), strict=True))
    assert titles == {
        "d1": "Red kettles A kettle that is red.",
        "d2": "A mat",
        "d_3": "Ärger",
        "4": "Nobody asked for this",
    }


def test_long_texts_are_cut_and_counted(folder):
    log = read(folder, max_words=3)
    assert log.items["title"].to_pylist() == ["Red kettles A", "A mat", "Ärger", "Nobody asked for"]
    assert log.report["documents"]["cut_to_3_words"] == 2


def test_titles_alone_leave_documents_without_text_which_are_counted(folder):
    log = read(folder, text="title")
    assert log.items["title"].to_pylist() == ["Red kettles", "", "Ärger", "Nobody asked"]
    assert log.report["documents"]["without_text"] == 1


def test_documents_without_a_relevant_pair_can_be_left_out(folder):
    assert read(folder, all_items=False).items["item_id"].to_pylist() == ["d1", "d2", "d_3"]


def test_graded_judgements_can_be_held_to_a_higher_score(folder):
    assert rows(folder, min_score=2) == [PAIRS[2]]
    assert read(folder, min_score=2).report["pairs"]["judged_below_min_score"] == 4


def test_files_may_be_compressed(folder):
    plain = read(folder)
    for name in ("corpus.jsonl", "queries.jsonl", "qrels/test.tsv"):
        write(folder, f"{name}.gz", (folder / name).read_bytes())
        (folder / name).unlink()
    packed = read(folder)
    assert packed.events.equals(plain.events)
    assert packed.items.equals(plain.items)


def test_trec_files_are_read_by_their_columns(trec):
    assert rows(trec) == [("q1", "d1", "red kettle", "train"), ("q2", "d2", "mat", "valid")]
    assert read(trec).items["title"].to_pylist() == ["A kettle that is red", "A mat with a tab"]
    assert read(trec).report["pairs"]["judged_below_min_score"] == 1


def test_other_file_names_are_given_by_options(trec):
    write(trec, "topics.tsv", "q1\tred kettle\n")
    write(trec, "2019-judged.txt", "q1 0 d2 2\n")
    found = rows(trec, queries=("topics.tsv",), qrels={"test": "2019-judged.txt"}, corpus="collection.tsv")
    assert found == [("q1", "d2", "red kettle", "test")]


def test_several_files_of_one_split_hold_a_pair_once(trec):
    write(trec, "qrels.dev.small.tsv", "q2\t0\td2\t1\n")
    assert rows(trec)[1:] == [("q2", "d2", "mat", "valid")]
    assert dropped(trec) == {"judged again in another file of the same split": {"rows": 1, "first_lines": [1]}}


def test_a_pair_in_two_splits_is_counted(folder):
    write(folder, "qrels/test.tsv", HEADER + "q1\td1\t1\n")
    assert read(folder).report["pairs"]["also_in_another_split"] == 1


def test_broken_lines_are_dropped_and_counted_with_their_numbers(folder):
    bad = [
        "{",
        "[1]",
        '{"title": "no id"}',
        '{"_id": true, "text": "x"}',
        '{"_id": "d9", "title": ["x"]}',
        '{"_id": "d9", "text": "\\ud800"}',
        "[" * 100_000,
        '{"_id": ' + "1" * 5000 + "}",
        '{"_id": "d1", "title": "again"}',
    ]
    write(folder, "corpus.jsonl", lines(DOCUMENTS) + "\n".join(bad) + "\n")
    assert dropped(folder) == {
        "corpus.jsonl: no JSON object": {"rows": 4, "first_lines": [5, 6, 11, 12]},
        "corpus.jsonl: no _id": {"rows": 2, "first_lines": [7, 8]},
        "corpus.jsonl: a title or text that is no text": {"rows": 1, "first_lines": [9]},
        "corpus.jsonl: half a Unicode character": {"rows": 1, "first_lines": [10]},
        "corpus.jsonl: a document id again": {"rows": 1, "first_lines": [13]},
    }
    assert rows(folder) == PAIRS


def test_broken_judgements_are_dropped_and_counted_with_their_numbers(folder):
    bad = "\t\n   \nq1\td1\nq1\td1\thigh\nq1\td1\tnan\nq3\td2\t1\nq3\td2\t1\nq9\td1\t1\nq1\td9\t1\n"
    write(folder, "qrels/test.tsv", HEADER + bad)
    assert dropped(folder) == {
        "qrels/test.tsv: not 3 columns": {"rows": 1, "first_lines": [4]},
        "qrels/test.tsv: a score that is no number": {"rows": 2, "first_lines": [5, 6]},
        "qrels/test.tsv: judged twice": {"rows": 1, "first_lines": [8]},
        "qrels/test.tsv: query not in the queries": {"rows": 1, "first_lines": [9]},
        "qrels/test.tsv: document not in corpus.jsonl": {"rows": 1, "first_lines": [10]},
    }


def test_a_first_judgement_without_header_is_not_taken_for_one(folder):
    write(folder, "queries.jsonl", lines([{"_id": "query1", "text": "red kettle"}]))
    write(folder, "qrels/test.tsv", "query1\td1\t1\n")
    assert rows(folder) == [("query1", "d1", "red kettle", "test")]


def test_queries_without_text_or_twice_are_dropped_and_counted(folder):
    write(folder, "queries.jsonl", lines([*QUERIES, {"_id": "q1", "text": "other"}, {"_id": "q5", "text": " "}]))
    assert rows(folder) == PAIRS
    assert dropped(folder) == {
        "queries.jsonl: a query without text": {"rows": 1, "first_lines": [6]},
        "queries.jsonl: a query id again": {"rows": 1, "first_lines": [5]},
    }


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("qrels/test.tsv", "q1,d1,1\n", "qrels/test.tsv: line 1 has 1 columns; expected 3 (query-id, corpus-id"),
        (
            "qrels/final.tsv",
            HEADER,
            'not say whether it is train, dev or test; say it in data.source.qrels: {"test": "q',
        ),
        ("corpus.jsonl", b'{"_id": "d1\0"}', "corpus.jsonl: a NUL byte in line 1"),
        ("corpus.jsonl", b'{"_id": "d1\xff"}', "corpus.jsonl: broken UTF-8 in line 1"),
        ("corpus.jsonl", '{"_id": "d1"}', "corpus.jsonl: no document has a text"),
        ("corpus.jsonl", '{"_id": "x", "text": "y"}', "FOLDER: no relevant pair is left. qrels/train.tsv: document"),
    ],
)
def test_files_that_cannot_be_right_are_refused(folder, name, text, message):
    write(folder, name, text)
    assert message in failure(folder)


def test_a_truncated_archive_is_named(folder):
    packed = gzip.compress(lines(DOCUMENTS * 50).encode())
    (folder / "corpus.jsonl.gz").write_bytes(packed[: len(packed) // 2])
    (folder / "corpus.jsonl").unlink()
    assert failure(folder).startswith("cannot read corpus.jsonl.gz: ")


def test_missing_files_are_named(folder, trec):
    assert "data.source.corpus: no file 'corpus.json'; did" in failure(folder, corpus="corpus.json").replace(
        f" in {folder.cwd()}", ""
    )
    for file in (folder / "qrels").iterdir():
        file.unlink()
    assert "no judgements in FOLDER: expected qrels/test.tsv" in failure(folder)
    (folder / "queries.jsonl").unlink()
    for file in trec.glob("queries*"):
        file.unlink()
    assert "no queries.jsonl or queries.tsv (or .gz, .zst)" in failure(folder)


def test_titles_of_a_collection_without_titles_are_refused(trec):
    assert 'no document has a title; set data.source.text: "title_and_text"' in failure(trec, text="title")


def test_identity_follows_content_and_use_of_the_files_not_their_place(folder, tmp_path_factory):
    other = tmp_path_factory.mktemp("moved")
    for name in ("corpus.jsonl", "queries.jsonl", "qrels/train.tsv", "qrels/dev.tsv", "qrels/test.tsv"):
        write(other, name, (folder / name).read_bytes())
    one = BeirConfig(path=str(folder)).identity()
    assert BeirConfig(path=str(other)).identity() == one
    assert BeirConfig(path=str(folder), max_words=5).identity() != one
    (other / "qrels/dev.tsv").rename(other / "qrels/validation.tsv")
    assert BeirConfig(path=str(other)).identity() == one
    (other / "qrels/train.tsv").unlink()
    (other / "qrels/validation.tsv").rename(other / "qrels/train.tsv")
    assert BeirConfig(path=str(other)).identity() != one


def test_a_folder_is_recognised_by_its_files(folder, tmp_path_factory):
    assert BeirConfig.recognise(folder) == SOURCES.parse({"type": "beir", "path": str(folder)})
    assert BeirConfig.recognise(tmp_path_factory.mktemp("empty")) is None
    assert BeirConfig.recognise(folder / "nothing") is None
