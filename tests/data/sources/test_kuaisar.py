from __future__ import annotations

import gzip

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gensr.data.sources.kuaisar import FEED, ITEM, SEARCH
from gensr.data.sources.kuaisar_files import word_ids
from gensr.data.sources.published import KuaiSARConfig
from gensr.errors import BadInputError
from tests.data.sources.kuaisar_files import ITEM_HEADER, LEVELLESS, NOON, feed_row, search_row, write_log


@pytest.fixture
def folder(tmp_path):
    write_log(
        tmp_path,
        feed=[
            feed_row(1, 11, NOON, click=1),
            feed_row(1, 12, NOON, click=0),
            feed_row(2, 11, NOON + 5000, click=1),
        ],
        search=[
            search_row(1, 900, NOON + 60_000, "[38, 7]", 13, 1),
            search_row(1, 900, NOON + 60_000, "[38, 7]", 14, 0),
            search_row(1, 900, NOON + 60_000, "[38, 7]", 11, 2),
            search_row(2, 901, NOON + 70_000, "[7]", 14, 0),
            search_row(2, 901, NOON + 70_000, "[7]", 12, 0),
        ],
        items=[
            '11,"[5, 6]",70,NORMAL,2023-05-01 10:00:00,A,8,美食,Food,801,小吃,Snacks,0,empty,empty,0,empty,empty',
            f'12,"[]",0,ads,1970-01-01 08:00:00,A,{LEVELLESS}',
            f"13,[9],71,NORMAL,2023-05-01 10:00:00,A,{LEVELLESS}",
            f"14,[10],71,NORMAL,2023-05-01 10:00:00,A,{LEVELLESS}",
        ],
    )
    return tmp_path


def read(folder, **options):
    return KuaiSARConfig(path=str(folder), **options).read()


def rows(folder, **options):
    return [tuple(event.values()) for event in read(folder, **options).events.to_pylist()]


def titles(folder, **options):
    return {item["item_id"]: item["title"] for item in read(folder, **options).items.to_pylist()}


def failure(folder, **options):
    with pytest.raises(BadInputError) as caught:
        read(folder, **options)
    return str(caught.value).replace(f"{folder}/", "")


def replace_searches(folder, *searches):
    write_log(folder, search=list(searches))


FEED_EVENTS = [("1", "11", NOON, 1, "", ""), ("2", "11", NOON + 5000, 1, "", "")]
SEARCH_EVENTS = [
    ("1", "13", NOON + 60_000, 2, "38 7", "900"),
    ("1", "11", NOON + 60_000, 2, "38 7", "900"),
]


def test_clicks_of_feed_and_search_become_events_and_the_rest_does_not(folder):
    assert rows(folder) == FEED_EVENTS + SEARCH_EVENTS


def test_times_are_unix_milliseconds_and_days_are_those_of_beijing(folder):
    log = read(folder)
    assert (log.time.unit, log.time.zone) == ("ms", "Asia/Shanghai")
    assert log.time.describe(NOON) == "2023-05-23 12:00:00+08:00"


def test_the_date_text_that_is_documented_as_a_number_is_not_read(folder):
    text = (folder / "src_inter.csv").read_text().replace("2023-05-23 12:01:00", "yesterday")
    (folder / "src_inter.csv").write_text(text)
    assert rows(folder) == FEED_EVENTS + SEARCH_EVENTS


def test_a_search_has_as_many_clicks_as_the_option_lets_it_the_first_ones(folder):
    replace_searches(folder, *(search_row(1, 5, NOON, "[1]", 11 + item % 4, 1) for item in range(8)))
    assert [item for _, item, _, task, *_ in rows(folder) if task == 2] == ["11", "12", "13", "14", "11"]
    assert len(rows(folder, max_clicks=2)) == 4
    assert len(rows(folder, max_clicks=None)) == 10
    dropped = read(folder).report["dropped"]
    assert dropped == {"src_inter.csv: clicked after the first 5 of its session": {"rows": 3, "first_lines": [7, 8, 9]}}


def test_sessions_that_lie_mixed_in_the_file_are_counted_apart(folder):
    mixed = [search_row(1, 5 + turn % 2, NOON, "[1]", 11, 1) for turn in range(6)]
    replace_searches(folder, *mixed)
    sessions = [event[-1] for event in rows(folder, max_clicks=2) if event[3] == 2]
    assert sessions == ["5", "6", "5", "6"]


def test_equal_session_numbers_of_two_users_are_two_sessions(folder):
    replace_searches(folder, search_row(1, 5, NOON, "[1]", 11, 1), search_row(2, 5, NOON, "[1]", 12, 0))
    assert read(folder).report["search"] | {"sessions": 2, "sessions_with_a_click": 1} == read(folder).report["search"]
    assert [event[:2] for event in rows(folder, unclicked_sessions="first") if event[3] == 2] == [
        ("1", "11"),
        ("2", "12"),
    ]


def test_the_first_item_of_a_search_without_clicks_counts_on_request(folder):
    assert rows(folder, unclicked_sessions="first")[-1] == ("2", "14", NOON + 70_000, 2, "7", "901")
    assert read(folder, unclicked_sessions="first").report["search"]["sessions_given_a_click"] == 1


def test_a_click_on_another_type_is_a_click_and_its_session_gets_no_other(folder):
    replace_searches(folder, search_row(1, 5, NOON, "[1]", 11, 0), search_row(1, 5, NOON, "[1]", 12, 1, kind="USER"))
    assert rows(folder, unclicked_sessions="first") == FEED_EVENTS
    assert read(folder).report["dropped"] == {
        "src_inter.csv: clicked, but of type USER": {"rows": 1, "first_lines": [3]}
    }
    assert [event[1] for event in rows(folder, item_types=None)] == ["11", "11", "12"]
    assert [event[1] for event in rows(folder, item_types=("USER",))] == ["11", "11", "12"]


@pytest.mark.parametrize(
    "keyword", ["[12, ", "12", "[1, x]", "[]", "", "__import__('os').system('true')", "[1;2]", "[[1], 2]"]
)
def test_a_keyword_that_is_no_list_of_numbers_is_dropped_counted_and_never_run(folder, keyword):
    replace_searches(folder, search_row(1, 5, NOON, keyword, 11, 1), search_row(1, 6, NOON, "[3]", 12, 1))
    assert [event[4] for event in rows(folder)] == ["", "", "3"]
    assert read(folder).report["dropped"] == {
        "src_inter.csv: keyword is no list of word ids": {"rows": 1, "first_lines": [2]}
    }


@given(st.lists(st.integers(0, 2**64), min_size=1), st.sampled_from(["", " ", "  ", "\t"]))
def test_word_ids_of_a_list_are_its_numbers(numbers, space):
    text = f"{space}[{space}{f'{space},{space}'.join(map(str, numbers))}{space}]{space}"
    assert word_ids(pa.array([text])).to_pylist() == [" ".join(map(str, numbers))]


@given(st.text())
def test_word_ids_are_numbers_or_nothing(text):
    found = word_ids(pa.array([text])).to_pylist()[0]
    assert found is None or all(word.isdigit() for word in found.split(" "))


def test_two_spellings_of_a_list_are_one_query(folder):
    replace_searches(folder, search_row(1, 5, NOON, "[1, 2]", 11, 1), search_row(2, 6, NOON, "[1,2]", 12, 1))
    assert {event[4] for event in rows(folder) if event[3] == 2} == {"1 2"}


def test_captions_are_texts_of_word_ids_and_unreadable_ones_are_counted(folder):
    assert titles(folder) == {"11": "5 6", "13": "9"}
    assert titles(folder, all_items=True) == {"11": "5 6", "12": "", "13": "9", "14": "10"}
    text = (folder / "item_features.csv").read_text().replace('"[5, 6]"', '"[5, 6"')
    (folder / "item_features.csv").write_text(text)
    assert titles(folder)["11"] == ""
    assert read(folder).report["items"]["captions_unreadable"] == 1


def test_categories_have_the_levels_that_are_there_in_the_chosen_language(folder):
    paths = {
        names: read(folder, category_names=names).items["categories"].to_pylist()
        for names in ("english", "chinese", "id")
    }
    assert paths == {"english": ["Food|Snacks", ""], "chinese": ["美食|小吃", ""], "id": ["8|801", ""]}


def test_a_bar_in_a_category_name_does_not_make_a_level(folder):
    text = (folder / "item_features.csv").read_text().replace("Snacks", "Sweet|Salty")
    (folder / "item_features.csv").write_text(text)
    assert read(folder).items["categories"][0].as_py() == "Food|Sweet Salty"


def test_items_without_features_are_kept_without_text_and_items_listed_twice_once(folder):
    lines = (folder / "item_features.csv").read_text().splitlines()
    (folder / "item_features.csv").write_text("\n".join([*lines[:2], lines[1].replace("[5, 6]", "[1]")]) + "\n")
    log = read(folder)
    assert log.items.to_pylist() == [
        {"item_id": "11", "title": "5 6", "categories": "Food|Snacks"},
        {"item_id": "13", "title": "", "categories": ""},
    ]
    assert log.report["items"] | {"without_features": 1, "kept": 2} == log.report["items"]
    assert log.report["dropped"] == {"item_features.csv: item listed before": {"rows": 1, "first_lines": [3]}}


def test_the_report_counts_what_papers_print_before_any_filter(folder):
    report = read(folder).report
    assert report["recommendation"] == {"rows": 3, "users": 2, "items": 2, "clicks": 2}
    assert report["search"] == {
        "rows": 5,
        "users": 2,
        "items": 4,
        "queries": 2,
        "sessions": 2,
        "sessions_with_a_click": 1,
        "clicks": 2,
    }
    assert report["shown"] == {"users": 2, "items": 4, "users_with_clicks_in_both": 1}
    assert report["files"] == {"rec_inter.csv": 3, "src_inter.csv": 5, "item_features.csv": 4}


def test_feature_sizes_are_those_of_the_data_and_not_of_the_documentation(folder):
    (folder / "user_features.csv").write_text(
        "user_id,search_active_level,rec_active_level,onehot_feat1,onehot_feat2\n1,2,4,7,0\n2,0,,3,2\n"
    )
    (folder / "social_network.csv").write_text("user_id,user_follow_id\n1,2\n1,3\n")
    report = read(folder).report
    assert report["user_features"] == {
        "search_active_level": 3,
        "rec_active_level": 5,
        "onehot_feat1": 8,
        "onehot_feat2": 3,
    }
    assert report["social_network"] == {"users": 1}
    assert report["files"] | {"user_features.csv": 2, "social_network.csv": 2} == report["files"]


def test_rows_with_an_empty_cell_are_dropped_and_counted_with_their_lines(folder):
    with (folder / "rec_inter.csv").open("a") as file:
        file.write(",11,1.0,2.0,2023-05-23 12:00:00,1684814400000.0,1,0,0,0,0,0\n")
        file.write("1,11,1.0,2.0,2023-05-23 12:00:00,nan,1,0,0,0,0,0\n")
    log = read(folder)
    assert log.report["dropped"] == {
        "rec_inter.csv: empty user_id": {"rows": 1, "first_lines": [5]},
        "rec_inter.csv: empty timestamp": {"rows": 1, "first_lines": [6]},
    }
    assert log.report["files"]["rec_inter.csv"] == 5


@pytest.mark.parametrize("name", [FEED, SEARCH, ITEM])
def test_compressed_files_are_read_alike_and_a_truncated_one_is_named(folder, name):
    expected, path = rows(folder), folder / name
    packed = gzip.compress(path.read_bytes())
    path.unlink()
    (folder / f"{name}.gz").write_bytes(packed)
    assert rows(folder) == expected
    (folder / f"{name}.gz").write_bytes(packed[: len(packed) // 2])
    assert f"cannot read {name}.gz" in failure(folder)


@pytest.mark.parametrize(
    ("time", "problem"),
    [
        ("1684814400.0", "mixed time units, ms and s: line 5 (1684814400)"),
        ("-5.0", "negative timestamps: line 5 (-5)"),
        ("9e18", "line 5 (4611686018427387904)"),
        ("inf", "line 5 (4611686018427387904)"),
        ("NAN", "negative timestamps: line 5 (-1)"),
    ],
)
@pytest.mark.parametrize("name", [FEED, SEARCH])
def test_times_that_are_no_milliseconds_are_refused_with_their_line(folder, name, time, problem):
    path = folder / name
    header, *lines = path.read_text().splitlines()
    bad = lines[0].replace("1684814400000.0", time).replace("1684814460000.0", time)
    path.write_text("\n".join([header, *lines[:3], bad]) + "\n")
    message = failure(folder)
    assert message.startswith(f"{name}: ")
    assert problem.replace("line 5", f"line {len(lines[:3]) + 2}") in message


def test_a_value_of_the_wrong_type_is_named_with_line_and_column(folder):
    with (folder / "src_inter.csv").open("a") as file:
        file.write(search_row("nobody", 9, NOON, "[1]", 11, 1) + "\n")
    message = failure(folder)
    assert message.startswith("src_inter.csv: bad user_id: line 7 ('nobody')")
    assert "int64" in message


def test_a_missing_column_is_named_beside_those_that_are_there(folder):
    text = (folder / "rec_inter.csv").read_text().replace("item_id", "itemid", 1)
    (folder / "rec_inter.csv").write_text(text)
    message = failure(folder)
    assert "rec_inter.csv has no column 'item_id'; did you mean 'itemid'?" in message


def test_a_missing_file_is_named_beside_those_that_are_there(folder):
    (folder / "src_inter.csv").unlink()
    assert "no src_inter.csv (or .gz, .zst) in" in failure(folder)
    with pytest.raises(BadInputError, match="src_inter"):
        KuaiSARConfig(path=str(folder)).identity()


def test_a_file_of_a_header_alone_is_empty(folder):
    (folder / "item_features.csv").write_text(ITEM_HEADER + "\n")
    assert "item_features.csv is empty: it holds no rows under its header" in failure(folder)


def test_a_log_of_which_nothing_is_left_says_why(folder):
    write_log(folder, feed=[feed_row(1, 11, NOON, click=0)], search=[search_row(1, 5, NOON, "x", 11, 1)])
    assert failure(folder).endswith("no click is left of 2 rows. src_inter.csv: keyword is no list of word ids: 1")


def test_a_log_in_which_nobody_clicked_says_so(folder):
    write_log(folder, feed=[feed_row(1, 11, NOON, click=0)], search=[search_row(1, 5, NOON, "[1]", 11, 0)])
    assert failure(folder).endswith("no click is left of 2 rows. Nothing was clicked")


def test_a_row_that_is_wrong_twice_is_counted_once(folder):
    replace_searches(
        folder, search_row(1, 5, NOON, "x", 11, 1, kind="USER"), search_row(1, 6, NOON, "x", 12, 0, kind="USER")
    )
    assert read(folder).report["dropped"] == {
        "src_inter.csv: clicked, but of type USER": {"rows": 1, "first_lines": [2]},
        "src_inter.csv: keyword is no list of word ids": {"rows": 1, "first_lines": [3]},
    }


def test_a_log_with_clicks_in_the_feed_alone_is_read(folder):
    replace_searches(folder, search_row(1, 5, NOON, "[1]", 11, 0))
    assert rows(folder) == FEED_EVENTS


def test_the_identity_follows_content_and_options_but_not_the_place(folder, tmp_path_factory):
    config = KuaiSARConfig(path=str(folder))
    moved = tmp_path_factory.mktemp("moved")
    for path in folder.iterdir():
        (moved / path.name).write_bytes(path.read_bytes())
    assert KuaiSARConfig(path=str(moved)).identity() == config.identity()
    assert KuaiSARConfig(path=str(folder), max_clicks=4).identity() != config.identity()
    (moved / "user_features.csv").write_text("user_id\n")
    assert KuaiSARConfig(path=str(moved)).identity() != config.identity()


def test_the_folder_and_its_event_files_are_recognised_and_nothing_else(folder, tmp_path_factory):
    expected = KuaiSARConfig(path=str(folder))
    assert KuaiSARConfig.recognise(folder) == expected
    assert KuaiSARConfig.recognise(folder / "rec_inter.csv") == expected
    for other in (folder / "item_features.csv", folder / "none", tmp_path_factory.mktemp("other")):
        assert KuaiSARConfig.recognise(other) is None


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 4), st.integers(0, 2)), min_size=1, max_size=30))
def test_kept_clicks_are_those_that_a_loop_over_the_rows_keeps(tmp_path_factory, shown):
    folder = tmp_path_factory.mktemp("loop")
    lines = [
        search_row(user, 10 * user + session, NOON, "[1]", at, clicks)
        for at, (user, session, clicks) in enumerate(shown)
    ]
    write_log(
        folder,
        feed=[feed_row(1, 99, NOON, click=1)],
        search=lines,
        items=[f"99,[1],0,NORMAL,2023-05-01 10:00:00,A,{LEVELLESS}"],
    )
    sessions: dict[tuple[int, int], list[int]] = {}
    for at, (user, session, clicks) in enumerate(shown):
        kept = sessions.setdefault((user, session), [])
        if clicks and len(kept) < 2:
            kept.append(at)
    for (user, session), kept in sessions.items():
        if not any(clicks for who, which, clicks in shown if (who, which) == (user, session)):
            kept.append(next(at for at, (who, which, _) in enumerate(shown) if (who, which) == (user, session)))
    found = [int(event[1]) for event in rows(folder, max_clicks=2, unclicked_sessions="first")[1:]]
    assert found == sorted(at for kept in sessions.values() for at in kept)


def test_the_generator_of_the_scale_benchmark_writes_the_published_layout(tmp_path):
    from benchmarks import kuaisar_log

    kuaisar_log.write_log(kuaisar_log.Size(users=50, items=400, events=5000), tmp_path)
    log = read(tmp_path)
    assert log.report["files"] == {
        "rec_inter.csv": 3715,
        "src_inter.csv": 1285,
        "item_features.csv": 400,
        "user_features.csv": 50,
        "social_network.csv": 1,
    }
    time = log.events["timestamp"].to_numpy()
    assert kuaisar_log.START <= time.min() < time.max() < kuaisar_log.END
    assert 0.45 < log.report["recommendation"]["clicks"] / 3715 < 0.55
    search = log.report["search"]
    assert 0.5 < search["sessions_with_a_click"] / search["sessions"] < 0.7
    assert np.mean([bool(title) for title in log.items["title"].to_pylist()]) > 0.9
