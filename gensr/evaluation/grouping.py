"""From run directories to variants that can be compared: read, checked, grouped by spec, named by what differs."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from gensr.errors import BadInputError
from gensr.evaluation.comparison import RESAMPLES, Comparison, Measured, SeedResult, compare_variants
from gensr.evaluation.evaluator import file_name
from gensr.evaluation.metrics import Ranks
from gensr.files import undamaged
from gensr.runs import MANIFEST, METRICS, PREDICTIONS, REBUILD, Run, open_run
from gensr.spec import PipelineSpec

LONGEST_LABEL = 60


def compare(
    runs: Sequence[str | Path | Run], *, metrics: Sequence[str] | None = None, resamples: int = RESAMPLES
) -> Comparison:
    """Compare finished runs with the first one, request by request, from their stored ranks.

    Runs whose specs differ in seed and name alone are the seeds of one variant. Where rankers of several types are
    compared, the first variant of a type is named by it. Any other variant is named by what its spec changes in that of
    the first one of its type where that is short, else by its run.

    Args:
        runs: run directories, or runs; the first one is the base.
        metrics: ``recall@k``, ``ndcg@k``, ``mrr``; those of the first run's spec where absent.
        resamples: of the intervals.

    Raises:
        BadInputError: a run that is not finished; runs that ranked different candidates or requests; nothing to
            compare.
    """
    opened = [run if isinstance(run, Run) else open_run(run) for run in runs]
    if len(opened) < 2:
        raise BadInputError("give two runs or more; the first one is what the others are compared with")
    twice = [run for place, run in enumerate(opened) if run.path.resolve() in _places(opened[:place])]
    if twice:
        raise BadInputError(f"{twice[0].path} is given twice")
    for run in opened:
        _ = run.manifest  # says which run is not finished
    lists = common_lists(opened)
    groups = _grouped(opened)
    if len(groups) < 2:
        raise BadInputError(
            "these runs differ in their seed alone: they are seeds of one variant, and nothing is there to compare it "
            "with"
        )
    names = _names([group[0] for group in groups])
    variants = [
        Measured(name, {run.spec.seed: seed_result(run, lists) for run in group})
        for name, group in zip(names, groups, strict=True)
    ]
    base = opened[0]
    return compare_variants(
        variants,
        candidates=lists,
        metrics=metrics or base.metrics["metrics"],
        ties=base.metrics["ties"],
        resamples=resamples,
        seed=base.spec.data.seed,
    )


def seed_result(run: Run, lists: Mapping[str, str]) -> SeedResult:
    """The ranks of a finished run's ranker on `lists`, in full and without parts of the request, and what it cost.

    Raises:
        BadInputError: it ranked other candidates, because its data are not those that gave `lists`; or a file of it is
            damaged.
    """
    own = _lists(run)
    for name, sha in lists.items():
        if own.get(name) != sha:
            raise BadInputError(
                f"{run.path} ranked other candidates than the runs beside it: its {name} has the sha256 "
                f"{own.get(name, 'none')[:12]}, theirs {sha[:12]}. Did the data change in between? {REBUILD}"
            )
    with undamaged(run.path / METRICS, REBUILD):
        main = file_name(run.metrics["main"])
        parts = {listed: tuple(run.metrics["ablations"].get(listed, ())) for listed in lists}
    ranks = {listed: Ranks.load(run.path / PREDICTIONS / f"{listed}.{main}.npz") for listed in lists}
    withheld = {
        listed: {name: Ranks.load(run.path / PREDICTIONS / f"{listed}.{main}.{name}.npz") for name in names}
        for listed, names in parts.items()
    }
    with undamaged(run.path / MANIFEST, REBUILD):
        training, memory, seconds = (run.manifest[name] for name in ("training", "memory_mib", "seconds"))
        resumed = bool(training and training["resumed_from"])
        return SeedResult(
            ranks=ranks,
            withheld=withheld,
            path=str(run.path),
            training_seconds=training["seconds"] if training else None,
            total_seconds=None if resumed else seconds["total"],
            process_mib=memory["process"],
            gpu_mib=memory["gpu"],
            parameters=run.manifest["parameters"]["total"],
            rows_per_second=training["rows_per_second"] if training else None,
            requests_per_second=run.manifest["scoring"]["requests_per_second"],
        )


def common_lists(runs: Sequence[Run]) -> dict[str, str]:
    """Names and sha256 of the candidate lists that all runs have; the first run's leading one must be among them.

    Raises:
        BadInputError: a list of one name holds different candidates in two runs, or a run lacks the leading one.
    """
    base, *others = runs
    lists = _lists(base)
    leading = next(iter(lists))
    for run in others:
        own = _lists(run)
        for name, sha in lists.items():
            if name in own and own[name] != sha:
                raise BadInputError(
                    f"{base.path} and {run.path} cannot be compared: they ranked different candidates: {name} has the "
                    f"sha256 {sha[:12]} in the first and {own[name][:12]} in the second. Build both from the same data "
                    "section"
                )
        if leading not in own:
            raise BadInputError(
                f"{base.path} and {run.path} cannot be compared: the second has no candidates {leading!r} (it has: "
                f"{', '.join(own)})"
            )
    return {name: sha for name, sha in lists.items() if all(name in _lists(run) for run in others)}


def describe_changes(base: PipelineSpec, other: PipelineSpec) -> list[str]:
    """What differs, name and seed aside: ``soft_filter=mean``, ``no contrastive``, ``training.epochs=4``."""
    first, second = (spec.model_dump(mode="json") for spec in (base, other))
    return list(_changes(first, second, ()))


def _changes(first: Any, second: Any, path: tuple[str, ...]) -> Iterator[str]:
    if first == second or path in (("seed",), ("name",)):
        return
    both = isinstance(first, dict) and isinstance(second, dict)
    if both and first.get("type") == second.get("type"):
        for name in {**first, **second}:
            yield from _changes(first.get(name), second.get(name), (*path, name))
        return
    name = ".".join(path).removeprefix("ranker.")
    if isinstance(second, dict) and "type" in second:
        yield f"{name}={second['type']}"
    elif second is None and isinstance(first, dict):
        yield f"no {name}"
    else:
        yield f"{name}={second if isinstance(second, str) else json.dumps(second)}"


def _lists(run: Run) -> dict[str, str]:
    with undamaged(run.path / METRICS, REBUILD):
        return {name: entry["sha256"] for name, entry in run.metrics["candidates"].items()}


def _places(runs: Sequence[Run]) -> set[Path]:
    return {run.path.resolve() for run in runs}


def _grouped(runs: Sequence[Run]) -> list[list[Run]]:
    """Runs of one spec together; a spec's second run of one seed, built elsewhere, begins a variant of its own."""
    groups: list[tuple[str, list[Run]]] = []
    for run in runs:
        key = run.spec.model_copy(update={"seed": 0}).fingerprint()
        for known, group in groups:
            if known == key and run.spec.seed not in {other.spec.seed for other in group}:
                group.append(run)
                break
        else:
            groups.append((key, [run]))
    return [group for _, group in groups]


def _names(runs: Sequence[Run]) -> list[str]:
    types = [run.spec.ranker.type for run in runs]
    mixed = len(set(types)) > 1
    names: list[str] = []
    for run, kind in zip(runs, types, strict=True):
        first, folder = runs[types.index(kind)], run.path.resolve().name  # "." has a name too
        changes = ", ".join(describe_changes(first.spec, run.spec))
        if run is first:
            name = kind if mixed else folder
        elif changes and len(changes) <= LONGEST_LABEL:
            name = f"{kind}({changes})" if mixed else changes
        else:
            name = run.spec.name if run.spec.name != first.spec.name else folder
        if name in names:
            name = folder
        names.append(name if name not in names else str(run.path.resolve()))
    return names
