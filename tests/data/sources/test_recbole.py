from __future__ import annotations

import gzip

import pytest
from pydantic import ValidationError

from gensr.data.sources.config import SOURCES
from gensr.data.sources.published import RecBoleConfig
from gensr.data.split import Split
from gensr.errors import BadInputError

INTER = """user_id:token\titem_id:token\trating:float\ttimestamp:float
u1\tb\t3\t881250949
u1\ta\t4\t891717742.0
u2\ta\t1\t8.81250949E8
"""
ITEM = '''item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq
a\tToy Story\t1995\tAnimation Children's  Comedy
b\tHeat\t1995\t
c\t"Été, ""now"""\t\tA|B
'''
USER = "user_id:token\tage:float\nu1\t24\nu2\t53\n"


def write(folder, **files):
    for name, text in files.items():
        (folder / name.replace("__", "-").replace("_", ".")).write_text(text, encoding="utf-8")
    return folder


@pytest.fixture
def folder(tmp_path):
    return write(tmp_path, ml__100k_inter=INTER, ml__100k_item=ITEM, ml__100k_user=USER)


def read(path, **options):
    return RecBoleConfig(path=str(path), **options).read()


def rows(path, **options):
    return [tuple(event.values()) for event in read(path, **options).events.to_pylist()]


def items(path, **options):
    return [tuple(item.values()) for item in read(path, **options).items.to_pylist()]


def failure(path, **options):
    with pytest.raises(BadInputError) as caught:
        read(path, **options)
    return str(caught.value).replace(str(path) + "/", "").replace(str(path), "FOLDER")


ROWS = [("u1", "b", 881250949, 1, ""), ("u1", "a", 891717742, 1, ""), ("u2", "a", 881250949, 1, "")]


def test_atomic_files_are_read_by_the_usual_names_of_their_fields(folder):
    log = read(folder)
    assert rows(folder) == ROWS
    assert items(folder) == [
        ("a", "Toy Story", "Animation||Children's||Comedy"),
        ("b", "Heat", ""),
        ("c", 'Été, "now"', "A||B"),
    ]
    assert log.time.unit == "s"
    assert log.report == {
        "files": {"ml-100k.inter": 3, "ml-100k.item": 3, "ml-100k.user": 2},
        "dropped": {},
        "events": {
            "fields": {"user_id": "user_id", "item_id": "item_id", "timestamp": "timestamp"},
            "not_read": ["rating"],
        },
        "items": {
            "fields": {"item_id": "item_id", "title": "movie_title", "categories": "class"},
            "not_read": ["release_year"],
            "absent_from_ml-100k.item": 0,
        },
        "users": {"fields": {}, "not_read": ["user_id", "age"]},
    }


@pytest.mark.parametrize("separator", [",", ";", "|", " "])
def test_the_separator_is_found_in_the_header(tmp_path, separator):
    write(tmp_path, x_inter=INTER.replace("\t", separator))
    assert rows(tmp_path) == ROWS


def test_field_names_may_hold_spaces_and_cells_may_be_padded(tmp_path):
    header = "session_id:token\titem_id:token \ttimestamp:float\tnumber of times:float\n"
    write(tmp_path, x_inter=header + "s1\ta\t1\t2\n")
    assert rows(tmp_path) == [("s1", "a", 1, 1, "")]


def test_files_may_be_compressed_and_named_themselves(folder):
    expected = read(folder)
    for name in ("ml-100k.inter", "ml-100k.item"):
        (folder / f"{name}.gz").write_bytes(gzip.compress((folder / name).read_bytes()))
        (folder / name).unlink()
    assert read(folder).events.equals(expected.events)
    assert read(folder / "ml-100k.inter.gz").items.equals(expected.items)


def test_without_items_or_for_missing_ones_there_is_no_text(folder):
    write(folder, ml__100k_item="item_id:token\tname:token\nb\tHeat\n")
    assert items(folder) == [("b", "Heat", ""), ("a", "", "")]
    assert read(folder).report["items"]["absent_from_ml-100k.item"] == 1
    (folder / "ml-100k.item").unlink()
    assert items(folder) == [("b", "", ""), ("a", "", "")]


def test_divided_files_bring_their_split(tmp_path):
    header, *lines = INTER.splitlines(keepends=True)
    write(tmp_path, y_train_inter=header + lines[0], y_valid_inter=header + lines[1], y_test_inter=header + lines[2])
    write(tmp_path, y_item=ITEM)
    splits = [Split.TRAIN, Split.VALID, Split.TEST]
    assert rows(tmp_path) == [(*row, split) for row, split in zip(ROWS, splits, strict=True)]
    assert rows(tmp_path / "y.valid.inter") == rows(tmp_path)
    assert len(items(tmp_path)) == 3
    write(tmp_path, y_inter=INTER)
    assert "several .inter files: y.inter, y.test.inter, y.train.inter, y.valid.inter. Name" in failure(tmp_path)
    assert rows(tmp_path / "y.inter") == ROWS


def test_a_bad_row_of_a_divided_file_is_named_by_file_and_line(tmp_path):
    header, *lines = INTER.splitlines(keepends=True)
    write(tmp_path, y_train_inter=header + lines[0], y_val_inter=header + lines[1] + lines[2].replace("u2", " "))
    assert failure(tmp_path) == "y.val.inter: empty user_id: line 3"


def test_a_field_of_items_cannot_be_named_where_there_are_none(folder):
    (folder / "ml-100k.item").unlink()
    assert failure(folder, columns={"title": "movie_title", "item_id": "item_id"}) == (
        "data.source.columns names title, fields of items, and there is no .item file beside ml-100k.inter"
    )


def test_a_query_field_makes_searches_and_a_task_field_decides(tmp_path):
    write(tmp_path, x_inter="user_id:token,item_id:token,timestamp:float,query:token_seq\nu,a,1,red kettle\nu,b,2,\n")
    assert rows(tmp_path) == [("u", "a", 1, 2, "red kettle"), ("u", "b", 2, 1, "")]
    write(tmp_path, x_inter="user:token,item:token,time:float,task:token,words:token\nu,a,1,rec,x\nu,b,2,src,y\n")
    assert rows(tmp_path, columns={"query": "words"}) == [("u", "a", 1, 1, ""), ("u", "b", 2, 2, "y")]


def test_sequences_may_have_another_separator(tmp_path):
    header = "item_id:token\ttitle:token_seq\tcategories:token_seq\n"
    write(tmp_path, x_inter=INTER, x_item=header + "a\tToy, Story\tHome Cinema, Gifts|More,\nb\t\tArt & Craft\n")
    assert items(tmp_path, sequence_separator=", ") == [
        ("a", "Toy Story", "Home Cinema||Gifts More"),
        ("b", "", "Art & Craft"),
    ]


def test_a_category_that_is_no_sequence_is_one(tmp_path):
    write(tmp_path, x_inter=INTER, x_item="item_id:token\tgenre:token\na\tHome Cinema\nb\tx\n")
    assert items(tmp_path)[0] == ("a", "", "Home Cinema")


def test_the_order_of_rows_stands_in_for_times(tmp_path):
    write(tmp_path, x_inter="user_id:token\titem_id:token\nu1\tb\nu1\ta\n")
    assert rows(tmp_path, order="file") == [("u1", "b", 0, 1, ""), ("u1", "a", 1, 1, "")]
    assert read(tmp_path, order="file").time.unit == "none"
    assert 'has no field for timestamp; its fields: user_id, item_id. Say which it is in data.source.columns: {"t' in (
        failure(tmp_path)
    )
    assert 'data.source.order: "file"' in failure(tmp_path)


def test_the_order_of_rows_settles_ties_of_times(folder):
    assert read(folder, order="file").events["order"].to_pylist() == [0, 1, 2]
    assert rows(folder, order="file")[0][:4] == ROWS[0][:4]


def test_fractions_of_times_are_rounded_down_and_counted(tmp_path):
    write(tmp_path, x_inter="user_id:token\titem_id:token\ttimestamp:float\nu\ta\t1.75\nu\tb\t3\n")
    assert [row[2] for row in rows(tmp_path)] == [1, 3]
    assert read(tmp_path).report["timestamps_rounded_down"] == 1


def test_stray_quotation_marks_can_be_read_as_such(folder):
    write(folder, ml__100k_item='item_id:token\ttitle:token_seq\na\t"Great" Cats\nb\t"Open\n')
    assert "a quote" in failure(folder)
    assert items(folder, quotes=False) == [("a", '"Great" Cats', ""), ("b", '"Open', "")]


H = "user_id:token\titem_id:token\ttimestamp:float"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("user_id\titem_id\nu\ta\n", "x.inter: line 1 is no header of RecBole: 'user_id' is not field:type with"),
        ("user_id:token\titem_id:tokens\nu\ta\n", "'item_id:tokens' is not field:type"),
        ("user_id:token\titem_id:tokens\nu\ta\n", "did you mean 'token'?"),
        ("uzer_id:token\titem_id:token\ttimestamp:float\nu\ta\t1\n", "has no field 'user_id'; did you mean 'uzer_id'?"),
        ("user_id:token\titem_id_list:token_seq\titem_id:token\nu\ta b\tc\n", "x.inter holds item_id_list: sequences"),
        (H + "\nu\ta\tsoon\nu\tb\t1\n", "x.inter: bad timestamp: line 2 ('soon'). Expected a number"),
        (H + "\nu\ta\t1\n\nu\tb\tinf\n", "x.inter: bad timestamp: line 4 ('inf')"),
        (H + "\nu\ta\t1\nu\tb\t\n", "x.inter: bad timestamp: line 3 ('')"),
        (H + "\nu\ta\t1\nu\tb\n", "x.inter: rows without the header's 3 cells: line 3 ('2 cells')"),
        (H + "\nu\ta\t1\n\tb\t1\n", "x.inter: empty user_id: line 3"),
        (H + "\nu\ta\t1700000000\nu\tb\t1700000000000\nu\tc\t1700000001\n", "x.inter: mixed time units, s and ms: "),
        (H + "\ttask:token\nu\ta\t1\trec\nu\tb\t2\tbuy\n", "x.inter: unknown task: line 3 ('buy'). Known: "),
        (H + "\tuser_id:token\nu\ta\t1\tu\n", "two columns named 'user_id:token'"),
        (H + "\n", "x.inter is empty: it holds no rows under its header"),
        ("", "x.inter: line 1 is no header of RecBole"),
        (H + "\nu\ta\0\t1\n", "x.inter: a NUL byte in line 2"),
    ],
)
def test_what_cannot_be_right_is_named(tmp_path, text, message):
    write(tmp_path, x_inter=text)
    assert message in failure(tmp_path)


def test_an_unknown_time_zone_is_refused(folder):
    with pytest.raises(ValidationError, match="no time zone 'Mars'"):
        RecBoleConfig(path=str(folder), time_zone="Mars")


def test_a_mapping_to_no_field_is_named(folder):
    message = failure(folder, columns={"title": "movie_titel"})
    assert "ml-100k.item has no field 'movie_titel' for title; did you mean 'movie_title'? Fields: " in message


def test_an_item_twice_is_named_with_its_line(folder):
    write(folder, ml__100k_item=ITEM + "a\tagain\t\t\n")
    assert "ml-100k.item: duplicate item_id: line 5 ('a')" in failure(folder)


def test_what_to_read_must_be_clear(folder, tmp_path_factory):
    write(folder, other_inter=INTER)
    assert "holds several .inter files: ml-100k.inter, other.inter. Name the one to read" in failure(folder)
    assert rows(folder / "ml-100k.inter") == ROWS
    assert "FOLDER is no .inter file; expected one, or the folder it lies in" in failure(folder / "ml-100k.item")
    assert "no .inter file in FOLDER; it holds nothing" in failure(tmp_path_factory.mktemp("empty"))
    assert "did you mean 'ml-100k.inter'?" in failure(folder / "ml-10k.inter")


def test_files_are_recognised_by_their_suffix(folder, tmp_path_factory):
    assert RecBoleConfig.recognise(folder) == SOURCES.parse({"type": "recbole", "path": str(folder)})
    assert RecBoleConfig.recognise(folder / "ml-100k.inter") is not None
    assert RecBoleConfig.recognise(folder / "ml-100k.item") is None
    assert RecBoleConfig.recognise(tmp_path_factory.mktemp("empty")) is None
    assert RecBoleConfig.recognise(folder / "nothing") is None


def test_identity_follows_options_content_and_use_not_the_place(folder, tmp_path_factory):
    one = RecBoleConfig(path=str(folder)).identity()
    other = write(tmp_path_factory.mktemp("copy"), x_inter=INTER, x_item=ITEM, x_user=USER)
    assert RecBoleConfig(path=str(other)).identity() == one
    assert RecBoleConfig(path=str(other), order="file").identity() != one
    (other / "x.inter").rename(other / "x.test.inter")
    assert RecBoleConfig(path=str(other)).identity() != one
