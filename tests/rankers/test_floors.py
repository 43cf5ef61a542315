from __future__ import annotations

import builtins
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from gensr.data.batch import Batch, Extra
from gensr.data.dataset import Catalogue, Split
from gensr.data.loader import RequestLoader
from gensr.data.tasks import Task
from gensr.encoders.cf.config import ALSConfig
from gensr.errors import BadInputError, MissingExtraError
from gensr.evaluation.evaluator import rank_requests, summarise
from gensr.rankers.base import Resources
from gensr.rankers.config import CFRankerConfig, LexicalConfig, PopularityConfig
from gensr.rankers.floors import (
    CFRanker,
    InHistoryRanker,
    PopularityRanker,
    QueryPopularityRanker,
    RandomRanker,
    hash_uniform,
)
from gensr.rankers.lexical import LexicalRanker
from gensr.testing.data import tiny_dataset

REC, SEARCH = Task.RECOMMENDATION, Task.SEARCH


def batch_of(task, cand, *, query=0, history=(), extra=None, request=-1):
    """One request over `cand`; 0 is a padding candidate."""
    hist = torch.tensor([list(history) or [0]])
    kind = torch.full_like(hist, REC) if history else torch.zeros_like(hist)
    cand = torch.tensor([cand])
    return Batch(
        task=torch.tensor([int(task)]),
        user=torch.tensor([0]),
        time=torch.tensor([0]),
        query=torch.tensor([query]),
        hist_item=hist,
        hist_task=kind,
        hist_query=torch.zeros_like(hist),
        hist_time=torch.zeros_like(hist),
        cand=cand,
        cand_mask=cand > 0,
        label=torch.zeros(cand.shape),
        request=torch.tensor([request]),
        extra=extra,
    )


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    return tiny_dataset(tmp_path_factory.mktemp("shop") / "data")


@pytest.fixture(scope="module")
def resources(shop):
    return Resources(shop.catalogue, max_history=5, dataset=shop)


def counted(dataset, keep):
    events = np.flatnonzero((dataset.split == Split.TRAIN) & keep(dataset))
    return np.bincount(dataset.item[events], minlength=dataset.num_items + 1)


class TestRandom:
    def test_hashes_are_uniform_and_seeds_unrelated(self):
        first, second = torch.arange(300).unsqueeze(1), torch.arange(300)
        values = hash_uniform(1, first, second).flatten().double()
        assert values.min() >= 0
        assert values.max() < 1
        histogram = torch.histc(values, 20, 0, 1) / len(values)
        assert (histogram - 0.05).abs().max() < 0.004
        others = hash_uniform(2, first, second).flatten().double()
        assert torch.corrcoef(torch.stack([values, others]))[0, 1].abs() < 0.01

    def test_neighbours_are_uncorrelated(self):
        table = hash_uniform(0, torch.arange(300).unsqueeze(1), torch.arange(300)).double()
        for one, other in ((table[:-1], table[1:]), (table[:, :-1], table[:, 1:])):
            assert torch.corrcoef(torch.stack([one.flatten(), other.flatten()]))[0, 1].abs() < 0.02

    def test_splitmix64_gives_its_published_first_output(self):
        from gensr.rankers.floors import _mix, _signed

        assert int(_mix(torch.tensor(0))) == _signed(0xE220A8397B1DCDAF)

    def test_requests_of_unknown_users_are_scored_alike_again(self):
        batch = batch_of(REC, [3, 1, 2])
        assert torch.equal(RandomRanker(4).score(batch), RandomRanker(4).score(batch))
        assert not torch.equal(RandomRanker(4).score(batch), RandomRanker(5).score(batch))

    def test_it_performs_at_chance(self, shop):
        batches = RequestLoader(shop, 5).evaluation(shop.candidates("uniform-9"), Split.TEST, batch_size=64)
        for numbers in summarise(rank_requests(RandomRanker(0), batches), metrics=["recall@5"], bootstrap=200).values():
            assert numbers["recall@5"]["low"] - 0.1 < 0.5 < numbers["recall@5"]["high"] + 0.1


class TestInHistory:
    def test_one_for_items_of_the_past_and_zero_for_others(self):
        scores = InHistoryRanker().score(batch_of(SEARCH, [7, 2, 0, 5], history=[5, 7, 9]))
        assert scores.tolist() == [[1, 0, -torch.inf, 1]]

    def test_padding_of_the_history_is_no_item(self):
        assert InHistoryRanker().score(batch_of(REC, [1, 2])).tolist() == [[0, 0]]


class TestPopularity:
    def test_scores_are_log_counts_of_the_requests_own_task(self, shop, resources):
        ranker = PopularityRanker.build(resources)
        items = list(range(1, shop.num_items + 1))
        for task in Task:
            counts = counted(shop, lambda data, task=task: data.task == task)
            np.testing.assert_allclose(ranker.score(batch_of(task, items))[0], np.log1p(counts[1:]), rtol=1e-6)

    def test_held_out_events_do_not_count(self, shop, resources):
        trained = (shop.split == Split.TRAIN).sum()
        assert PopularityRanker.build(resources).counts.sum() == trained < shop.num_events

    def test_held_out_events_count_where_published_rows_counted_them(self, shop, resources):
        ranker = PopularityConfig(counts="all").build(resources)
        for task in Task:
            expected = np.bincount(shop.item[shop.task == task], minlength=shop.num_items + 1)
            assert ranker.counts[task].tolist() == expected.tolist()

    def test_a_task_without_events_borrows_the_others_counts(self):
        counts = {REC: np.array([0, 3, 1]), SEARCH: np.zeros(3, int)}
        dataset = SimpleNamespace(num_items=2, item_counts=counts.__getitem__)
        ranker = PopularityRanker.build(Resources(catalogue=None, max_history=5, dataset=dataset))
        assert torch.equal(ranker.score(batch_of(SEARCH, [1, 2])), ranker.score(batch_of(REC, [1, 2])))

    def test_an_unknown_item_scores_like_one_nobody_took(self):
        ranker = PopularityRanker(torch.tensor([[0, 0, 0], [0, 5, 0], [0, 2, 0]]))
        assert ranker.score(batch_of(REC, [1, 2, 3, 4]))[0].tolist() == pytest.approx([np.log(6), 0, 0, 0])

    def test_a_new_one_needs_data(self):
        with pytest.raises(ValueError, match=r"needs resources\.dataset"):
            PopularityRanker.build(Resources(catalogue=None, max_history=5))

    def test_an_empty_folder_is_named(self, tmp_path):
        with pytest.raises(BadInputError, match=r"no saved ranker in .*floor\.safetensors is missing"):
            PopularityRanker.build(Resources(catalogue=None, max_history=5, folder=tmp_path))


class TestQueryPopularity:
    def test_scores_are_clicks_plus_less_than_one_for_popularity(self, shop, resources):
        ranker = QueryPopularityRanker.build(resources)
        items = list(range(1, shop.num_items + 1))
        popularity = counted(shop, lambda data: data.task == SEARCH)[1:]
        clicked = False
        for query in range(1, shop.num_queries + 1):
            clicks = counted(shop, lambda data, query=query: (data.task == SEARCH) & (data.query == query))[1:]
            scores = ranker.score(batch_of(SEARCH, items, query=query))[0].numpy()
            np.testing.assert_array_equal(np.floor(scores), clicks)
            np.testing.assert_array_equal(np.argsort(scores, kind="stable"), np.lexsort((popularity, clicks)))
            clicked |= bool(clicks.any())
        assert clicked

    def test_an_unknown_query_falls_back_to_popularity_and_an_unknown_item_has_no_clicks(self):
        # Key 1 * 3 + 3 of the unknown item 3 under query 1 is also the key of query 2 and item 0.
        ranker = QueryPopularityRanker(torch.tensor([4, 7]), torch.tensor([9, 5]), torch.tensor([0, 9, 5]))
        assert ranker.score(batch_of(SEARCH, [1, 2, 3], query=1))[0].floor().tolist() == [9, 0, 0]
        unknown = ranker.score(batch_of(SEARCH, [1, 2, 3, 5], query=3))[0]
        assert (unknown < 1).all()
        assert unknown[0] > unknown[1] > unknown[2] == unknown[3] == 0

    def test_popularity_breaks_ties_exactly_however_large_the_counts(self):
        popularity = torch.tensor([0, 10_000_000, 10_000_001])
        ranker = QueryPopularityRanker(torch.tensor([4, 5]), torch.tensor([4000, 4000]), popularity)
        low, high = ranker.score(batch_of(SEARCH, [1, 2], query=1))[0].tolist()
        assert 4000 < low < high < 4001

    def test_a_log_without_clicks_is_fine(self):
        empty = torch.zeros(0, dtype=torch.int64)
        scores = QueryPopularityRanker(empty, empty, torch.zeros(3, dtype=torch.int64)).score(batch_of(SEARCH, [1, 2]))
        assert scores.tolist() == [[0, 0]]


class TestCF:
    ITEMS = torch.tensor([[0.0, 0], [3, 4], [1, 0], [0, 2], [0, 0]])

    def test_scores_are_mean_similarities_to_the_history(self):
        batch = batch_of(SEARCH, [1, 2, 3, 4], history=[1, 3, 4])
        for similarity in ("dot", "cosine"):
            table = self.ITEMS if similarity == "dot" else torch.nn.functional.normalize(self.ITEMS, dim=1)
            expected = [np.mean([float(table[h] @ table[c]) for h in (1, 3, 4)]) for c in (1, 2, 3, 4)]
            assert CFRanker(self.ITEMS, similarity).score(batch)[0].tolist() == pytest.approx(expected)

    def test_every_click_of_a_session_counts(self):
        batch = batch_of(REC, [1, 2], history=[3, 1])
        batch = batch.replace(hist_clicks=torch.tensor([[[3, 0, 0], [1, 2, 0]]]))
        expected = [np.mean([float(self.ITEMS[h] @ self.ITEMS[c]) for h in (3, 1, 2)]) for c in (1, 2)]
        assert CFRanker(self.ITEMS, "dot").score(batch)[0].tolist() == pytest.approx(expected)

    def test_unknown_items_and_empty_histories_are_similar_to_nothing(self):
        ranker = CFRanker(self.ITEMS, "dot")
        assert ranker.score(batch_of(REC, [1, 9], history=[2, 8]))[0].tolist() == [1.5, 0]
        assert ranker.score(batch_of(REC, [1, 2]))[0].tolist() == [0, 0]

    def test_the_table_is_asked_for_once_and_kept(self, shop, tmp_path):
        asked = []

        def table(config):
            asked.append(config)
            return SimpleNamespace(items=self.ITEMS)

        config = CFRankerConfig(cf=ALSConfig(dim=2), similarity="cosine")
        ranker = config.build(Resources(shop.catalogue, max_history=5, dataset=shop, cf_table=table))
        ranker.save(tmp_path)
        again = config.build(Resources(shop.catalogue, max_history=5, folder=tmp_path))
        assert asked == [config.cf]
        assert torch.equal(again.vectors, ranker.vectors)

    def test_a_new_one_needs_a_table(self):
        with pytest.raises(ValueError, match="cf_table"):
            CFRankerConfig().build(Resources(catalogue=None, max_history=5))


TITLES = ["", "Copper kettle", "Steel kettle with a steel lid", "Bread knife", "", "The kettle"]
QUERIES = ["", "kettle", "steel kettle", "unheard words", "the", "steel steel kettle"]


def words(text):
    return [word for word in text.lower().split() if word not in {"with", "a", "the"} and len(word) > 1]


def bm25(query, document, titles, k1=1.5, b=0.75):
    """Lucene's BM25 written down once more."""
    documents = [words(title) for title in titles]
    mean = np.mean([len(d) for d in documents])
    score, terms = 0.0, words(document)
    for word in words(query):
        holding = sum(word in d for d in documents)
        if holding:
            tf = terms.count(word)
            idf = np.log(1 + (len(documents) - holding + 0.5) / (holding + 0.5))
            score += idf * tf / (tf + k1 * (1 - b + b * len(terms) / mean))
    return score


class TestLexical:
    CATALOGUE = Catalogue(["", *(f"i{n}" for n in range(1, 6))], TITLES, [""] * 6, QUERIES)

    @pytest.mark.parametrize("query", range(6))
    def test_scores_are_bm25_of_query_and_text(self, query):
        scores = LexicalRanker(self.CATALOGUE).score(batch_of(SEARCH, [1, 2, 3, 4, 5], query=query))
        expected = [bm25(QUERIES[query], title, TITLES[1:]) for title in TITLES[1:]]
        np.testing.assert_allclose(scores[0], expected, rtol=1e-5, atol=1e-7)

    @pytest.mark.parametrize("query", range(6))
    def test_an_item_given_as_text_scores_like_the_same_text_in_the_catalogue(self, query):
        extra = Extra(items=("nothing", TITLES[2]))
        scores = LexicalRanker(self.CATALOGUE).score(batch_of(SEARCH, [2, 7, 6], query=query, extra=extra))[0]
        assert scores[1] == pytest.approx(float(scores[0]), rel=1e-5)
        assert scores[2] == 0

    def test_a_query_given_as_text_is_read(self):
        ranker = LexicalRanker(self.CATALOGUE)
        extra = Extra(queries=("", "Steel KETTLE"))
        found = ranker.score(batch_of(SEARCH, [1, 2, 3], query=7, extra=extra))
        assert torch.equal(found, ranker.score(batch_of(SEARCH, [1, 2, 3], query=2)))

    def test_options_matter(self):
        batch = batch_of(SEARCH, [1, 2], query=2)
        long = LexicalRanker(self.CATALOGUE, k1=0.4, b=0.1).score(batch)
        expected = [bm25(QUERIES[2], title, TITLES[1:], k1=0.4, b=0.1) for title in TITLES[1:3]]
        np.testing.assert_allclose(long[0], expected, rtol=1e-5)

    @pytest.mark.parametrize(
        ("fields", "texts"),
        [
            (None, ["red kettle, Home Kitchen", "blue shirt, Gifts"]),
            (("title",), ["red kettle", "blue shirt"]),
            (("categories",), ["Home Kitchen", "Gifts"]),
            (
                ("categories", "title", "title"),
                ["Home Kitchen, red kettle, red kettle", "Gifts, blue shirt, blue shirt"],
            ),
        ],
    )
    def test_the_fields_that_are_named_are_searched_as_one_text(self, fields, texts):
        columns = ["", "i1", "i2"], ["", "red kettle", "blue shirt"], ["", "Home|Kitchen", "Gifts"]
        catalogue = Catalogue(*columns, ["", "red gifts kitchen"])
        ranker = LexicalRanker(catalogue, fields=fields)
        expected = LexicalRanker(Catalogue(columns[0], ["", *texts], ["", "", ""], catalogue.queries))
        batch = batch_of(SEARCH, [1, 2], query=1)
        assert torch.equal(ranker.score(batch), expected.score(batch))
        assert catalogue.item_text == ("title", "categories")

    def test_fields_are_given_by_name_and_others_are_refused(self):
        assert LexicalConfig(fields="title").fields == ("title",)
        for wrong in ((), ("text",)):
            with pytest.raises(ValueError, match=r"title\W.* \W?categories"):
                LexicalConfig(fields=wrong)

    def test_a_catalogue_without_words_scores_nothing(self):
        catalogue = Catalogue(["", "i1"], ["", ""], ["", ""], ["", "kettle"])
        scores = LexicalRanker(catalogue).score(batch_of(SEARCH, [1, 2], query=1, extra=Extra(items=("kettle",))))
        assert scores.tolist() == [[0, 0]]

    def test_only_so_many_queries_are_remembered(self):
        ranker = LexicalRanker(self.CATALOGUE)
        ranker._most_remembered = 2
        for query in (1, 2, 1, 3):
            ranker.score(batch_of(SEARCH, [1], query=query))
        assert list(ranker._remembered) == ["kettle", "unheard words"]

    def test_a_missing_bm25s_says_what_to_install(self, monkeypatch):
        genuine = builtins.__import__

        def without(name, *args, **kwargs):
            if name == "bm25s":
                raise ModuleNotFoundError(name)
            return genuine(name, *args, **kwargs)

        monkeypatch.setattr(builtins, "__import__", without)
        with pytest.raises(MissingExtraError, match=r"pip install 'gensr\[retrieval\]'"):
            LexicalRanker(self.CATALOGUE)
