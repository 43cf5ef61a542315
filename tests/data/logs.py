"""Small logs made in memory, and random ones for hypothesis."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
from hypothesis import strategies as st

from gensr.data.config import UniformConfig
from gensr.data.dataset import Dataset
from gensr.data.log import EVENTS, ITEMS, EventLog, check_log
from gensr.data.prepare import prepare
from gensr.data.sources.config import SourceConfig
from gensr.data.tasks import parse_task
from gensr.spec import DataSpec

Row = tuple[str, str, int, str, str]


class MemorySource(SourceConfig):
    """Rows (user, item, time, task, query) in file order; items i1..iN unless given."""

    type: Literal["memory"] = "memory"
    rows: tuple[Row, ...]
    items: int = 12
    catalogue: tuple[tuple[str, str, str], ...] | None = None

    def identity(self) -> str:
        return self.model_dump_json()

    def read(self) -> EventLog:
        users, items, times, tasks, queries = zip(*self.rows, strict=True) if self.rows else ((), (), (), (), ())
        codes = [int(parse_task(task)) for task in tasks]
        events = pa.table([users, items, times, pa.array(codes, pa.int8()), queries], schema=EVENTS)
        catalogue = self.catalogue or tuple((f"i{n}", f"thing {n}", "Shop|Things") for n in range(1, self.items + 1))
        return check_log(events, pa.table(list(zip(*catalogue, strict=True)), schema=ITEMS), {"made": "in memory"})


class ColumnedSource(MemorySource):
    """Rows with optional columns, each where it is given."""

    sessions: tuple[str, ...] | None = None
    orders: tuple[int, ...] | None = None
    splits: tuple[int, ...] | None = None

    def read(self) -> EventLog:
        log = super().read()
        events = log.events
        for name, values in (("session", self.sessions), ("order", self.orders), ("split", self.splits)):
            if values is not None:
                events = events.append_column(name, pa.array(values))
        return check_log(events, log.items, log.report)


def data_spec(rows: list[Row], *, count: int = 2, items: int = 12, **options: Any) -> DataSpec:
    source = MemorySource(rows=tuple(rows), items=items, catalogue=options.pop("catalogue", None))
    return DataSpec(source=source, candidates=(UniformConfig(count=count),), **options)


def prepared(rows: list[Row], folder: Path, **options: Any) -> Dataset:
    return prepare(data_spec(rows, **options), folder)


def recs(user: str, items: str, start: int = 0) -> list[Row]:
    """Recommendation events at consecutive times: ``recs("u", "1 2 3")``."""
    return [(user, f"i{n}", start + at, "rec", "") for at, n in enumerate(items.split())]


def searches(user: str, items: str, query: str = "q", start: int = 0) -> list[Row]:
    return [(user, f"i{n}", start + at, "src", query) for at, n in enumerate(items.split())]


@st.composite
def random_rows(draw: st.DrawFn) -> list[Row]:
    """Logs with ties, repeats, twins and users of all sizes, in any order; one user always has a held-out event."""
    row = st.tuples(
        st.sampled_from(["a", "b", "c", "d"]),
        st.sampled_from([f"i{n}" for n in range(1, 8)]),
        st.integers(0, 6),
        st.sampled_from(["rec", "src"]),
        st.sampled_from(["red", "blue"]),
    )
    rows = [(u, i, t, task, q if task == "src" else "") for u, i, t, task, q in draw(st.lists(row, max_size=40))]
    twins = [(u, i, t, "src", "green") for u, i, t, task, _ in rows if task == "rec" and draw(st.booleans())]
    return draw(st.permutations(rows + twins + recs("a", "1 2 3")))
