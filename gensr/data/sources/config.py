"""Where a log comes from: the `source` kind."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, NonNegativeInt, PositiveInt

from gensr.registry import ComponentConfig, Registry

if TYPE_CHECKING:
    from gensr.data.log import EventLog


class SourceConfig(ComponentConfig):
    """Base of sources: something that yields the canonical event log."""

    def read(self) -> EventLog:
        """The canonical log, checked; raises `BadInputError` that names file, line and field."""
        raise NotImplementedError

    def identity(self) -> str:
        """A hash of all the log depends on, options and the content of files: the cache key of prepared data."""
        raise NotImplementedError

    @classmethod
    def recognise(cls, path: Path) -> SourceConfig | None:
        """The config that reads the file or folder at `path`, if it carries names only this source's files have.

        Looks at names and perhaps a first line, reads nothing else, and never raises.
        """
        return None


SOURCES = Registry("source", SourceConfig, builtins="gensr.data.sources.config")


@SOURCES.register
class DemoConfig(SourceConfig):
    """A small made-up shop in which search needs the query and the history, and recommendation needs the texts."""

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


Column = Literal["user_id", "item_id", "timestamp", "task", "query", "title", "categories"]


@SOURCES.register
class TableConfig(SourceConfig):
    """Events and items from CSV, TSV, JSON lines (all also gzipped) or Parquet files."""

    type: Literal["table"] = "table"
    path: str
    """A folder with `interactions.*` (or `events.*`) and `items.*`, or the file of events. A relative path starts at
    the working directory, not at the spec's folder."""
    items: str | None = None
    """The file of items, found like `path`; absent beside a file of events, items have no text and are the events'."""
    columns: dict[Column, str] = Field(default_factory=dict)
    """Column names that are neither gensr's own nor usual ones: `{"item_id": "sku"}`."""

    def read(self) -> EventLog:
        """See `SourceConfig.read`."""
        from gensr.data.sources.table import read_log

        return read_log(self)

    def identity(self) -> str:
        """See `SourceConfig.identity`."""
        from gensr.data.sources.table import content_hash

        return content_hash(self)
