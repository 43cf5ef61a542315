"""The two tasks, and the spellings users bring for them."""

from __future__ import annotations

from enum import IntEnum

from gensr.errors import BadInputError, did_you_mean


class Task(IntEnum):
    """What a request asks for. The values are the codes in arrays; 0 is padding."""

    RECOMMENDATION = 1
    SEARCH = 2

    @property
    def label(self) -> str:
        """The word gensr writes: ``"recommendation"`` or ``"search"``."""
        return self.name.lower()


SPELLINGS = {
    "recommendation": Task.RECOMMENDATION,
    "recommend": Task.RECOMMENDATION,
    "rec": Task.RECOMMENDATION,
    "reco": Task.RECOMMENDATION,
    "search": Task.SEARCH,
    "src": Task.SEARCH,
    "query": Task.SEARCH,
}


def parse_task(name: str) -> Task:
    """Read a task's name, case-insensitively, in any usual spelling.

    Raises:
        BadInputError: unknown name, with the nearest known one.

    Example:
        >>> parse_task("src").label
        'search'
    """
    task = SPELLINGS.get(str(name).strip().lower())
    if task is None:
        hint = did_you_mean(str(name).lower(), SPELLINGS) or "."
        raise BadInputError(f"unknown task {name!r}{hint} Known: {', '.join(SPELLINGS)}")
    return task
