"""Where a spec comes from: a file or a preset, with what it extends. The mapping alone; `gensr.spec` checks it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from gensr.errors import BadInputError, MissingExtraError, did_you_mean

PRESETS = Path(__file__).parent / "presets"


def preset_names() -> list[str]:
    """Names usable as ``preset:<name>``."""
    return sorted(path.stem for path in PRESETS.glob("*.json"))


def read_spec(source: str | Path | dict[str, Any], *, _seen: tuple[Path, ...] = ()) -> dict[str, Any]:
    """The raw mapping behind a spec, its ``extends`` merged in but nothing filled."""
    folder = Path()
    if isinstance(source, dict):
        data = dict(source)
    else:
        path = _locate(str(source))
        if path in _seen:
            raise BadInputError(f"specs extend each other in a circle: {' -> '.join(str(p) for p in (*_seen, path))}")
        data, folder, _seen = _parse(path), path.parent, (*_seen, path)
    data.pop("$schema", None)  # where an editor finds `gensr spec schema`; says nothing about the run
    base = data.pop("extends", None)
    if base is None:
        return data
    if not isinstance(base, str):
        raise BadInputError(f'extends: expected a file or "preset:NAME", got {base!r}')
    return merge(read_spec(base if base.startswith("preset:") else folder / base, _seen=_seen), data)


def _locate(source: str) -> Path:
    if source.startswith("preset:"):
        name = source.removeprefix("preset:")
        path = PRESETS / f"{name}.json"
        if name not in preset_names():
            hint = did_you_mean(name, preset_names()) or "."
            raise BadInputError(f"no preset named {name!r}{hint} Known: {', '.join(preset_names())}")
        return path
    path = Path(source)
    if not path.is_file():
        if source in preset_names():
            raise BadInputError(f"no spec file {source!r}; did you mean 'preset:{source}'?")
        near = [p.name for p in path.parent.iterdir() if p.is_file()] if path.parent.is_dir() else []
        raise BadInputError(f"no spec file {source!r}{did_you_mean(path.name, near)}")
    return path.resolve()


def _parse(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8-sig")
        if path.suffix in (".yaml", ".yml"):
            try:
                import yaml
            except ModuleNotFoundError:
                raise MissingExtraError("pyyaml", "yaml", f"reading {path}") from None
            try:
                data = yaml.safe_load(text)
            except yaml.YAMLError as error:
                raise ValueError(str(error)) from None
        elif path.suffix == ".toml":
            import tomllib

            data = tomllib.loads(text)
        else:
            data = json.loads(text)
    except OSError as error:
        raise BadInputError(f"cannot read the spec {path}: {error.strerror}") from None
    except ValueError as error:
        raise BadInputError(f"{path} is no valid {path.suffix.lstrip('.') or 'JSON'}: {error}") from None
    if not isinstance(data, dict):
        raise BadInputError(f"{path}: a spec is an object, got {type(data).__name__}")
    return data


def merge(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """`over` laid on `base`, object by object; a component's options survive only while its ``type`` stays the same."""
    result = dict(base)
    for key, value in over.items():
        old = result.get(key)
        if isinstance(old, str) and isinstance(value, dict) and value.get("type", old) == old:
            old = {"type": old}
        if isinstance(old, dict) and isinstance(value, str) and old.get("type") == value:
            continue
        if isinstance(old, dict) and isinstance(value, dict) and value.get("type", old.get("type")) == old.get("type"):
            value = merge(old, value)
        result[key] = value
    return result
