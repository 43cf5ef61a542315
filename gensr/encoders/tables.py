"""Vectors that somebody else computed, read from a file and put into the order of this catalogue.

Both the collaborative and the semantic view can come from a file; what may be wrong with one is the same.
"""

from __future__ import annotations

import hashlib
import pickle
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from gensr.errors import BadInputError, did_you_mean

CHECKPOINTS = (".pt", ".pth", ".pth.tar", ".bin")
SUFFIXES = (".npy", ".safetensors", *CHECKPOINTS)
Missing = Literal["refuse", "zero"]


def hash_files(*paths: str | None) -> str:
    """sha256 of the files' contents, in this order; None stands for a file that is not given.

    Raises:
        BadInputError: a file cannot be read.
    """
    whole = hashlib.sha256()
    for path in paths:
        if path is not None:
            with _existing(path).open("rb") as file:
                whole.update(hashlib.file_digest(file, "sha256").digest())
        whole.update(b"|")
    return whole.hexdigest()


def read_vectors(path: str, *, key: str | None = None) -> np.ndarray:
    """A table of numbers [n, d] as it stands in the file; of a .npy file only the rows that are used get read.

    Args:
        path: a .npy, .safetensors or torch checkpoint file. Pickled code is never run.
        key: name of the table in a file of several; in nested checkpoints the names are joined by dots.

    Raises:
        BadInputError: the file cannot be read, its suffix or the key is unknown, or what it holds is no table.
    """
    name = _existing(path).name.lower()
    if not name.endswith(SUFFIXES):
        raise BadInputError(f"{path}: a table of vectors is a file of {', '.join(SUFFIXES)}")
    if name.endswith(".npy"):
        if key is not None:
            raise BadInputError(f"{path} holds one table without a name, so the key {key!r} says nothing: leave it out")
        table = _read_npy(path)
    else:
        tensors = _read_safetensors(path) if name.endswith(".safetensors") else _read_checkpoint(path)
        table = _chosen(path, tensors, key)
    if table.ndim != 2 or table.dtype.kind not in "fiu" or not table.shape[1]:
        raise BadInputError(
            f"{place_of(path, key)} is no table of vectors: expected numbers of shape [rows, width], "
            f"got {table.dtype} of shape {list(table.shape)}"
        )
    return table


def place_of(path: str, key: str | None) -> str:
    """A table's name in errors."""
    return f"{path} ({key})" if key else path


def read_ids(path: str) -> list[str]:
    """Raw ids, one a line.

    Raises:
        BadInputError: the file cannot be read, or an id stands in it twice.
    """
    try:
        with _existing(path).open(encoding="utf-8-sig") as file:
            ids = [line.rstrip("\n") for line in file]
    except UnicodeDecodeError as error:
        raise BadInputError(f"{path} is no text file in UTF-8: {error}") from error
    if len(set(ids)) < len(ids):
        first: dict[str, int] = {}
        for number, name in enumerate(ids, 1):
            if first.setdefault(name, number) != number:
                raise BadInputError(
                    f"{path}: the id {name!r} stands on line {first[name]} and on line {number}; "
                    "expected every id once, in the order of the table's rows"
                )
    return ids


def rows_in_order(table: np.ndarray, count: int, *, place: str, noun: str = "items") -> Tensor:
    """A table that is in the catalogue's order already, float32 [count + 1, d] with row 0 zero.

    Args:
        table: [count, d], or [count + 1, d] with a padding row in front, whatever it holds.
        count: how many there are.
        place: where the table stands, for errors.
        noun: what the rows are, for errors.

    Raises:
        BadInputError: it has another number of rows, or holds NaN or infinity.
    """
    if len(table) not in (count, count + 1):
        raise BadInputError(
            f"{place} has {len(table):,} rows, and there are {count:,} {noun}: expected {count:,} rows in their order, "
            f"or {count + 1:,} with a row of padding in front. Where the order is another one, give a file of ids"
        )
    rows = np.zeros((count + 1, table.shape[1]), np.float32)
    return _filled(rows, np.arange(1, count + 1), table[len(table) - count :], place, noun)


def rows_by_id(
    table: np.ndarray,
    ids: Sequence[str],
    wanted: Sequence[str],
    *,
    place: str,
    ids_place: str,
    missing: Missing = "refuse",
    noun: str = "items",
) -> Tensor:
    """The rows of `table` put where `wanted` has their ids, float32 [len(wanted), d] with row 0 zero.

    Args:
        table: [n, d].
        ids: raw id of each row.
        wanted: raw id by row of the catalogue; row 0 is padding.
        place: where the table stands, for errors.
        ids_place: where the ids stand, for errors.
        missing: whether an id that `ids` lacks is an error, or gets a zero row. That all are lacking is an error.
        noun: what the rows are, for errors.

    Raises:
        BadInputError: ids and rows differ in number, some or all of `wanted` have no row, or a row holds NaN or
            infinity.
    """
    if len(ids) != len(table):
        raise BadInputError(
            f"{ids_place} has {len(ids):,} ids, and {place} {len(table):,} rows: expected one id for each row"
        )
    row_of = {name: row for row, name in enumerate(ids)}
    absent = [name for name in wanted[1:] if name not in row_of]
    if absent and len(absent) == len(wanted) - 1:
        raise BadInputError(
            f"{ids_place} has none of the {len(absent):,} {noun}: it holds {_some(ids)}, the log has {_some(absent)}. "
            "Expected raw ids spelled as in the log"
        )
    if absent and missing == "refuse":
        raise BadInputError(
            f"{ids_place} lacks {len(absent):,} of {len(wanted) - 1:,} {noun}: {_some(absent)}. "
            'Add them, or set `missing` to "zero"'
        )
    found = [(row, row_of[name]) for row, name in enumerate(wanted) if row and name in row_of]
    places, sources = np.array(found, np.int64).reshape(-1, 2).T
    rows = np.zeros((len(wanted), table.shape[1]), np.float32)
    return _filled(rows, places, table[sources], place, noun)


def _filled(rows: np.ndarray, places: np.ndarray, values: np.ndarray, place: str, noun: str) -> Tensor:
    with np.errstate(over="ignore"):  # what is too large for float32 is infinite there, and told below
        rows[places] = values
    broken = places[~np.isfinite(rows[places]).all(1)]
    if len(broken):
        raise BadInputError(
            f"{place} holds NaN or infinity in the rows of {len(broken):,} {noun}, the first of them number "
            f"{broken[0]:,}: expected finite float32 numbers"
        )
    return torch.from_numpy(rows)


def _existing(path: str) -> Path:
    found = Path(path)
    if found.is_dir():
        raise BadInputError(f"{path} is a folder, not a file")
    if not found.is_file():
        near = [file.name for file in found.parent.iterdir()] if found.parent.is_dir() else []
        raise BadInputError(f"{path} does not exist{did_you_mean(found.name, near)}")
    return found


def _read_npy(path: str) -> np.ndarray:
    try:
        table: np.ndarray = np.lib.format.open_memmap(path, mode="r")  # type: ignore[no-untyped-call]
    except (ValueError, EOFError, OSError) as error:
        pickled = "Python objects" in str(error)
        reason = "it holds pickled objects, which may run code" if pickled else str(error)
        raise BadInputError(f"{path} cannot be read as a .npy file of numbers: {reason}") from error
    return table


def _read_safetensors(path: str) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        tensors: dict[str, Tensor] = load_file(path)
    except (SafetensorError, OSError) as error:
        raise BadInputError(f"{path} cannot be read as a .safetensors file: {error}") from error
    return tensors


def _read_checkpoint(path: str) -> dict[str, Tensor]:
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # beside refusals, torch raises whatever its reader of the day does
        code = re.search(r"GLOBAL (\S+)", str(error)) if isinstance(error, pickle.UnpicklingError) else None
        if code is None:
            raise BadInputError(
                f"{path} cannot be read as a torch checkpoint of tensors: it is damaged, or something else "
                f"({type(error).__name__})"
            ) from error
        raise BadInputError(
            f"{path} holds more than tensors, a pickled {code[1]!r}, and is not loaded, because pickles may run code. "
            "Save the tensors alone where it comes from: torch.save(model.state_dict(), ...), or as .safetensors"
        ) from error
    return dict(_tensors(content, ""))


def _tensors(content: Any, name: str) -> Iterable[tuple[str, Tensor]]:
    """Every plain tensor of a nested checkpoint, under the path that leads to it."""
    if isinstance(content, Tensor) and content.layout == torch.strided and not content.is_quantized:
        yield name, content.detach()
    elif isinstance(content, Mapping):
        for key, value in content.items():
            yield from _tensors(value, f"{name}.{key}" if name else str(key))


def _chosen(path: str, tensors: Mapping[str, Tensor], key: str | None) -> np.ndarray:
    tables = [name for name, tensor in tensors.items() if tensor.ndim == 2]
    if key is None:
        if len(tables) != 1:
            which = f"{len(tables)} tables: say by `key` which. They are {_some(tables)}" if tables else "no table"
            raise BadInputError(f"{path} holds {which}")
        key = tables[0]
    if key not in tensors:
        hint = did_you_mean(key, tensors) or "."
        raise BadInputError(f"{path} holds no tensor named {key!r}{hint} Tables in it: {_some(tables) or 'none'}")
    tensor = tensors[key]
    # numpy knows no bfloat16, nor the 8-bit kinds.
    return (tensor.float() if tensor.is_floating_point() else tensor).numpy()


def _some(names: Sequence[str], most: int = 5) -> str:
    """The first few names, and how many more there are."""
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return ", ".join(repr(name) for name in names[:most]) + more
