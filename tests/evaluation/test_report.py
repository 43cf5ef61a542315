from __future__ import annotations

from gensr.data.times import TimeScale
from gensr.evaluation.report import audit_text, markdown_table, report, results_table
from gensr.testing.data import tiny_dataset


def numbers(value, requests=1200, interval=True):
    low, high = (value - 0.01, value + 0.01) if interval else (None, None)
    return {"requests": requests, **{m: {"value": value, "low": low, "high": high} for m in ("recall@5", "ndcg@5")}}


METRICS = {
    "main": "gensr",
    "metrics": ["recall@5", "ndcg@5"],
    "ties": "expected",
    "bootstrap": 1000,
    "candidates": {
        "uniform-99": {
            "sha256": "ab" * 32,
            "rankers": {
                "gensr": {"search": numbers(0.8), "recommendation": numbers(0.4)},
                "query_popularity": {"search": numbers(0.5)},
                "in_history": {"search": numbers(0.05), "recommendation": numbers(0.05)},
            },
        },
        "hard": {"sha256": "cd" * 32, "rankers": {"gensr": {"search": numbers(0.2, interval=False)}}},
    },
    "ablations": {"uniform-99": {"shuffled_query": {"search": numbers(0.3)}}},
    "missing": {"lexical": "needs bm25s"},
}


def test_a_table_has_a_row_for_each_ranker_and_a_dash_for_a_task_it_lacks():
    search, recommendation = (table.splitlines() for table in results_table(METRICS).split("\n\n"))
    assert search[0].startswith("| search (1,200 requests)")
    names = [line.split("|")[1].strip() for line in recommendation]
    assert names[2:] == ["query_popularity", "in_history", "lexical (not measured)", "gensr", "gensr, shuffled query"]
    assert [cell.strip() for cell in recommendation[2].split("|")[2:4]] == ["-", "-"]
    assert [cell.strip() for cell in search[5].split("|")[2:4]] == ["0.8000", "0.8000 [0.7900, 0.8100]"]


def test_columns_are_aligned():
    lines = results_table(METRICS).split("\n\n")[0].splitlines()
    assert len({len(line) for line in lines}) == 1
    assert len({tuple(i for i, c in enumerate(line) if c == "|") for line in lines}) == 1


def test_another_list_has_its_own_table_and_no_intervals_where_none_were_asked_for():
    table = results_table(METRICS, "hard")
    assert "recommendation" not in table
    assert "[" not in table


def test_a_report_tells_results_meanings_gaps_and_facts():
    text = report(
        METRICS,
        title="yelp",
        audit=AUDIT,
        facts={"seconds": {"train": 3}},
    )
    assert text.startswith("# yelp\n")
    for part in (
        "### Candidates: uniform-99",
        "ab" * 32,
        "### Candidates: hard",
        "- lexical: needs bm25s",
        "what the user took before",
        "all but the query",
        "1,000 resamples",
        "Never trained.",
        "- seconds train: 3",
    ):
        assert part in text
    assert "\n\n\n" not in text


AUDIT = {
    "log": {"twins": 1234},
    "splits": {"test": {"search": {"cold_items": 7, "query_in_text": 0.123456}, "recommendation": {"cold_items": 3}}},
    "meaning": {"twins": "Told once.", "cold_items": "Never trained."},
}


def test_an_audit_is_told_by_split_and_task_with_its_meanings():
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in audit_text(AUDIT).splitlines() if line]
    assert rows[0] == ["requests", "test search", "test recommendation", "meaning"]
    assert ["cold_items", "7", "3", "Never trained."] in rows
    assert ["query_in_text", "0.1235", "-", ""] in rows
    assert ["twins", "1,234", "Told once."] in rows


def test_the_audit_of_prepared_data_can_be_told(tmp_path):
    text = audit_text(tiny_dataset(tmp_path / "data").manifest["audit"])
    assert "twin_leaks" in text
    assert "must be 0" in text


def test_times_are_told_in_words_where_it_is_known_what_they_count():
    audit = {"log": {}, "meaning": {}, "splits": {"test": {"search": {"first_time": 1_700_000_000}}}}
    assert "| 2023-11-15 06:13:20+08:00 |" in audit_text(audit, TimeScale("s", "Asia/Shanghai"))
    assert "| 1,700,000,000 |" in audit_text(audit, TimeScale())


def test_a_bar_in_a_cell_does_not_break_the_table():
    assert markdown_table(["a", "b"], [["x|y", "1"]]).splitlines()[2] == "| x\\|y |   1 |"
