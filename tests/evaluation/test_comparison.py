"""Variants against their base: the numbers against direct computations, and every format against its reader."""

from __future__ import annotations

import csv
import io
import json
import re

import numpy as np
import pytest

from gensr.errors import BadInputError, MissingExtraError
from gensr.evaluation import figures
from gensr.evaluation.comparison import Measured, SeedResult, Sweep, compare_variants, pairs_of_seeds
from gensr.evaluation.metrics import Ranks, metric
from gensr.evaluation.significance import crossed_interval, holm, sign_flip_test
from gensr.evaluation.tables import FORMATS, latex_text, notes, render, tables

LISTED = "uniform-99"
METRICS = ("recall@5", "ndcg@5")
SIZE = 150


def ranks(rng, best=60, tasks=(1, 2), size=SIZE):
    """Ranks of `size` requests a task, the truth somewhere among the first `best`."""
    task = np.repeat(tasks, size)
    better = rng.integers(0, best, len(task))
    return Ranks(
        task * 1000 + np.tile(np.arange(size), len(tasks)), task, better, np.ones(len(task)), np.full(len(task), 100)
    )


def result(seed=0, *, training=10.0, total=12.5, process=500.0, withheld=None, **options):
    found = ranks(np.random.default_rng(seed), **options)
    costs = {"parameters": 35_599_505, "rows_per_second": 1234.5, "requests_per_second": 7.25}
    return SeedResult({LISTED: found}, "", training, total, process, withheld={LISTED: withheld or {}}, **costs)


def compared(*variants, metrics=METRICS, **options):
    return compare_variants(variants, candidates={LISTED: "ab" * 32}, metrics=metrics, resamples=300, **options)


@pytest.fixture(scope="module")
def study():
    return compared(
        Measured("base", {1: result(1), 2: result(2)}),
        Measured("no soft_filter", {1: result(3, best=12), 2: result(4, best=12)}),
        Measured("half_done & 50%", {1: result(5)}, pending=(2,)),
        Measured("search only", {1: result(6, tasks=(2,)), 2: result(7, tasks=(2,))}),
        Measured("broken", {}, failed={1: "training broke off\nat step 3", 2: "MemoryError"}),
        metrics=("recall@5", "ndcg@5", "mrr"),
    )


def of_task(ranks, code, name):
    return metric(ranks.select(ranks.task == code), name)


def test_difference_interval_and_p_value_are_those_of_the_paired_requests():
    base, other = {1: result(1), 2: result(2)}, {1: result(3), 2: result(4)}
    cell = compared(Measured("base", base), Measured("other", other)).cell(LISTED, "search", "other", "ndcg@5")
    of = [[of_task(runs[seed].ranks[LISTED], 2, "ndcg@5") for seed in (1, 2)] for runs in (base, other)]
    differences = np.array(of[1]) - np.array(of[0])
    assert cell.base == pytest.approx(np.mean(of[0]))
    assert cell.value == pytest.approx(np.mean(of[1]))
    assert cell.difference == pytest.approx(cell.value - cell.base)
    assert (cell.low, cell.high) == crossed_interval(differences, resamples=300)
    assert (cell.value_low, cell.value_high) == crossed_interval(np.array(of[1]), resamples=300)
    assert cell.p_value == sign_flip_test(differences.mean(axis=0))
    assert (cell.seed_low, cell.seed_high) == pytest.approx(tuple(sorted(differences.mean(axis=1))))
    assert (cell.requests, cell.seeds) == (SIZE, (1, 2))


def test_p_values_are_adjusted_over_the_variants_of_a_task_and_metric(study):
    for task, names in {"search": 3, "recommendation": 2}.items():
        cells = [c for c in study.cells if (c.task, c.metric) == (task, "ndcg@5") and c.p_value is not None]
        assert len(cells) == names
        assert [cell.p_adjusted for cell in cells] == holm([cell.p_value for cell in cells])


def test_a_clear_gain_is_marked_and_chance_is_not(study):
    assert study.cell(LISTED, "search", "no soft_filter", "ndcg@5").significant
    twins = compared(Measured("base", {1: result(1)}), Measured("same", {1: result(1)}))
    cell = twins.cell(LISTED, "search", "same", "ndcg@5")
    assert (cell.difference, cell.low, cell.high, cell.p_value, cell.significant) == (0, 0, 0, 1, False)


def test_of_rankers_that_do_not_differ_few_are_marked():
    marked = 0
    for trial in range(60):
        found = compared(
            Measured("base", {1: result(2 * trial, size=80)}),
            Measured("twin", {1: result(2 * trial + 1, size=80)}),
            metrics=("ndcg@5",),
        )
        marked += found.cell(LISTED, "search", "twin", "ndcg@5").significant
    assert marked <= 8  # 5 % of 60 are 3


def test_a_variant_with_missing_seeds_is_compared_on_the_common_ones(study):
    cell = study.cell(LISTED, "search", "half_done & 50%", "ndcg@5")
    assert cell.seeds == (1,)
    assert cell.base == pytest.approx(of_task(study.base.results[1].ranks[LISTED], 2, "ndcg@5").mean())
    assert any(row[0] == "half_done & 50% (1 of 2 seeds)" for table in tables(study) for row in table.rows)


@pytest.mark.parametrize(
    ("base", "other", "pairs"),
    [
        ([1, 2, 3], [1, 2, 3], [(1, 1), (2, 2), (3, 3)]),
        ([1, 2], [3, 2], [(2, 2)]),
        ([42], [7], [(42, 7)]),
        ([1, 2], [], []),
    ],
)
def test_equal_seeds_are_paired_and_where_there_are_none_the_order_decides(base, other, pairs):
    assert pairs_of_seeds(base, other) == pairs


def test_pairs_for_want_of_common_seeds_are_told():
    found = compared(Measured("base", {1: result(1)}), Measured("other", {9: result(2)}))
    assert found.cell(LISTED, "search", "other", "ndcg@5").difference is not None
    assert "Paired in order, for want of a common seed: other" in notes(found)


def test_variants_with_fewer_pairs_than_seeds_are_told(study):
    only = (
        "Over 1 of the seeds alone: half_done & 50% (base has 2, it has 1); its interval says nothing about other seeds"
    )
    assert [line for line in notes(study) if line.startswith("Over")] == [only]
    seeds = {seed: result(seed) for seed in (1, 2, 3)}
    more = compared(Measured("base", {seed: seeds[seed] for seed in (1, 2)}), Measured("other", seeds))
    assert "Over 2 of the seeds alone: other (base has 2, it has 3)" in notes(more)


def test_a_metric_asked_for_twice_is_shown_once():
    found = compared(Measured("base", {1: result(1)}), Measured("other", {1: result(2)}), metrics=["mrr", "mrr"])
    assert found.metrics == ("mrr",)
    assert len(found.cells) == 2 * 2


def test_requests_are_paired_whatever_their_order():
    shuffled = result(3)
    order = np.random.default_rng(0).permutation(2 * SIZE)
    shuffled = SeedResult({LISTED: shuffled.ranks[LISTED].select(order)})
    base = Measured("base", {1: result(1)})
    assert (
        compared(base, Measured("other", {1: shuffled})).cells
        == compared(base, Measured("other", {1: result(3)})).cells
    )


def test_runs_of_different_requests_are_refused_and_both_are_named():
    other = SeedResult({LISTED: ranks(np.random.default_rng(0), size=70)}, path="runs/b")
    base = SeedResult({LISTED: ranks(np.random.default_rng(0))}, path="runs/a")
    with pytest.raises(BadInputError) as error:
        compared(Measured("base", {1: base}), Measured("other", {1: other}))
    text = str(error.value)
    assert "runs/a and runs/b cannot be compared: they ranked different requests on uniform-99" in text
    assert "150 and 70" in text
    assert "evaluation.max_requests" in text


def test_an_unknown_metric_is_refused():
    with pytest.raises(BadInputError, match="did you mean 'ndcg@5'"):
        compared(Measured("base", {1: result()}), metrics=("ndgc@5",))


def test_without_a_base_there_are_values_and_no_differences():
    found = compared(Measured("base", {}, failed={1: "no"}), Measured("other", {1: result(3)}))
    cell = found.cell(LISTED, "search", "other", "ndcg@5")
    assert cell.value > 0
    assert cell.difference is None
    assert "base (failed)" in str(found)


def test_nothing_finished_is_a_table_too():
    found = compared(Measured("base", {}, failed={1: "no"}), Measured("other", {}, pending=(1,)))
    assert "other (to come)" in str(found)
    assert "Failed: base, seed 1: no" in str(found)


# Tables


def test_a_ranker_that_does_not_do_a_task_has_dashes(study):
    _, recommendation = tables(study)
    row = next(row for row in recommendation.rows if row[0] == "search only")
    assert row[1:7] == ("-",) * 6
    assert row[7:] == ("35,599,505", "1,234", "7.2", "500")
    assert notes(study)[4] == (
        "No recommendation requests were ranked by search only (a dash, not a zero: a ranker is asked for the tasks "
        "that it does)."
    )


def test_a_base_without_a_task_leaves_values_there_and_the_notes_say_so():
    base = Measured("searcher", {1: result(1, tasks=(2,))})
    found = compared(base, Measured("recommender", {1: result(2, tasks=(1,))}), Measured("both", {1: result(3)}))
    search, recommendation = tables(found)
    assert [row[1:5] == ("-",) * 4 for row in search.rows] == [False, True, False]
    assert [row[1:5] == ("-",) * 4 for row in recommendation.rows] == [True, False, False]
    assert [row[3] for row in recommendation.rows] == ["-"] * 3
    assert "No differences in recommendation: nothing of searcher is there to compare with." in notes(found)
    assert found.cell(LISTED, "search", "both", "ndcg@5").difference is not None
    assert all(render(found, form) for form in FORMATS)


def test_rankers_without_a_common_task_are_two_tables_without_differences():
    found = compared(
        Measured("searcher", {1: result(1, tasks=(2,))}), Measured("recommender", {1: result(2, tasks=(1,))})
    )
    assert [cell.difference for cell in found.cells] == [None] * 4
    assert not any(line.startswith(("Difference:", "p:")) for line in notes(found))


# Parts of the request withheld


@pytest.fixture(scope="module")
def withholding():
    def blind(seed):
        return {"no_query": ranks(np.random.default_rng(seed), tasks=(2,))}

    reader = {seed: result(seed, best=8, withheld=blind(10 + seed)) for seed in (1, 2)}
    full = {seed: ranks(np.random.default_rng(seed)) for seed in (1, 2)}
    same = {seed: {"no_query": found.select(found.task == 2)} for seed, found in full.items()}
    deaf = {seed: result(seed, withheld=same[seed]) for seed in (1, 2)}
    return compared(
        Measured("reader", reader), Measured("deaf", deaf), Measured("not asked", {1: result(5), 2: result(6)})
    )


def test_what_is_lost_without_the_query_is_measured_against_the_same_variant(withholding):
    full = withholding.cell(LISTED, "search", "reader", "ndcg@5")
    blind = withholding.cell(LISTED, "search", "reader", "ndcg@5", "no_query")
    assert blind.base == pytest.approx(full.value)
    runs = withholding.variants[0].results
    expected = [of_task(runs[seed].withheld[LISTED]["no_query"], 2, "ndcg@5") for seed in (1, 2)]
    assert blind.value == pytest.approx(np.mean(expected))
    assert blind.difference == pytest.approx(blind.value - full.value)
    assert blind.high < 0
    assert (blind.significant, blind.p_value, blind.seeds) == (None, None, (1, 2))
    assert withholding.cell(LISTED, "search", "not asked", "ndcg@5", "no_query") is None


def test_a_model_that_reads_no_query_loses_nothing_without_it(withholding):
    search, recommendation, withheld = tables(withholding)
    assert withheld.title == f"search, parts of the request withheld, candidates {LISTED}"
    assert withheld.header == ("variant", "ndcg@5", "no query", "difference")
    reader, deaf, unasked = withheld.rows
    assert not reader[2].endswith("*")
    assert reader[3].startswith("-0.")
    assert deaf[3] == "+0.0000 [+0.0000, +0.0000]"
    assert unasked[2:] == ("-", "-")
    assert any(line.startswith("Withheld: ") for line in notes(withholding))
    assert not any(row[0] == "withheld" for row in (*search.rows, *recommendation.rows))


def test_csv_and_json_hold_what_was_withheld(withholding):
    rows = list(csv.DictReader(io.StringIO(render(withholding, "csv"))))
    assert {row["withheld"] for row in rows} == {"", "no_query"}
    assert len(rows) == len(withholding.cells) + len(withholding.withheld)
    content = json.loads(render(withholding, "json"))
    assert [cell["withheld"] for cell in content["withheld"]] == ["no_query"] * len(withholding.withheld)
    assert len(content["cells"]) == len(withholding.cells)
    assert "withheld" not in content["variants"][0]["runs"][0]


# Formats


def test_every_number_of_a_row_stands_where_the_header_says(study):
    search, _ = tables(study)
    assert search.title == f"search, candidates {LISTED} (150 requests, sha256 abababababab)"
    assert search.header == (
        "variant", "recall@5", "ndcg@5", "mrr",
        "ndcg@5 difference", "by seed", "p", "parameters", "rows/s", "requests/s", "peak MiB",
    )  # fmt: skip
    row = next(row for row in search.rows if row[0] == "no soft_filter")
    cell = study.cell(LISTED, "search", "no soft_filter", "ndcg@5")
    assert row[2] == f"{cell.value:.4f}* [{cell.value_low:.4f}, {cell.value_high:.4f}]"
    assert row[4] == f"{cell.difference:+.4f} [{cell.low:+.4f}, {cell.high:+.4f}]"
    assert row[6] == "<0.001"


def test_the_notes_tell_the_seconds_of_each_finished_variant(study):
    (line,) = (line for line in notes(study) if line.startswith("Seconds"))
    assert "base 10.0, 12.5; no soft_filter 10.0, 12.5; " in line
    assert "broken" not in line


def test_the_notes_say_what_the_interval_covers(study):
    assert "95 % bootstrap interval over requests and over the 2 seeds." in str(study)
    one = compared(Measured("base", {1: result(1)}), Measured("other", {1: result(2)}))
    assert "over requests alone: with one seed it says nothing about other seeds." in str(one)
    assert "by seed" not in tables(one)[0].header


def test_failures_are_told_in_a_line_each(study):
    assert "Failed: broken, seed 1: training broke off at step 3" in notes(study)
    assert all(any(row[0] == "broken (failed)" for row in table.rows) for table in tables(study))


def test_text_is_aligned_and_holds_every_row(study):
    lines = render(study, "text").splitlines()
    assert lines[0] == f"search, candidates {LISTED} (150 requests, sha256 abababababab)"
    assert lines[3].startswith("-----")
    assert len(lines[4]) == len(lines[5]) == len(lines[2])


def test_markdown_has_as_many_cells_in_each_row(study):
    rows = [line for line in render(study, "markdown").splitlines() if line.startswith("|")]
    assert {len(re.split(r"(?<!\\)\|", row)) for row in rows} == {len(tables(study)[0].header) + 2}


def test_latex_is_balanced_and_has_as_many_cells_in_each_row(study):
    text = render(study, "latex")
    rows = [line for line in text.splitlines() if line.endswith(r"\\")]
    assert len(rows) == 2 * 6
    assert {len(re.findall(r"(?<!\\)&", row)) for row in rows} == {len(tables(study)[0].header) - 1}
    for name in ("table", "tabular"):
        assert text.count(rf"\begin{{{name}}}") == text.count(rf"\end{{{name}}}") == 2
    assert r"half\_done \& 50\%" in text
    assert "usepackage" not in text
    assert text.count("{") == text.count("}")


def test_latex_escapes_what_it_would_read():
    assert latex_text("a_b & 5% #1 ~x^2 {y} \\z <0.001 -0.5 [+0.1, -0.2] no-go") == (
        r"a\_b \& 5\% \#1 \textasciitilde{}x\textasciicircum{}2 \{y\} \textbackslash{}z $<$0.001 $-$0.5 [$+$0.1, "
        r"$-$0.2] no-go"
    )
    assert latex_text("-") == "--"


def test_csv_has_a_row_for_each_variant_and_metric(study):
    rows = list(csv.DictReader(io.StringIO(render(study, "csv"))))
    assert len(rows) == len(study.cells) + 1
    row = next(r for r in rows if (r["variant"], r["task"], r["metric"]) == ("no soft_filter", "search", "mrr"))
    cell = study.cell(LISTED, "search", "no soft_filter", "mrr")
    assert float(row["difference"]) == cell.difference
    assert (row["seeds"], row["status"], row["training_seconds"]) == ("1 2", "done", "10.0")
    assert (row["parameters"], row["rows_per_second"]) == ("35599505", "1234.5")
    assert [r["status"] for r in rows if r["variant"] == "broken"] == ["failed"]


def test_json_holds_cells_runs_and_failures(study):
    content = json.loads(render(study, "json"))
    assert content["base"] == "base"
    assert len(content["cells"]) == len(study.cells)
    assert content["variants"][4]["failed"][1] == {"seed": 2, "reason": "MemoryError"}
    assert content["variants"][2]["pending"] == [2]
    assert "ranks" not in content["variants"][0]["runs"][0]


def test_an_unknown_format_is_answered_with_the_nearest(study):
    with pytest.raises(BadInputError, match="no format named 'markdwon'; did you mean 'markdown'"):
        render(study, "markdwon")
    assert set(FORMATS) == {"text", "markdown", "csv", "latex", "json"}


def test_a_notebook_shows_a_table(study):
    assert study._repr_markdown_() == render(study, "markdown")


def test_several_lists_have_tables_each_and_the_gpus_memory_is_shown_where_it_was_used():
    on_gpu = [
        SeedResult({name: ranks(np.random.default_rng(seed)) for name in ("a", "b")}, "", None, None, 900.0, 64.0)
        for seed in (1, 2)
    ]
    variants = [Measured(name, {1: run}) for name, run in zip(("base", "other"), on_gpu, strict=True)]
    found = compare_variants(variants, candidates={"a": "1", "b": "2"}, metrics=("mrr",), resamples=50)
    assert [table.title for table in tables(found)] == [
        f"{task}, candidates {listed} (150 requests, sha256 {sha})"
        for listed, sha in (("a", "1"), ("b", "2"))
        for task in ("search", "recommendation")
    ]
    assert tables(found)[0].header[-1] == "peak GPU MiB"
    assert tables(found)[0].rows[0][-4:] == ("-", "-", "-", "64")
    assert found.primary == "mrr"


# Figures


def swept():
    variants = [Measured(name, {1: result(seed)}) for seed, name in enumerate(("base", "x=1", "x=50", "no filter"))]
    return compared(*variants, sweeps=[Sweep("x", ((1, "x=1"), (7, "base"), (50, "x=50")))])


def test_bars_show_the_variants_and_whiskers_their_difference_from_the_base(study):
    pytest.importorskip("matplotlib")
    search, recommendation = figures.draw(study).axes
    assert (search.get_title(), recommendation.get_title()) == (f"search, {LISTED}", f"recommendation, {LISTED}")
    bars = {container.get_label(): container for container in search.containers if container.get_label()[0] != "_"}
    assert list(bars) == ["base", "no soft_filter", "half_done & 50%", "search only"]
    cell = study.cell(LISTED, "search", "no soft_filter", "recall@5")
    bar = bars["no soft_filter"]
    assert bar.patches[0].get_height() == pytest.approx(cell.value)
    low, high = bar.errorbar.lines[2][0].get_segments()[0][:, 1]
    assert (low, high) == pytest.approx((cell.base + cell.low, cell.base + cell.high))


def test_a_figure_has_a_bar_and_a_name_for_a_ranker_of_the_second_task_alone():
    pytest.importorskip("matplotlib")
    figure = figures.draw(
        compared(Measured("searcher", {1: result(1, tasks=(2,))}), Measured("recommender", {1: result(2, tasks=(1,))}))
    )
    assert [[bars.get_label() for bars in axes.containers if bars.get_label()[0] != "_"] for axes in figure.axes] == [
        ["searcher"], ["recommender"],
    ]  # fmt: skip
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["searcher", "recommender"]


def test_a_sweep_is_a_curve_a_task_over_its_values_on_a_logarithmic_axis_where_they_span_decades():
    pytest.importorskip("matplotlib")
    found = swept()
    *bars, curve = figures.draw(found).axes
    assert len(bars) == 2  # the variants outside the sweep
    assert (curve.get_xscale(), curve.get_xlabel(), curve.get_ylabel()) == ("log", "x", "ndcg@5")
    lines = {container.get_label(): container.lines[0] for container in curve.containers}
    assert list(lines) == ["search", "recommendation"]
    values = [found.cell(LISTED, "search", name, "ndcg@5").value for name in ("x=1", "base", "x=50")]
    assert lines["search"].get_xdata().tolist() == [1, 7, 50]
    assert lines["search"].get_ydata().tolist() == pytest.approx(values)


def test_a_sweep_over_names_has_them_on_its_axis():
    pytest.importorskip("matplotlib")
    variants = [Measured(name, {1: result(seed)}) for seed, name in enumerate(("base", "cf=als"))]
    found = compared(*variants, sweeps=[Sweep("cf", (("lightgcn", "base"), ("als", "cf=als")))])
    (curve,) = figures.draw(found).axes
    assert [label.get_text() for label in curve.get_xticklabels()] == ["lightgcn", "als"]
    assert curve.get_xscale() == "linear"


@pytest.mark.parametrize("suffix", ["png", "pdf", "svg"])
def test_a_figure_is_written_in_the_format_of_its_name(tmp_path, suffix):
    pytest.importorskip("matplotlib")
    path = tmp_path / f"figure.{suffix}"
    figures.save_figure(swept(), path)
    assert path.read_bytes().startswith({"png": b"\x89PNG", "pdf": b"%PDF", "svg": b"<?xml"}[suffix])
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


def test_a_figure_of_what_failed_is_empty_and_no_error(tmp_path):
    pytest.importorskip("matplotlib")
    figures.save_figure(compared(Measured("base", {}, failed={1: "no"})), tmp_path / "figure.png")


def test_another_figure_format_and_a_missing_matplotlib_are_told(monkeypatch, tmp_path):
    monkeypatch.setattr(figures, "find_spec", lambda name: object())
    with pytest.raises(BadInputError, match=r"no figure format '\.pgn'; did you mean 'png'"):
        figures.check_figure_path(tmp_path / "a.pgn")
    monkeypatch.setattr(figures, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"matplotlib, which is not installed: pip install 'gensr\[plots\]'"):
        figures.check_figure_path(tmp_path / "a.png")
