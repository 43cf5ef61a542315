"""One table in several files: finding them, and complaining about a row of the right one."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gensr.data.log import Origin
from gensr.data.sources.formats import SUFFIXES
from gensr.data.sources.text import format_suffix
from gensr.errors import BadInputError

NUMBERED = re.compile(r"([a-z]+)[-_]?(?:part[-_]?)?(\d+)(?:[-_]of[-_]\d+)?")
"""`interactions-00`, `interactions_part3`, `interactions-00000-of-00003`."""


def find_parts(folder: Path, *stems: str) -> list[Path]:
    """The files of one table in `folder`, in order; none where there are none.

    That is one file whose name starts with one of `stems`, such files numbered in their names, or all files of a folder
    of that name.

    Raises:
        BadInputError: several to choose from.
    """
    whole, numbered = [], []
    for path in sorted(folder.iterdir()):
        stem = path.name.lower().split(".")[0]
        parts = _tables(path) if path.is_dir() else _tables(folder, path)
        if stem in stems and parts:
            whole.append(path)
        elif (match := NUMBERED.fullmatch(stem)) and match[1] in stems and path.is_file() and parts:
            numbered.append((int(match[2]), match[1] + format_suffix(path), path))
    distinct = len({number for number, *_ in numbered}) == len(numbered)
    if len(whole) == 1 and not numbered:
        return _tables(whole[0]) if whole[0].is_dir() else whole
    if not whole and distinct and len({kind for _, kind, _ in numbered}) <= 1:
        return [path for *_, path in sorted(numbered)]
    names = ", ".join(path.name for path in sorted([*whole, *(path for *_, path in numbered)]))
    wanted = " or ".join(f"{stem}.*" for stem in stems)
    raise BadInputError(f"{folder} holds several {wanted}: {names}. Name the file of events as data.source.path")


def _tables(folder: Path, *paths: Path) -> list[Path]:
    """Those of `paths`, or else of the files in `folder`, that are tables, in natural order."""
    files = [
        path
        for path in paths or folder.iterdir()
        if path.is_file() and path.name[0] not in "._" and format_suffix(path) in SUFFIXES
    ]
    return sorted(files, key=lambda path: [int(t) if t.isdigit() else t for t in re.split(r"(\d+)", path.name)])


@dataclass(frozen=True)
class PartsOrigin(Origin):
    """Rows that stand in several tables, one after the other.

    Attributes:
        parts: first row and origin of each, ascending.
    """

    parts: tuple[tuple[int, Origin], ...] = ()

    def complaint(
        self, problem: str, rows: np.ndarray | Sequence[int], values: Sequence[Any] | None = None, *, expected: str = ""
    ) -> BadInputError:
        """See `Origin.complaint`; names the rows of the first table that has some."""
        rows = np.asarray(rows)
        starts = [start for start, _ in self.parts]
        part = bisect_right(starts, int(rows[0])) - 1
        end = starts[part + 1] if part + 1 < len(starts) else np.inf
        here = rows[rows < end] - starts[part]
        if others := len(rows) - len(here):
            expected = f"{others:,} more in other files. {expected}"
        shown = None if values is None else list(values)[: len(here)]
        return self.parts[part][1].complaint(problem, here, shown, expected=expected)
