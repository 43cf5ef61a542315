"""How long a fresh interpreter takes to have the library, or to show its help: neither may wait for torch."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from functools import partial

from gensr.bench.cases import Case, Context


def cases(context: Context) -> Iterator[Case]:
    """See `gensr.bench.cases.Suite`."""
    case = partial(Case, "imports", "a fresh interpreter", units=1, unit="starts", flops=lambda: 0)
    yield case("import torch", _fresh("import torch"), baseline=True)
    yield case("nothing", _fresh("pass"))
    yield case("import gensr", _fresh("import gensr"))
    yield case("gensr --help", _fresh("from gensr.cli.main import main; main()", "--help"))


def _fresh(code: str, *arguments: str) -> partial[object]:
    command = [sys.executable, "-c", code, *arguments]
    return partial(subprocess.run, command, check=True, stdout=subprocess.DEVNULL)
