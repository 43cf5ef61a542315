"""Prompt wording as data: one template per task and layout, editable in the spec."""

from __future__ import annotations

import re
from typing import Literal

from pydantic import model_validator

from gensr.errors import did_you_mean
from gensr.registry import Section

SLOTS = ("cf_history", "text_history", "cf_candidate", "text_candidate", "cf_match", "text_match")
"""Markers that stand for vectors, in the order in which a ranker supplies them."""
MARKERS = ("query", *SLOTS)
Layout = Literal["packed", "interleaved"]


class TaskTemplates(Section):
    """The prompt of each task. Markers in braces are replaced: ``{query}`` by text, the others by vectors.

    In the packed layout everything before the first vector is the prefix that all candidates of a request share, so
    ``{query}`` must stand before it.
    """

    recommendation: str
    """Asked when nothing was searched."""
    search: str
    """Asked with a query; must hold ``{query}``, unless the ranker reads none."""

    @model_validator(mode="after")
    def _markers(self) -> TaskTemplates:
        for task, text in (("recommendation", self.recommendation), ("search", self.search)):
            found = re.findall(r"\{(.*?)\}", text)
            for marker in found:
                if marker not in MARKERS:
                    raise ValueError(
                        f"the {task} template has an unknown marker {{{marker}}}{did_you_mean(marker, MARKERS) or '.'} "
                        f"Known: {', '.join('{' + name + '}' for name in MARKERS)}"
                    )
                if found.count(marker) > 1:
                    raise ValueError(f"the {task} template has the marker {{{marker}}} more than once")
            if "cf_candidate" not in found and "text_candidate" not in found:
                raise ValueError(
                    f"the {task} template names no candidate: it needs {{cf_candidate}} or {{text_candidate}}"
                )
        return self


INTERLEAVED = TaskTemplates(
    recommendation=(
        "Task: recommendation. The user liked these items: {cf_history} . In words, the user liked: {text_history} . "
        "Is the next item that the user likes this one: {cf_candidate} , in words: {text_candidate} ? "
        "{cf_match}{text_match} Decide from all of it. Answer Yes or No. Answer:"
    ),
    search=(
        "Task: search. The user liked these items: {cf_history} . In words, the user liked: {text_history} . "
        "Does this item answer the query: {cf_candidate} , in words: {text_candidate} ? "
        "The query is: {query} . {cf_match}{text_match} Decide from all of it. Answer Yes or No. Answer:"
    ),
)
"""The paper's order P1-P5 (section 4.2.1), in our words, the query and the match in the last segment."""

PACKED = TaskTemplates(
    recommendation="Next? {cf_history}{text_history}{cf_candidate}{text_candidate}{cf_match}{text_match} Answer:",
    search="Find {query} . {cf_history}{text_history}{cf_candidate}{text_candidate}{cf_match}{text_match} Answer:",
)
"""All text and the query first, then the candidate's block of slots and the answer cue.

Few words, because a model trained from scratch must learn to look past each of them: with 40 tokens of instructions,
search on the Yelp sample was at NDCG@5 .34 after 600 updates, with these at .59. A pretrained model may gain from a
worded instruction: give it `templates`.
"""

DEFAULTS: dict[str, TaskTemplates] = {"interleaved": INTERLEAVED, "packed": PACKED}


def prefix_length(pieces: list[tuple[str, str]], layout: Layout) -> int:
    """How many pieces of a split template all candidates share: those before the first vector, where packed.

    Raises:
        ValueError: the query stands behind them.
    """
    if layout == "interleaved":
        return 0
    kinds = [kind for kind, _ in pieces]
    first = kinds.index("slot")
    if "query" in kinds[first:]:
        raise ValueError(
            "the template has {query} after the first vector; in the packed layout the query belongs to the prefix: "
            "move it before the first vector, or use layout 'interleaved'"
        )
    return first


def split_template(text: str) -> list[tuple[str, str]]:
    """Cut a template into ``("text", words)``, ``("query", "")`` and ``("slot", name)`` pieces, in order.

    Example:
        >>> split_template("Find {query} : {cf_candidate} ?")
        [('text', 'Find'), ('query', ''), ('text', ':'), ('slot', 'cf_candidate'), ('text', '?')]
    """
    pieces: list[tuple[str, str]] = []
    for position, part in enumerate(re.split(r"\{(.*?)\}", text)):
        if position % 2:
            pieces.append(("query", "") if part == "query" else ("slot", part))
        elif part.strip():
            pieces.append(("text", part.strip()))
    return pieces
