"""From a spec to a finished run: data, ranker, training, evaluation, each stage kept so that nothing is done twice."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gensr.cache import StageCache
from gensr.device import choose_device
from gensr.errors import BadInputError
from gensr.files import locked, new_folder, traceless, undamaged, write_json, write_text
from gensr.memory import peak_memory, reset_peak
from gensr.progress import Progress
from gensr.runs import CATALOGUE, MANIFEST, METRICS, MODEL, PREDICTIONS, REPORT, SPEC, Run, metric_options
from gensr.spec import PipelineSpec, load_spec

if TYPE_CHECKING:
    from gensr.data.dataset import Dataset
    from gensr.evaluation.evaluator import Evaluation
    from gensr.evaluation.measure import Measurement, Speed
    from gensr.rankers.base import Ranker, Resources
    from gensr.training.trainer import TrainingResult

LOCK, LOG = ".lock", "log.txt"
CHECKPOINTS, CURVE = "checkpoints", "history.jsonl"
CONTENTS = (SPEC, MANIFEST, METRICS, REPORT, MODEL, PREDICTIONS, CHECKPOINTS, CURVE, LOG)
"""All that a build writes into a run directory; what `force` deletes."""


def build(
    spec: str | Path | dict[str, Any] | PipelineSpec,
    *,
    root: str | Path = "runs",
    run_dir: str | Path | None = None,
    device: str = "auto",
    progress: bool = True,
    resume: bool = True,
    force: bool = False,
) -> Run:
    """Build a spec: prepare its data, train its ranker, measure it, and leave a run directory.

    What an interrupted build left is used again: prepared data, CF tables and floors' ranks from ``<root>/.cache``, the
    training from its newest checkpoint. A finished run is opened as it is.

    Args:
        spec: a spec, its file, ``"preset:NAME"`` or a mapping.
        root: folder of runs and their cache.
        run_dir: the run directory; ``<root>/<name>-<fingerprint8>`` where absent.
        device: "auto", "cpu" or "cuda".
        progress: show stages and bars on stderr.
        resume: continue from the newest checkpoint; otherwise train anew.
        force: build anew even where the run is finished or the directory holds another run.

    Raises:
        BadInputError: the spec, the data or the run directory cannot be used; nothing new is left behind.
        GensrError: training broke off, or the disk is full.
    """
    spec, root, device = load_spec(spec), Path(root), choose_device(device)
    path = Path(run_dir) if run_dir is not None else run_directory(spec, root)
    shown = Progress(enabled=progress, stages=4 if type(spec.ranker).trainable else 3)
    cache = StageCache(root / ".cache")
    with _claimed(path):
        _check_place(path)
        if not force and _finished(path, spec):
            shown.note(f"already built: {path}")
            return Run(path, device=device)
        return _Build(spec, path, cache, device, shown).run(resume=resume, force=force)


def run_directory(spec: PipelineSpec, root: str | Path = "runs") -> Path:
    """Where `build` puts the run of `spec` when it is not told another place."""
    return Path(root) / f"{spec.name}-{spec.fingerprint()[:8]}"


class _Build:
    """The stages of one build, in the order of `run`."""

    def __init__(self, spec: PipelineSpec, path: Path, cache: StageCache, device: str, progress: Progress) -> None:
        self.spec, self.path, self.cache, self.device, self.progress = spec, path, cache, device, progress
        self.files = spec.ranker.identity()  # as they are before the build
        self.started = time.perf_counter()
        reset_peak(device)

    def run(self, *, resume: bool, force: bool) -> Run:
        """Build everything; an older run is cleared only once the new one is known to have data and a ranker."""
        from gensr.evaluation.measure import Measurement

        spec, shown = self.spec, self.progress
        with shown.stage("data", f"data: {spec.data.source.type}"):
            dataset = self.cache.data(spec.data, progress=shown.enabled)
        with shown.stage("ranker", f"ranker: {spec.ranker.type}"):
            resources = self.cache.resources(spec, dataset, device=self.device, progress=shown.enabled)
            ranker = self._ranker(resources)
        measurement = Measurement(spec, dataset, lists=dataset.candidate_names, device=self.device, progress=shown)
        if force:
            _clear(self.path)
        write_text(self.path / SPEC, spec.to_json())
        shown.log_to(self.path / LOG)
        trained: TrainingResult | None = None
        if type(spec.ranker).trainable:
            with shown.stage("training", "training"):
                trained = self._train(ranker, dataset, measurement, resume=resume)
        with new_folder(self.path / MODEL) as folder:
            ranker.save(folder)
            dataset.catalogue.save(folder / CATALOGUE)
        with shown.stage("evaluation", "evaluation"):
            evaluation, speed = self._evaluate(ranker, resources, measurement)
        self._write(ranker, dataset, evaluation, trained, speed)
        shown.note(f"built: {self.path}")
        return Run(self.path, device=self.device)

    def _ranker(self, resources: Resources) -> Ranker:
        import torch

        # Components initialise themselves from the global generator.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.spec.seed)
            try:
                ranker = self.spec.ranker.build(resources)
            except ValueError as error:  # options that do not fit each other, which only the components can see
                raise BadInputError(f"ranker: {error}") from error
            return ranker.to(self.device)

    def _train(self, ranker: Ranker, dataset: Dataset, measurement: Measurement, *, resume: bool) -> TrainingResult:
        from gensr.training.trainer import train

        if not ranker.tasks & set(measurement.tasks):
            asked, able = ", ".join(self.spec.evaluation.tasks), ", ".join(task.label for task in ranker.tasks)
            raise BadInputError(
                f"evaluation.tasks is {asked}, but a ranker of type {self.spec.ranker.type!r} does {able}: no "
                "validation could choose its weights"
            )
        result = train(
            ranker,
            measurement.loader,
            self.spec.training,
            negatives=self.spec.data.train_negatives,
            seed=self.spec.seed,
            folder=self.path,
            validate=lambda: measurement.validate(ranker),
            device=self.device,
            progress=self.progress,
            # Of everything the weights depend on: the spec alone sees neither a file of events change nor a CF table
            # that was fitted anew on another machine.
            fingerprint=f"{self.spec.fingerprint()[:16]}-{dataset.fingerprint[:16]}-{_constants(ranker)}",
            resume=resume,
        )
        self.progress.note(
            f"  {result.steps:,} steps, stopped by {result.stopped}; best validation {result.selection.upper()} "
            f"{result.best:.4f} at step "
            f"{result.best_step:,}" + (f"; resumed from step {result.resumed_from:,}" if result.resumed_from else "")
        )
        return result

    def _evaluate(self, ranker: Ranker, resources: Resources, measurement: Measurement) -> tuple[Evaluation, Speed]:
        ranker.cast(self.spec.evaluation.precision)  # for good, so only now that it is saved
        with new_folder(self.path / PREDICTIONS) as folder:
            evaluation, speed = measurement.test(ranker, resources, self.cache, predictions=folder)
            evaluation.save(folder)
        return evaluation, speed

    def _write(
        self, ranker: Ranker, dataset: Dataset, evaluation: Evaluation, trained: TrainingResult | None, speed: Speed
    ) -> None:
        """Metrics, report and, last, the manifest: a run that has one is finished."""
        from gensr.evaluation.report import report

        metrics = evaluation.metrics(**metric_options(self.spec))
        write_json(self.path / METRICS, metrics)
        manifest: dict[str, Any] = {
            "fingerprint": self.spec.fingerprint(),
            "seed": self.spec.seed,
            "command": sys.argv,
            "versions": _versions(),
            "device": _device_name(self.device),
            **({"files": self.files} if self.files else {}),
            "data": {"fingerprint": dataset.fingerprint, **dataset.manifest["counts"]},
            "candidates": dict(evaluation.candidates),
            "parameters": _parameters(ranker),
            "training": None if trained is None else asdict(trained),
            "scoring": speed.summary(),
            "seconds": {**self.progress.seconds, "total": round(time.perf_counter() - self.started, 3)},
            "memory_mib": peak_memory(self.device),
        }
        facts = {name: value for name, value in manifest.items() if name not in ("command", "candidates")}
        title = f"{self.spec.name} ({self.spec.fingerprint()[:8]})"
        audit = dataset.manifest.get("audit")
        text = report(metrics, title=title, audit=audit, scale=dataset.scale, facts=facts)
        write_text(self.path / REPORT, text)
        write_json(self.path / MANIFEST, manifest)


@contextmanager
def _claimed(path: Path) -> Iterator[None]:
    """Hold the run directory against other processes; one that a failed build made and left empty goes again.

    Raises:
        BadInputError: another process holds it.
    """
    if path.exists() and not path.is_dir():
        raise BadInputError(f"{path} is a file, not a run directory")
    with traceless(path, path.parent), locked(path / LOCK, refuse=f"the run directory {path}"):
        try:
            yield
        except BaseException:
            if not (path / SPEC).exists():
                (path / LOCK).unlink()
            raise


def _check_place(path: Path) -> None:
    """Refuse a folder of other things, even with `force`, which deletes by name."""
    left = {name for name in os.listdir(path) if name.startswith(".") and name.endswith(".tmp")}  # by a killed process
    others = sorted(set(os.listdir(path)) - left - {LOCK})
    if others and SPEC not in others:
        raise BadInputError(
            f"{path} is not empty and no run directory (it holds {others[0]!r}): choose another --run-dir"
        )


def _finished(path: Path, spec: PipelineSpec) -> bool:
    """Whether `path` holds the finished run of `spec`.

    Raises:
        BadInputError: it holds another run.
    """
    from gensr.data.prepare import data_fingerprint

    if not (path / SPEC).is_file():
        return False
    there, wanted = load_spec(path / SPEC).fingerprint(), spec.fingerprint()
    if there != wanted:
        raise BadInputError(
            f"{path} holds another run: its spec has the fingerprint {there[:16]}, this one {wanted[:16]}. Choose "
            "another --run-dir, or replace it with `gensr build --force`"
        )
    if not (path / MANIFEST).is_file():
        return False
    with undamaged(path / MANIFEST, "Delete the run, or replace it with `gensr build --force`"):
        manifest = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
        built = (manifest["fingerprint"], manifest["data"]["fingerprint"], manifest.get("files", ""))
    if built != (wanted, data_fingerprint(spec.data), spec.ranker.identity()):
        raise BadInputError(
            f"{path} was built from other data, from other files, or by another version of a component; delete it, or "
            "replace it with `gensr build --force`"
        )
    return True


def _clear(path: Path) -> None:
    """Delete what builds write, and nothing else."""
    for name in CONTENTS:
        entry = path / name
        if entry.is_dir():
            shutil.rmtree(entry)
        else:
            entry.unlink(missing_ok=True)


def _versions() -> dict[str, str]:
    from importlib.metadata import version

    import gensr

    names = ("torch", "transformers", "accelerate", "numpy")
    return {"gensr": gensr.__version__, "python": platform.python_version(), **{name: version(name) for name in names}}


def _device_name(device: str) -> str:
    import torch

    if device == "cuda":
        return str(torch.cuda.get_device_name())
    return f"cpu ({platform.processor() or platform.machine()}), threads: {torch.get_num_threads()}"


def _parameters(ranker: Ranker) -> dict[str, int]:
    counts = [(parameter.numel(), parameter.requires_grad) for parameter in ranker.parameters()]
    trainable = sum(count for count, trained in counts if trained)
    total = sum(count for count, _ in counts)
    return {"total": total, "trainable": trainable, "frozen": total - trainable}


def _constants(ranker: Ranker) -> str:
    """Hash of what training reads and never changes: CF tables, token ids."""
    digest = hashlib.sha256()
    for name, buffer in ranker.named_buffers():
        digest.update(name.encode())
        digest.update(buffer.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]
