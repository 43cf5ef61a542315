"""What a ranker is trained on: declared by the ranker, read by the one loader and the one trainer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from gensr.data.tasks import Task


@dataclass(frozen=True)
class Examples:
    """The training examples that a ranker wants.

    Attributes:
        kind: ``requests``: every training event asks, with its strict past, as held-out events do (prefix examples are
            these). ``sequences``: a user's last training event of `tasks` asks alone, and the batch holds negatives for
            the events before it too (`Batch.hist_negatives`), so that a causal model learns at every position at once.
            Events of the same moment as that last one are in no strict past, and train nothing.
        tasks: whose training events ask.
        negatives: uniform negatives beside each positive; None: as many as the data section says.
    """

    kind: Literal["requests", "sequences"] = "requests"
    tasks: frozenset[Task] = frozenset(Task)
    negatives: int | None = None


REQUESTS = Examples()
"""Requests of both tasks."""
