"""Build a base spec and variants of it one after the other, and end in one table.

The variants of one seed come before the next seed, so that a table exists early. Each run lies where
`gensr.pipeline.build` would put it anyway and shares its stages through the cache of the root folder; whatever is
finished is opened, so the same call after an interruption does what is missing.
"""

from __future__ import annotations

import gc
import sys
import time
import traceback
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gensr.cache import StageCache
from gensr.device import choose_device
from gensr.errors import BadInputError, FullDiskError, GensrError
from gensr.files import locked, says_full, write_json, write_text
from gensr.pipeline import build
from gensr.progress import Bar, Progress
from gensr.spec import PipelineSpec, load_spec
from gensr.variants import Plan, PlannedRun, make_plan, read_grids, read_variants

if TYPE_CHECKING:
    from gensr.evaluation.comparison import Comparison, SeedResult

PLAN, RESULTS, LOG, LOCK = "plan.json", "results.json", "log.txt", ".lock"
TABLES = {"table.txt": "text", "table.md": "markdown", "table.csv": "csv", "table.tex": "latex"}
FIGURES = ("figure.png", "figure.pdf")


def ablate(
    spec: str | Path | dict[str, Any] | PipelineSpec = "preset:demo",
    *,
    drop: str | Iterable[str] = (),
    swap: str | Iterable[str] = (),
    grid: str | Iterable[str] = (),
    suite: str | None = None,
    seeds: int = 1,
    root: str | Path = "runs",
    device: str = "auto",
    progress: bool = True,
    plot: bool = False,
) -> Comparison:
    """Build a spec and variants of it, and compare them; the table is left in ``<root>/ablations`` too.

    Args:
        spec: the base, as for `gensr.build`.
        drop: a variant each, such as ``"soft_filter"`` or ``"cf+contrastive"``.
        swap: a variant each, such as ``"history=gru"``.
        grid: a sweep each, such as ``"contrastive.temperature=0.05,0.1"``; a variant a value.
        suite: a list of variants by name, see `gensr.edits.SUITES`.
        seeds: how many; the base's seed and those after it.
        root: folder of runs and their cache.
        device: "auto", "cpu" or "cuda".
        progress: show progress on stderr.
        plot: leave figures beside the tables (extra ``plots``).

    Returns:
        The comparison; `Comparison.failed` says which runs failed.

    Raises:
        BadInputError: a variant that is no valid spec, changes nothing, or could not be compared.
    """
    base = load_spec(spec)
    drops, swaps, grids = ([given] if isinstance(given, str) else list(given) for given in (drop, swap, grid))
    variants = read_variants(suite=suite, drops=drops, swaps=swaps)
    plan = make_plan(base, variants, read_grids(grids), seeds=seeds, root=root)
    return run_plan(plan, device=device, progress=progress, plot=plot)


def run_plan(plan: Plan, *, device: str = "auto", progress: bool = True, plot: bool = False) -> Comparison:
    """Do what is missing of `plan`, and compare what there is then.

    The plan's folder holds ``plan.json``, the log, and after each run ``results.json`` and the tables so far. A run
    that fails is recorded with its reason and the others go on; so it is with the next call, which tries it again.

    Raises:
        BadInputError: the data are bad, or a variant has other candidates than the base: nothing was built.
        MissingExtraError: `plot` without matplotlib.
        FullDiskError: nothing more can be written.
    """
    if plot:
        from gensr.evaluation.figures import require_matplotlib

        require_matplotlib()
    device, shown = choose_device(device), Progress(enabled=progress)
    with shown.stage("data", "data of all runs"):
        candidates = _prepare(plan, shown)
    with locked(plan.folder / LOCK, refuse=f"the ablation {plan.folder}"):
        write_json(plan.folder / PLAN, plan.to_dict() | {"command": sys.argv})
        shown.log_to(plan.folder / LOG)
        for remark in plan.remarks:
            shown.note(remark)
        study = _Study(plan, candidates, device, shown)
        with shown.overall("ablation", total=len(plan.runs)) as bar:
            comparison = study.run(bar)
        if plot:
            from gensr.evaluation.figures import save_figure

            for name in FIGURES:
                save_figure(comparison, plan.folder / name)
        shown.note(f"tables: {plan.folder}")
    return comparison


class _Study:
    """The runs of a plan, in order, and what is known of them so far."""

    def __init__(self, plan: Plan, candidates: dict[str, str], device: str, progress: Progress) -> None:
        self.plan, self.candidates, self.device, self.progress = plan, candidates, device, progress
        self.results: dict[tuple[str, int], SeedResult] = {}
        self.failed: dict[tuple[str, int], str] = {}
        self.durations: list[float] = []
        self.started = time.perf_counter()

    def run(self, bar: Bar) -> Comparison:
        """Build what is not built; the tables on disk follow."""
        runs = self.plan.runs
        for number, run in enumerate(runs, start=1):
            opened = run.finished
            words, rest = f"{run.variant}, seed {run.seed}", self._rest(runs[number - 1 :])
            bar.say(words + rest)
            elapsed = _duration(time.perf_counter() - self.started)
            self.progress.note(f"[run {number}/{len(runs)}] {words} ({elapsed} so far{rest})")
            try:
                self._build(run)
            except KeyboardInterrupt:
                self.progress.note("interrupted: the same command goes on from here")
                raise
            except Exception as error:
                if isinstance(error, FullDiskError) or says_full(error):  # the others could not write either
                    raise
                self._fail(run, error)
            _release(self.device)
            bar.advance()
            if not opened or run is runs[-1]:  # of runs that are only opened, the tables are there already
                comparison = self.compare()
                self._write(comparison)
        return comparison

    def compare(self) -> Comparison:
        """What there is so far."""
        from gensr.evaluation.comparison import Measured, Sweep, compare_variants

        measured = []
        for variant, _ in self.plan.variants:
            keys = [(variant.name, seed) for seed in self.plan.seeds]
            results = {key[1]: self.results[key] for key in keys if key in self.results}
            failed = {key[1]: self.failed[key] for key in keys if key in self.failed}
            pending = tuple(seed for seed in self.plan.seeds if seed not in results and seed not in failed)
            measured.append(Measured(variant.name, results, failed, pending))
        options = self.plan.base.evaluation
        return compare_variants(
            measured,
            candidates=self.candidates,
            metrics=options.metrics,
            ties=options.ties,
            seed=self.plan.base.data.seed,
            sweeps=[Sweep(path, points) for path, points in self.plan.sweeps],
        )

    def _build(self, run: PlannedRun) -> None:
        from gensr.evaluation.grouping import seed_result

        finished, start = run.finished, time.perf_counter()
        built = build(run.spec, root=self.plan.root, device=self.device, progress=self.progress.enabled)
        result = self.results[run.variant, run.seed] = seed_result(built, self.candidates)
        if not finished:
            self.durations.append(time.perf_counter() - start)
            seconds = built.manifest["seconds"]
            self.progress.note("  seconds: " + ", ".join(f"{stage} {spent:.1f}" for stage, spent in seconds.items()))
        elif result.total_seconds is not None:
            self.durations.append(result.total_seconds)

    def _fail(self, run: PlannedRun, error: Exception) -> None:
        known = isinstance(error, GensrError)
        reason = str(error) if known else f"{type(error).__name__}: {error}".removesuffix(": ")
        self.failed[run.variant, run.seed] = reason
        self.progress.note(f"  failed: {reason}")
        if not known:
            self.progress.record(traceback.format_exc())

    def _rest(self, runs: list[PlannedRun]) -> str:
        if not self.durations:
            return ""
        mean = sum(self.durations) / len(self.durations)
        return f", about {_duration(mean * sum(not run.finished for run in runs))} to go"

    def _write(self, comparison: Comparison) -> None:
        from gensr.evaluation.tables import render

        write_json(self.plan.folder / RESULTS, comparison.to_dict())
        for name, form in TABLES.items():
            write_text(self.plan.folder / name, render(comparison, form))


def _prepare(plan: Plan, progress: Progress) -> dict[str, str]:
    """Prepare the data of all variants; the candidate lists that all of them have, with their sha256.

    Raises:
        BadInputError: the data are bad, or a variant has other candidates than the base.
    """
    cache = StageCache(plan.root / ".cache")
    lists: dict[str, str] = {}
    seen = []
    for variant, spec in plan.variants:
        if spec.data in seen:
            continue
        seen.append(spec.data)
        dataset = cache.data(spec.data, progress=progress.enabled)
        own: dict[str, str] = dict(dataset.manifest["candidates"])
        if not lists:
            lists, leading = own, next(iter(own))
        if own.get(leading) != lists[leading] or any(own[name] != lists[name] for name in own if name in lists):
            raise BadInputError(
                f"{variant.flag} changes the candidates or the requests: it could not be compared with the base. "
                "Change both, with --set"
            )
        lists = {name: sha for name, sha in lists.items() if name in own}
    return lists


def _release(device: str) -> None:
    """Give back what a run held, so that the next one's peak is its own."""
    gc.collect()
    if device == "cuda":
        import torch

        torch.cuda.empty_cache()


def _duration(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60} min"
