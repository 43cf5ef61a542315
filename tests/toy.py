"""A shop and a ranker small enough to train in a second: what the tests of training and pipeline build."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
import pyarrow as pa
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from gensr.data.dataset import Dataset, Split
from gensr.data.loader import RequestLoader
from gensr.data.log import EventLog
from gensr.data.prepare import prepare
from gensr.data.sources.config import SOURCES, SourceConfig
from gensr.evaluation.evaluator import rank_requests, summarise
from gensr.rankers.base import Losses, Ranker, Resources, mask_padding, require_tasks
from gensr.rankers.config import RANKERS, RankerConfig
from gensr.spec import PipelineSpec, load_spec
from gensr.training.trainer import TrainingResult, train

FAMILIES = 10


class ToySourceConfig(SourceConfig):
    """Users who stay in one family of items and search by its name."""

    type: Literal["toy_log"] = "toy_log"
    users: int = 40
    items: int = 120

    def identity(self) -> str:
        return f"toy_log-{self.users}-{self.items}"

    def read(self) -> EventLog:
        rng = np.random.default_rng(0)
        rows = []
        for user in range(self.users):
            family = user % FAMILIES
            for time in range(12):
                search = time % 3 == 2
                item = family + FAMILIES * int(rng.integers(self.items // FAMILIES))
                rows.append((f"u{user}", f"i{item}", time, 2 if search else 1, f"family {family}" if search else ""))
        names = ("user_id", "item_id", "timestamp", "task", "query")
        types = (pa.string(), pa.string(), pa.int64(), pa.int8(), pa.string())
        columns = zip(names, types, zip(*rows, strict=True), strict=True)
        events = pa.table({name: pa.array(values, kind) for name, kind, values in columns})
        items = pa.table(
            {
                "item_id": [f"i{i}" for i in range(self.items)],
                "title": [f"thing {i} of family {i % FAMILIES}" for i in range(self.items)],
                "categories": [f"Shop|Family {i % FAMILIES}" for i in range(self.items)],
            }
        )
        return EventLog(events=events, items=items, report={"events": len(rows)})


class ToyRankerConfig(RankerConfig):
    """Dot product of a candidate's vector with the history's mean and the query's vector, under dropout."""

    type: Literal["toy"] = "toy"
    trainable: ClassVar[bool] = True
    dim: int = 8
    dropout: float = 0.3
    nan_at: int | None = None

    def build(self, resources: Resources) -> Ranker:
        catalogue = resources.catalogue
        ranker = ToyRanker(self, catalogue.num_items, catalogue.num_queries)
        if resources.folder is not None:
            ranker.load_state_dict(load_file(resources.folder / "toy.safetensors"))
        return ranker


class ToyRanker(Ranker):
    trainable = True

    def __init__(self, config: ToyRankerConfig, items: int, queries: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(1)
        self.config, self.calls = config, 0
        self.items = nn.Parameter(torch.randn(items + 2, config.dim, generator=generator) * 0.3)  # last row: unknown
        self.queries = nn.Parameter(torch.randn(queries + 2, config.dim, generator=generator) * 0.3)
        self.bias = nn.Parameter(torch.zeros(1))
        self.frozen = nn.Parameter(torch.ones(3), requires_grad=False)
        self.dropout = nn.Dropout(config.dropout)

    def _logits(self, batch):
        require_tasks(self, batch)
        mask = batch.hist_mask.float().unsqueeze(-1)
        history = (self.items[batch.hist_item.clamp(max=len(self.items) - 1)] * mask).sum(1) / mask.sum(1).clamp(min=1)
        user = self.dropout(history) + self.queries[batch.query.clamp(max=len(self.queries) - 1)]
        return torch.einsum("bcd,bd->bc", self.items[batch.cand.clamp(max=len(self.items) - 1)], user) + self.bias

    def score(self, batch, state=None):
        return mask_padding(self._logits(batch), batch)

    def loss(self, batch):
        loss = nn.functional.binary_cross_entropy_with_logits(self._logits(batch).float(), batch.label)
        self.calls += 1
        if self.config.nan_at == self.calls:
            loss = loss * float("nan")
        return Losses(loss, {"task": loss.detach()})

    def save(self, folder: Path) -> None:
        save_file(self.state_dict(), folder / "toy.safetensors")


@contextmanager
def registered() -> Iterator[None]:
    """The toys by name, and gone again: other tests go over everything that is registered."""
    RANKERS.register(ToyRankerConfig)
    SOURCES.register(ToySourceConfig)
    try:
        yield
    finally:
        RANKERS._classes.pop("toy")
        SOURCES._classes.pop("toy_log")


def toy_spec(*, seed: int = 1, ranker: dict | None = None, evaluation: dict | None = None, **training) -> PipelineSpec:
    """A spec of the toys; call inside `registered`."""
    return load_spec(
        {
            "name": "toy",
            "seed": seed,
            "data": {"source": "toy_log", "max_history": 5, "candidates": {"type": "uniform", "count": 20}},
            "ranker": {"type": "toy", **(ranker or {})},
            "training": {
                "epochs": 3,
                "batch_size": 16,
                "learning_rate": 0.02,
                "warmup_steps": 5,
                "log_every": 5,
                **training,
            },
            "evaluation": {"floors": ["random", "popularity"], "bootstrap": 50, **(evaluation or {})},
        }
    )


def toy_data(folder: Path) -> Dataset:
    return prepare(toy_spec().data, folder)


def train_toy(
    folder: Path, data: Path, *, resume: bool = True, seed: int = 1, **training
) -> tuple[Ranker, TrainingResult]:
    """Train the toy ranker on prepared `data`; also the target of the processes that get killed."""
    torch.set_num_threads(1)
    ranker_options = training.pop("ranker", None)
    validate = training.pop("validate", None)
    with registered():
        spec = toy_spec(seed=seed, ranker=ranker_options, **training)
    dataset = Dataset.open(data)
    loader = RequestLoader(dataset, spec.data.max_history)
    ranker = spec.ranker.build(Resources(catalogue=dataset.catalogue, max_history=5, seed=seed, dataset=dataset))
    lists = dataset.candidates(dataset.candidate_names[0])

    def ndcg() -> dict[str, dict[str, float]]:
        ranks = rank_requests(ranker, loader.evaluation(lists, Split.VALID, batch_size=64))
        by_task = summarise(ranks, metrics=["ndcg@5"], bootstrap=0)
        return {"ndcg@5": {task: found["ndcg@5"]["value"] for task, found in by_task.items()}}

    result = train(
        ranker,
        loader,
        spec.training,
        negatives=spec.data.train_negatives,
        seed=seed,
        folder=folder,
        validate=validate or ndcg,
        fingerprint=spec.fingerprint(),
        resume=resume,
    )
    return ranker, result


def run_to_file(folder: Path, data: Path, **training) -> None:
    """`train_toy`, its result written where the parent process can see it."""
    ranker, _ = train_toy(folder, data, **training)
    (folder / "digest").write_text(digest(ranker))


def digest(module: nn.Module) -> str:
    """SHA-256 of all weights."""
    state = module.state_dict()
    return hashlib.sha256(b"".join(state[name].numpy().tobytes() for name in sorted(state))).hexdigest()
