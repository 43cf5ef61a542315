"""Suites are run group by group, and what came out survives as data."""

from __future__ import annotations

import json

import pytest
import torch

from gensr.bench import run as bench
from gensr.bench.environment import cpu_model, environment
from gensr.bench.report import Result, duration, quantity, read_result, spread, tables
from gensr.bench.timing import Spread
from gensr.errors import BadInputError
from gensr.rankers.config import PopularityConfig
from gensr.spec import PipelineSpec
from tests.bench.toys import FLOPS, case, install, quick_context, toy_cases


@pytest.fixture
def results(monkeypatch):
    install(monkeypatch)
    return list(bench.run(quick_context(), [bench.suite("toy")], rounds=2))


def test_every_finished_group_gives_the_result_so_far(results):
    assert [[found.name for found in result.cases] for result in results] == [
        ["once", "half", "twice"],
        ["once", "half", "twice", "nothing"],
    ]


def test_a_group_is_timed_before_the_one_after_the_next_is_made(monkeypatch):
    events = []

    def cases(context):
        for name in "abc":
            events.append(f"make {name}")
            yield case(name, lambda name=name: events.append(f"run {name}"), workload=name, baseline=True)

    install(monkeypatch, cases)
    for _ in bench.run(quick_context(), [bench.suite("toy")], rounds=1):
        pass
    assert list(dict.fromkeys(events)) == ["make a", "make b", "run a", "make c", "run b", "run c"]


def test_work_is_set_against_the_limits_of_its_precision(results):
    once, half, twice, nothing = results[-1].cases
    assert (once.flops, half.flops, twice.flops, nothing.flops) == (FLOPS, FLOPS // 2, 2 * FLOPS, 0)
    peaks = results[-1].peaks
    assert set(peaks) == {"fp32", "bf16"}
    assert once.utilisation == pytest.approx(FLOPS / once.seconds.median / peaks["fp32"])
    assert twice.utilisation == pytest.approx(2 * FLOPS / twice.seconds.median / peaks["bf16"])
    assert once.floor_seconds == max(FLOPS / peaks["fp32"], once.bytes / results[-1].copy_rate)
    assert nothing.utilisation is None
    assert nothing.floor_seconds is None


def test_whole_jobs_are_extrapolated_where_the_unit_has_one(results):
    once, _, _, nothing = results[-1].cases
    assert once.job_seconds == pytest.approx(6_822_300 / 2 * once.seconds.median)
    assert nothing.job_seconds is None


def test_aims_are_met_or_missed(results):
    assert [found.met for found in results[-1].cases] == [None, True, False, None]


def test_results_survive_json(results):
    plain = json.loads(json.dumps(results[-1].to_dict()))
    assert Result.from_dict(plain) == results[-1]
    assert [entry["met"] for entry in plain["cases"]] == [None, True, False, None]


def test_tables_show_a_workload_each_then_the_size_of_a_whole_job(results):
    text = tables(results[-1])
    first, second, jobs = (text.index(title) for title in ("| toy: sums ", "| toy: no products ", "\n\nA whole job: "))
    assert first < second < jobs
    assert "| **once** " in text
    assert "1e-09, met |" in text
    assert "1e+09, missed |" in text
    assert f" {quantity(FLOPS / 2 / 1e9)} |" in text
    assert text.endswith("A whole job: 6,822,300 candidates.")


def test_columns_in_which_nothing_stands_are_left_out(results):
    first, second = tables(results[-1]).split("\n\n")[1:3]
    assert "| whole job |" in first
    header = [cell.strip() for cell in second.splitlines()[0].strip("|").split("|")]
    assert header == ["toy: no products", "per second", "a call", "times the baseline"]


def test_what_was_measured_on_is_told_without_naming_the_machine():
    import platform

    found = environment("cpu")
    assert found["device"] == cpu_model() != ""
    assert found["threads"] == torch.get_num_threads()
    assert found["float32 products"] == torch.get_float32_matmul_precision()
    assert platform.node() not in json.dumps(found)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("no json", "JSONDecodeError"),
        ("{}", "KeyError: 'gensr_bench'"),
        ("[]", "TypeError"),
        ('{"gensr_bench": 99}', "a result of format 99; this gensr reads 1"),
    ],
)
def test_what_is_no_result_is_told(tmp_path, content, why):
    (tmp_path / "speed.json").write_text(content, encoding="utf-8")
    with pytest.raises(BadInputError, match=rf"speed\.json is .*{why}"):
        read_result(tmp_path / "speed.json")


def test_baselines_are_loaded_by_path_and_once(tmp_path):
    (tmp_path / "slow_way.py").write_text(
        "from dataclasses import dataclass\n@dataclass\nclass Slow:\n    steps: int\n"
    )
    load = bench.baselines_in(tmp_path)
    assert load("slow_way").Slow(3).steps == 3
    assert load("slow_way") is load("slow_way")


def test_without_a_checkout_the_baselines_are_asked_for(tmp_path):
    with pytest.raises(BadInputError, match=r"no baseline 'ranks': there is no .*in the repository.*--baselines"):
        bench.baselines_in(tmp_path / "gone")("ranks")


def test_suites_and_shapes_are_chosen_by_name_in_their_own_order():
    assert bench.chosen_suites([], spec=None) == bench.SUITES
    assert bench.chosen_suites([], spec=PipelineSpec()) == ("scoring", "training", "loading")
    assert bench.chosen_suites(["ranks", "scoring"], spec=None) == ("scoring", "ranks")
    assert bench.chosen_shapes([]) == ("small", "base")
    assert bench.chosen_shapes(["base", "tiny"]) == ("tiny", "base")


def test_what_is_not_trained_has_no_training_to_time():
    spec = PipelineSpec(ranker=PopularityConfig())
    assert bench.chosen_suites([], spec=spec) == ("scoring", "loading")
    with pytest.raises(
        BadInputError, match=r"suite training does not train a 'popularity' ranker; .* scoring, loading"
    ):
        bench.chosen_suites(["training"], spec=spec)


def test_the_toy_groups_are_those_of_its_workloads():
    assert [[found.name for found in group] for group in bench.groups(toy_cases(None))] == [
        ["once", "half", "twice"],
        ["nothing"],
    ]


def test_numbers_are_short():
    assert [quantity(value) for value in (0.01234, 4.564, 33.12, 1234.5)] == ["0.0123", "4.56", "33.1", "1,234"]
    assert [duration(seconds) for seconds in (4e-5, 0.0123, 1.5, 100, 600, 7200, 900_000)] == [
        "40 µs",
        "12.3 ms",
        "1.5 s",
        "100 s",
        "10 min",
        "2 h",
        "10.4 days",
    ]
    assert spread(Spread(31.9, 33.14, 340.2)) == "33.1 [31.9, 340]"
