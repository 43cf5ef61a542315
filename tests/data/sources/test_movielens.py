from __future__ import annotations

import csv
import gzip
from pathlib import Path

import pytest

from gensr.data.log import EVENTS, ITEMS
from gensr.data.sources.config import SOURCES, TableConfig
from gensr.data.sources.published import MovieLensConfig
from gensr.data.tasks import Task
from gensr.errors import BadInputError

GENRES = "unknown|0\nAction|1\nChildren's|2\nSci-Fi|3\n\n"
RATINGS = """userId,movieId,rating,timestamp
196,242,3.5,838985046
186,302,4.0,838983525
196,999,0.5,838983525
"""
MOVIES = """movieId,title,genres
242,"American ""Kolya"", The (1996)",Children|Sci-Fi
302,Été (1997),(no genres listed)
"""
TAGS = '''userId,movieId,tag,timestamp
196,242,"odd, but ""good""",1215184630
186,302,In Netflix queue,1215184631
7,302, ,1215184633
'''
TAGS_10M = """196::242::a  "strange"::tag ::1215184630
186::302::in netflix queue::1215184631
186::302:: ::1215184631
186::302::broken
1::2::3::later
7::242::Ärger::1215184632
"""
ITEMS_100K = """242|Kolya (1996)|24-Jan-1997||http://us.imdb.com/M/title-exact?Kolya%20(1996)|0|0|1|1
302|"Été" L.A. |01-Jan-1997|||0|1|0|0
267|unknown||||1|0|0|0
"""
MOVIES_1M = """242::Kolya: The Film (1996)::Children's|Sci-Fi
302::Été::L.A. (1997)::Action
"""
EDITIONS = {
    "100k": {
        "u.data": "196\t242\t3\t881250949\n186\t302\t4\t891717742\n196\t302\t1\t881250949\n",
        "u.genre": GENRES,
        "u.item": ITEMS_100K.encode("latin-1"),
    },
    "1m": {
        "ratings.dat": "196::242::3::978300760\n186::302::4::978302109\n196::302::1::978300760\n",
        "movies.dat": MOVIES_1M.encode("latin-1"),
    },
    "10m": {
        "ratings.dat": "196::242::3.5::838985046\n186::302::4::838983525\n196::302::0.5::838983525\n",
        "movies.dat": "242::Kolya (1996)::Children's|Sci-Fi\n302::Été (1997)::(no genres listed)\n",
        "tags.dat": TAGS_10M,
    },
    "latest": {"ratings.csv": RATINGS, "movies.csv": MOVIES, "tags.csv": TAGS},
}


def write(folder, files):
    for name, text in files.items():
        data = text if isinstance(text, bytes) else text.encode()
        (folder / name).write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    return folder


@pytest.fixture(params=EDITIONS)
def folder(request, tmp_path):
    return write(tmp_path, EDITIONS[request.param])


def made(tmp_path, edition, **changes):
    changed = {name.replace("_", "."): text for name, text in changes.items()}
    return write(tmp_path, {name: text for name, text in (EDITIONS[edition] | changed).items() if text is not None})


def read(path, **options):
    return MovieLensConfig(path=str(path), **options).read()


def rows(path, **options):
    return [tuple(event.values()) for event in read(path, **options).events.to_pylist()]


def items(path):
    return [tuple(item.values()) for item in read(path).items.to_pylist()]


def failure(path, **options):
    with pytest.raises(BadInputError) as caught:
        read(path, **options)
    return str(caught.value).replace(str(path) + "/", "").replace(str(path), "FOLDER")


def test_ratings_of_every_edition_are_recommendations_in_seconds(folder):
    log = read(folder)
    recommended = [row[:3] for row in rows(folder) if row[3] == 1]
    assert [row[:2] for row in recommended][:2] == [("196", "242"), ("186", "302")]
    assert len(recommended) == 3
    assert log.time.unit == "s"
    assert log.report["recommendations"] == 3


def test_100k_has_flags_for_genres_and_latin_1_titles(tmp_path):
    assert items(made(tmp_path, "100k")) == [
        ("242", "Kolya (1996)", "Children's||Sci-Fi"),
        ("302", '"Été" L.A.', "Action"),
        ("267", "unknown", ""),
    ]
    assert rows(tmp_path)[0] == ("196", "242", 881250949, 1, "")
    assert read(tmp_path).report["files"] == {"u.data": 3, "u.item": 3}


def test_1m_has_double_colons_and_latin_1_titles(tmp_path):
    assert items(made(tmp_path, "1m")) == [
        ("242", "Kolya: The Film (1996)", "Children's||Sci-Fi"),
        ("302", "Été::L.A. (1997)", "Action"),
    ]
    assert rows(tmp_path)[1] == ("186", "302", 978302109, 1, "")


def test_10m_has_utf_8_titles_and_tags_that_may_hold_double_colons(tmp_path):
    assert items(made(tmp_path, "10m"))[1] == ("302", "Été (1997)", "")
    assert rows(tmp_path)[3:] == [
        ("196", "242", 1215184630, 2, 'a "strange"::tag'),
        ("7", "242", 1215184632, 2, "Ärger"),
    ]
    assert read(tmp_path).report["dropped"] == {
        "tags.dat: not user::movie::tag::time": {"rows": 2, "first_lines": [4, 5]},
        "tags.dat: a blank tag": {"rows": 1},
        "tags.dat: a tag of drop_tags": {"rows": 1},
    }


def test_latest_has_quoted_csv_and_movies_may_be_missing(tmp_path):
    assert items(made(tmp_path, "latest")) == [
        ("242", 'American "Kolya", The (1996)', "Children||Sci-Fi"),
        ("302", "Été (1997)", ""),
        ("999", "", ""),
    ]
    assert rows(tmp_path)[3:] == [("196", "242", 1215184630, 2, 'odd, but "good"')]
    report = read(tmp_path).report
    assert report["files"] == {"ratings.csv": 3, "tags.csv": 3, "movies.csv": 2}
    assert report["items_absent_from_movies.csv"] == 1
    assert report["searches"] == 1


def test_low_ratings_are_left_out_and_counted_but_tags_stay(tmp_path):
    log = read(made(tmp_path, "latest"), min_rating=3.5)
    assert log.events["item_id"].to_pylist() == ["242", "302", "242"]
    assert log.report["dropped"]["ratings.csv: rating below 3.5"] == {"rows": 1}
    assert [row[3] for row in rows(tmp_path, min_rating=5)] == [2]


def test_tags_can_be_left_out_or_all_taken(tmp_path):
    made(tmp_path, "latest")
    assert {row[3] for row in rows(tmp_path, tags=False)} == {1}
    assert [row[4] for row in rows(tmp_path, drop_tags=())][3:] == ['odd, but "good"', "In Netflix queue"]
    assert len(rows(tmp_path, drop_tags=('ODD, but  "good"',))) == 4


def test_files_may_be_compressed(folder, tmp_path_factory):
    packed = tmp_path_factory.mktemp("packed")
    for path in folder.iterdir():
        write(packed, {f"{path.name}.gz": path.read_bytes()})
    assert read(packed).events.equals(read(folder).events)
    assert read(packed).items.equals(read(folder).items)


def test_rows_with_empty_cells_are_dropped_and_counted(tmp_path):
    extra = RATINGS + ",242,3,838985046\n1,242,,838985046\n2,242,3,\n3,242,3,838985046\n4, ,3,838985046\n"
    log = read(made(tmp_path, "latest", ratings_csv=extra))
    assert log.events["user_id"].to_pylist()[3] == "3"
    assert log.report["dropped"]["ratings.csv: an empty cell"] == {"rows": 4, "first_lines": [5, 6, 7, 9]}


@pytest.mark.parametrize(
    ("edition", "name", "text", "message"),
    [
        ("100k", "u_data", "1\t2\t3\n", "u.data: rows without the header's 4 cells: line 1 ('3 cells')"),
        ("100k", "u_item", "1|Title|||\n", "u.item: rows without the header's 9 cells: line 1 ('5 cells')"),
        ("100k", "u_genre", None, "no u.genre (or .gz, .zst) in FOLDER"),
        ("1m", "ratings_dat", "1::2::3::978300760\n1::2::x::978300760\n", "bad rating: line 2 ('x')"),
        ("1m", "movies_dat", "1::Title\n", "movies.dat: line 1 is not id::title::genres: '1::Title'"),
        ("1m", "movies_dat", "1::A::B\njunk\n", "movies.dat: line 2 is not id::title::genres: 'junk'"),
        ("100k", "u_genre", GENRES + "junk\n", "u.genre: line 6 is 'junk'; expected name|4"),
        ("100k", "u_genre", GENRES.replace("2", "7"), 'u.genre: line 3 is "Children\'s|7"; expected name|2'),
        ("1m", "movies_dat", None, "no movies.dat (or .gz, .zst) in FOLDER"),
        ("1m", "movies_dat", "1::A::B\n1::C::D\n", "movies.dat: duplicate item_id: line 2 ('1')"),
        ("10m", "tags_dat", "1::2::x::1215184630\n\n1::2::y::12\n", "tags.dat: timestamps that are no times: line 3"),
        ("latest", "ratings_csv", "userId,movieId,rating\n1,2,3\n", "ratings.csv has no column 'timestamp'"),
        (
            "latest",
            "ratings_csv",
            "userId,movieId,rating,timestamp\n1,,3,838985046\n2,3,4,-5\n",
            "ratings.csv: negative timestamps: line 3 (-5)",
        ),
        (
            "latest",
            "ratings_csv",
            "userId,movieId,rating,timestamp\n1,2,3,838985046000\n",
            "ratings.csv: mixed time units, s and ms: line 2 (838985046000). The others are Unix times in s",
        ),
        ("latest", "movies_csv", b"movieId,title,genres\n1,\xff,x\n", "movies.csv: broken UTF-8 in line 2"),
        ("latest", "u_data", EDITIONS["100k"]["u.data"], "FOLDER holds u.data and ratings.csv, of different editions"),
    ],
)
def test_what_cannot_be_right_is_named(tmp_path, edition, name, text, message):
    path = made(tmp_path, edition, **{name: text})
    assert message in failure(path)


def test_a_log_of_which_nothing_is_left_is_refused(tmp_path):
    made(tmp_path, "1m")
    assert failure(tmp_path, min_rating=5) == (
        "FOLDER: no event is left of 3 rows of ratings.dat. ratings.dat: rating below 5: 3"
    )


def test_a_folder_of_something_else_is_refused_and_not_recognised(tmp_path):
    assert "no u.data or ratings.dat or ratings.csv (or .gz, .zst) in FOLDER; it holds nothing" in failure(tmp_path)
    assert "data.source.path: no folder " in failure(tmp_path / "nowhere")
    assert MovieLensConfig.recognise(tmp_path) is None
    assert MovieLensConfig.recognise(tmp_path / "nothing") is None


def test_a_folder_is_recognised_by_its_files_and_so_is_its_file_of_ratings(folder):
    expected = SOURCES.parse({"type": "movielens", "path": str(folder)})
    assert MovieLensConfig.recognise(folder) == expected
    ratings = next(path for path in folder.iterdir() if path.name in ("u.data", "ratings.dat", "ratings.csv"))
    assert MovieLensConfig.recognise(ratings) == expected


def test_identity_follows_options_and_content_not_the_place(folder, tmp_path_factory):
    one = MovieLensConfig(path=str(folder))
    copy = tmp_path_factory.mktemp("copy")
    write(copy, {path.name: path.read_bytes() for path in folder.iterdir()})
    assert MovieLensConfig(path=str(copy)).identity() == one.identity()
    assert MovieLensConfig(path=str(copy), min_rating=3).identity() != one.identity()
    movies = next(path for path in copy.iterdir() if path.name.startswith(("movies", "u.item")))
    movies.write_bytes(movies.read_bytes() + b"\n")
    assert MovieLensConfig(path=str(copy)).identity() != one.identity()


SHARED = Path(__file__).parents[4] / "shared" / "data" / "ml-small"


@pytest.mark.shared
@pytest.mark.skipif(not SHARED.is_dir(), reason="the real datasets are not in ../shared/data")
def test_real_ratings_tags_and_titles_come_through_whole(tmp_path):
    """The table made from ml-latest-small, written back into MovieLens's own files."""
    table = TableConfig(path=str(SHARED)).read()
    events = list(zip(*(table.events[name].to_pylist() for name in EVENTS.names), strict=True))
    with (tmp_path / "ratings.csv").open("w", newline="") as ratings, (tmp_path / "tags.csv").open("w") as tags:
        ratings.write("userId,movieId,rating,timestamp\n")
        writer = csv.writer(tags, lineterminator="\n")
        writer.writerow(["userId", "movieId", "tag", "timestamp"])
        for user, item, time, task, query in events:
            if task == Task.SEARCH:
                writer.writerow([user, item, query, time])
            else:
                ratings.write(f"{user},{item},3.5,{time}\n")
    movies = zip(*(table.items[name].to_pylist() for name in ITEMS.names), strict=True)
    with (tmp_path / "movies.csv").open("w", newline="") as file:
        csv.writer(file).writerows(
            [("movieId", "title", "genres"), *((i, t, g.replace("||", "|")) for i, t, g in movies)]
        )
    log = read(tmp_path, min_rating=3.5)
    assert sorted(rows(tmp_path)) == sorted(events)
    # A few published titles end with a blank.
    assert log.items["title"].to_pylist() == [title.strip() for title in table.items["title"].to_pylist()]
    assert log.items["categories"].equals(table.items["categories"])
    assert (log.report["recommendations"], log.report["searches"], log.items.num_rows) == (61_702, 3_552, 9_742)
