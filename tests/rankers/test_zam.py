"""ZAM and AEM against their facts: whose history counts, how it moves the query, when it is QEM."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from gensr.data.batch import Batch
from gensr.data.tasks import Task
from gensr.rankers.blocks.words import Vocabulary
from gensr.rankers.peers import QEMConfig, ZAMConfig
from gensr.rankers.qem import QEM
from gensr.rankers.zam import ZAM
from tests.rankers.blocks.requests import asking
from tests.rankers.test_qem import shelf, train

REC, SEARCH = int(Task.RECOMMENDATION), int(Task.SEARCH)
ALL = [[1, 2, 3, 4, 5, 6]]


def small(**options: Any) -> ZAM:
    torch.manual_seed(0)
    catalogue = shelf()
    config = ZAMConfig(dim=4, init_std=0.5, lm_weight=0, **options)
    return ZAM(config, catalogue, Vocabulary.build([*catalogue.queries])).eval()


def one(history: list[tuple[int, int]], *, query: int = 2) -> Batch:
    return asking([query], cand=ALL, history=[history])


def as_qem(zam: ZAM) -> QEM:
    """QEM with the weights that ZAM shares with it."""
    catalogue = shelf()
    qem = QEM(QEMConfig(dim=4, lm_weight=0), catalogue, Vocabulary.build([*catalogue.queries]))
    qem.load_state_dict({name: value for name, value in zam.state_dict().items() if not name.startswith("attention")})
    return qem.eval()


@pytest.mark.parametrize(("zero", "middle"), [("none", 0.481059), ("literal", 0.419785)])
def test_the_worked_example_comes_out(zero: str, middle: float):
    """Check 1: M for the query (0.462117, 0.462117) and the history (1, 0), (0, 1)."""
    catalogue = shelf(2, queries=("red shoe",))
    ranker = ZAM(
        ZAMConfig(dim=2, heads=1, zero=zero, mixture="mean", lm_weight=0), catalogue, Vocabulary.build(["red shoe"])
    ).eval()
    with torch.no_grad():
        for table in (ranker.items.weight, ranker.query.bag.words.weight):
            table[1:] = torch.eye(2)
        for layer in (ranker.query.bag.projection, ranker.attention.inquiries):
            layer.weight.copy_(torch.eye(2))
        ranker.attention.mix.fill_(1.0)
    state = ranker.encode_request(asking([1], history=[[(1, SEARCH), (2, SEARCH)]]))
    torch.testing.assert_close(state.vector, torch.full((1, 2), middle), atol=1e-6, rtol=0)


def test_the_mixture_is_a_mean_or_a_sum():
    batch = one([(1, SEARCH), (4, SEARCH)])
    mean, total = small(mixture="mean"), small()
    torch.testing.assert_close(total.score(batch), 2 * mean.score(batch))


@pytest.mark.parametrize("zero", ["none", "literal", "learnable"])
def test_without_a_history_the_ranking_is_that_of_qem(zero: str):
    ranker = small(zero=zero)
    batch = one([])
    torch.testing.assert_close(ranker.score(batch), as_qem(ranker).score(batch))
    assert ranker.personalisation(batch).item() == 0


def test_zero_attention_to_all_items_is_qem():
    """Check 4: relevance driven to minus infinity."""
    ranker = small()
    batch = one([(1, SEARCH), (4, SEARCH)])
    with torch.no_grad():
        ranker.items.weight[[1, 4]] = torch.tensor([1.0, 0, 0, 0])
        ranker.attention.inquiries.weight.zero_()
        ranker.attention.inquiries.bias.fill_(9.0)
        ranker.attention.mix.fill_(-10.0)
    torch.testing.assert_close(ranker.score(batch), as_qem(ranker).score(batch))
    assert ranker.personalisation(batch).item() < 1e-6


def test_only_searches_count_unless_all_is_asked_for():
    mixed, searches = one([(1, SEARCH), (3, REC), (4, SEARCH)]), one([(1, SEARCH), (4, SEARCH)])
    narrow, wide = small(), small(history="all")
    torch.testing.assert_close(narrow.score(mixed), narrow.score(searches))
    assert not torch.allclose(wide.score(mixed), wide.score(searches))
    torch.testing.assert_close(wide.score(mixed), narrow.score(one([(n, SEARCH) for n in (1, 3, 4)])))


def test_only_the_newest_events_count_in_any_order():
    ranker = small(length=2)
    long = [(6, SEARCH), (1, SEARCH), (5, REC), (4, SEARCH), (2, REC)]
    torch.testing.assert_close(ranker.score(one(long)), ranker.score(one([(4, SEARCH), (1, SEARCH)])))


def test_all_clicks_of_a_search_stand_for_it():
    ranker = small()
    batch = one([(1, SEARCH), (3, REC), (4, SEARCH)])
    clicks = torch.tensor([[[1, 2], [3, 0], [4, 0]]])
    torch.testing.assert_close(
        ranker.score(batch.replace(hist_clicks=clicks)), ranker.score(one([(n, SEARCH) for n in (1, 2, 4)]))
    )


def test_items_new_to_the_catalogue_are_left_out_of_the_history():
    ranker = small(zero="none")
    torch.testing.assert_close(ranker.score(one([(9, SEARCH), (1, SEARCH)])), ranker.score(one([(1, SEARCH)])))


def test_the_personalisation_mass_is_told_and_grows_with_the_history():
    ranker = small()
    batch = asking([2, 2], cand=ALL * 2, history=[[(1, SEARCH)], [(4, SEARCH), (1, SEARCH)]])
    mass = ranker.personalisation(batch)
    assert 0 < mass[0] < mass[1] < 1
    assert torch.equal(ranker.encode_request(batch).personalisation, mass)
    torch.testing.assert_close(ranker.loss(batch).parts["personalisation"], mass.mean())


def test_it_learns_that_the_history_says_which_item_a_query_means():
    """One query for all: what was bought last names what is bought next, and QEM cannot know."""
    first = torch.arange(1, 7)
    batch = asking(
        [2] * 6,
        cand=[[item, *(other for other in range(1, 7) if other != item)] for item in first.tolist()],
        history=[[(item, SEARCH)] for item in first.tolist()],
    )
    torch.manual_seed(0)
    catalogue = shelf()
    words = Vocabulary.build([*catalogue.queries])
    right = {}
    for config, kind in ((ZAMConfig, ZAM), (QEMConfig, QEM)):
        ranker = kind(config(dim=8, lm_weight=0, dropout=0.0, init_std=0.3), catalogue, words)
        train(ranker, [batch] * 150, learning_rate=0.02)
        right[kind] = int((ranker.score(batch).argmax(dim=1) == 0).sum())
    assert right == {ZAM: 6, QEM: 1}
