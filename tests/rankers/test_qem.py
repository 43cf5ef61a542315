"""QEM against its facts: what it reads, what it costs, that it learns queries and words."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from gensr.data.batch import Batch
from gensr.data.dataset import Catalogue, Dataset, Split
from gensr.data.loader import RequestLoader
from gensr.data.prepare import prepare
from gensr.data.tasks import Task
from gensr.errors import BadInputError
from gensr.evaluation.evaluator import no_query, rank_requests
from gensr.evaluation.metrics import metric
from gensr.rankers.base import Ranker, Resources
from gensr.rankers.blocks.words import Vocabulary
from gensr.rankers.peers import ProductSearchConfig, QEMConfig, ZAMConfig
from gensr.rankers.qem import QEM
from gensr.spec import load_spec
from gensr.testing.data import tiny_dataset
from tests.data.logs import data_spec
from tests.rankers.blocks.requests import asking
from tests.toy import registered

SEARCH = int(Task.SEARCH)


def shelf(items: int = 6, *, queries: tuple[str, ...] = ("red", "red shoe", "hat")) -> Catalogue:
    """Items without categories, and a few queries."""
    titles = [f"thing{row}" for row in range(1, items + 1)]
    return Catalogue(["", *titles], ["", *titles], [""] * (items + 1), ["", *queries], item_text=("title",))


def small(**options: Any) -> QEM:
    torch.manual_seed(0)
    catalogue = shelf()
    return QEM(QEMConfig(dim=4, init_std=0.5, **options), catalogue, Vocabulary.build([*catalogue.queries])).eval()


def train(ranker: Ranker, batches: Any, *, learning_rate: float) -> list[float]:
    optimizer = torch.optim.Adam(ranker.parameters(), lr=learning_rate)
    ranker.train()
    losses = []
    for batch in batches:
        optimizer.zero_grad()
        loss = ranker.loss(batch).total
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    ranker.eval()
    return losses


def test_a_score_is_the_product_of_query_and_item():
    ranker = small(lm_weight=0)
    batch = asking([2, 3], cand=[[1, 2, 0], [5, 3, 1]])
    query = ranker.encode_request(batch).vector
    expected = torch.stack([ranker.items.weight[row] @ q for q, row in ((query[0], 1), (query[0], 2), (query[1], 3))])
    scores = ranker.score(batch)
    torch.testing.assert_close(torch.stack([scores[0, 0], scores[0, 1], scores[1, 1]]), expected)
    assert scores[0, 2] == -torch.inf


def test_a_bias_is_added_and_a_cosine_has_no_length():
    biased, cosine, plain = (small(lm_weight=0, similarity=name) for name in ("bias_product", "cosine", "product"))
    batch = asking([2], cand=[[1, 2, 3]])
    with torch.no_grad():
        biased.bias[1:] = torch.arange(6.0)
    torch.testing.assert_close(biased.score(batch), plain.score(batch) + torch.arange(3.0))
    query = plain.encode_request(batch).vector
    expected = torch.cosine_similarity(query.unsqueeze(1), plain.items.weight[1:4].unsqueeze(0), dim=-1)
    torch.testing.assert_close(cosine.score(batch), expected)


def test_neither_user_nor_history_is_read():
    """Unit check 2, to the bit."""
    ranker = small()
    batch = asking([1, 2], cand=[[1, 2], [3, 4]], history=[[(5, SEARCH)], [(6, SEARCH), (1, 1)]])
    other = batch.without_history().replace(user=batch.user + 7)
    assert torch.equal(ranker.score(batch), ranker.score(other))


def test_a_blank_query_is_the_bias_of_phi():
    ranker = small()
    with torch.no_grad():
        ranker.query.bag.projection.bias.copy_(torch.arange(4.0))
    for batch in (asking([0]), asking([4], queries=("never heard",))):
        torch.testing.assert_close(ranker.encode_request(batch).vector, torch.arange(4.0).tanh().unsqueeze(0))


def test_an_item_new_to_the_catalogue_scores_zero():
    assert small().score(asking([1], cand=[[7, 1]]))[0, 0] == 0


def test_at_zero_vectors_the_loss_starts_at_six_ln_2():
    """Unit check 3, and the mean over candidates for `bce`; padding costs nothing."""
    batch = asking([1], cand=[[1, 2, 3, 4, 5, 6, 0, 0]])
    for loss, expected in (("ns", 4.158883), ("bce", 0.693147)):
        ranker = small(lm_weight=0, loss=loss)
        torch.nn.init.zeros_(ranker.items.weight)
        found = ranker.loss(batch)
        assert float(found.total.detach()) == pytest.approx(expected, abs=1e-6)
        assert set(found.parts) == {"task"}


def test_the_loss_is_the_logistic_loss_of_each_candidate():
    ranker = small(lm_weight=0)
    batch = asking([1, 2], cand=[[4, 1, 2], [3, 5, 6]], truth=1)
    scores = ranker.score(batch)
    expected = -(scores[:, 1].sigmoid().log() + (1 - scores[:, 0].sigmoid()).log() + (1 - scores[:, 2].sigmoid()).log())
    torch.testing.assert_close(ranker.loss(batch).total, expected.mean())


def test_the_language_model_adds_its_weight():
    batch = asking([1, 2], cand=[[4, 1], [3, 5]])
    catalogue = shelf()
    torch.manual_seed(0)
    config = QEMConfig(dim=4, lm_weight=0.5, subsampling=1)  # in so short a text, every word is a frequent one
    ranker = QEM(config, catalogue, Vocabulary.build([*catalogue.queries, *catalogue.text])).eval()
    found = ranker.loss(batch)
    torch.testing.assert_close(found.total, found.parts["task"] + 0.5 * found.parts["language_model"])
    assert float(found.parts["language_model"]) == pytest.approx(4.1589, abs=0.05)
    found.total.backward()
    assert ranker.query.bag.words.weight.grad[ranker.query.vocabulary.words.index("thing4")].any()


def test_words_are_those_that_can_learn(tmp_path: Path):
    """Training queries alone, or item texts as well where there is a language model."""
    dataset = tiny_dataset(tmp_path / "shop")
    resources = Resources(dataset.catalogue, max_history=5, dataset=dataset)
    rows = {int(row) for row in dataset.query[dataset.requests(Split.TRAIN, Task.SEARCH)]}
    asked = Vocabulary.build(dataset.catalogue.queries[row] for row in rows)
    assert QEMConfig(lm_weight=0).build(resources).query.vocabulary.words == asked.words
    assert set(QEMConfig().build(resources).query.vocabulary.words) > set(asked.words)


def test_twenty_queries_learn_their_items():
    """Unit check 4: every positive ranks first of 100."""
    queries = tuple(f"word{n} thing" for n in range(20))
    catalogue = shelf(100, queries=queries)
    torch.manual_seed(0)
    ranker = QEM(QEMConfig(dim=32, dropout=0.0, lm_weight=0, init_std=0.3), catalogue, Vocabulary.build(queries))

    def batch(offsets: Iterable[int]) -> Batch:
        return asking(range(1, 21), cand=[[1 + (item + offset) % 100 for offset in offsets] for item in range(20)])

    draws = random.Random(0)
    train(ranker, (batch([0, *draws.sample(range(1, 100), 20)]) for _ in range(120)), learning_rate=0.03)
    scores = ranker.score(batch(range(100)))
    assert bool((scores[:, :1] > scores[:, 1:]).all())


def test_a_recommendation_is_refused():
    with pytest.raises(BadInputError, match="QEM was asked for recommendation; it does search only"):
        small().score(asking([1], cand=[[1]]).replace(task=torch.tensor([1])))


def test_a_ranker_that_was_not_saved_says_so(tmp_path: Path):
    with pytest.raises(BadInputError, match=r"words\.json"):
        QEMConfig().build(Resources(shelf(), max_history=5, folder=tmp_path))


@pytest.fixture(scope="module")
def families(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Users who search now for this and now for that family of items, by its name, and take one of it."""
    rng = random.Random(0)
    rows = []
    for user, time in itertools.product(range(60), range(8)):
        family, item = rng.randrange(10), rng.randrange(6)
        rows.append((f"u{user}", f"i{6 * family + item + 1}", time, "search", f"family {family}"))
    return prepare(data_spec(rows, count=30, items=60), tmp_path_factory.mktemp("families") / "data")


@pytest.mark.parametrize("config", [QEMConfig, ZAMConfig, partial(ZAMConfig, zero="none")])
def test_it_learns_to_search_and_a_blank_query_hurts(families: Dataset, config: Callable[..., ProductSearchConfig]):
    loader = RequestLoader(families, 5)
    ranker = config(dim=32, init_std=0.3).build(Resources(families.catalogue, max_history=5, seed=1, dataset=families))
    torch.manual_seed(0)
    epochs = (
        loader.epoch(seed=0, epoch=epoch, batch_size=32, negatives=1, examples=ranker.examples) for epoch in range(12)
    )
    train(ranker, (batch for epoch in epochs for batch in epoch), learning_rate=0.03)

    def ndcg(change: Any = iter) -> float:
        lists = families.candidates(families.candidate_names[0])
        batches = loader.evaluation(lists, Split.TEST, tasks=[Task.SEARCH], batch_size=64)
        return float(metric(rank_requests(ranker, change(batches)), "ndcg@5").mean())

    assert ndcg() > 0.5
    assert ndcg(no_query) < 0.25


@pytest.mark.parametrize("name", ["qem", "zam"])
def test_a_spec_brings_the_native_training_unless_it_says_otherwise(name: str):
    with registered():
        spec = load_spec({"name": "s", "data": {"source": "toy_log"}, "ranker": name, "training": {"epochs": 3}})
    assert (spec.training.epochs, spec.training.batch_size, spec.training.clip_norm) == (3, 384, 5.0)
