"""What every candidate recipe owes its users, as a pytest base class."""

from __future__ import annotations

import numpy as np
import pytest

from gensr.data.config import CandidatesConfig
from gensr.data.dataset import Dataset, Split
from gensr.testing.data import tiny_dataset


class CandidatesContract:
    """Derive from it, return your config from `config`, and pytest does the rest.

    Example:
        >>> class TestMyCandidates(CandidatesContract):
        ...     def config(self):
        ...         return MyCandidatesConfig(count=9)
    """

    def config(self) -> CandidatesConfig:
        """The config under test, with few candidates."""
        raise NotImplementedError

    @pytest.fixture(scope="class")
    @classmethod
    def dataset(cls, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
        """What is drawn from: see `tiny_dataset`."""
        return tiny_dataset(tmp_path_factory.mktemp("shop") / "data")

    def draw(self, dataset: Dataset, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
        """Test requests and their candidates, all rows made."""
        events = dataset.requests(Split.TEST)
        return events, np.asarray(self.config().draw(dataset, events, seed=seed))

    def test_every_request_has_its_truth_exactly_once(self, dataset: Dataset) -> None:
        """The list is what the truth is ranked in."""
        events, candidates = self.draw(dataset)
        assert ((candidates == dataset.item[events][:, None]).sum(axis=1) == 1).all()

    def test_candidates_are_items_and_none_comes_twice(self, dataset: Dataset) -> None:
        """Rows of the catalogue; 0 fills lists that came out short."""
        _, candidates = self.draw(dataset)
        assert candidates.dtype == np.int32
        assert candidates.min() >= 0
        assert candidates.max() <= dataset.num_items
        for row in candidates:
            assert len(set(row[row > 0])) == (row > 0).sum()

    def test_no_negative_was_ever_touched_by_its_user(self, dataset: Dataset) -> None:
        """Neither before nor after the request, in either task."""
        events, candidates = self.draw(dataset)
        for event, row in zip(events, candidates, strict=True):
            user = dataset.user[event]
            touched = set(dataset.item[dataset.offsets[user] : dataset.offsets[user + 1]])
            assert set(row) & touched <= {dataset.item[event], 0}

    def test_one_seed_gives_one_list_and_another_seed_another(self, dataset: Dataset) -> None:
        """Drawn once, the same for all rankers; unless nothing is drawn."""
        first, second, other = (self.draw(dataset, seed)[1] for seed in (0, 0, 1))
        assert np.array_equal(first, second)
        assert np.array_equal(first, other) != self.config().seeded

    def test_some_rows_are_what_they_are_among_all(self, dataset: Dataset) -> None:
        """Evaluation takes rows as it needs them."""
        events, candidates = self.draw(dataset)
        drawn, rows = self.config().draw(dataset, events, seed=0), np.array([len(events) - 1, 0, 3])
        assert drawn.shape == candidates.shape
        assert np.array_equal(drawn[rows], candidates[rows])
        assert np.array_equal(np.asarray(drawn[2:5]), candidates[2:5])

    def test_the_place_of_the_truth_says_nothing(self, dataset: Dataset) -> None:
        """It stands everywhere."""
        events, candidates = self.draw(dataset)
        places = (candidates == dataset.item[events][:, None]).argmax(axis=1)
        assert len(set(places)) > 1

    def test_the_name_tells_recipes_apart(self) -> None:
        """Tables and files are named by it."""
        assert self.config().name
        assert "/" not in self.config().name
