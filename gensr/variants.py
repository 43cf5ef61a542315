"""What an ablation will do, as data: variants of a base spec as edits of it, checked before anything runs."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from gensr.edits import SUITES, Edit, apply_edits, parse_drop, parse_grid, parse_swap, value_at
from gensr.errors import BadInputError, did_you_mean
from gensr.pipeline import run_directory
from gensr.runs import MANIFEST
from gensr.spec import PipelineSpec

BASE = "base"
LONGEST_NAME = 40
HOW = "give --drop SLOT, --swap SLOT=NAME, --grid PATH=VALUE,VALUE or --suite paper; --set changes the base itself"


@dataclass(frozen=True)
class Variant:
    """A change to the base.

    Attributes:
        name: what tables call it.
        edits: the change; none is the base.
        flag: how it was asked for, for messages.
    """

    name: str
    edits: tuple[Edit, ...] = ()
    flag: str = ""


@dataclass(frozen=True)
class Grid:
    """One sweep over an option: its values, and the variant of each."""

    path: str
    points: tuple[tuple[Any, Variant], ...]


@dataclass(frozen=True)
class PlannedRun:
    """One build: which variant, its seed, its spec, its run directory."""

    variant: str
    seed: int
    spec: PipelineSpec
    path: Path

    @property
    def finished(self) -> bool:
        """Whether its directory holds a finished run."""
        return (self.path / MANIFEST).is_file()


@dataclass(frozen=True)
class Plan:
    """What an ablation will do.

    Attributes:
        base: the spec without a change.
        variants: the base first, each with its spec.
        seeds: of the runs.
        sweeps: by option, its values and the names of their variants.
        root: folder of the runs and their cache.
        remarks: variants that turned out to be the same as others.
    """

    base: PipelineSpec
    variants: tuple[tuple[Variant, PipelineSpec], ...]
    seeds: tuple[int, ...]
    sweeps: tuple[tuple[str, tuple[tuple[Any, str], ...]], ...]
    root: Path
    remarks: tuple[str, ...] = ()

    @cached_property
    def runs(self) -> list[PlannedRun]:
        """All builds in their order: all variants of the first seed, then of the next."""
        found = []
        for seed in self.seeds:
            for variant, spec in self.variants:
                seeded = spec.model_copy(update={"seed": seed})
                found.append(PlannedRun(variant.name, seed, seeded, run_directory(seeded, self.root)))
        return found

    @cached_property
    def folder(self) -> Path:
        """Where tables and the plan go: ``<root>/ablations/<name>-<hash8>``."""
        prints = [(variant.name, spec.fingerprint()) for variant, spec in self.variants]
        digest = hashlib.sha256(json.dumps([prints, self.seeds, self.sweeps]).encode()).hexdigest()
        return self.root / "ablations" / f"{self.base.name}-{digest[:8]}"

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "base": self.base.model_dump(mode="json"),
            "seeds": list(self.seeds),
            "variants": [
                {"name": variant.name, "flag": variant.flag, "fingerprint": spec.fingerprint()}
                | {"edits": [str(edit) for edit in variant.edits]}
                for variant, spec in self.variants
            ],
            "runs": [
                {"variant": run.variant, "seed": run.seed, "fingerprint": run.spec.fingerprint(), "path": str(run.path)}
                for run in self.runs
            ],
            "sweeps": [{"path": path, "points": [list(point) for point in points]} for path, points in self.sweeps],
            "remarks": list(self.remarks),
        }


def read_variants(*, suite: str | None, drops: Iterable[str], swaps: Iterable[str]) -> list[Variant]:
    """The variants of a suite, of each ``--drop`` and of each ``--swap``, in this order.

    Raises:
        BadInputError: an unknown suite, or a flag that cannot be read.
    """
    return [*_suite_variants(suite), *_drop_variants(drops), *_swap_variants(swaps)]


def _suite_variants(name: str | None) -> list[Variant]:
    """The variants of a suite; none where there is no name."""
    if name is None:
        return []
    if name not in SUITES:
        raise BadInputError(f"no suite named {name!r}{did_you_mean(name, SUITES) or '.'} Known: {', '.join(SUITES)}")
    return [
        Variant(title, tuple(parse_drop(slots)), f"--suite {name} ({title}: --drop {slots})")
        for title, slots in SUITES[name].items()
    ]


def _drop_variants(texts: Iterable[str]) -> list[Variant]:
    """One variant a ``--drop``."""
    return [_variant(parse_drop(text), f"--drop {text}") for text in texts]


def _swap_variants(texts: Iterable[str]) -> list[Variant]:
    """One variant a ``--swap``; a name too long for a table leaves options out, unless another then has the same."""
    variants = [_variant(parse_swap(text), f"--swap {text}") for text in texts]
    short = [v.name if len(v.name) <= LONGEST_NAME else _name(v.edits, options=False) for v in variants]
    return [
        replace(variant, name=name) if short.count(name) == 1 else variant
        for variant, name in zip(variants, short, strict=True)
    ]


def read_grids(texts: Iterable[str]) -> list[Grid]:
    """One sweep a ``--grid``."""
    found = []
    for text in texts:
        path, edits = parse_grid(text)
        found.append(Grid(path, tuple((_json(e.value), _variant([e], f"--grid {path}={e.value}")) for e in edits)))
    return found


def make_plan(
    base: PipelineSpec,
    variants: Sequence[Variant],
    grids: Sequence[Grid] = (),
    *,
    seeds: int = 1,
    root: str | Path = "runs",
) -> Plan:
    """Check every variant, merge those that are the same, and put them in order.

    Raises:
        BadInputError: nothing to ablate, or a variant that is no valid spec, changes nothing, or changes the seed or
            how runs are measured; names its flag.
    """
    if not variants and not grids:
        raise BadInputError(f"nothing to ablate: {HOW}")
    if seeds < 1:
        raise BadInputError(f"seeds: expected 1 or more, got {seeds}")
    names = {base.fingerprint(): BASE}
    kept: list[tuple[Variant, PipelineSpec]] = [(Variant(BASE), base)]
    remarks: list[str] = []

    def keep(variant: Variant, *, may_be_base: bool) -> str:
        spec = _checked(base, variant)
        known = names.get(spec.fingerprint())
        if known == BASE and not may_be_base:
            raise BadInputError(f"{variant.flag} changes nothing: the base is so already")
        if known is not None:
            remarks.append(f"{variant.flag} is the same as {known}: built once")
            return known
        names[spec.fingerprint()] = variant.name
        kept.append((variant, spec))
        return variant.name

    for variant in variants:
        keep(variant, may_be_base=False)
    sweeps = []
    for grid in grids:
        points = [(value, keep(variant, may_be_base=True)) for value, variant in grid.points]
        sweeps.append((grid.path, tuple(_with_base(base, grid, points))))
    if len(kept) == 1:
        raise BadInputError(f"{', '.join(remarks)}. Nothing is left to ablate: {HOW}")
    return Plan(
        base,
        tuple(kept),
        tuple(range(base.seed, base.seed + seeds)),
        tuple(sweeps),
        Path(root),
        tuple(dict.fromkeys(remarks)),
    )


def _variant(edits: Sequence[Edit], flag: str) -> Variant:
    return Variant(_name(edits), tuple(edits), flag)


def _name(edits: Sequence[Edit], *, options: bool = True) -> str:
    return ", ".join(_describe(edit, options=options) for edit in edits)


def _describe(edit: Edit, *, options: bool) -> str:
    path = edit.path.removeprefix("ranker.")
    if edit.kind == "drop":
        return f"no {path}"
    if isinstance(edit.value, dict):
        given = {name: value for name, value in edit.value.items() if name != "type"}
        inner = ", ".join(f"{name}={json.dumps(value, separators=(',', ':'))}" for name, value in given.items())
        inner = inner if options or not inner else "..."
        return f"{path}={edit.value['type']}" + (f"({inner})" if inner else "")
    return f"{path}={edit.value}"


def _checked(base: PipelineSpec, variant: Variant) -> PipelineSpec:
    spec = apply_edits(base, variant.edits, origin=variant.flag)
    if spec.seed != base.seed:
        raise BadInputError(f"{variant.flag} changes the seed, which makes no variant: give --seeds N")
    if spec.evaluation != base.evaluation:  # one table has one way to measure
        raise BadInputError(
            f"{variant.flag} changes how runs are measured: it could not be compared with the base. Change both, with "
            "--set"
        )
    return spec


def _with_base(base: PipelineSpec, grid: Grid, points: list[tuple[Any, str]]) -> list[tuple[Any, str]]:
    """The points of a sweep, the base's own among them, in the order of numbers where they are numbers."""
    own = value_at(base, grid.path)
    by_name = {name: value for value, name in points}
    if own is not None:
        by_name.setdefault(BASE, own.get("type") if isinstance(own, dict) else own)
    found = [(value, name) for name, value in by_name.items()]
    numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value, _ in found)
    return sorted(found, key=lambda point: point[0]) if numbers else found


def _json(value: str) -> Any:
    try:
        return json.loads(value)
    except ValueError:
        return value
