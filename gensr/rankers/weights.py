"""Saving and reopening what a ranker knows: tables, and the weights of what is trained."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor, nn

from gensr.errors import BadInputError
from gensr.files import new_file

WEIGHTS = "weights.safetensors"


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write a safetensors file, whole or not at all; its folder is made."""
    from safetensors.torch import save_file

    path.parent.mkdir(parents=True, exist_ok=True)
    with new_file(path) as temporary:
        save_file({name: tensor.cpu().contiguous() for name, tensor in tensors.items()}, temporary)


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read what `write_tensors` wrote.

    Raises:
        BadInputError: there is nothing.
    """
    from safetensors.torch import load_file

    try:
        tensors: dict[str, Tensor] = load_file(path)
    except FileNotFoundError:
        raise BadInputError(f"no saved ranker in {path.parent}: {path.name} is missing") from None
    return tensors


def save_weights(model: nn.Module, folder: Path) -> None:
    """Write parameters and persistent buffers into `folder`."""
    write_tensors(folder / WEIGHTS, model.state_dict())


def load_weights(model: nn.Module, folder: Path) -> None:
    """Read what `save_weights` wrote.

    Raises:
        BadInputError: there is nothing, or it is of another model.
    """
    tensors = read_tensors(folder / WEIGHTS)
    try:
        model.load_state_dict(tensors)
    except RuntimeError as error:
        raise BadInputError(f"{folder / WEIGHTS} does not fit this {type(model).__name__}: {error}") from None
