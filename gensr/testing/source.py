"""What every source owes its users, as a pytest base class."""

from __future__ import annotations

import pyarrow as pa

from gensr.data.log import EVENTS, GENERATION, ITEMS, OPTIONAL
from gensr.data.sources.config import SourceConfig
from gensr.data.tasks import Task


class SourceContract:
    """Derive from it, return your config from `config`, and pytest does the rest.

    Example:
        >>> class TestMySource(SourceContract):
        ...     def config(self):
        ...         return MySourceConfig(path=write_a_small_log())
    """

    def config(self) -> SourceConfig:
        """The config under test, on a small log that holds both tasks where the source has both."""
        raise NotImplementedError

    def test_tables_have_the_canonical_columns(self) -> None:
        """Names, order and types of `gensr.data.log`, perhaps followed by optional columns."""
        log = self.config().read()
        for table, required, optional in ((log.events, EVENTS, OPTIONAL), (log.items, ITEMS, GENERATION)):
            others = [field for field in optional if field.name in table.column_names]
            assert table.schema.equals(pa.schema([*required, *others]))

    def test_every_event_is_of_a_task_and_names_an_item_of_the_catalogue(self) -> None:
        """No nulls, no unknown items, no unknown tasks."""
        log = self.config().read()
        assert all(column.null_count == 0 for table in (log.events, log.items) for column in table.columns)
        assert set(log.events["item_id"].to_pylist()) <= set(log.items["item_id"].to_pylist())
        assert set(log.events["task"].to_pylist()) <= {int(task) for task in Task}

    def test_searches_and_only_searches_have_a_query(self) -> None:
        """The query of a recommendation is the empty text."""
        events = self.config().read().events
        for task, query in zip(events["task"].to_pylist(), events["query"].to_pylist(), strict=True):
            assert bool(query) == (task == Task.SEARCH)

    def test_items_are_listed_once(self) -> None:
        """The catalogue has one row an item."""
        items = self.config().read().items["item_id"].to_pylist()
        assert len(items) == len(set(items))

    def test_reading_twice_gives_the_same_log(self) -> None:
        """Bit for bit, under the same identity."""
        one, other = self.config(), self.config()
        assert one.identity() == other.identity()
        assert one.read().events.equals(other.read().events)
        assert one.read().items.equals(other.read().items)

    def test_the_report_counts(self) -> None:
        """What was read, dropped and why is told."""
        assert self.config().read().report
