"""Runs and relevance judgements in the TREC formats, for trec_eval, ir-measures and everybody's own tools."""

from __future__ import annotations

import gzip
import io
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, cast
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray

from gensr.data.batch import Batch
from gensr.data.tasks import Task
from gensr.files import new_file


class TrecExport:
    """Stream rankings to a run file and their truths to a qrels file.

    Query ids are ``<task>-<request>``, where request is the position of the held-out event in the dataset. Documents
    are raw item ids; white space and ``%`` in them are percent-encoded, because the format separates by white space.
    A name that ends in ``.gz`` is compressed. Files appear when the block ends well, and not at all when it fails.

    Example:
        >>> with TrecExport(folder / "run.trec.gz", folder / "qrels.gz", items, tag="gensr") as export:
        ...     rank_requests(ranker, batches, on_scores=export.add)
    """

    def __init__(self, run: Path, qrels: Path, item_ids: Sequence[str], *, tag: str) -> None:
        self.run, self.qrels = run, qrels
        self.tag = one_word(tag)
        self.documents = np.array([one_word(item) for item in item_ids], dtype=object)

    def __enter__(self) -> TrecExport:
        self._files = _both(self.run, self.qrels)
        self._run, self._qrels = self._files.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._files.__exit__(*error)

    def add(self, batch: Batch, scores: NDArray[np.float32]) -> None:
        """Append the requests of a batch with their scores, float32 [B, C].

        Raises:
            ValueError: a candidate that the catalogue lacks; it has no raw id.
        """
        items, mask, label = (t.cpu().numpy() for t in (batch.cand, batch.cand_mask, batch.label))
        if items.max(initial=0) >= len(self.documents):
            raise ValueError("a candidate is not in the catalogue: it has no raw id to export")
        # NaN sorts last; ties keep the order of the list, and trec_eval breaks them by its own rule.
        order = np.argsort(-np.where(np.isnan(scores), -np.inf, scores), axis=1, kind="stable")
        for row, (task, request) in enumerate(zip(batch.task.tolist(), batch.request.tolist(), strict=True)):
            query = f"{Task(task).label}-{request}"
            ranked = order[row][mask[row][order[row]]]
            names, values = self.documents[items[row, ranked]], scores[row, ranked]
            self._run.writelines(
                f"{query} Q0 {name} {place} {value:.9g} {self.tag}\n"
                for place, (name, value) in enumerate(zip(names, values, strict=True), start=1)
            )
            truths = self.documents[items[row, (label[row] > 0) & mask[row]]]
            self._qrels.writelines(f"{query} 0 {name} 1\n" for name in truths)


def one_word(text: str) -> str:
    """`text` without white space; `urllib.parse.unquote` turns it back."""
    return re.sub(r"[\s%]", lambda match: quote(match[0]), text)


@contextmanager
def _both(first: Path, second: Path) -> Iterator[tuple[IO[str], IO[str]]]:
    with _replacing(first) as one, _replacing(second) as two:
        yield one, two


@contextmanager
def _replacing(path: Path) -> Iterator[IO[str]]:
    """A text file that takes the place of `path` when the block ends well, and vanishes when it fails."""
    with new_file(path) as temporary, temporary.open("wb") as raw:
        # No name and no time in the header: equal rankings give equal bytes.
        packed = gzip.GzipFile("", "wb", fileobj=raw, mtime=0) if path.suffix == ".gz" else raw
        with io.TextIOWrapper(cast("IO[bytes]", packed), encoding="utf-8", newline="\n") as text:
            yield text
