"""Saving and reopening the weights of a ranker."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from gensr.errors import BadInputError
from gensr.files import new_file

WEIGHTS = "weights.safetensors"


def save_weights(model: nn.Module, folder: Path) -> None:
    """Write parameters and persistent buffers into `folder`, which is made."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    with new_file(folder / WEIGHTS) as temporary:
        save_file({name: tensor.cpu().contiguous() for name, tensor in model.state_dict().items()}, temporary)


def load_weights(model: nn.Module, folder: Path) -> None:
    """Read what `save_weights` wrote.

    Raises:
        BadInputError: there is nothing, or it is of another model.
    """
    from safetensors.torch import load_file

    path = folder / WEIGHTS
    if not path.is_file():
        raise BadInputError(f"no saved ranker in {folder}: {WEIGHTS} is missing")
    try:
        model.load_state_dict(load_file(path))
    except RuntimeError as error:
        raise BadInputError(f"{path} does not fit this {type(model).__name__}: {error}") from None
