"""Tensors in tuples, lists and dicts of one another, whoever's they are: what a kept state is made of."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeVar, cast

from torch import Tensor

T = TypeVar("T")


def map_tensors(function: Callable[[Tensor], Tensor], value: T) -> T:
    """`value` with `function` applied to every tensor in it; tuples (named ones, too), lists and dicts are walked."""
    found: object = value
    if isinstance(value, Tensor):
        found = function(value)
    elif isinstance(value, dict):
        found = {key: map_tensors(function, inner) for key, inner in value.items()}
    elif isinstance(value, tuple | list):
        inside = (map_tensors(function, inner) for inner in value)
        found = type(value)(*inside) if hasattr(value, "_fields") else type(value)(inside)
    return cast(T, found)


def tensors(value: object) -> Iterator[Tensor]:
    """The tensors in `value`, in the order of `map_tensors`."""
    found: list[Tensor] = []

    def note(tensor: Tensor) -> Tensor:
        found.append(tensor)
        return tensor

    map_tensors(note, value)
    return iter(found)


def nbytes(value: object) -> int:
    """Memory that `value` keeps alive: the distinct storages behind its tensors, whole even where a part is used."""
    storages = (tensor.untyped_storage() for tensor in tensors(value))
    return sum({storage.data_ptr(): storage.nbytes() for storage in storages}.values())
