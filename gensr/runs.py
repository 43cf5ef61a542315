"""A run on disk, opened: rank with it, read its numbers, measure it again. Needs nothing but its folder."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from gensr.device import Precision, choose_device, choose_precision
from gensr.errors import BadInputError, did_you_mean
from gensr.files import undamaged
from gensr.requests import AnyItem, Asked, Item, Request, encode, item_id, numbered
from gensr.spec import PipelineSpec, load_spec

if TYPE_CHECKING:
    import numpy as np

    from gensr.data.batch import Batch
    from gensr.data.catalogue import Catalogue
    from gensr.rankers.base import Ranker

__all__ = ["EncodedRequest", "Item", "Ranked", "Request", "Run", "evaluate", "open_run"]

SPEC, MANIFEST, METRICS, REPORT = "spec.json", "manifest.json", "metrics.json", "report.md"
MODEL, CATALOGUE, PREDICTIONS = "model", "catalogue", "predictions"
LONGEST = 1024
REBUILD = "Copy the run again where it came from, or build its spec again with --force"


class Ranked(NamedTuple):
    """One item of a ranking: raw id, score, rank from 1."""

    item: str
    score: float
    rank: int


@dataclass(frozen=True, eq=False)
class EncodedRequest:
    """A user's history and query as a run has read them: ranks any candidates, now and later (`Run.score`).

    Attributes:
        asked: history and query in rows.
        state: what the ranker computed from them; None where a ranker shares nothing between candidates.
    """

    asked: Asked = field(repr=False)
    state: Any = field(repr=False)

    @property
    def nbytes(self) -> int:
        """Memory that the ranker's state takes on the run's device: what a cache has to count."""
        from gensr.nested import nbytes

        return nbytes(self.state)


class Run:
    """A built spec. The ranker is loaded when first used.

    Args:
        path: the run directory.
        device: "auto", "cpu" or "cuda".
        precision: "fp32", or "bf16": the language model's weights are cast, the rest of a GenSR stays as it is.
        compile: compile the language model's functions with torch.compile, on a GPU into CUDA graphs. Candidates are
            then padded to a few lengths, so that shapes come again; the first request of each takes seconds.
    """

    def __init__(self, path: Path, *, device: str = "auto", precision: str = "fp32", compile: bool = False) -> None:
        self.path, self._device, self._compile = Path(path), device, compile
        self.precision: Precision = choose_precision(precision)
        if not (self.path / MODEL).is_dir() or not (self.path / SPEC).is_file():
            raise _no_run(self.path)

    @cached_property
    def spec(self) -> PipelineSpec:
        """The filled spec it was built from."""
        return load_spec(self.path / SPEC)

    @cached_property
    def manifest(self) -> dict[str, Any]:
        """Versions, hashes, seconds, memory; absent until the run is finished."""
        return self._json(MANIFEST)

    @cached_property
    def metrics(self) -> dict[str, Any]:
        """What the evaluation found; `gensr.evaluation.report` describes it. Absent until the run is finished."""
        return self._json(METRICS)

    @cached_property
    def device(self) -> str:
        """Where it scores."""
        return choose_device(self._device)

    @cached_property
    def catalogue(self) -> Catalogue:
        """The items and queries it was built with."""
        from gensr.data.catalogue import Catalogue

        with undamaged(self.path / MODEL / CATALOGUE, REBUILD):
            return Catalogue.load(self.path / MODEL / CATALOGUE)

    @cached_property
    def ranker(self) -> Ranker:
        """The trained ranker, in evaluation mode.

        Raises:
            DamagedFileError: a file of the model is truncated, changed or missing; names it.
            BadInputError: it does not score in this precision, or cannot be compiled.
        """
        from gensr.rankers.base import Resources

        folder, spec = self.path / MODEL, self.spec
        resources = Resources(self.catalogue, max_history=spec.data.max_history, seed=spec.seed, folder=folder)
        _check_files(folder)
        with undamaged(folder, REBUILD):
            ranker = spec.ranker.build(resources)
        ranker = ranker.to(self.device).eval()
        ranker.cast(self.precision)
        if self._compile:
            from gensr.compilation import Compiler
            from gensr.progress import Progress

            ranker.compile_with(Compiler(Progress().note, option="compile", mode="reduce-overhead"))
        return ranker

    def rank(
        self,
        history: Sequence[AnyItem] = (),
        query: str | None = None,
        candidates: Sequence[AnyItem] = (),
        *,
        k: int | None = None,
    ) -> list[Ranked]:
        """Rank `candidates` for a user who is nothing but a history.

        Args:
            history: past events, oldest first: raw ids, `Item`s, or ``{"item": id, "task": "search", "query": "..."}``.
            query: what is searched; without one it is a recommendation.
            candidates: raw ids; an item the run does not know as ``{"id": ..., "title": ...}`` or `Item`.
            k: keep the best k; all where absent.

        Returns:
            Best first; equal scores in the order given.

        Raises:
            BadInputError: an unknown id without text, a candidate twice, none at all, an empty query, or `k` below 1.
        """
        return self.rank_many([Request(history, query, candidates)], k=k)[0]

    def rank_many(
        self, requests: Iterable[Request | Mapping[str, Any]], *, k: int | None = None, batch_size: int = 64
    ) -> list[list[Ranked]]:
        """`rank` for many requests, `batch_size` at a time; objects with history, query and candidates do as well."""
        _check_positive(k=k, batch_size=batch_size)
        parsed = [Request.parse(request) for request in requests]
        names, longest = numbered(len(parsed)), self.spec.data.max_history
        results = []
        for begin in range(0, len(parsed), batch_size):
            rows = slice(begin, begin + batch_size)
            part = parsed[rows]
            scores = self._score(encode(part, self.catalogue, max_history=longest, names=names[rows]))
            for request, row in zip(part, scores, strict=True):
                ids = [item_id(candidate) for candidate in request.candidates]
                results.append(_best(ids, row[: len(ids)], k))
        return results

    def encode_request(self, history: Sequence[AnyItem] = (), query: str | None = None) -> EncodedRequest:
        """Read a history and a query once, for as many calls of `score` as there are; arguments as in `rank`."""
        import torch

        asked = Asked.read([Request(history, query)], self.catalogue, max_history=self.spec.data.max_history)
        with torch.inference_mode():
            return EncodedRequest(asked, self.ranker.encode_request(asked.batch.to(self.device)))

    def score(self, request: EncodedRequest, candidates: Sequence[AnyItem], *, k: int | None = None) -> list[Ranked]:
        """Rank `candidates` for a request that was read before: what `rank` gives, without reading it again.

        Args:
            request: from `encode_request` of this run.
            candidates: as in `rank`.
            k: keep the best k; all where absent.
        """
        _check_positive(k=k)
        if request.asked.rows.catalogue is not self.catalogue:
            raise BadInputError("the request was encoded by another run: encode it with this one")
        scores = self._score(request.asked.with_candidates([candidates]), request.state)
        return _best([item_id(candidate) for candidate in candidates], scores[0], k)

    def search(self, query: str, k: int = 10, *, history: Sequence[AnyItem] = (), chunk: int = 256) -> list[Ranked]:
        """The best `k` of the whole catalogue for `query`, scored `chunk` items at a time."""
        return self._over_catalogue(self.encode_request(history, query), k, chunk)

    def recommend(self, history: Sequence[AnyItem] = (), k: int = 10, *, chunk: int = 256) -> list[Ranked]:
        """The best `k` of the whole catalogue after `history`, items of the history included."""
        return self._over_catalogue(self.encode_request(history), k, chunk)

    def _over_catalogue(self, request: EncodedRequest, k: int, chunk: int) -> list[Ranked]:
        import numpy as np
        import torch

        _check_positive(k=k, chunk=chunk)
        ids = self.catalogue.item_ids
        chunks = torch.split(torch.arange(1, len(ids)), chunk)
        scores = [self._score(request.asked.with_rows(rows.unsqueeze(0)), request.state)[0] for rows in chunks]
        return _best(ids[1:], np.concatenate(scores), k)

    def _score(self, batch: Batch, state: Any = None) -> np.ndarray:
        import torch

        width = batch.cand.shape[1]
        if self._compile:
            batch = batch.padded(_serving_length(width))
        with torch.inference_mode():
            scores: np.ndarray = self.ranker.score(batch.to(self.device), state).float().cpu().numpy()
        return scores[:, :width]

    def _json(self, name: str) -> dict[str, Any]:
        try:
            content: dict[str, Any] = json.loads((self.path / name).read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise BadInputError(
                f"the run {self.path} is not finished: it has no {name}; build its spec again"
            ) from None
        except ValueError as error:
            raise BadInputError(f"{self.path / name} is damaged: {error}") from None
        return content

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r})"


def open_run(path: str | Path, *, device: str = "auto", precision: str = "fp32", compile: bool = False) -> Run:
    """Open a run directory; arguments as of `Run`.

    Raises:
        BadInputError: there is no run, or it holds no trained model yet; an unknown device or precision.
    """
    return Run(Path(path), device=device, precision=precision, compile=compile)


def evaluate(
    run: Run,
    *,
    tasks: Iterable[str] | None = None,
    candidates: Iterable[str] | None = None,
    max_requests: int | None = None,
    precision: str | None = None,
    root: str | Path | None = None,
    progress: bool = False,
) -> dict[str, Any]:
    """Measure a run again on its test requests; the run directory stays as it is.

    Args:
        run: a run with a trained model.
        tasks: as many of the tasks as wanted; those of the spec where absent.
        candidates: names of candidate lists; all where absent.
        max_requests: requests per task; the spec's where absent.
        precision: arithmetic of the ranker; the spec's where absent, whatever that of `run`.
        root: folder whose ``.cache`` holds the prepared data; the run's parent where absent. Data that are not there
            are prepared from the spec's source.
        progress: show progress on stderr.

    Returns:
        The structure of ``metrics.json``.

    Raises:
        BadInputError: the source no longer holds the data the run was built from; an unknown task or list.
    """
    from gensr.cache import StageCache
    from gensr.data.prepare import data_fingerprint
    from gensr.evaluation.measure import Measurement
    from gensr.progress import Progress

    changes = {
        "tasks": tasks and tuple(tasks),
        "max_requests": max_requests,
        "precision": precision and choose_precision(precision),
    }
    options = run.spec.evaluation.model_dump() | {name: value for name, value in changes.items() if value is not None}
    spec = load_spec(run.spec.model_dump() | {"evaluation": options})
    built_from, now = run.manifest["data"]["fingerprint"], data_fingerprint(spec.data)
    if now != built_from:
        raise BadInputError(
            f"the source of {run.path} has changed: the run was built from data {built_from[:16]}, the source now "
            f"gives {now[:16]}"
        )
    shown = Progress(enabled=progress)
    cache = StageCache(Path(root if root is not None else run.path.parent) / ".cache")
    dataset = cache.data(spec.data, progress=progress)
    lists = list(candidates) if candidates is not None else dataset.candidate_names
    measurement = Measurement(spec, dataset, lists=lists, device=run.device, progress=shown)
    resources = cache.resources(spec, dataset, device=run.device, progress=progress)
    if run.precision != spec.evaluation.precision:
        run = Run(run.path, device=run.device, precision=spec.evaluation.precision, compile=run._compile)
    evaluation, _ = measurement.test(run.ranker, resources, cache)
    return evaluation.metrics(**metric_options(spec))


def _check_files(folder: Path) -> None:
    """Find the damaged file of a model before its reader fails without a name."""
    from safetensors import safe_open

    for file in sorted(folder.rglob("*")):
        with undamaged(file, REBUILD):
            if file.suffix == ".safetensors":
                with safe_open(file, "pt"):  # reads the header, which says how long the file must be
                    pass
            elif file.suffix == ".json":
                json.loads(file.read_text(encoding="utf-8"))


def metric_options(spec: PipelineSpec) -> dict[str, Any]:
    """How a spec wants ranks turned into numbers: arguments of `Evaluation.metrics`."""
    options = spec.evaluation
    return {"metrics": options.metrics, "ties": options.ties, "bootstrap": options.bootstrap, "seed": spec.data.seed}


def _serving_length(candidates: int) -> int:
    """The next power of two from 16 to 1,024, or multiple of 1,024: few lengths; from 8 on, half at most is padding."""
    if candidates > LONGEST:
        return -(-candidates // LONGEST) * LONGEST
    return max(16, 1 << (candidates - 1).bit_length())


def _check_positive(**options: int | None) -> None:
    for name, value in options.items():
        if value is not None and value < 1:
            raise BadInputError(f"{name}: expected 1 or more, got {value}")


def _best(ids: Sequence[str], scores: np.ndarray, k: int | None) -> list[Ranked]:
    """`ids` by falling score; equal scores keep their order, NaN comes last."""
    order = (-scores).argsort(kind="stable")[:k].tolist()
    return [Ranked(ids[place], float(scores[place]), rank) for rank, place in enumerate(order, start=1)]


def _no_run(path: Path) -> BadInputError:
    if (path / SPEC).is_file():
        return BadInputError(f"the run {path} holds no trained model yet; build its spec again to go on")
    parent = path.parent
    known = [folder.name for folder in parent.iterdir() if (folder / SPEC).is_file()] if parent.is_dir() else []
    hint = did_you_mean(path.name, known) or "."
    runs = f" Runs in {parent}: {', '.join(sorted(known))}" if known else ""
    return BadInputError(f"{path} is no run directory{hint}{runs}")
