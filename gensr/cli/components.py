"""`gensr components`: what a spec can name, read from the config classes themselves."""

from __future__ import annotations

import inspect
import json
from typing import Any

import click
from pydantic.fields import FieldInfo
from pydantic_core import to_jsonable_python

from gensr.cli.base import Command
from gensr.cli.options import json_option, options, print_json, print_rows
from gensr.errors import BadInputError, did_you_mean
from gensr.rankers.config import RankerConfig
from gensr.registry import ComponentConfig, Registry, Section, section_of, slot_of


@click.command("components", cls=Command)
@click.argument("kind", required=False)
@click.argument("name", required=False)
@options(json_option)
def command(kind: str | None, name: str | None, as_json: bool) -> None:
    """List the parts a spec can name: all kinds, one KIND with options, or one component of it with everything known.

    A plug-in that cannot be used is listed with the reason.
    """
    found = {kind: _describe_kind(registry) for kind, registry in _registries(kind).items()}
    if kind and name:
        if name not in found[kind]:
            Registry.all[kind].get(name)  # says which names are known
        found[kind] = {name: found[kind][name]}
    if as_json:
        print_json(found)
    elif kind and name:
        _print_component(kind, name, found[kind][name])
    elif kind:
        _print_kind(found[kind])
    else:
        _print_kinds(found)


def _registries(kind: str | None) -> dict[str, Registry[Any]]:
    import gensr.spec  # noqa: F401 -- defines every kind

    if kind is None:
        return dict(sorted(Registry.all.items()))
    if kind not in Registry.all:
        hint = did_you_mean(kind, Registry.all) or "."
        raise BadInputError(f"no kind of component named {kind!r}{hint} Known: {', '.join(sorted(Registry.all))}")
    return {kind: Registry.all[kind]}


def _describe_kind(registry: Registry[Any]) -> dict[str, dict[str, Any]]:
    broken, found = registry.broken(), {}
    for name in registry.names():
        try:
            found[name] = _describe(registry.get(name))
        except BadInputError:
            found[name] = {}
        if name in broken:
            found[name]["broken"] = broken[name]
    return found


def _describe(cls: type[ComponentConfig]) -> dict[str, Any]:
    return {
        "doc": inspect.cleandoc(cls.__doc__ or ""),
        "reference": cls.reference,
        "revision": cls.revision,
        "options": _options_of(cls),
        **({"training": dict(cls.training)} if issubclass(cls, RankerConfig) and cls.training else {}),
    }


def _options_of(cls: type[Section], prefix: str = "") -> dict[str, dict[str, Any]]:
    schemas, found = cls.model_json_schema().get("properties", {}), {}
    for name, field in cls.model_fields.items():
        if name == "type":
            continue
        doc = " ".join((field.description or "").split())
        found[prefix + name] = {"type": _option_type(field, schemas.get(name, {})), **_default(field), "doc": doc}
        section = section_of(field)
        if section and not slot_of(field):
            found |= _options_of(section, f"{prefix}{name}.")
    return found


def _default(field: FieldInfo) -> dict[str, Any]:
    if field.is_required():
        return {}
    default = field.get_default(call_default_factory=True, validated_data={})
    if isinstance(default, ComponentConfig):
        return {"default": default.type}
    return {"default": to_jsonable_python(default)}


def _option_type(field: FieldInfo, schema: dict[str, Any]) -> str:
    slot = slot_of(field)
    if slot is None:
        return schema_type(schema)
    return ("list of " if slot.many else "") + slot.registry.kind + (" or null" if slot.nullable else "")


def schema_type(schema: dict[str, Any]) -> str:
    """A JSON schema in a few words: ``integer > 0 or null``, ``one of pooled, sequence``."""
    if "anyOf" in schema:
        return " or ".join(schema_type(option) for option in schema["anyOf"])
    if "enum" in schema:
        return f"one of {', '.join(map(str, schema['enum']))}"
    if "const" in schema:
        return str(schema["const"])
    if "$ref" in schema:
        return "object"
    if "prefixItems" in schema:
        return f"list of {len(schema['prefixItems'])}"
    if schema.get("type") == "array":
        return f"list of {schema_type(schema.get('items', {}))}"
    signs = {"exclusiveMinimum": ">", "minimum": ">=", "exclusiveMaximum": "<", "maximum": "<="}
    limits = [f"{sign} {schema[key]}" for key, sign in signs.items() if key in schema]
    return f"{schema.get('type', 'any')} {' and '.join(limits)}".strip()


def _print_kinds(found: dict[str, dict[str, dict[str, Any]]]) -> None:
    for kind, members in found.items():
        click.echo(kind)
        print_rows([(name, _first_line(entry)) for name, entry in members.items()], indent="  ")


def _print_kind(members: dict[str, dict[str, Any]]) -> None:
    for name, entry in members.items():
        click.echo(f"{name}: {_first_line(entry)}")
        print_rows(_option_rows(entry), indent="  ")


def _print_component(kind: str, name: str, entry: dict[str, Any]) -> None:
    click.echo(f"{kind} {name}")
    click.echo(entry.get("doc") or _first_line(entry))
    if entry.get("reference"):
        click.echo(f"Source: {entry['reference']}")
    rows = _option_rows(entry)
    click.echo("Options:" if rows else "No options.")
    print_rows(rows, indent="  ")
    if "training" in entry:
        click.echo("Its own defaults for the spec's training section:")
        print_rows([(name, f"= {json.dumps(value)}") for name, value in entry["training"].items()], indent="  ")


def _first_line(entry: dict[str, Any]) -> str:
    line = entry.get("doc", "").partition("\n")[0]
    return f"{line} BROKEN: {entry['broken']}".strip() if "broken" in entry else line


def _option_rows(entry: dict[str, Any]) -> list[tuple[str, ...]]:
    return [
        (
            name,
            option["type"],
            f"= {json.dumps(option['default'])}" if "default" in option else "required",
            option["doc"],
        )
        for name, option in entry.get("options", {}).items()
    ]
