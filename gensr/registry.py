"""Names for components: one `Registry` per kind, usable as a pydantic annotation.

A spec names components and never imports them: built-ins are listed in the kind's `config.py`, third parties
declare an entry point in the group ``gensr.<kind>`` or decorate a class in a module they import themselves.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from importlib.metadata import EntryPoint, entry_points
from types import NoneType, UnionType
from typing import Annotated, Any, ClassVar, Generic, NamedTuple, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, GetCoreSchemaHandler, GetJsonSchemaHandler, ValidationError, model_validator
from pydantic.errors import PydanticUserError
from pydantic.fields import FieldInfo
from pydantic_core import InitErrorDetails, PydanticCustomError, core_schema

from gensr.errors import BadInputError, did_you_mean


class Section(BaseModel):
    """Base of everything a spec is made of: frozen, and strict about unknown options (with a near miss)."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, use_attribute_docstrings=True, validate_default=True, allow_inf_nan=False
    )
    revision: ClassVar[int] = 1
    """Raise it when a default changes, or the behaviour behind unchanged options: it is part of the fingerprint."""

    @model_validator(mode="wrap")
    @classmethod
    def _explain_unknown_options(cls, value: Any, handler: Any) -> Any:
        try:
            return handler(_without_flags_for_numbers(cls, value))
        except ValidationError as error:
            raise _with_hints(cls, error) from None


def _without_flags_for_numbers(cls: type[BaseModel], value: Any) -> Any:
    """Spell out a bool given to a number option: pydantic would read ``"epochs": true`` as 1 without a word."""
    if not isinstance(value, dict):
        return value
    numbers = {name for name, field in cls.model_fields.items() if _is_number(field.annotation)}
    return {
        key: str(item).lower() if isinstance(item, bool) and key in numbers else item for key, item in value.items()
    }


def _is_number(annotation: Any) -> bool:
    if get_origin(annotation) is Annotated:
        return _is_number(get_args(annotation)[0])
    if get_origin(annotation) in (Union, UnionType):
        return all(option is NoneType or _is_number(option) for option in get_args(annotation))
    return annotation in (int, float)


def _with_hints(cls: type[BaseModel], error: ValidationError) -> ValidationError:
    known = [name for name in cls.model_fields if name != "type"]
    details: list[InitErrorDetails] = []
    for line in error.errors():
        kind: Any = line["type"]
        if kind == "extra_forbidden" and len(line["loc"]) == 1:
            name = str(line["loc"][0])
            kind = PydanticCustomError(
                "unknown_option",
                "no option {name}{hint} Options: {known}",
                {"name": repr(name), "hint": did_you_mean(name, known) or ".", "known": ", ".join(known) or "none"},
            )
        elif kind in ("value_error", "assertion_error") or kind not in _BUILTIN_ERRORS:
            name = "spec" if kind in _BUILTIN_ERRORS else kind
            kind = PydanticCustomError(name, "{message}", {"message": line["msg"].removeprefix("Value error, ")})
        details.append(InitErrorDetails(type=kind, loc=line["loc"], input=line["input"], ctx=line.get("ctx", {})))
    return ValidationError.from_exception_data(error.title, details)


_BUILTIN_ERRORS = frozenset(get_args(core_schema.ErrorType))


class ComponentConfig(Section):
    """Base of all component configs: the unit of truth for a component's name, options and construction."""

    type: str
    reference: ClassVar[str] = ""
    """Paper and equation a component comes from."""


C = TypeVar("C", bound=ComponentConfig)


class UnknownComponentError(BadInputError):
    """A spec names a component nobody registered."""


class Registry(Generic[C]):
    """The components of one kind, by name.

    Args:
        kind: what the components are, in snake case; also the entry-point group ``gensr.<kind>``.
        base: the config class all members derive from.
        builtins: module (or modules) that register the built-in members when imported.

    As an annotation, ``Annotated[SoftFilterConfig, SOFT_FILTERS]`` accepts a name (``"mean"``), an object
    (``{"type": "mean"}``) or a config instance.
    """

    all: ClassVar[dict[str, Registry[Any]]] = {}

    def __init__(self, kind: str, base: type[C], *, builtins: str | tuple[str, ...]) -> None:
        self.kind, self.base = kind, base
        self.builtins = (builtins,) if isinstance(builtins, str) else builtins
        self._classes: dict[str, type[C]] = {}
        Registry.all[kind] = self

    def register(self, cls: type[C]) -> type[C]:
        """Class decorator: make a config class known under the default of its ``type`` field."""
        name = self._name_of(cls)
        known = self._classes.get(name)
        if known is not None and (known.__module__, known.__qualname__) != (cls.__module__, cls.__qualname__):
            raise ValueError(
                f"two {self.kind} components are named {name!r}: "
                f"{known.__module__}.{known.__qualname__} and {cls.__module__}.{cls.__qualname__}"
            )
        self._classes[name] = cls
        return cls

    def _name_of(self, cls: Any) -> str:
        if not (isinstance(cls, type) and issubclass(cls, self.base)):
            raise TypeError(f"{cls!r} is no {self.kind} config: it must derive from {self.base.__name__}")
        name = cls.model_fields["type"].default
        if not isinstance(name, str):
            raise TypeError(f'{cls.__qualname__} has no name: give it `type: Literal["..."] = "..."`')
        return name

    def names(self) -> list[str]:
        """All known names, plug-ins included, without importing any plug-in. Built-ins win over plug-ins."""
        self._load_builtins()
        return sorted({*self._classes, *self._plugins()})

    def get(self, name: str) -> type[C]:
        """The config class called `name`.

        Raises:
            UnknownComponentError: nobody registered it; the message names the nearest known name.
            BadInputError: the plug-in that declares it fails to import.
        """
        self._load_builtins()
        if name not in self._classes:
            points = self._plugins().get(name, [])
            if not points:
                known = self.names()
                hint = did_you_mean(name, known) or "."
                raise UnknownComponentError(
                    f"no {self.kind} named {name!r}{hint} Known: {', '.join(known)} "
                    "(a plug-in must be installed, or its module imported first)"
                )
            if len(points) > 1:
                raise BadInputError(
                    f"two installed packages declare a {self.kind} named {name!r}: "
                    f"{' and '.join(_origin(point) for point in points)}; uninstall one of them"
                )
            self._load_plugin(points[0])
        return self._classes[name]

    def broken(self) -> dict[str, str]:
        """Plug-ins that cannot be used, by name, each with the reason; imports every plug-in of this kind."""
        self._load_builtins()
        reasons = {}
        for name, points in self._plugins().items():
            try:
                cls = self.get(name)
            except BadInputError as error:
                reasons[name] = str(error)
                continue
            ignored = [point for point in points if not _leads_to(point, cls)]
            if ignored:
                reasons[name] = f"{_origin(ignored[0])} declares a {self.kind} of this name too; the other one is used"
        return reasons

    def parse(self, value: Any) -> C:
        """A config from a name, an object with a ``type``, or a config instance."""
        if isinstance(value, self.base):
            return value
        if isinstance(value, str):
            value = {"type": value}
        if not isinstance(value, dict) or not isinstance(value.get("type"), str):
            raise ValueError(
                f'expected a {self.kind}: a name or an object with a "type", got {value!r}. '
                f"Known: {', '.join(self.names())}"
            )
        try:
            cls = self.get(value["type"])
        except BadInputError as error:
            raise ValueError(str(error)) from None
        return cls.model_validate(value)

    def _load_builtins(self) -> None:
        for module in self.builtins:
            importlib.import_module(module)

    def _plugins(self) -> dict[str, list[EntryPoint]]:
        found: dict[str, list[EntryPoint]] = {}
        for point in entry_points(group=f"gensr.{self.kind}"):
            found.setdefault(point.name, []).append(point)
        return found

    def _load_plugin(self, point: EntryPoint) -> None:
        plugin = f"the {self.kind} plug-in {point.name!r} of {_origin(point)}"
        try:
            cls = point.load()
        except (Exception, SystemExit) as error:
            raise BadInputError(f"{plugin} cannot be imported: {type(error).__name__}: {error}") from error
        try:
            name = self._name_of(cls)
            if name == point.name:
                with _within(Registry.all):
                    cls.model_json_schema()  # what has none cannot be in a spec, and would spoil the schema of all
                self.register(cls)
        except (TypeError, ValueError, PydanticUserError) as error:
            reason = error.message if isinstance(error, PydanticUserError) else error
            raise BadInputError(f"{plugin} is broken: {reason}") from error
        if name != point.name:
            raise BadInputError(f"{plugin} registers the name {name!r}; the entry point must carry the same name")

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        return core_schema.no_info_plain_validator_function(
            self.parse,
            serialization=core_schema.plain_serializer_function_ser_schema(
                lambda config: config.model_dump(mode="json")
            ),
        )

    def __get_pydantic_json_schema__(
        self, schema: core_schema.CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        if self.kind in _WITHIN.get():  # a ranker of rankers holds rankers of rankers, without end
            return {"anyOf": [{"enum": self.names()}, {"type": "object"}]}
        self.broken()  # loads every plug-in, so that an editor completes its options too
        names = sorted(self._classes)
        options: list[dict[str, Any]] = [{"enum": names, "description": f"name of a {self.kind} component"}]
        with _within([self.kind]):
            for name in names:
                options.append(handler.resolve_ref_schema(handler(self._classes[name].__pydantic_core_schema__)))
        return {"anyOf": options}

    def __repr__(self) -> str:
        return f"Registry({self.kind!r})"


_WITHIN: ContextVar[frozenset[str]] = ContextVar("within", default=frozenset())


@contextmanager
def _within(kinds: Iterable[str]) -> Iterator[None]:
    """Have slots of these kinds described by their names alone."""
    token = _WITHIN.set(_WITHIN.get().union(kinds))
    try:
        yield
    finally:
        _WITHIN.reset(token)


def _leads_to(point: EntryPoint, cls: type[ComponentConfig]) -> bool:
    try:  # its text need not be where the class is defined: packages re-export
        return point.load() is cls
    except (Exception, SystemExit):
        return False


def _origin(point: EntryPoint) -> str:
    return f"package {point.dist.name if point.dist else point.value!r}"


class Slot(NamedTuple):
    """What a spec option that holds components accepts."""

    registry: Registry[Any]
    nullable: bool
    many: bool


def slot_of(field: FieldInfo) -> Slot | None:
    """The slot that a config's field is, or None for a plain option."""
    found = next((item for item in field.metadata if isinstance(item, Registry)), None)
    return Slot(found, nullable=False, many=False) if found else _slot_in(field.annotation)


def _slot_in(annotation: Any) -> Slot | None:
    arguments = get_args(annotation)
    found = next((item for item in arguments if isinstance(item, Registry)), None)
    if found:
        return Slot(found, nullable=False, many=False)
    inner = next((slot for slot in map(_slot_in, arguments) if slot), None)
    if inner is None:
        return None
    return inner._replace(nullable=NoneType in arguments, many=inner.many or get_origin(annotation) in (tuple, list))


def section_of(field: FieldInfo) -> type[Section] | None:
    """The section (not a component) that a config's field holds, nullable or not; None for a plain option."""
    candidates = (field.annotation, *get_args(field.annotation))
    return next((item for item in candidates if isinstance(item, type) and issubclass(item, Section)), None)
