"""Where a log comes from: the `source` kind. Sources of published files stand in `gensr.data.sources.published`."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, Field, NonNegativeInt, PositiveInt

from gensr.errors import BadInputError
from gensr.registry import ComponentConfig, Registry

if TYPE_CHECKING:
    from gensr.data.log import EventLog


class SourceConfig(ComponentConfig):
    """Base of sources: something that yields the canonical event log."""

    slow: ClassVar[bool] = True
    """Whether what was read is worth keeping beside the prepared data; not where it comes from other sources."""

    def read(self) -> EventLog:
        """The canonical log, checked; raises `BadInputError` that names file, line and field."""
        raise NotImplementedError

    def read_parts(self, read: Callable[[SourceConfig], EventLog]) -> EventLog:
        """As `read`; a source made of other sources reads those through `read`, which may know them already."""
        return self.read()

    def identity(self) -> str:
        """A hash of all the log depends on, options and the content of files: the cache key of prepared data."""
        raise NotImplementedError

    @classmethod
    def recognise(cls, path: Path) -> SourceConfig | None:
        """The config that reads the file or folder at `path`, if it carries names only this source's files have.

        Looks at names and perhaps a first line, reads nothing else, and never raises.
        """
        return None


def _known_zone(value: str) -> str:
    from gensr.data.times import time_zone

    try:
        time_zone(value)
    except BadInputError as error:
        raise ValueError(str(error)) from None
    return value


TimeZone = Annotated[str, AfterValidator(_known_zone)]
SOURCES = Registry("source", SourceConfig, builtins="gensr.data.sources.published")  # which imports this module


@SOURCES.register
class DemoConfig(SourceConfig):
    """A small made-up shop in which search needs the query and the history, and recommendation needs the texts."""

    slow: ClassVar[bool] = False
    type: Literal["demo"] = "demo"
    users: PositiveInt = 1500
    """Users."""
    items: Annotated[int, Field(ge=80)] = 1000
    """Items; at least one for each of 10 families in 8 styles."""
    events_per_user: Annotated[int, Field(ge=5)] = 20
    """Mean number of events of a user, about three fifths of them recommendations."""
    seed: NonNegativeInt = 42
    """Makes the shop; another seed, another shop."""

    def read(self) -> EventLog:
        """See `SourceConfig.read`."""
        from gensr.data.sources.demo import make_shop

        return make_shop(self)

    def identity(self) -> str:
        """See `SourceConfig.identity`."""
        return self.model_dump_json()


@SOURCES.register
class AppendConfig(SourceConfig):
    """A log and what came after it: users and items keep the rows they have in the data prepared from `base` alone."""

    slow: ClassVar[bool] = False
    type: Literal["append"] = "append"
    base: Annotated[SourceConfig, SOURCES]
    """The log that was there first; it may itself be an `append`."""
    new: Annotated[SourceConfig, SOURCES]
    """The new events, perhaps of new users and items; times count what they count in `base`."""

    def read(self) -> EventLog:
        """See `SourceConfig.read`."""
        return self.read_parts(lambda source: source.read())

    def read_parts(self, read: Callable[[SourceConfig], EventLog]) -> EventLog:
        """See `SourceConfig.read_parts`."""
        from gensr.data.append import join_logs

        return join_logs(read(self.base), read(self.new))

    def identity(self) -> str:
        """See `SourceConfig.identity`."""
        parts = [[part.type, type(part).revision, part.identity()] for part in (self.base, self.new)]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


TableColumn = Literal[
    "user_id", "item_id", "timestamp", "task", "query", "session", "order", "split", "title", "categories"
]


class FileSourceConfig(SourceConfig):
    """Base of sources whose module, `gensr.data.sources.<type>`, reads files: `read_log`, `identity`, `recognise`."""

    located_by: ClassVar[str] = "path"
    """The option that names what `recognise` finds."""

    def read(self) -> EventLog:
        """See `SourceConfig.read`."""
        log: EventLog = self._module().read_log(self)
        return log

    def identity(self) -> str:
        """See `SourceConfig.identity`."""
        return str(self._module().identity(self))

    @classmethod
    def recognise(cls, path: Path) -> SourceConfig | None:
        """See `SourceConfig.recognise`."""
        found = cls._module().recognise(path)
        return cls.model_validate({cls.located_by: str(found)}) if found else None

    @classmethod
    def _module(cls) -> Any:
        return import_module(f"gensr.data.sources.{cls.model_fields['type'].default}")


@SOURCES.register
class TableConfig(FileSourceConfig):
    """Events and items from CSV, TSV, JSON lines or Parquet files, the text formats also as .gz or .zst."""

    type: Literal["table"] = "table"
    path: str | Annotated[tuple[str, ...], Field(min_length=1)]
    """A folder with `interactions.*` (or `events.*`), `searches.*` or both, and `items.*`; or the file of events; or a
    list of such files, read in this order. In a folder each may also be numbered parts (`interactions-00.csv`, ...) or
    a folder of parts (`interactions/`). A relative path starts at the working directory, not at the spec's folder."""
    searches: str | None = None
    """A file of searches alone, found like `path`: its events are searches, and those of the other files
    recommendations, unless a file has a task column of its own."""
    items: str | None = None
    """The file of items, found like `path`; absent beside a file of events, items have no text and are the events'."""
    columns: dict[TableColumn, str | None] = Field(default_factory=dict)
    """Column names that are neither gensr's own nor usual ones: `{"item_id": "sku"}`; null where a column of a usual
    name means something else: `{"order": null}`."""
    file_order: bool = False
    """Whether a user's events of one time happened in the order of the file's rows. Otherwise, and without an `order`
    column, they do not see each other; two of the same item, such as a search and its purchase, never do."""
    time_unit: Literal["auto", "s", "ms", "us", "ns", "none"] = "auto"
    """What timestamps count since 1970; `auto` recognises it by their size, `none` is for mere positions. ISO 8601
    times become seconds, or milliseconds where any has a fraction of a second, unless this says otherwise."""
    time_zone: TimeZone = "UTC"
    """IANA name of the zone of ISO times that name none, and of the midnight that divides days."""
