"""The one training loop: any trainable ranker, on `accelerate`, repeatable and resumable to the bit on CPU.

Everything random at update n derives from (seed, n) and the order of the data from (seed, epoch), so a checkpoint needs
no random states and validation cannot disturb training.
"""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn

from gensr.compilation import Compiler
from gensr.errors import BadInputError, GensrError
from gensr.progress import Bar, Progress
from gensr.rankers.base import Losses, Ranker
from gensr.training.checkpoint import (
    TrainState,
    checkpoint_path,
    load_optimizer,
    load_weights,
    newest_checkpoint,
    read_state,
    save_checkpoint,
)
from gensr.training.footprint import PROBE, Footprint, automatic_batch_size, measure
from gensr.training.optimizer import build_optimizer
from gensr.training.prefetch import prefetched
from gensr.training.schedule import on_plateau, step_size_factor
from gensr.training.sitting import Curve, Interrupt, accelerating, reproducible, reseed

if TYPE_CHECKING:
    from accelerate import Accelerator

    from gensr.data.batch import Batch
    from gensr.data.loader import RequestLoader
    from gensr.spec import TrainingSpec

CHECKPOINTS, CURVE = "checkpoints", "history.jsonl"
Scores = Mapping[str, Mapping[str, float]]
"""What a validation found: by metric, then by task."""


@dataclass(frozen=True)
class TrainingResult:
    """What `train` did; the ranker holds the best weights.

    Attributes:
        steps: updates done, all sittings together.
        stopped: "epochs", "max_steps" or "patience".
        best_step: the update whose weights the ranker now holds.
        selection: the metric that chose it.
        best: its mean over tasks at that validation.
        seconds: spent in updates.
        rows_per_second: (request, candidate) pairs per second of updates in this sitting; None where it did none.
        resumed_from: the checkpoint's step this sitting began with, or None.
        batch_size: requests per update.
        memory_mib: what was told about memory before the first update, see `Footprint.mib`; None where nothing was left
            to do.
    """

    steps: int
    stopped: str
    best_step: int
    selection: str
    best: float
    seconds: float
    rows_per_second: float | None
    resumed_from: int | None
    batch_size: int
    memory_mib: dict[str, float] | None


def train(
    ranker: Ranker,
    loader: RequestLoader,
    spec: TrainingSpec,
    *,
    negatives: int,
    seed: int,
    folder: Path,
    validate: Callable[[], Scores],
    device: str = "cpu",
    progress: Progress | None = None,
    fingerprint: str = "",
    resume: bool = True,
) -> TrainingResult:
    """Train `ranker` in place and leave it with the weights of its best validation.

    Args:
        ranker: a trainable ranker.
        loader: supplies the training batches.
        spec: steps, step sizes, precision, early stopping, checkpoints.
        negatives: uniform negatives beside each positive, where the ranker does not say.
        seed: order, negatives, dropout. Two runs of one seed are equal bit for bit on CPU.
        folder: the run directory; receives ``checkpoints/`` and ``history.jsonl``.
        validate: metrics by task of the ranker as it is, `spec.selection` among them.
        device: "cpu", "cuda" or "cuda:1".
        progress: where to tell how it goes; nowhere where absent.
        fingerprint: of everything the weights depend on; a checkpoint of another one is refused.
        resume: continue from the newest checkpoint; otherwise begin anew and drop what is there.

    Raises:
        BadInputError: a checkpoint is damaged or of another run; there is nothing to train on; fp16 is asked for, or
            something of the ranker that it cannot do; no batch fits the memory.
        GensrError: loss or gradient is not finite, or the disk is full; good checkpoints stay.
        KeyboardInterrupt: Ctrl-C or SIGTERM, after a checkpoint at the next step boundary.
    """
    if spec.precision == "fp16":
        raise BadInputError("training.precision fp16 needs loss scaling, which gensr does not do; use bf16 or fp32")
    if loader.steps_per_epoch(1, ranker.examples) == 0:
        asked = " or ".join(task.label for task in sorted(ranker.examples.tasks))
        raise BadInputError(
            f"there are no training requests of {asked}: every event is held out, or none is of that task; users need "
            "more than two events of a task"
        )
    shown = progress if progress is not None else Progress(enabled=False)
    with ExitStack() as stack:
        stack.enter_context(reproducible(device))
        accelerator = stack.enter_context(accelerating(spec.precision, device))
        interrupt = stack.enter_context(Interrupt())
        if spec.gradient_checkpointing:
            ranker.checkpoint_activations()
        loop = _Loop(ranker, spec, accelerator, folder, fingerprint, shown, seed=seed, negatives=negatives)
        resumed = loop.resume(from_checkpoint=resume)
        loop.plan(loader, device=device)
        if spec.compile:
            ranker.compile_with(Compiler(shown.note, option="training.compile"))
        loop.bar = stack.enter_context(shown.bar("training", loop.total, done=loop.state.step))
        while not loop.finished:
            for batch in prefetched(loop.rest_of_epoch(loader), device=device):
                loop.update(batch)
                loop.after_update(validate, interrupt)
                if loop.finished:
                    break
        loop.take_best()
    return loop.result(resumed)


class _Objective(nn.Module):
    """The ranker's loss as a forward pass: what `accelerate` wraps for precision."""

    def __init__(self, ranker: Ranker) -> None:
        super().__init__()
        self.ranker = ranker

    def forward(self, batch: Batch) -> Losses:
        return self.ranker.loss(batch)


class _Loop:
    """The state of one training and the actions on it; `train` is their order."""

    def __init__(
        self,
        ranker: Ranker,
        spec: TrainingSpec,
        accelerator: Accelerator,
        folder: Path,
        fingerprint: str,
        progress: Progress,
        *,
        seed: int,
        negatives: int,
    ) -> None:
        self.ranker, self.spec, self.accelerator, self.fingerprint = ranker, spec, accelerator, fingerprint
        self.progress, self.seed = progress, seed
        self.examples, self.negatives = ranker.examples, ranker.examples.negatives or negatives
        self.steps_per_epoch = self.total = 0  # until `plan`
        self.footprint: Footprint | None = None
        self.checkpoints = folder / CHECKPOINTS
        self.curve = Curve(folder / CURVE)
        self.base_rate_entropy = binary_entropy(1 / (1 + self.negatives))
        self.objective, self.optimizer = accelerator.prepare(_Objective(ranker), build_optimizer(ranker, spec))
        self.parameters = [parameter for parameter in ranker.parameters() if parameter.requires_grad]
        self.state = TrainState()
        self.saved: int | None = None
        self.rows, self.seconds = 0, 0.0
        self.bar: Bar  # once it is known how many updates there are
        ranker.train()

    @property
    def exhausted(self) -> bool:
        return self.spec.patience > 0 and self.state.stale >= self.spec.patience

    @property
    def finished(self) -> bool:
        return self.exhausted or self.state.step >= self.total

    def resume(self, *, from_checkpoint: bool) -> int | None:
        """Continue from the newest checkpoint and return its step; None where there is none, or none is wanted."""
        newest = newest_checkpoint(self.checkpoints) if from_checkpoint else None
        if newest is None:
            self._clear()
            return None
        self.state = read_state(newest, fingerprint=self.fingerprint)
        load_weights(newest, self.ranker)
        load_optimizer(newest, self.optimizer, self.ranker)
        self.curve.cut(self.state.step)
        self.saved = self.state.step
        return self.state.step

    def plan(self, loader: RequestLoader, *, device: str) -> None:
        """Settle the batch size, and with it how many updates there are; say what memory they will need.

        Raises:
            BadInputError: the batch size is "auto", and none fits.
        """
        size = self.state.batch_size or self.spec.batch_size  # a resumed training keeps the size that it began with
        if size != "auto":
            self._settle(loader, size)
            if self.finished:
                return
        few = next(self._epoch(loader, PROBE if size == "auto" else min(PROBE, size))).to(self.accelerator.device)
        reseed(self.seed, self.state.step)
        self.footprint = measure(self.objective, self.optimizer, few, device=device)
        if size == "auto":
            size = automatic_batch_size(self.footprint)
            self._settle(loader, size)
        self.progress.note(self.footprint.describe(size))

    def rest_of_epoch(self, loader: RequestLoader) -> Iterator[Batch]:
        """The batches of the current epoch that have not been used."""
        assert self.state.batch_size is not None
        return self._epoch(loader, self.state.batch_size, skip=self.state.batch)

    def update(self, batch: Batch) -> None:
        """One optimiser step on `batch`.

        Raises:
            GensrError: loss or gradient norm is not finite; the weights are as before the step.
        """
        start = time.perf_counter()
        reseed(self.seed, self.state.step)
        self._set_step_size()
        losses: Losses = self.objective(batch.to(self.accelerator.device))
        self.accelerator.backward(losses.total)
        norm = self.accelerator.clip_grad_norm_(self.parameters, self.spec.clip_norm or math.inf)
        values = {"loss": losses.total, **losses.parts, "grad_norm": norm}
        # One transfer for all of them; the only wait for the device in an update.
        numbers = torch.stack([torch.as_tensor(v).detach().double().reshape(()) for v in values.values()]).tolist()
        logged = dict(zip(values, numbers, strict=True))
        if not (math.isfinite(logged["loss"]) and math.isfinite(logged["grad_norm"])):
            raise self._not_finite(logged, batch)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self._count(logged, batch, time.perf_counter() - start)

    def after_update(self, validate: Callable[[], Scores], interrupt: Interrupt) -> None:
        """Log, validate, checkpoint and heed an interrupt, where each is due."""
        step, every = self.state.step, self.spec.checkpoint_every
        if step % self.spec.log_every == 0 or step >= self.total:
            self._log()
        validation_due = step % (self.spec.evaluate_every or self.steps_per_epoch) == 0 or step >= self.total
        if validation_due:
            self._validate(validate)
        if validation_due or (every and step % every == 0) or interrupt.wished:
            self._save()
        if interrupt.wished:
            raise KeyboardInterrupt(f"interrupted at step {step}; the checkpoint is complete")

    def take_best(self) -> None:
        """Give the ranker the weights of the best validation."""
        best = self.state.best_step
        if best is not None and best != self.state.step:
            path = checkpoint_path(self.checkpoints, best)
            read_state(path, fingerprint=self.fingerprint)
            load_weights(path, self.ranker)
        self.ranker.eval()

    def result(self, resumed: int | None) -> TrainingResult:
        if self.exhausted:
            stopped = "patience"
        else:
            stopped = "max_steps" if self.state.step == self.spec.max_steps else "epochs"
        assert self.state.best is not None
        assert self.state.best_step is not None
        assert self.state.batch_size is not None
        return TrainingResult(
            steps=self.state.step,
            stopped=stopped,
            best_step=self.state.best_step,
            selection=self.spec.selection,
            best=self.state.best,
            seconds=round(self.state.seconds, 3),
            rows_per_second=round(self.rows / self.seconds, 1) if self.seconds else None,
            resumed_from=resumed,
            batch_size=self.state.batch_size,
            memory_mib=self.footprint.mib(self.state.batch_size) if self.footprint is not None else None,
        )

    def _epoch(self, loader: RequestLoader, size: int, *, skip: int = 0) -> Iterator[Batch]:
        return loader.epoch(
            seed=self.seed,
            epoch=self.state.epoch,
            batch_size=size,
            negatives=self.negatives,
            examples=self.examples,
            fresh=self.spec.fresh_negatives,
            skip=skip,
        )

    def _settle(self, loader: RequestLoader, size: int) -> None:
        self.state.batch_size = size
        self.steps_per_epoch = loader.steps_per_epoch(size, self.examples)
        longest = self.spec.epochs * self.steps_per_epoch
        self.total = min(self.spec.max_steps or longest, longest)

    def _clear(self) -> None:
        """Forget earlier sittings."""
        if self.checkpoints.exists():
            shutil.rmtree(self.checkpoints)
        self.checkpoints.mkdir(parents=True)
        self.curve.cut(0)

    def _set_step_size(self) -> None:
        spec = self.spec
        factor = step_size_factor(self.state.step, warmup=spec.warmup_steps, total=self.total, schedule=spec.schedule)
        for group in self.optimizer.param_groups:
            group["lr"] = on_plateau(spec.learning_rate, self.state.falls) * factor

    def _count(self, logged: dict[str, float], batch: Batch, seconds: float) -> None:
        rows = batch.num_scored
        self.rows, self.seconds = self.rows + rows, self.seconds + seconds
        state = self.state
        state.step, state.batch, state.seconds = state.step + 1, state.batch + 1, state.seconds + seconds
        if state.batch == self.steps_per_epoch:
            state.epoch, state.batch = state.epoch + 1, 0
        sums = {**logged, "_steps": 1.0, "_rows": rows, "_requests": len(batch), "_seconds": seconds}
        for name, value in sums.items():
            state.window[name] = state.window.get(name, 0.0) + value
        self.bar.advance()

    def _log(self) -> None:
        window, self.state.window = self.state.window, {}
        steps, seconds = window["_steps"], window["_seconds"]
        means = {name: value / steps for name, value in window.items() if not name.startswith("_")}
        norm = means.pop("grad_norm")
        self.curve.write(
            kind="train",
            step=self.state.step,
            epoch=self._epochs(),
            losses={name: round(value, 6) for name, value in means.items()},
            base_rate_entropy=round(self.base_rate_entropy, 6),
            grad_norm=round(norm, 6),
            learning_rate=self.optimizer.param_groups[0]["lr"],
            rows_per_second=round(window["_rows"] / seconds, 1),
            requests_per_second=round(window["_requests"] / seconds, 1),
        )
        best = "" if self.state.best is None else f", best {self._selection} {self.state.best:.4f}"
        self.bar.say(f"loss {means['loss']:.4f}{best}")

    def _validate(self, validate: Callable[[], Scores]) -> None:
        self.bar.say("validating")
        found = validate()
        self.ranker.train()
        scores = found[self.spec.selection]
        if not scores:
            raise GensrError("validation has no requests, so the best weights cannot be chosen")
        mean, state = _mean(scores), self.state
        better = state.best is None or mean > state.best
        if better:
            state.best, state.best_step, state.stale, state.flat = mean, state.step, 0, 0
        else:
            state.stale, state.flat = state.stale + 1, state.flat + 1
        if self.spec.schedule == "plateau" and state.flat > self.spec.plateau_patience:
            state.falls, state.flat = state.falls + 1, 0
        rounded = {
            name: {task: round(value, 6) for task, value in {**by_task, "mean": _mean(by_task)}.items()}
            for name, by_task in found.items()
        }
        self.curve.write(kind="validation", step=state.step, epoch=self._epochs(), best=better, **rounded)
        shown = ", ".join(f"{task} {value:.4f}" for task, value in {**scores, "mean": mean}.items())
        self.progress.note(
            f"  step {state.step:,} of {self.total:,}: validation {self._selection} {shown}" + (" (best)" * better)
        )

    def _save(self) -> None:
        save_checkpoint(self.checkpoints, self.ranker, self.optimizer, self.state, fingerprint=self.fingerprint)
        self.saved = self.state.step

    @property
    def _selection(self) -> str:
        return self.spec.selection.upper()

    def _epochs(self) -> float:
        return round(self.state.step / self.steps_per_epoch, 4)

    def _not_finite(self, logged: dict[str, float], batch: Batch) -> GensrError:
        values = ", ".join(f"{name} {value:.6g}" for name, value in logged.items())
        ids = batch.request.tolist()
        named = ", ".join(map(str, ids[:5])) + (f" and {len(ids) - 5} more" if len(ids) > 5 else "")
        kept = (
            "no checkpoint was written yet" if self.saved is None else f"the checkpoint of step {self.saved} is intact"
        )
        return GensrError(
            f"training broke off at step {self.state.step + 1} (epoch {self.state.epoch}): loss or gradient is not "
            f"finite ({values}). Requests of the batch: {named}; {kept}. Try a smaller training.learning_rate"
            + (", or precision fp32" if self.spec.precision != "fp32" else "")
        )


def _mean(scores: Mapping[str, float]) -> float:
    return sum(scores.values()) / len(scores)


def binary_entropy(p: float) -> float:
    """H(p) in nats: the task loss of a model that knows nothing but the share of positives."""
    return -p * math.log(p) - (1 - p) * math.log(1 - p)
