"""`gensr doctor`: what this installation can do, and what it lacks."""

from __future__ import annotations

import platform
import shutil
import tempfile
from importlib import metadata
from pathlib import Path
from typing import Any

import click

from gensr import __version__
from gensr.cli.base import Command
from gensr.cli.options import json_option, options, print_json, print_rows, root_option

LITTLE_SPACE = 2**30
"""Bytes under which a run's checkpoints and cache may not fit."""


@click.command("doctor", cls=Command)
@options(root_option, json_option)
@click.pass_context
def command(ctx: click.Context, root: Path, as_json: bool) -> None:
    """Look at this installation: versions, devices, extras, disk. Exit code 1 where something required is missing."""
    required, extras = _requirements()
    report: dict[str, Any] = {
        "gensr": __version__,
        "python": platform.python_version(),
        "packages": required,
        "devices": _devices() if required.get("torch", {}).get("ok") else {},
        "extras": extras,
        "runs": _disk(root),
    }
    report["problems"] = _problems(report)
    if as_json:
        print_json(report)
    else:
        _print(report)
    ctx.exit(1 if report["problems"] else 0)


def _requirements() -> tuple[dict[str, Any], dict[str, Any]]:
    """Required packages with their versions, and extras with what they lack, from gensr's own metadata."""
    from packaging.requirements import Requirement

    required: dict[str, Any] = {}
    extras: dict[str, Any] = {name: {"ok": True, "missing": []} for name in _metadata().get_all("Provides-Extra", [])}
    for line in _metadata().get_all("Requires-Dist", []):
        requirement = Requirement(line)
        found = _version(requirement.name)
        ok = found is not None and requirement.specifier.contains(found, prereleases=True)
        if requirement.marker is None:
            required[requirement.name] = {"version": found, "needs": str(requirement.specifier), "ok": ok}
        for name in extras:
            if requirement.marker and requirement.marker.evaluate({"extra": name}) and not ok:
                extras[name]["ok"] = False
                extras[name]["missing"].append(f"{requirement.name}{requirement.specifier}")
    for name, extra in extras.items():
        if not extra["ok"]:
            extra["install"] = f"pip install 'gensr[{name}]'"
    return required, extras


def _metadata() -> Any:
    return metadata.metadata("gensr")


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _devices() -> dict[str, Any]:
    import torch

    cuda = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return {
        "threads": torch.get_num_threads(),
        "cuda": cuda,
        "bf16 on cuda": bool(cuda) and torch.cuda.is_bf16_supported(),
    }


def _disk(root: Path) -> dict[str, Any]:
    existing = next(folder for folder in (root.absolute(), *root.absolute().parents) if folder.exists())
    try:
        with tempfile.TemporaryFile(dir=existing):
            writable = True
    except OSError:
        writable = False
    return {"path": str(root), "writable": writable, "free_bytes": shutil.disk_usage(existing).free}


def _problems(report: dict[str, Any]) -> list[str]:
    problems = [
        f"{name}{package['needs']} is required, "
        + (f"{package['version']} is installed" if package["version"] else "missing")
        for name, package in report["packages"].items()
        if not package["ok"]
    ]
    if not report["runs"]["writable"]:
        problems.append(f"{report['runs']['path']} cannot be written: name another folder with --root")
    return problems


def _print(report: dict[str, Any]) -> None:
    rows: list[tuple[str, ...]] = [("gensr", report["gensr"], ""), ("python", report["python"], "")]
    rows += [
        (name, package["version"] or "-", "" if package["ok"] else f"PROBLEM: needs {package['needs']}")
        for name, package in report["packages"].items()
    ]
    print_rows(rows)
    for name, value in report["devices"].items():
        click.echo(f"{name}: {', '.join(value) or 'none' if isinstance(value, list) else value}")
    click.echo("extras:")
    for name, extra in report["extras"].items():
        lack = f"lacks {', '.join(extra['missing'])}: {extra['install']}" if extra["missing"] else "ok"
        click.echo(f"  {name}: {lack}")
    disk = report["runs"]
    free = f"{disk['free_bytes'] / 2**30:.1f} GiB free"
    little = ", little for checkpoints and cached data" if disk["free_bytes"] < LITTLE_SPACE else ""
    click.echo(f"runs in {disk['path']}: {'writable' if disk['writable'] else 'NOT writable'}, {free}{little}")
    click.echo("\n".join(f"problem: {problem}" for problem in report["problems"]) or "all required parts are present")
