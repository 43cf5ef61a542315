from __future__ import annotations

import numpy as np
import pytest

from gensr.data.dataset import Split
from gensr.data.loader import RequestLoader
from gensr.data.prepare import prepare
from gensr.data.sources.config import DemoConfig
from gensr.data.sources.demo import FAMILIES, STYLES
from gensr.data.tasks import Task
from gensr.spec import DataSpec


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    return prepare(DataSpec(source="demo"), tmp_path_factory.mktemp("demo") / "d")


def test_equal_options_make_equal_shops_and_seeds_differ():
    small = DemoConfig(users=20, items=80)
    first, again = small.read(), small.read()
    assert first.events.equals(again.events)
    assert first.items.equals(again.items)
    assert not first.events.equals(DemoConfig(users=20, items=80, seed=1).read().events)
    assert small.identity() != DemoConfig(users=20, items=80, seed=1).identity()


@pytest.mark.parametrize(("users", "items", "events"), [(1, 80, 5), (30, 240, 12), (200, 3000, 40)])
def test_shops_of_any_size_hold_together(users, items, events):
    log = DemoConfig(users=users, items=items, events_per_user=events).read()
    assert log.items.num_rows == items
    assert 0.7 * events * users - 5 < log.events.num_rows < 1.2 * events * users + 5


def test_the_shop_has_the_promised_shape(shop):
    counts = shop.manifest["counts"]
    assert counts["users"] == 1500
    assert 11 < counts["recommendation_events"] / 1500 < 13
    assert 7 < counts["search_events"] / 1500 < 9
    log = shop.manifest["audit"]["log"]
    assert log["twins"] > 0.2 * counts["events"]
    assert log["duplicate_events"] == 0
    assert log["users_with_one_event"] == 0


def test_users_never_repeat_an_item_at_another_time(shop):
    moments = {(u, i, t) for u, i, t in zip(shop.user.tolist(), shop.item.tolist(), shop.time.tolist(), strict=True)}
    assert len(moments) == len({(u, i) for u, i, _ in moments})


def latent(catalogue):
    """Style and family of every item and family of every query, read from the texts alone; -1 for padding."""
    brands = {brand: n for n, style in enumerate(STYLES) for brand in style.brands}
    words = {word: n for n, style in enumerate(STYLES) for word in style.words}
    families = {family.categories: n for n, family in enumerate(FAMILIES)}
    queries = {query: n for n, family in enumerate(FAMILIES) for query in family.queries}
    style = [brands[title.split()[0]] for title in catalogue.titles[1:]]
    assert style == [words[title.split()[1]] for title in catalogue.titles[1:]]
    family = [families[categories] for categories in catalogue.categories[1:]]
    asked = [queries[query] for query in catalogue.queries[1:]]
    return np.array([-1, *style]), np.array([-1, *family]), np.array([-1, *asked])


def ndcg5(scores, label):
    """Mean NDCG@5 with ties by expectation."""
    truth = scores[label > 0][:, None]
    better, equal = (scores > truth).sum(1), (scores == truth).sum(1)
    gains = np.concatenate([[0], np.cumsum(1 / np.log2(np.arange(5) + 2)), np.full(scores.shape[1], 2.9485)])
    return np.minimum((gains[better + equal] - gains[better]) / equal, 1).mean()


def oracle_scores(shop, task):
    """NDCG@5 of readers that know only the taste, only the family, or both, from histories, queries and texts."""
    style, family, asked = latent(shop.catalogue)
    lists = shop.candidates("uniform-99")
    (batch,) = RequestLoader(shop, 20).evaluation(lists, Split.TEST, tasks=[task], batch_size=10_000)
    cand, past, tasks = batch.cand.numpy(), batch.hist_item.numpy(), batch.hist_task.numpy()

    def interest(kind, weight, size):
        return np.stack([(weight * (kind[past] == n)).sum(1) for n in range(size)], axis=1)

    taste = np.take_along_axis(interest(style, tasks > 0, len(STYLES)), style[cand], 1) / 20
    if task is Task.SEARCH:
        about = (family[cand] == asked[batch.query.numpy()][:, None]).astype(float)
    else:
        age = (tasks > 0).sum(1, keepdims=True) - 1 - np.arange(20)
        recent = 0.8 ** np.maximum(age, 0) * (tasks == Task.RECOMMENDATION)
        about = np.take_along_axis(interest(family, recent, len(FAMILIES)), family[cand], 1) / 5
    both = np.log(taste + 0.02) + np.log(about + 0.02)
    popular = shop.item_counts(task)[cand].astype(float)
    label = batch.label.numpy()
    return {name: ndcg5(s, label) for name, s in dict(taste=taste, family=about, both=both, popular=popular).items()}


@pytest.mark.parametrize("task", list(Task))
def test_taste_and_family_together_beat_either_by_far(shop, task):
    found = oracle_scores(shop, task)
    assert found["both"] > 0.6
    assert found["both"] > 2 * max(found["taste"], found["family"])
    assert found["popular"] < 0.06


def test_some_queries_share_no_word_with_their_items(shop):
    overlap = shop.manifest["audit"]["splits"]["test"]["search"]["query_in_text"]
    assert 0.4 < overlap < 0.8
