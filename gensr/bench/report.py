"""Results of `gensr bench` as data: stored as JSON, shown as Markdown tables."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from itertools import groupby
from pathlib import Path
from typing import Any

from gensr.bench.timing import Spread
from gensr.errors import BadInputError
from gensr.evaluation.report import markdown_table

FORMAT = 1
HEADER = ("per second", "a call", "times the baseline", "aim", "GFLOP each", "of peak", "of floor", "whole job")
SCALES = (
    (172_800, 86_400, "days"),
    (7_200, 3_600, "h"),
    (120, 60, "min"),
    (1, 1, "s"),
    (1e-3, 1e-3, "ms"),
    (0, 1e-6, "µs"),
)
"""From so many seconds on, so many seconds are one of these."""


@dataclass(frozen=True)
class Measured:
    """One case and what was found about it.

    Attributes:
        suite, workload, name, units, unit, baseline, aim, dtype: as in `gensr.bench.cases.Case`.
        seconds: of one call.
        ratio: times the speed of the group's baseline, by seconds per unit.
        rounds: samples.
        repeats: calls in a sample.
        flops: of one call, dense matrix products alone.
        bytes: of one call, see `gensr.bench.floor.Work`.
        utilisation: share of the measured matrix-multiply peak, 0 to 1; None where a call has no such products.
        floor_seconds: the least a call can take by FLOPs and bytes; None likewise.
        job_units: a whole job in this unit, where there is one.
        job_seconds: what it takes at this pace.
    """

    suite: str
    workload: str
    name: str
    units: float
    unit: str
    baseline: bool
    aim: float | None
    dtype: str
    seconds: Spread
    ratio: Spread
    rounds: int
    repeats: int
    flops: int
    bytes: int | None
    utilisation: float | None
    floor_seconds: float | None
    job_units: float | None
    job_seconds: float | None

    @property
    def met(self) -> bool | None:
        """Whether the median ratio reaches the aim; None where there is no aim."""
        return None if self.aim is None else self.ratio.median >= self.aim


@dataclass(frozen=True)
class Result:
    """What one call of `gensr bench` measured.

    Attributes:
        environment: see `gensr.bench.environment`.
        spec: name and fingerprint of the spec measured, or None.
        peaks: FLOP/s by dtype, as far as cases needed them.
        copy_rate: bytes/s of a copy within the device's memory, or None where none was needed.
        cases: in the order they were timed.
    """

    environment: dict[str, Any]
    spec: dict[str, str] | None
    peaks: dict[str, float]
    copy_rate: float | None
    cases: tuple[Measured, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        plain = asdict(self)
        for entry, case in zip(plain["cases"], self.cases, strict=True):
            entry["met"] = case.met
        return {"gensr_bench": FORMAT, **plain}

    @classmethod
    def from_dict(cls, plain: dict[str, Any]) -> Result:
        """What `to_dict` gave."""
        cases = tuple(_measured(entry) for entry in plain["cases"])
        return cls(**{field.name: plain[field.name] for field in fields(cls)} | {"cases": cases})


def _measured(entry: dict[str, Any]) -> Measured:
    values = {field.name: entry[field.name] for field in fields(Measured)}
    return Measured(**values | {name: Spread(**entry[name]) for name in ("seconds", "ratio")})


def read_result(path: Path) -> Result:
    """The result stored at `path`.

    Raises:
        BadInputError: there is none.
    """
    try:
        plain = json.loads(path.read_text(encoding="utf-8"))
        if plain["gensr_bench"] != FORMAT:
            raise BadInputError(f"{path} is a result of format {plain['gensr_bench']}; this gensr reads {FORMAT}")
        return Result.from_dict(plain)
    except OSError as error:
        raise BadInputError(f"{path}: {error.strerror}; give a file that gensr bench --out wrote") from None
    except (ValueError, KeyError, TypeError) as error:
        raise BadInputError(f"{path} is no result of gensr bench --out: {type(error).__name__}: {error}") from None


def tables(result: Result) -> str:
    """A line on the device, a table a workload, and how large a whole job is."""
    parts = [device_line(result)]
    for (suite, workload), cases in groupby(result.cases, key=lambda case: (case.suite, case.workload)):
        parts.append(_table(f"{suite}: {workload}", list(cases)))
    jobs = {case.unit: case.job_units for case in result.cases if case.job_units is not None}
    if jobs:
        parts.append(f"A whole job: {' or '.join(f'{units:,.0f} {unit}' for unit, units in jobs.items())}.")
    return "\n\n".join(parts)


def device_line(result: Result) -> str:
    """What it was measured on, in words."""
    found = result.environment
    threads = f"{found['threads']} thread" + ("s" if found["threads"] != 1 else "")
    versions = ", ".join(f"{name} {found[name]}" for name in ("torch", "transformers") if found[name])
    limits = [f"{name} products {rate / 1e9:,.0f} GFLOP/s" for name, rate in result.peaks.items()]
    if result.copy_rate is not None:
        limits.append(f"copies {result.copy_rate / 1e9:,.0f} GB/s")
    measured = f" Measured limits: {', '.join(limits)}." if limits else ""
    return (
        f"{found['device']}, {threads}, {versions}, float32 products {found['float32 products']}, "
        f"{found['date']}.{measured}"
    )


def _table(title: str, cases: Sequence[Measured]) -> str:
    rows = [
        [
            f"**{case.name}**" if case.baseline else case.name,
            f"{quantity(case.units / case.seconds.median)} {case.unit}",
            duration(case.seconds.median),
            "1" if case.baseline else spread(case.ratio),
            _aim(case),
            quantity(case.flops / case.units / 1e9) if case.flops else "-",
            _percent(case.utilisation),
            _percent(None if case.floor_seconds is None else case.floor_seconds / case.seconds.median),
            "-" if case.job_seconds is None else duration(case.job_seconds),
        ]
        for case in cases
    ]
    told = [place for place in range(len(HEADER) + 1) if any(row[place] != "-" for row in rows)]
    return markdown_table([(title, *HEADER)[place] for place in told], [[row[place] for place in told] for row in rows])


def _aim(case: Measured) -> str:
    return "-" if case.aim is None else f"{case.aim:g}, {'met' if case.met else 'missed'}"


def spread(ratio: Spread) -> str:
    """``33.1 [31.9, 34.0]``: median and quartiles."""
    return f"{quantity(ratio.median)} [{quantity(ratio.low)}, {quantity(ratio.high)}]"


def quantity(value: float) -> str:
    """Three digits, thousands with commas: ``0.0123``, ``4.56``, ``1,234``."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def duration(seconds: float) -> str:
    """Seconds in the unit that suits them: ``12.3 ms``, ``4.5 s``, ``1.2 h``."""
    _, size, unit = next(scale for scale in SCALES if seconds >= scale[0])
    return f"{quantity(seconds / size)} {unit}"


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.0f} %" if share >= 0.1 else f"{100 * share:.2g} %"
