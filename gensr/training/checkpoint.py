"""Checkpoints: everything an interrupted training needs to end with the weights of an uninterrupted one.

One folder a checkpoint, ``checkpoints/step-<n>/``: the model and the optimiser as safetensors, and ``state.json`` with
the place in the data, the early-stopping count and the SHA-256 of the two files. Written under a temporary name and
renamed, so a folder that exists is complete, and a file that fails its checksum was damaged later. No pickle anywhere.
Random states are not stored: the trainer reseeds at every update from (seed, step).
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from gensr.errors import BadInputError
from gensr.files import new_folder, write_json

MODEL, OPTIMIZER, STATE = "model.safetensors", "optimizer.safetensors", "state.json"
KEEP = 2
"""Newest checkpoints kept beside the best one."""


@dataclass
class TrainState:
    """Where a training stands, apart from its tensors.

    Attributes:
        step: updates done.
        epoch: epoch of the next batch, from 0.
        batch: batches of that epoch already used.
        batch_size: requests per update; None before that is settled.
        best: best validation score so far.
        best_step: the checkpoint that reached it.
        stale: validations since then.
        falls: how often the step size fell on a plateau.
        flat: validations without a better one since the best, or since the last fall.
        seconds: spent in updates (validations and checkpoints excluded), all sittings together.
        window: sums since the last line of the curve.
    """

    step: int = 0
    epoch: int = 0
    batch: int = 0
    batch_size: int | None = None
    best: float | None = None
    best_step: int | None = None
    stale: int = 0
    falls: int = 0
    flat: int = 0
    seconds: float = 0.0
    window: dict[str, float] = field(default_factory=dict)


def save_checkpoint(
    folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer, state: TrainState, *, fingerprint: str
) -> Path:
    """Write ``folder/step-<n>`` atomically, then drop all but the newest two and the best.

    Raises:
        GensrError: the disk is full; names the path and the bytes.
    """
    files = {MODEL: unique_tensors(model), OPTIMIZER: optimizer_tensors(optimizer, model)}
    needs = sum(tensor.nbytes for tensors in files.values() for tensor in tensors.values())
    path = checkpoint_path(folder, state.step)
    with new_folder(path, needs=needs) as temporary:
        for name, tensors in files.items():
            save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, temporary / name)
        record = {
            "fingerprint": fingerprint,
            "torch": torch.__version__,
            "state": asdict(state),
            "sha256": {name: _sha256(temporary / name) for name in files},
        }
        write_json(temporary / STATE, record)
    _prune(folder, state)
    return path


def newest_checkpoint(folder: Path) -> Path | None:
    """The complete checkpoint of the highest step, or None."""
    return max(_checkpoints(folder), key=_step, default=None)


def read_state(path: Path, *, fingerprint: str) -> TrainState:
    """The state of a checkpoint after checking that it is whole and of this run.

    Raises:
        BadInputError: it belongs to another spec or other data, or a file is missing, truncated or changed.
    """
    try:
        record = json.loads((path / STATE).read_text(encoding="utf-8"))
        stored, digests, state = record["fingerprint"], record["sha256"], TrainState(**record["state"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _damaged(path, STATE, f"{type(error).__name__}: {error}") from None
    if stored != fingerprint:
        raise BadInputError(
            f"the checkpoint {path} belongs to another spec or other data: its fingerprint is {stored}, this run's is "
            f"{fingerprint}. Use another run directory, or begin anew with `gensr build --no-resume`"
        )
    for name, digest in digests.items():
        file = path / name
        if not file.is_file():
            raise _damaged(path, name, "the file is missing")
        if _sha256(file) != digest:
            raise _damaged(path, name, f"its {file.stat().st_size:,} bytes do not have the SHA-256 in {STATE}")
    return state


def load_weights(path: Path, model: nn.Module) -> None:
    """Put a checkpoint's weights into `model`."""
    restore_tensors(model, load_file(path / MODEL))


def load_optimizer(path: Path, optimizer: torch.optim.Optimizer, model: nn.Module) -> None:
    """Put a checkpoint's optimiser state into `optimizer`, whose parameters are those of `model`."""
    moments: dict[str, dict[str, Tensor]] = {}
    for key, tensor in load_file(path / OPTIMIZER).items():
        kind, _, name = key.partition("/")
        moments.setdefault(name, {})[kind] = tensor
    names = _parameter_names(optimizer, model)
    groups = optimizer.state_dict()["param_groups"]
    state = {place: moments[name] for place, name in enumerate(names) if name in moments}
    optimizer.load_state_dict({"state": state, "param_groups": groups})


def checkpoint_path(folder: Path, step: int) -> Path:
    """Where the checkpoint after `step` updates lies."""
    return folder / f"step-{step}"


def unique_tensors(module: nn.Module) -> dict[str, Tensor]:
    """The state dict with tensors that share their memory (tied weights) named once; safetensors refuses them twice."""
    seen: set[Any] = set()
    tensors: dict[str, Tensor] = {}
    for name, tensor in module.state_dict().items():
        place = (tensor.device, tensor.data_ptr(), tensor.shape, tensor.stride())
        if tensor.numel() == 0 or place not in seen:
            seen.add(place)
            tensors[name] = tensor
    return tensors


def restore_tensors(module: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Inverse of `unique_tensors`: tied weights are filled through the one name that was written.

    Raises:
        BadInputError: the names or shapes are not those of `module`.
    """
    expected = unique_tensors(module)
    differing = sorted(
        name
        for name in expected.keys() | tensors.keys()
        if name not in expected or name not in tensors or expected[name].shape != tensors[name].shape
    )
    if differing:
        raise BadInputError(
            f"the stored weights do not fit the model: {len(differing)} of {len(expected)} tensors differ in name or "
            f"shape, the first is {differing[0]!r}. They were written by another version of a component"
        )
    module.load_state_dict(dict(tensors), strict=False)


def optimizer_tensors(optimizer: torch.optim.Optimizer, model: nn.Module) -> dict[str, Tensor]:
    """The optimiser's state, flat: ``"exp_avg/<parameter>"`` and so on. Frozen parameters have none."""
    names = _parameter_names(optimizer, model)
    state = optimizer.state_dict()["state"]
    return {f"{kind}/{names[place]}": tensor for place, item in state.items() for kind, tensor in item.items()}


def _parameter_names(optimizer: torch.optim.Optimizer, model: nn.Module) -> list[str]:
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return [names[id(parameter)] for group in optimizer.param_groups for parameter in group["params"]]


def _prune(folder: Path, state: TrainState) -> None:
    newest = sorted(_checkpoints(folder), key=_step)[-KEEP:]
    for path in _checkpoints(folder):
        if path not in newest and _step(path) != state.best_step:
            shutil.rmtree(path)
    for left in folder.glob(".step-*.tmp"):  # by a killed process
        shutil.rmtree(left)


def _checkpoints(folder: Path) -> list[Path]:
    return [path for path in folder.glob("step-*") if path.name.removeprefix("step-").isdigit()]


def _step(path: Path) -> int:
    return int(path.name.removeprefix("step-"))


def _damaged(path: Path, name: str, reason: str) -> BadInputError:
    others = sorted((p for p in _checkpoints(path.parent) if p != path), key=_step)
    earlier = f"delete {path} to resume from {others[-1].name}" if others else f"delete {path}"
    return BadInputError(
        f"the checkpoint file {path / name} is damaged: {reason}. Either {earlier}, or begin anew with "
        "`gensr build --no-resume`"
    )


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
