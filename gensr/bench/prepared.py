"""A spec's own ranker and data, for the suites that can measure them: new weights, which cost what trained ones do."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from gensr.data.batch import Batch
    from gensr.data.loader import RequestLoader
    from gensr.rankers.base import Ranker
    from gensr.spec import PipelineSpec

CACHE = Path("runs") / ".cache"
"""Where `gensr build` keeps prepared data and CF tables when it is not told another place."""


class Prepared(NamedTuple):
    """What a spec's suites time.

    Attributes:
        ranker: untrained, in evaluation mode.
        loader: its batches.
        requests: a few test requests with the candidates of the spec's first list.
    """

    ranker: Ranker
    loader: RequestLoader
    requests: Batch


def prepare_spec(spec: PipelineSpec, *, device: str, requests: int, cache: Path = CACHE) -> Prepared:
    """Prepare the data of `spec`, or fetch them from the cache, and build its ranker.

    Args:
        spec: what to measure.
        device: where.
        requests: how many test requests to take.
        cache: folder of prepared data.

    Raises:
        BadInputError: the source or a component of the spec cannot be used.
    """
    import torch

    from gensr.cache import StageCache
    from gensr.data.loader import RequestLoader
    from gensr.data.split import Split

    stages = StageCache(cache)
    dataset = stages.data(spec.data)
    resources = stages.resources(spec, dataset, device=device)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(spec.seed)
        ranker = spec.ranker.build(resources).to(device).eval()
    loader = RequestLoader(dataset, spec.data.max_history)
    listed = dataset.candidates(dataset.candidate_names[0])
    batch = next(loader.evaluation(listed, Split.TEST, batch_size=requests))
    return Prepared(ranker, loader, batch.to(device))
