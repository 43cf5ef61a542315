"""What every ranker promises, as tests: derive from `RankerContract` and run pytest."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from gensr.data.batch import Batch, Extra
from gensr.data.dataset import Catalogue, Dataset, Split
from gensr.data.loader import RequestLoader
from gensr.data.tasks import Task
from gensr.encoders.cf.config import CFConfig
from gensr.encoders.cf.folds import fit_table
from gensr.encoders.cf.table import CFTable
from gensr.errors import BadInputError
from gensr.rankers.base import Ranker, Resources
from gensr.rankers.config import RankerConfig
from gensr.testing.data import tiny_dataset

HISTORY = 5
ROOM = 8


class RankerContract:
    """The invariants of a ranker, tested on a tiny shop.

    Set `config`, or override `make_ranker` where a ranker has no config. Give sizes that score and train in a
    fraction of a second.

    Example:
        >>> class TestMine(RankerContract):
        ...     config = MyRankerConfig(dim=8)
    """

    config: ClassVar[RankerConfig]
    tolerance: ClassVar[float] = 1e-5
    """Largest difference of two scores that should be equal; float32 sums depend a little on shapes."""
    steps: ClassVar[int] = 15
    """Updates after which the loss of one batch must have fallen."""
    learning_rate: ClassVar[float] = 1e-2
    """Adam's step size for them."""

    @classmethod
    def make_ranker(cls, resources: Resources) -> Ranker:
        """A new ranker, or the one saved in ``resources.folder``; in any mode."""
        return cls.config.build(resources)

    @pytest.fixture(scope="class")
    @classmethod
    def dataset(cls, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
        """A shop of a few hundred events."""
        return tiny_dataset(tmp_path_factory.mktemp("shop") / "data")

    @pytest.fixture(scope="class")
    @classmethod
    def resources(cls, dataset: Dataset) -> Resources:
        """What `make_ranker` gets for a new ranker."""
        return Resources(dataset.catalogue, max_history=ROOM, seed=3, dataset=dataset, cf_table=_fitter(dataset))

    @pytest.fixture(scope="class")
    @classmethod
    def ranker(cls, resources: Resources) -> Ranker:
        """A new ranker in evaluation mode; tests must not change it."""
        return cls.make_ranker(resources).eval()

    @pytest.fixture(scope="class")
    @classmethod
    def batch(cls, dataset: Dataset, ranker: Ranker) -> Batch:
        """See `contract_batch`."""
        return contract_batch(dataset, ranker)

    def test_scores_are_one_float32_for_each_candidate(self, ranker: Ranker, batch: Batch) -> None:
        """Finite for real candidates, -inf for padding."""
        scores = _score(ranker, batch)
        assert scores.dtype == torch.float32
        assert scores.shape == batch.cand.shape
        assert bool(scores[batch.cand_mask].isfinite().all())
        assert bool((scores[~batch.cand_mask] == -torch.inf).all())

    def test_scoring_again_gives_the_same_scores(self, ranker: Ranker, batch: Batch) -> None:
        """Evaluation mode has no chance in it."""
        assert torch.equal(_score(ranker, batch), _score(ranker, batch))

    def test_scores_do_not_depend_on_batch_mates(self, ranker: Ranker, batch: Batch) -> None:
        """Alone, in small groups or in another order: the same scores."""
        scores = _score(ranker, batch)
        alone = torch.cat([_score(ranker, batch.select(torch.tensor([row]))) for row in range(len(batch))])
        order = torch.arange(len(batch)).flip(0)
        self.assert_equal(alone, scores)
        self.assert_equal(_score(ranker, batch.select(order)), scores[order])
        self.assert_equal(_score(ranker, batch.select(order[:3])), scores[order[:3]])

    def test_scores_do_not_depend_on_candidate_order(self, ranker: Ranker, batch: Batch) -> None:
        """Shuffled candidates carry their scores along."""
        order = torch.rand(batch.cand.shape, generator=torch.Generator().manual_seed(0)).argsort(dim=1)
        shuffled = batch.replace(**{name: getattr(batch, name).gather(1, order) for name in CANDIDATE_FIELDS})
        self.assert_equal(_score(ranker, shuffled), _score(ranker, batch).gather(1, order))

    def test_scores_do_not_depend_on_padding_length(self, ranker: Ranker, batch: Batch) -> None:
        """Longer histories and candidate lists that hold nothing more change nothing."""
        wider = batch.replace(
            **{name: F.pad(getattr(batch, name), (0, ROOM - HISTORY)) for name in HISTORY_FIELDS},
            **{name: F.pad(getattr(batch, name), (0, 4)) for name in CANDIDATE_FIELDS},
        )
        self.assert_equal(_score(ranker, wider)[:, :-4], _score(ranker, batch))

    def test_a_kept_state_scores_any_candidates_of_its_requests(self, ranker: Ranker, batch: Batch) -> None:
        """To the bit; and where there is a state, only the candidates of a batch are read."""
        none = batch.replace(**{name: getattr(batch, name)[:, :0] for name in CANDIDATE_FIELDS})
        with torch.inference_mode():
            state = ranker.encode_request(none)
        assert torch.equal(_score(ranker, batch, state), _score(ranker, batch))
        if state is not None:
            bare = batch.without_history().replace(query=torch.zeros_like(batch.query), user=batch.user * 0)
            assert torch.equal(_score(ranker, bare, state), _score(ranker, batch))
        reversed_ = batch.replace(**{name: getattr(batch, name).flip(1) for name in CANDIDATE_FIELDS})
        self.assert_equal(_score(ranker, reversed_, state).flip(1), _score(ranker, batch))

    def test_scores_do_not_depend_on_values_under_a_mask(self, ranker: Ranker, batch: Batch, dataset: Dataset) -> None:
        """What stands where `hist_task` is 0 or `cand_mask` is False is not read."""
        junk = torch.Generator().manual_seed(1)

        def littered(name: str, mask: Tensor, below: int) -> Tensor:
            values: Tensor = getattr(batch, name)
            return torch.where(mask, values, torch.randint(below, values.shape, generator=junk))

        changed = batch.replace(
            hist_item=littered("hist_item", batch.hist_mask, dataset.num_items + 1),
            hist_query=littered("hist_query", batch.hist_mask, dataset.num_queries + 1),
            hist_time=littered("hist_time", batch.hist_mask, 1000),
            cand=littered("cand", batch.cand_mask, dataset.num_items + 1),
        )
        self.assert_equal(_score(ranker, changed), _score(ranker, batch))

    def test_scores_do_not_depend_on_the_label(self, ranker: Ranker, batch: Batch) -> None:
        """The truth is not looked at."""
        self.assert_equal(_score(ranker, batch.replace(label=1 - batch.label)), _score(ranker, batch))

    def test_an_empty_history_gets_finite_scores(self, ranker: Ranker, batch: Batch) -> None:
        """Also in a batch where all are empty."""
        assert bool(_score(ranker, batch.without_history())[batch.cand_mask].isfinite().all())

    def test_what_the_catalogue_lacks_gets_finite_scores(self, ranker: Ranker, batch: Batch, dataset: Dataset) -> None:
        """Unknown users, items in history and among candidates, and queries, all given as text."""
        new_item, new_query = dataset.num_items + 1, dataset.num_queries + 1
        first = torch.arange(batch.cand.shape[1]) == 0
        newest = batch.hist_mask & (batch.hist_mask.cumsum(1) == batch.hist_mask.sum(1, keepdim=True))
        unknown = batch.replace(
            user=torch.zeros_like(batch.user),
            time=torch.zeros_like(batch.time),
            request=torch.full_like(batch.request, -1),
            query=torch.where(batch.is_search, new_query, 0),
            hist_item=torch.where(newest, new_item + 1, batch.hist_item),
            hist_query=torch.where(newest & (batch.hist_task == Task.SEARCH), new_query, batch.hist_query),
            cand=torch.where(first, new_item, batch.cand),
            extra=Extra(items=("Bold Copper Kettle", "zzz qqq"), queries=("zzz kettle",)),
        )
        assert bool(_score(ranker, unknown)[batch.cand_mask].isfinite().all())

    def test_texts_nobody_asks_for_change_nothing(self, ranker: Ranker, batch: Batch) -> None:
        """Extra texts of one request do not move the scores of its batch mates."""
        extra = Extra(items=("Bold Copper Kettle",), queries=("zzz",))
        self.assert_equal(_score(ranker, batch.replace(extra=extra)), _score(ranker, batch))

    def test_a_saved_ranker_reopens_with_the_same_scores(
        self, ranker: Ranker, batch: Batch, dataset: Dataset, tmp_path: Path
    ) -> None:
        """Without the data set: the catalogue and the ranker's own folder are enough."""
        dataset.catalogue.save(tmp_path / "catalogue")
        ranker.save(tmp_path / "ranker")
        catalogue = Catalogue.load(tmp_path / "catalogue")
        reopened = self.make_ranker(Resources(catalogue, max_history=ROOM, seed=3, folder=tmp_path / "ranker")).eval()
        assert torch.equal(_score(reopened, batch), _score(ranker, batch))

    def test_one_seed_makes_one_ranker(self, ranker: Ranker, batch: Batch, resources: Resources) -> None:
        """Whatever happened to the global generator in between."""
        torch.rand(7)
        assert torch.equal(_score(self.make_ranker(resources).eval(), batch), _score(ranker, batch))

    def test_a_task_it_does_not_do_is_refused(self, ranker: Ranker, batch: Batch) -> None:
        """With a message that says which tasks it does."""
        able = ", ".join(task.label for task in sorted(ranker.tasks))
        for task in set(Task) - set(ranker.tasks):
            with pytest.raises(BadInputError, match=f"was asked for {task.label}; it does {able} only"):
                ranker.score(batch.replace(task=torch.full_like(batch.task, task)))

    def test_training_lowers_the_loss_of_a_batch(self, ranker: Ranker, resources: Resources, dataset: Dataset) -> None:
        """A few updates on one mixed batch; what cannot be trained says so."""
        batch = _training_batch(dataset, ranker)
        if not list(ranker.parameters()):
            with pytest.raises(BadInputError, match="nothing to train"):
                ranker.loss(batch)
            return
        torch.manual_seed(0)
        fresh = self.make_ranker(resources)
        before = _loss(fresh, batch)
        optimizer = torch.optim.Adam((p for p in fresh.parameters() if p.requires_grad), lr=self.learning_rate)
        fresh.train()
        for _ in range(self.steps):
            optimizer.zero_grad()
            fresh.loss(batch).total.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        assert _loss(fresh, batch) < before

    def test_every_trainable_parameter_gets_a_gradient(
        self, ranker: Ranker, resources: Resources, dataset: Dataset
    ) -> None:
        """A parameter no batch can move is dead weight, or a bug."""
        fresh = self.make_ranker(resources).train()
        trainable = {name: p for name, p in fresh.named_parameters() if p.requires_grad}
        if not trainable:
            pytest.skip("nothing to train")
        torch.manual_seed(0)
        fresh.loss(_training_batch(dataset, ranker)).total.backward()  # type: ignore[no-untyped-call]
        dead = [name for name, p in trainable.items() if p.grad is None or not bool(p.grad.any())]
        assert dead == []
        assert all(bool(p.grad.isfinite().all()) for p in trainable.values() if p.grad is not None)

    def test_shared_parameters_are_its_own(self, ranker: Ranker) -> None:
        """`shared_parameters` lists some of `parameters`."""
        own = {id(parameter) for parameter in ranker.parameters()}
        assert all(id(parameter) in own for parameter in ranker.shared_parameters())

    def assert_equal(self, found: Tensor, expected: Tensor) -> None:
        """Equal within `tolerance`, -inf included."""
        torch.testing.assert_close(found, expected, atol=self.tolerance, rtol=self.tolerance)


HISTORY_FIELDS = ("hist_item", "hist_task", "hist_query", "hist_time")
CANDIDATE_FIELDS = ("cand", "cand_mask", "label")


def contract_batch(dataset: Dataset, ranker: Ranker) -> Batch:
    """Test requests of the ranker's tasks with full, short and empty histories and with padding candidates."""
    lists = dataset.candidates(dataset.candidate_names[0])
    loader = RequestLoader(dataset, HISTORY)
    batch = next(loader.evaluation(lists, Split.TEST, tasks=ranker.tasks, batch_size=12, limit=6))
    rows = torch.arange(len(batch))
    cut = batch.hist_mask & (torch.arange(HISTORY) < (rows % (HISTORY + 1)).unsqueeze(1))
    padding = torch.arange(batch.cand.shape[1]) >= batch.cand.shape[1] - (rows % 3).unsqueeze(1)
    return batch.replace(
        **{name: torch.where(cut, getattr(batch, name), 0) for name in HISTORY_FIELDS},
        cand=batch.cand.masked_fill(padding, 0),
        cand_mask=~padding,
        label=batch.label.masked_fill(padding, 0),
    )


def _score(ranker: Ranker, batch: Batch, state: Any = None) -> Tensor:
    with torch.inference_mode():
        return ranker.score(batch, state)


def _loss(ranker: Ranker, batch: Batch) -> float:
    ranker.eval()  # dropout would blur the comparison
    with torch.no_grad():
        return float(ranker.loss(batch).total)


def _training_batch(dataset: Dataset, ranker: Ranker) -> Batch:
    """Training examples as the ranker wants them, among them users at their first event."""
    stream = RequestLoader(dataset, HISTORY).epoch(
        seed=0, epoch=0, batch_size=48, negatives=3, examples=ranker.examples
    )
    return next(stream)


def _fitter(dataset: Dataset) -> Callable[..., CFTable]:
    @cache
    def fit(config: CFConfig, fold: tuple[int, int] | None = None) -> CFTable:
        return fit_table(config, dataset, seed=3, fold=fold)

    return fit
