"""What every ranker is: something that scores the candidates of requests."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn

from gensr.backbones.base import Function
from gensr.data.batch import Batch
from gensr.data.examples import Examples
from gensr.data.tasks import Task
from gensr.device import Precision
from gensr.errors import BadInputError

if TYPE_CHECKING:
    from gensr.data.dataset import Catalogue, Dataset
    from gensr.encoders.cf.table import CFTable
    from gensr.encoders.semantic.config import SemanticConfig
    from gensr.encoders.semantic.table import TextTable


class Losses(NamedTuple):
    """Result of `Ranker.loss`: the scalar to minimise, and its detached parts by name for the log."""

    total: Tensor
    parts: dict[str, Tensor]


@dataclass(frozen=True)
class Resources:
    """What the program supplies to a ranker's config when it builds the ranker.

    Attributes:
        catalogue: item and query texts.
        max_history: longest history a batch will hold.
        seed: for everything random at construction.
        dataset: the prepared data; None when a saved ranker is reopened.
        folder: the saved ranker's folder; None when a new one is built.
        cf_table: fits (or fetches from the cache) the table of a CF config; only while `dataset` is set. Called with
            ``(fold, folds)`` as second argument, it leaves that fold of the interactions out.
        text_table: fetches the catalogue's frozen vectors of a semantic config from a cache; None: there is no cache.
    """

    catalogue: Catalogue
    max_history: int
    seed: int = 0
    dataset: Dataset | None = None
    folder: Path | None = None
    cf_table: Callable[..., CFTable] | None = field(default=None, repr=False)
    text_table: Callable[[SemanticConfig], TextTable | None] | None = field(default=None, repr=False)

    @contextmanager
    def seeded(self) -> Iterator[None]:
        """What is drawn from torch's global generator inside depends on `seed` alone, and changes nothing outside."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            yield

    def semantic_table(self, config: SemanticConfig) -> TextTable | None:
        """The catalogue's frozen vectors of `config`; None for encoders that are trained."""
        if self.text_table is not None:
            return self.text_table(config)
        return config.table(self.catalogue.text, item_ids=self.catalogue.item_ids, seed=self.seed)


class Ranker(nn.Module, ABC):
    """Scores the candidates of a request.

    Invariants, tested for every registered ranker: a score does not depend on batch mates, candidate order, padding
    length or values under a mask; padding candidates score -inf; a request with an empty history or an unknown item
    gets a finite score; a saved and reopened ranker scores identically.
    """

    tasks: frozenset[Task] = frozenset(Task)
    """Tasks it can be asked for; a metric of another task is a dash, never a zero."""

    trainable: bool = False
    """Whether `loss` is to be minimised; the floors have nothing to train."""

    precision: Precision = "fp32"
    """Arithmetic of `score`; `cast` changes it."""

    @property
    def examples(self) -> Examples:
        """What `loss` is to be minimised on: requests of its tasks where it does not say otherwise."""
        return Examples(tasks=self.tasks)

    def encode_request(self, batch: Batch) -> Any:
        """Read what does not depend on a candidate: a state that scores any candidates of these requests, ever again.

        None where nothing is shared. The state has a row for each request in every tensor.
        """
        return None

    @abstractmethod
    def score(self, batch: Batch, state: Any = None) -> Tensor:
        """Scores, float32 [B, C], higher is better, -inf where `batch.cand_mask` is False.

        Args:
            batch: requests and their candidates.
            state: of the same requests, from `encode_request`; then only the candidates of `batch` (`cand`, `cand_mask`
                and the texts in `extra`) are read.
        """

    def loss(self, batch: Batch) -> Losses:
        """Training loss of a batch whose `label` is set."""
        raise BadInputError(f"{type(self).__name__} has nothing to train")

    def hidden_state(self, batch: Batch, state: Any = None) -> Tensor:
        """The last shared representation, [B, C, D], for analyses; `state` as in `score`."""
        raise NotImplementedError(f"{type(self).__name__} has no hidden state")

    def cast(self, precision: Precision) -> None:
        """Score in `precision` from now on. There is no way back: what was cast is neither trained nor saved.

        Where nothing is trained there is no model to make faster: such a ranker stays as it is.

        Raises:
            BadInputError: it cannot score so, or was cast to another precision before.
        """
        if precision == self.precision or not self.trainable:
            return
        self.require_uncast(f"be cast to {precision}")
        self._cast(precision)
        self.precision = precision

    def _cast(self, precision: Precision) -> None:
        raise BadInputError(f"{type(self).__name__} scores in fp32 only, got precision {precision!r}")

    def require_uncast(self, action: str) -> None:
        """Raise `BadInputError` where `cast` has taken digits from the weights that `action` needs."""
        if self.precision != "fp32":
            raise BadInputError(
                f"this {type(self).__name__} was cast to {self.precision} for serving and cannot {action}: its weights "
                "have lost digits; open the run again without a precision"
            )

    def compile_with(self, compiler: Callable[[Function], Function]) -> None:
        """Pass the functions in which the time goes through `compiler`; see `gensr.compilation`."""
        raise BadInputError(f"{type(self).__name__} has nothing to compile; leave compile off")

    def checkpoint_activations(self) -> None:
        """Recompute activations in the backward pass instead of keeping them."""
        raise BadInputError(f"{type(self).__name__} cannot recompute activations; leave gradient_checkpointing off")

    def shared_parameters(self) -> list[nn.Parameter]:
        """Parameters both tasks train, for gradient-conflict analyses."""
        return []

    @abstractmethod
    def save(self, folder: Path) -> None:
        """Write everything `RankerConfig.build` needs to reopen it (with ``resources.folder``) into `folder`."""


def require_tasks(ranker: Ranker, batch: Batch) -> None:
    """Raise `BadInputError` where `batch` asks for a task that `ranker` does not do."""
    asked = {Task(code) for code in set(batch.task.tolist())}
    missing = asked - set(ranker.tasks)
    if missing:
        able = ", ".join(task.label for task in sorted(ranker.tasks))
        raise BadInputError(
            f"{type(ranker).__name__} was asked for {', '.join(t.label for t in sorted(missing))}; it does {able} only"
        )


def mask_padding(scores: Tensor, batch: Batch) -> Tensor:
    """Float32 scores with -inf on padding candidates."""
    return scores.float().masked_fill(~batch.cand_mask, float("-inf"))
