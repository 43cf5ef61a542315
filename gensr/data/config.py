"""How a log becomes requests and candidates: the part of a spec that the data core reads."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import PositiveInt

from gensr.registry import ComponentConfig, Registry

if TYPE_CHECKING:
    import numpy as np

    from gensr.data.dataset import Dataset


class CandidatesConfig(ComponentConfig):
    """Base of candidate recipes: which items compete with the truth of a held-out request."""

    def draw(self, dataset: Dataset, events: np.ndarray, *, seed: int) -> np.ndarray:
        """Candidates of the requests at `events` [R] -> int32 [R, C], the truth among them, in shuffled order."""
        raise NotImplementedError

    @property
    def name(self) -> str:
        """Name of the list in tables and files."""
        raise NotImplementedError


CANDIDATES = Registry("candidates", CandidatesConfig, builtins="gensr.data.config")


@CANDIDATES.register
class UniformConfig(CandidatesConfig):
    """Uniform over the items the user never touched, in either task and any split; drawn without replacement."""

    type: Literal["uniform"] = "uniform"
    count: PositiveInt = 99
    """Negatives beside the truth."""

    def draw(self, dataset: Dataset, events: np.ndarray, *, seed: int) -> np.ndarray:
        """See `CandidatesConfig.draw`."""
        from gensr.data.candidates import draw_uniform

        return draw_uniform(dataset, events, count=self.count, seed=seed)

    @property
    def name(self) -> str:
        """See `CandidatesConfig.name`."""
        return f"uniform-{self.count}"
