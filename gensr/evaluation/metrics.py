"""Where the truth stands among its candidates, and the metrics that follow from it.

Ranks are stored and metrics derived: a run's rank file answers every later question (other cut-offs, other treatment
of ties, significance against another run) without scoring again. Equal scores are handled by expectation over their
orders; whoever sorts the truth first among equals gives a constant scorer a perfect result.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from gensr.errors import BadInputError
from gensr.evaluation.names import parse_metric
from gensr.files import new_file

Ties = Literal["expected", "optimistic", "pessimistic"]
Floats = NDArray[np.float64]
CACHED = 1 << 16
"""Scores compared at once: a block of them is read twice, and the second time from the processor's cache."""


@dataclass(frozen=True)
class Ranks:
    """Where the truth of each request stands: all that metrics need. Arrays of one length R.

    Attributes:
        request: int64, position of the held-out event in the dataset.
        task: int8, code of `gensr.data.tasks.Task`.
        better: int32, candidates scored above the truth.
        equal: int32, candidates scored like the truth, itself included (>= 1).
        candidates: int32, candidates of the request, the truth included.
    """

    request: NDArray[np.int64]
    task: NDArray[np.int8]
    better: NDArray[np.int32]
    equal: NDArray[np.int32]
    candidates: NDArray[np.int32]

    def __post_init__(self) -> None:
        for name, dtype in _DTYPES.items():
            object.__setattr__(self, name, np.asarray(getattr(self, name), dtype=dtype))
        if len({getattr(self, name).shape for name in _DTYPES}) != 1 or self.request.ndim != 1:
            raise ValueError("the arrays of Ranks must be one-dimensional and of one length")

    def __len__(self) -> int:
        return len(self.request)

    def select(self, rows: NDArray[Any]) -> Ranks:
        """The requests at `rows` (an index or a boolean array)."""
        return Ranks(*(getattr(self, f.name)[rows] for f in fields(self)))

    @classmethod
    def concatenate(cls, parts: Sequence[Ranks]) -> Ranks:
        """All parts, one after the other; none gives an empty one."""
        return cls(*(np.concatenate([getattr(p, name) for p in parts] or [[]]) for name in _DTYPES))

    def save(self, path: Path) -> None:
        """Write a compressed ``.npz`` without pickles, atomically."""
        arrays: dict[str, Any] = {name: getattr(self, name) for name in _DTYPES}
        with new_file(path) as temporary, temporary.open("wb") as file:  # a handle: numpy appends .npz to names
            np.savez_compressed(file, **arrays)

    @classmethod
    def load(cls, path: Path) -> Ranks:
        """Read what `save` wrote.

        Raises:
            BadInputError: no such file, or it holds no ranks.
        """
        try:
            with np.load(path, allow_pickle=False) as arrays:
                return cls(*(arrays[name] for name in _DTYPES))
        except FileNotFoundError:
            raise BadInputError(f"no ranks at {path}") from None
        except Exception as error:  # numpy and zipfile raise half a dozen kinds for a damaged file
            raise BadInputError(f"{path} holds no ranks: {error}") from None


_DTYPES = {"request": np.int64, "task": np.int8, "better": np.int32, "equal": np.int32, "candidates": np.int32}


def rank_truth(
    scores: NDArray[Any], label: NDArray[Any], mask: NDArray[Any] | None = None
) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.int32]]:
    """Count the candidates above and beside the truth of each request.

    A truth without a finite score counts as worst of all, so a diverged ranker gets nothing. Another candidate's NaN
    is never better and never equal; its +inf is better.

    Args:
        scores: float [B, C], higher is better.
        label: [B, C], positive at the truth: exactly one a request.
        mask: bool [B, C], False = padding; all real where absent.

    Returns:
        better, equal (the truth itself included), candidates: int32 [B] each.

    Raises:
        ValueError: a request without exactly one truth among its real candidates, or shapes that differ.
    """
    shapes = scores.shape, label.shape, scores.shape if mask is None else np.shape(mask)
    if scores.ndim != 2 or len(set(shapes)) != 1:
        raise ValueError("scores {}, label {} and mask {} must be one [B, C]".format(*shapes))
    requests, width = scores.shape
    real = None if mask is None or np.all(mask) else np.asarray(mask, dtype=bool)
    own = _scores_of_truths(scores, label, real)
    better, equal = (np.empty(requests, np.int32) for _ in range(2))
    step = max(1, CACHED // max(1, width))
    for start in range(0, requests, step):
        rows = slice(start, start + step)
        block, truth = scores[rows], own[rows, None]
        better[rows] = _count(np.greater(block, truth), real, rows)  # comparisons with NaN are False
        equal[rows] = _count(np.equal(block, truth), real, rows)
    candidates = np.full(requests, width, np.int32) if real is None else real.sum(axis=1, dtype=np.int32)
    lost = ~np.isfinite(own)
    better[lost], equal[lost] = candidates[lost] - 1, 1
    return better, equal, candidates


def _scores_of_truths(scores: NDArray[Any], label: NDArray[Any], real: NDArray[np.bool_] | None) -> NDArray[Any]:
    """The score [B] of each request's only truth; see `rank_truth` for what is refused."""
    truth = label > 0 if real is None else (label > 0) & real
    row, column = np.divmod(np.flatnonzero(truth), max(1, scores.shape[1]))
    if not np.array_equal(row, np.arange(len(scores))):
        count = truth.sum(axis=1)
        wrong = int(np.argmax(count != 1))
        raise ValueError(f"request {wrong} of the batch has {count[wrong]} truths among its candidates; expected one")
    found: NDArray[Any] = scores[row, column]
    return found


def _count(found: NDArray[np.bool_], real: NDArray[np.bool_] | None, rows: slice) -> NDArray[np.unsignedinteger[Any]]:
    """How many of each request's candidates are found [b, C] and real; `rows` says which requests those are."""
    if real is not None:
        found &= real[rows]
    # Bytes added up as bytes go many at a time; a wider sum than the count needs would convert each of them first.
    counts: NDArray[np.unsignedinteger[Any]]
    counts = np.add.reduce(found.view(np.uint8), axis=1, dtype=np.min_scalar_type(found.shape[1]))
    return counts


def metric(ranks: Ranks, name: str, ties: Ties = "expected") -> Floats:
    """One metric for each request, float64 [R]; its mean is what tables show.

    With one relevant item a request, recall@k (published as HR@k too) is 1[rank <= k], ndcg@k is
    1[rank <= k] / log2(rank + 1) and mrr is 1 / rank.

    Args:
        ranks: where the truth stands.
        name: ``recall@k``, ``ndcg@k`` or ``mrr``.
        ties: `expected` averages over all orders of equal scores; `optimistic` puts the truth first among its
            equals, as many released evaluators do; `pessimistic` puts it last.

    Raises:
        BadInputError: unknown metric.
    """
    kind, cut = parse_metric(name)
    first, last = ranks.better + 1, ranks.better + ranks.equal  # the ranks the truth may take
    if ties == "optimistic":
        last = first
    elif ties == "pessimistic":
        first = last
    longest = int(last.max(initial=0))
    end = longest if cut is None else min(cut, longest)
    rank = np.arange(1, end + 1, dtype=np.float64)
    gain = {"recall": np.ones_like(rank), "ndcg": 1 / np.log2(rank + 1), "mrr": 1 / rank}[kind]
    upto = np.concatenate([[0.0], np.cumsum(gain)])  # upto[r] = summed gain of ranks 1..r; nothing beyond the cut
    total: Floats = upto[np.minimum(last, end)] - upto[np.minimum(first - 1, end)]
    return total / (last - first + 1)


def check_metric_consistency(
    recall1: float, recall2: float, ndcg1: float, ndcg2: float, *, k1: int = 5, k2: int = 10, digits: int = 4
) -> list[str]:
    """Say what is impossible about published recall@k1, recall@k2, ndcg@k1, ndcg@k2 (one relevant item a request).

    Each hit between the cut-offs adds 1 to recall and between 1/log2(k2+1) and 1/log2(k1+2) to ndcg, so the growth
    of ndcg is tied to that of recall; and ndcg@k lies between recall@k / log2(k+1) and recall@k. Rows with swapped
    cells or mixed runs break these bounds.

    Args:
        recall1: recall@k1.
        recall2: recall@k2.
        ndcg1: ndcg@k1.
        ndcg2: ndcg@k2.
        k1: the smaller cut-off.
        k2: the larger one.
        digits: decimals the values were rounded to.

    Returns:
        One sentence for each broken bound; empty where the row is possible.

    Raises:
        ValueError: unless 0 < k1 < k2.
    """
    if not 0 < k1 < k2:
        raise ValueError(f"expected 0 < k1 < k2, got k1={k1}, k2={k2}")
    slack = 2 * 10.0**-digits  # four rounded values, each wrong by half a unit at most
    more, gain = recall2 - recall1, ndcg2 - ndcg1
    low, high = more / math.log2(k2 + 1), more / math.log2(k1 + 2)
    problems = []
    if more < -slack:
        problems.append(f"recall@{k2} {recall2} is below recall@{k1} {recall1}")
    if not low - slack <= gain <= high + slack:
        problems.append(f"ndcg@{k2} - ndcg@{k1} is {gain:.4f}; these recalls allow {low:.4f} to {high:.4f}")
    for k, recall, ndcg in ((k1, recall1, ndcg1), (k2, recall2, ndcg2)):
        if not recall / math.log2(k + 1) - slack <= ndcg <= recall + slack:
            problems.append(
                f"ndcg@{k} {ndcg} is outside {recall / math.log2(k + 1):.4f} to {recall:.4f}, given recall@{k}"
            )
    return problems
