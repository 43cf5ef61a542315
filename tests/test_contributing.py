"""The walk-through in CONTRIBUTING.md shows lines that exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
BLOCKS = re.findall(r"```python\n# (\S+)\n(.*?)```", (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"), re.DOTALL)


@pytest.mark.parametrize(("path", "block"), BLOCKS, ids=[path for path, _ in BLOCKS])
def test_the_walk_through_shows_lines_as_they_stand_and_in_their_order(path, block):
    lines = iter((ROOT / path).read_text(encoding="utf-8").splitlines())
    for shown in filter(None, block.splitlines()):
        assert shown in lines, f"{path} has no line {shown!r}, or earlier"


def test_the_walk_through_shows_config_module_and_test():
    assert [path.split("/")[0] for path, _ in BLOCKS] == ["gensr", "gensr", "tests"]
