"""Raw requests (ids and words) as the batch that rankers read; items and queries nobody saw before included."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch

from gensr.data.batch import Batch, Extra
from gensr.data.catalogue import Catalogue
from gensr.data.log import normalise_query
from gensr.data.tasks import Task, parse_task
from gensr.errors import BadInputError, did_you_mean


@dataclass(frozen=True)
class Item:
    """An item with its text. The text is read only where the run's catalogue lacks the id.

    Attributes:
        id: raw id.
        title: as in the items table.
        categories: ``|`` between the levels of a hierarchy, ``||`` between hierarchies.
    """

    id: str
    title: str = ""
    categories: str = ""


AnyItem = str | int | Item | Mapping[str, Any]
"""A raw id, an `Item`, or an object with ``id`` and the text fields."""


@dataclass(frozen=True)
class Request:
    """What a user wants ranked.

    Attributes:
        history: past events, oldest first: items, or objects ``{"item": ..., "task": ..., "query": ...}``. An event
            with a query is a search; others are recommendations.
        query: what is searched; None asks for a recommendation.
        candidates: the items to rank.
    """

    history: Sequence[AnyItem] = ()
    query: str | None = None
    candidates: Sequence[AnyItem] = ()

    @classmethod
    def parse(cls, value: Request | Mapping[str, Any]) -> Request:
        """A request from an object with these three keys."""
        if isinstance(value, cls):
            return value
        if not isinstance(value, Mapping):
            raise BadInputError(f"a request is an object with history, query and candidates, got {value!r}")
        _known_keys(value, ("history", "query", "candidates"), "a request")
        for name in ("history", "candidates"):
            _sequence(value.get(name, ()), name)
        return cls(**value)


class Event(NamedTuple):
    """One past event in rows."""

    item: int
    task: int
    query: int


def encode(
    requests: Sequence[Request], catalogue: Catalogue, *, max_history: int, names: Sequence[str] | None = None
) -> Batch:
    """The batch of `requests`: newest `max_history` events each, candidates in the order given.

    Args:
        requests: what is asked.
        catalogue: where ids and queries have their rows.
        max_history: events to keep of a history.
        names: what errors call each request; `numbered` ones where absent.

    Raises:
        BadInputError: an unknown id without text, a candidate given twice, no candidates, an empty query, an unknown
            key; the message says where.
    """
    asked = Asked.read(requests, catalogue, max_history=max_history, names=names)
    return asked.with_candidates([request.candidates for request in requests])


@dataclass(frozen=True, eq=False)
class Asked:
    """Requests in rows, before anybody has said what is to be ranked.

    Attributes:
        batch: histories and queries, without a candidate.
        rows: rows of what the requests name, also of what the catalogue lacks.
        names: what errors call each request.
    """

    batch: Batch
    rows: Rows
    names: Sequence[str]

    @classmethod
    def read(
        cls, requests: Sequence[Request], catalogue: Catalogue, *, max_history: int, names: Sequence[str] | None = None
    ) -> Asked:
        """The histories and queries of `requests`; arguments and errors as in `encode`."""
        rows, names = Rows(catalogue), names or numbered(len(requests))
        histories, queries = [], []
        for where, request in zip(names, requests, strict=True):
            recent = list(_sequence(request.history, f"{where}history"))
            first = max(0, len(recent) - max_history)
            events = [rows.event(entry, f"{where}history[{first + i}]") for i, entry in enumerate(recent[first:])]
            histories.append(events)
            queries.append(0 if request.query is None else rows.query(request.query, f"{where}query"))
        items, tasks, words = (
            _padded([[event[column] for event in events] for events in histories]) for column in range(3)
        )
        query, none = torch.tensor(queries), torch.zeros(len(requests), 0)
        batch = Batch(
            task=torch.where(query > 0, int(Task.SEARCH), int(Task.RECOMMENDATION)),
            user=torch.zeros_like(query),
            time=torch.zeros_like(query),
            query=query,
            hist_item=items,
            hist_task=tasks,
            hist_query=words,
            hist_time=torch.zeros_like(items),
            cand=none.long(),
            cand_mask=none.bool(),
            label=none,
            request=torch.full_like(query, -1),
            extra=rows.extra(),
        )
        return cls(batch, rows, names)

    def with_candidates(self, candidates: Sequence[Sequence[AnyItem]]) -> Batch:
        """The requests with these candidates, one list each; errors as in `encode`."""
        rows = self.rows.copy()  # so that new items of one list are not those of the next
        cand = _padded([_candidates(given, rows, where) for where, given in zip(self.names, candidates, strict=True)])
        return self.with_rows(cand).replace(extra=rows.extra())

    def with_rows(self, cand: torch.Tensor) -> Batch:
        """The requests with candidates int64 [B, C] that the catalogue has; 0 is padding."""
        return self.batch.replace(cand=cand, cand_mask=cand > 0, label=torch.zeros(cand.shape))


def numbered(count: int) -> list[str]:
    """What errors call so many requests; one alone needs no name."""
    return [f"request {number}: " for number in range(1, count + 1)] if count > 1 else [""] * count


@dataclass
class Rows:
    """Rows of items and queries; what the catalogue lacks gets rows behind its own, as `Extra` says."""

    catalogue: Catalogue
    new_items: dict[tuple[str, str], int] = field(default_factory=dict)
    new_queries: dict[str, int] = field(default_factory=dict)

    def copy(self) -> Rows:
        """The same rows, to which others can be added."""
        return Rows(self.catalogue, dict(self.new_items), dict(self.new_queries))

    def extra(self) -> Extra:
        """The texts behind the catalogue's."""
        return Extra(tuple(text for _, text in self.new_items), tuple(self.new_queries))

    def item(self, entry: AnyItem, where: str) -> int:
        """Row of an item; `where` is what an error calls its place."""
        item = _item(entry, where)
        row = self.catalogue.item_row(item.id)
        if row:
            return row
        text = self.catalogue.describe(item.title, item.categories)
        if not text:
            near = did_you_mean(item.id, [known for known in self.catalogue.item_ids if known[:2] == item.id[:2]])
            fields = ", ".join(f'"{name}": "..."' for name in self.catalogue.item_text)
            raise BadInputError(
                f"{where}: the run's catalogue has no item {item.id!r}{near or '.'} A new item needs its text: "
                f'give it as {{"id": "{item.id}", {fields}}}'
            )
        place = self.new_items.setdefault((item.id, text), len(self.new_items))
        return self.catalogue.num_items + 1 + place

    def query(self, text: Any, where: str) -> int:
        """Row of a query's text."""
        words = normalise_query(text) if isinstance(text, str) else ""
        if not words:
            raise BadInputError(
                f"{where}: expected words, got {text!r}; leave the query out to ask for a recommendation"
            )
        row = self.catalogue.query_row(words)
        return row or self.catalogue.num_queries + 1 + self.new_queries.setdefault(words, len(self.new_queries))

    def event(self, entry: AnyItem, where: str) -> Event:
        """An entry of a history in rows."""
        if not isinstance(entry, Mapping):
            return Event(self.item(entry, where), Task.RECOMMENDATION, 0)
        _known_keys(entry, ("item", "id", "title", "categories", "task", "query"), where)
        query = entry.get("query")
        task = parse_task(entry["task"]) if "task" in entry else (Task.RECOMMENDATION if query is None else Task.SEARCH)
        if (task == Task.SEARCH) != (query is not None):
            wanted = "needs a query" if task == Task.SEARCH else "has no query"
            raise BadInputError(f"{where}: a {task.label} event {wanted}, got query {query!r}")
        words = 0 if query is None else self.query(query, f"{where}.query")
        item = entry["item"] if "item" in entry else {k: v for k, v in entry.items() if k not in ("task", "query")}
        return Event(self.item(item, where), task, words)


def _candidates(candidates: Sequence[AnyItem], rows: Rows, where: str) -> list[int]:
    given = _sequence(candidates, f"{where}candidates")
    if not given:
        raise BadInputError(f"{where}candidates: expected at least one item to rank")
    seen: dict[str, int] = {}
    for place, entry in enumerate(given):
        raw = _item(entry, f"{where}candidates[{place}]").id
        if raw in seen:
            raise BadInputError(f"{where}candidates[{place}]: {raw!r} was already given as candidates[{seen[raw]}]")
        seen[raw] = place
    return [rows.item(entry, f"{where}candidates[{place}]") for place, entry in enumerate(given)]


def item_id(entry: AnyItem) -> str:
    """The raw id of an item in any of its spellings."""
    return _item(entry, "item").id


def _item(entry: Any, where: str) -> Item:
    if isinstance(entry, Item):
        return entry
    if isinstance(entry, str | int) and not isinstance(entry, bool) and str(entry):
        return Item(str(entry))
    if isinstance(entry, Mapping):
        _known_keys(entry, ("id", "title", "categories"), where)
        if str(entry.get("id", "")):
            return Item(**{name: str(value) for name, value in entry.items()})
    raise BadInputError(f'{where}: expected a raw item id or an object with "id" and "title", got {entry!r}')


def _known_keys(value: Mapping[str, Any], known: Sequence[str], where: str) -> None:
    for key in value:
        if key not in known:
            raise BadInputError(f"{where} has no {key!r}{did_you_mean(key, known) or '.'} Known: {', '.join(known)}")


def _sequence(value: Any, where: str) -> Sequence[Any]:
    if isinstance(value, str | Mapping) or not isinstance(value, Sequence):
        raise BadInputError(f"{where}: expected a list of items, got {value!r}")
    return value


def _padded(rows: list[list[int]]) -> torch.Tensor:
    """Right-padded with 0 to the longest, int64 [B, >= 1]."""
    width = max(1, *(len(row) for row in rows))
    return torch.tensor([[*row, *[0] * (width - len(row))] for row in rows], dtype=torch.int64)
