"""Installed packages with plug-ins in them, as far as Python's own metadata can tell."""

from __future__ import annotations

import sys
import textwrap

CONFIG = """
    from typing import Literal
    from {home} import {base}

    class Config({base}):
        type: Literal["{type}"] = "{type}"
"""


def install(monkeypatch, folder, package, kind, points, **modules):
    """Put `package` on the path: entry points by name in the group of `kind`, and the text of each module."""
    info = folder / f"{package.replace('-', '_')}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
    lines = [f"{name} = {value}" for name, value in points.items()]
    (info / "entry_points.txt").write_text("\n".join([f"[gensr.{kind}]", *lines, ""]))
    for name, text in modules.items():
        (folder / f"{name}.py").write_text(textwrap.dedent(text))
    monkeypatch.syspath_prepend(folder)
    for name in modules:  # one of the same name that another test imported is not this one
        monkeypatch.delitem(sys.modules, name, raising=False)


def config(home, base, type):
    """The text of a module with one config class, `Config`, called `type`."""
    return CONFIG.format(home=home, base=base, type=type)
