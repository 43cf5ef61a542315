"""Changes to a spec as data: what `--set`, `--drop`, `--swap` and `--grid` do, as pure functions.

An edit is applied to the *filled* spec, so options of components that were never written down can be set. A path may
be cut on the left while one option alone ends in what is left: ``contrastive.weight`` is
``ranker.contrastive.weight``. Each edit that is given alone is checked alone; `apply_edits` checks all of its edits
together, because some make sense only so (dropping one view and the loss that compares both).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast, get_origin

from pydantic import BaseModel

from gensr.errors import BadInputError, did_you_mean
from gensr.registry import Slot, section_of, slot_of
from gensr.spec import PipelineSpec, TrainingSpec, own_training, validate

Path = tuple[str, ...]

SUITES = {
    "paper": {  # Figure 4
        "CF only": "semantic+contrastive",
        "semantic only": "cf+contrastive",
        "no soft filter": "soft_filter",
        "no contrastive": "contrastive",
    }
}
"""Lists of variants known by a name: what each is called, and what it drops."""


@dataclass(frozen=True)
class Edit:
    """One change: ``set`` an option, ``drop`` a component, or ``swap`` it for another of its kind.

    Attributes:
        kind: what to do.
        path: the option or slot; any unambiguous suffix of its full path.
        value: the new value of ``set``; of ``swap`` the new component, as a name or an object with a "type".
    """

    kind: Literal["set", "drop", "swap"]
    path: str
    value: Any = None

    def __str__(self) -> str:
        value = self.value if isinstance(self.value, str) else json.dumps(self.value)
        return f"--{self.kind} {self.path}" + ("" if self.kind == "drop" else f"={value}")


def parse_set(text: str) -> Edit:
    """Read ``path=value``; the value is JSON where it can be read as JSON, else a string."""
    path, value = _halves(text, "--set", "path=value, as in --set contrastive.weight=0.1")
    return Edit("set", path, value)


def parse_drop(text: str) -> list[Edit]:
    """Read ``slot`` or ``slot+slot``."""
    return [Edit("drop", path.strip()) for path in text.split("+")]


def parse_swap(text: str) -> list[Edit]:
    """Read ``slot=name``, ``slot={"type": "name", ...}`` or ``slot=null``, several joined by ``+``."""
    edits = []
    for part in _split(text, "+"):
        path, value = _halves(part, "--swap", "slot=name, as in --swap soft_filter=mean")
        if value == "null":
            edits.append(Edit("drop", path))
        else:
            edits.append(Edit("swap", path, _object(value, part) if value.startswith("{") else value))
    return edits


def parse_grid(text: str) -> tuple[str, list[Edit]]:
    """Read ``path=value,value``: the path, and an edit a value; commas inside JSON brackets or quotes do not split."""
    form = "path=value,value, as in --grid contrastive.temperature=0.05,0.1"
    path, listed = _halves(text, "--grid", form)
    values = _split(listed, ",")
    if "" in values:
        raise BadInputError(f"--grid {text}: value {values.index('') + 1} is empty: expected {form}")
    return path, [Edit("set", path, value) for value in values]


def set_value(spec: PipelineSpec, path: str, value: Any) -> PipelineSpec:
    """The spec with one option changed; a string value is read as JSON where it can be.

    Raises:
        BadInputError: no such option (with a near miss), several of that name (all listed), or a value it refuses.

    Example:
        >>> set_value(PipelineSpec(), "contrastive.weight", "0.1").ranker.contrastive.weight
        0.1
    """
    return apply_edits(spec, [Edit("set", path, value)])


def drop(spec: PipelineSpec, slot: str) -> PipelineSpec:
    """The spec without the component in `slot` (``a+b``: without both); the slot's owner defines what that means."""
    return apply_edits(spec, parse_drop(slot))


def swap(spec: PipelineSpec, slot: str, component: str | dict[str, Any]) -> PipelineSpec:
    """The spec with another component in `slot`.

    Given by its name, a component that is already there keeps its options; an object with a "type" replaces it, and
    what it does not name is at its default.
    """
    return apply_edits(spec, [Edit("swap", slot, component)])


def apply_edits(spec: PipelineSpec, edits: Sequence[Edit], *, origin: str | None = None) -> PipelineSpec:
    """Apply edits in order, then check the result once.

    Args:
        spec: what is changed.
        edits: the changes.
        origin: what errors shall name; the edits themselves where absent.
    """
    if not edits:
        return spec
    data, said = spec.model_dump(mode="json"), set[str]()
    try:
        for edit in edits:
            data = _apply(data, edit, said)
    except BadInputError as error:
        raise BadInputError(f"{origin}: {error}") if origin else error from None
    return validate(data, origin=origin or " ".join(map(str, edits)))


def value_at(spec: PipelineSpec, path: str) -> Any:
    """What an option is now, as JSON has it; the path as for `set_value`."""
    return _find(list(_walk(PipelineSpec, spec.model_dump(mode="json"))), path).value


@dataclass(frozen=True)
class _Option:
    """A place in a filled spec: its value, its slot where it holds a component, whether its keys are the user's own."""

    path: Path
    value: Any
    slot: Slot | None = None
    free: bool = False

    @property
    def name(self) -> str:
        return ".".join(self.path)

    @property
    def is_component(self) -> bool:
        return self.slot is not None and not self.slot.many

    def ends_in(self, suffix: Path) -> bool:
        return bool(suffix) and self.path[-len(suffix) :] == suffix


def _apply(data: dict[str, Any], edit: Edit, said: set[str]) -> dict[str, Any]:
    """The data with `edit` applied; `said` collects the training options that edits name."""
    options = list(_walk(PipelineSpec, data))
    if edit.kind == "set":
        option = _find(options, edit.path)
        value = _parse_value(edit.value, option.value)
        if option.path[-1] == "type":  # naming another type is a swap
            option = next(parent for parent in options if parent.path == option.path[:-1])
    else:
        option, value = _find([option for option in options if option.is_component], edit.path), edit.value
    if edit.kind == "drop" and not (option.slot and option.slot.nullable):
        known = ", ".join(option.slot.registry.names()) if option.slot else ""
        raise BadInputError(f"{edit.path} cannot be dropped: swap it; known: {known}")
    if option.is_component and (isinstance(value, str) or edit.kind == "swap"):
        value = _component(option, value)
    if option.path[0] == "training":
        said.update(option.path[1:2] or (value if isinstance(value, dict) else ()))
    changed = cast(dict[str, Any], _replaced(data, option.path, value))
    if _type(changed["ranker"]) != _type(data["ranker"]):
        changed = {**changed, "training": _chosen_training(data, said)}
    return changed


def _type(component: Any) -> Any:
    return component.get("type") if isinstance(component, dict) else component


def _chosen_training(data: dict[str, Any], said: set[str]) -> Any:
    """The training options of a filled spec that are in `said`, or differ from what its ranker brings along.

    The others must not outlive the ranker: another one has settings of its own.
    """
    given = data["training"]
    if not isinstance(given, dict):  # the check of the whole spec says so
        return given
    usual = TrainingSpec(**own_training(data["ranker"])).model_dump(mode="json")
    return {name: value for name, value in given.items() if name in said or value != usual.get(name)}


def _walk(cls: type[BaseModel], data: dict[str, Any], prefix: Path = ()) -> Iterator[_Option]:
    for name, field in cls.model_fields.items():
        path, value, slot = (*prefix, name), data.get(name), slot_of(field)
        if slot and not slot.many:
            yield from _walk_component(path, value, slot)
            continue
        yield _Option(path, value, slot, free=get_origin(field.annotation) is dict)
        for position, member in enumerate(value if isinstance(value, list) else ()):
            place = (*path, str(position))
            if slot:
                yield from _walk_component(place, member, slot._replace(nullable=False, many=False))
            else:
                yield _Option(place, member)
        section = section_of(field)
        if section:  # the options of an absent section can be set: that creates it
            yield from _walk(section, value if isinstance(value, dict) else {}, path)


def _walk_component(path: Path, value: Any, slot: Slot) -> Iterator[_Option]:
    yield _Option(path, value, slot)
    if isinstance(value, dict) and isinstance(value.get("type"), str):
        yield from _walk(slot.registry.get(value["type"]), value, path)


def _parse_value(given: Any, old: Any) -> Any:
    if not isinstance(given, str):
        return given
    try:
        value = json.loads(given)
    except ValueError:
        return given
    # `--set name=2024` names a run 2024: where a text stood, digits stay a text.
    return given if isinstance(old, str) and isinstance(value, int | float) else value


def _component(option: _Option, given: str | dict[str, Any]) -> dict[str, Any]:
    if isinstance(option.value, dict) and option.value.get("type") == given:
        return option.value
    assert option.slot is not None  # see _Option.is_component
    try:  # filled, so that a later edit finds its options
        return cast(dict[str, Any], option.slot.registry.parse(given).model_dump(mode="json"))
    except ValueError:  # unknown, or with required options: the check of the whole spec says so
        return {"type": given} if isinstance(given, str) else given


def _object(text: str, part: str) -> dict[str, Any]:
    try:
        value: dict[str, Any] = json.loads(text)
    except ValueError as error:
        raise BadInputError(f"--swap {part}: the component is no JSON object: {error}") from None
    if not isinstance(value.get("type"), str):
        raise BadInputError(f'--swap {part}: expected an object with a "type", the component\'s name')
    return value


def _split(text: str, separator: str) -> list[str]:
    """Split where no JSON bracket or quote is open."""
    parts, depth, quoted, before = [""], 0, False, ""
    for char in text:
        if char == '"' and before != "\\":
            quoted = not quoted
        elif not quoted:
            depth += (char in "[{") - (char in "]}")
        if char == separator and not quoted and depth == 0:
            parts.append("")
        else:
            parts[-1] += char
        before = char
    return [part.strip() for part in parts]


def _replaced(node: Any, path: Path, value: Any) -> Any:
    if not path:
        return value
    if isinstance(node, list):
        position = int(path[0])
        return [*node[:position], _replaced(node[position], path[1:], value), *node[position + 1 :]]
    return {**(node or {}), path[0]: _replaced((node or {}).get(path[0]), path[1:], value)}


def _find(options: list[_Option], given: str) -> _Option:
    wanted = tuple(given.strip().split("."))
    found = [option for option in options if option.ends_in(wanted)]
    exact = [option for option in found if option.path == wanted]
    # `cf.dim` is the ranker's, not that of the fifth floor: a place in a list has to be named while there is a choice.
    outside = [option for option in found if not any(part.isdigit() for part in option.path[: -len(wanted)])]
    found = exact or outside or found
    if not found:
        owners = [option for option in options if option.free and option.ends_in(wanted[:-1])]
        found = [_Option((*owner.path, wanted[-1]), None) for owner in owners]
    if len(found) == 1:
        return found[0]
    if found:
        raise BadInputError(f"{given!r} is ambiguous: {', '.join(option.name for option in found)}")
    raise _not_found(options, given, wanted)


def _not_found(options: list[_Option], given: str, wanted: Path) -> BadInputError:
    owner = next((option for option in options if option.is_component and option.ends_in(wanted[:-1])), None)
    if owner and owner.value is None:
        return BadInputError(f"no option {given!r}: {owner.name} is null; swap a component in first")
    if owner:
        names = [option.path[-1] for option in options if option.path[:-1] == owner.path and option.path[-1] != "type"]
        what = f"{owner.name} is {owner.value['type']!r}, whose options are: {', '.join(names) or 'none'}"
        return BadInputError(f"no option {given!r}{did_you_mean(wanted[-1], names) or ':'} {what}")
    suffixes = dict.fromkeys(".".join(option.path[start:]) for option in options for start in range(len(option.path)))
    if all(option.is_component for option in options):
        known = ", ".join(option.name for option in options if not any(part.isdigit() for part in option.path))
        return BadInputError(f"no slot {given!r}{did_you_mean(given, suffixes) or '.'} Known: {known}")
    return BadInputError(f"no option {given!r}{did_you_mean(given, suffixes) or '.'} `gensr spec show` lists them all")


def _halves(text: str, flag: str, form: str) -> tuple[str, str]:
    path, equals, value = text.partition("=")
    if not equals or not path.strip():
        raise BadInputError(f"{flag} {text!r}: expected {form}")
    return path.strip(), value.strip()
