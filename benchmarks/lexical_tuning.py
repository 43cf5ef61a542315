"""Find k1 and b of `lexical` for each set of fields, on validation requests.

python benchmarks/lexical_tuning.py specs/beauty.json specs/yelp.json > benchmarks/results/lexical-tuning.csv
"""

from __future__ import annotations

import csv
import itertools
import sys
from collections.abc import Iterator
from pathlib import Path

import click

from gensr.cache import StageCache
from gensr.data.dataset import Dataset
from gensr.data.loader import RequestLoader
from gensr.data.split import Split
from gensr.data.tasks import Task
from gensr.evaluation.evaluator import rank_requests
from gensr.evaluation.metrics import metric
from gensr.rankers.lexical import LexicalRanker
from gensr.spec import PipelineSpec, load_spec

FIELDS = (("title",), ("categories",), ("title", "categories"), ("title", "title", "categories"))
K1 = (0.3, 0.6, 0.9, 1.2, 1.5, 2.0, 3.0)
B = (0.0, 0.25, 0.5, 0.75, 1.0)
METRICS = ("recall@5", "ndcg@5")


def measured(ranker: LexicalRanker, spec: PipelineSpec, dataset: Dataset, listed: str, requests: int) -> list[float]:
    """The ranker's means on validation requests of one candidate list."""
    batches = RequestLoader(dataset, spec.data.max_history).evaluation(
        dataset.candidates(listed), Split.VALID, tasks=[Task.SEARCH], batch_size=256, limit=requests
    )
    ranks = rank_requests(ranker, batches)
    return [float(metric(ranks, name).mean()) for name in METRICS]


def grid(spec: PipelineSpec, dataset: Dataset, requests: int) -> Iterator[tuple[object, ...]]:
    """A row for each candidate list and choice of options."""
    for fields, k1, b in itertools.product(FIELDS, K1, B):
        ranker = LexicalRanker(dataset.catalogue, fields=fields, k1=k1, b=b)
        for listed in dataset.candidate_names:
            numbers = measured(ranker, spec, dataset, listed, requests)
            yield spec.name, listed, "+".join(fields), k1, b, *(f"{number:.4f}" for number in numbers)


@click.command()
@click.argument("specs", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--requests", default=5000, show_default=True, help="Validation requests, drawn once for all.")
@click.option(
    "--root", default="runs", show_default=True, type=click.Path(path_type=Path), help="Where the cache lies."
)
def main(specs: tuple[Path, ...], requests: int, root: Path) -> None:
    """Write a CSV row for each spec, candidate list, set of fields, k1 and b."""
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(["spec", "candidates", "fields", "k1", "b", *METRICS])
    for path in specs:
        spec = load_spec(path)
        dataset = StageCache(root / ".cache").data(spec.data)
        for row in grid(spec, dataset, requests):
            writer.writerow(row)
            sys.stdout.flush()


if __name__ == "__main__":
    main()
