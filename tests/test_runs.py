import shutil
from pathlib import Path

import pytest
import torch

from gensr.data.dataset import Dataset, Split
from gensr.data.loader import RequestLoader
from gensr.data.tasks import Task
from gensr.errors import BadInputError
from gensr.pipeline import build
from gensr.requests import Request, encode
from gensr.runs import Item, evaluate, open_run
from tests.toy import ToyRanker, ToyRankerConfig, ToySourceConfig, registered, toy_spec


@pytest.fixture(autouse=True)
def toys():
    with registered():
        yield


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    with registered():
        return build(toy_spec(), root=tmp_path_factory.mktemp("runs"), progress=False)


def ids(ranking):
    return [ranked.item for ranked in ranking]


def test_candidates_come_back_best_first_with_their_ranks(run):
    ranking = run.rank(["i1", "i11"], query="family 1", candidates=["i2", "i21", "i3"])
    assert sorted(ids(ranking)) == ["i2", "i21", "i3"]
    assert [ranked.rank for ranked in ranking] == [1, 2, 3]
    assert [ranked.score for ranked in ranking] == sorted((r.score for r in ranking), reverse=True)
    assert ids(run.rank(["i1", "i11"], query="family 1", candidates=["i2", "i21", "i3"], k=1)) == ids(ranking)[:1]


def test_raw_requests_score_like_the_data_sets_own(run):
    dataset = Dataset.open(next((run.path.parent / ".cache").glob("data-*")))
    lists = dataset.candidates("uniform-20")
    batch = next(RequestLoader(dataset, 5).evaluation(lists, Split.TEST, batch_size=6))
    scores = run.ranker.score(batch)
    item, text = dataset.catalogue.item_ids, dataset.catalogue.queries
    for row in range(6):
        history = [
            {"item": item[i], "task": Task(t).label, **({"query": text[q]} if q else {})}
            for i, t, q in zip(
                *(c[row].tolist() for c in (batch.hist_item, batch.hist_task, batch.hist_query)), strict=True
            )
            if t
        ]
        candidates = [item[c] for c in batch.cand[row].tolist()]
        ranking = run.rank(history, text[int(batch.query[row])] or None, candidates)
        expected = dict(zip(candidates, scores[row].tolist(), strict=True))
        assert {r.item: r.score for r in ranking} == pytest.approx(expected, abs=1e-6)


def test_only_the_newest_events_of_a_history_count(run):
    batch = encode([Request([f"i{n}" for n in range(9)], None, ["i1"])], run.catalogue, max_history=5)
    assert [run.catalogue.item_ids[row] for row in batch.hist_item[0].tolist()] == ["i4", "i5", "i6", "i7", "i8"]


def test_history_entries_may_be_searches_and_say_so(run):
    entries = ["i1", {"item": "i2", "task": "src", "query": "family  2"}, {"id": "i3", "query": "family 3"}, Item("i4")]
    batch = encode([Request(entries, None, ["i1"])], run.catalogue, max_history=5)
    assert batch.hist_task.tolist() == [[1, 2, 2, 1]]
    assert [run.catalogue.queries[q] for q in batch.hist_query[0].tolist()] == ["", "family 2", "family 3", ""]


def test_a_request_with_a_query_is_a_search_and_one_without_a_recommendation(run):
    batch = encode([Request([], "family 1", ["i1"]), Request([], None, ["i1"])], run.catalogue, max_history=5)
    assert batch.task.tolist() == [Task.SEARCH, Task.RECOMMENDATION]


def test_a_user_without_a_past_is_served(run):
    assert len(run.rank([], None, ["i1", "i2"])) == 2
    assert len(run.rank(query="family 1", candidates=["i1", "i2"])) == 2


@pytest.mark.parametrize("new", [{"id": "new", "title": "a lamp"}, Item("new", categories="Home|Lamps")])
def test_an_item_the_run_does_not_know_is_ranked_by_its_text(run, new):
    ranking = run.rank([new, "i3"], None, ["i1", new])
    assert sorted(ids(ranking)) == ["i1", "new"]
    batch = encode([Request([new], None, ["i1", new])], run.catalogue, max_history=5)
    beyond = run.catalogue.num_items + 1
    assert (batch.hist_item[0, 0], batch.cand[0, 1]) == (beyond, beyond)
    assert batch.extra.items in [("a lamp",), ("Home Lamps",)]


def test_new_items_and_queries_are_numbered_once_over_a_batch(run):
    a, b = Item("a", "one"), Item("b", "two")
    requests = [Request([a], "new words", [b, a]), Request([b], " new  words ", [b])]
    batch = encode(requests, run.catalogue, max_history=5)
    first, query = run.catalogue.num_items + 1, run.catalogue.num_queries + 1
    assert batch.cand.tolist() == [[first + 1, first], [first + 1, 0]]
    assert batch.cand_mask.tolist() == [[True, True], [True, False]]
    assert batch.hist_item.tolist() == [[first], [first + 1]]
    assert batch.query.tolist() == [query, query]
    assert (batch.extra.items, batch.extra.queries) == (("one", "two"), ("new words",))


def test_the_catalogues_text_wins_for_items_it_knows(run):
    assert run.rank([], None, [Item("i1", "other words"), "i2"]) == run.rank([], None, ["i1", "i2"])


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (Request([], None, ["i1", "i1x"]), r"candidates\[1\]: the run's catalogue has no item 'i1x'; did you mean 'i1"),
        (Request(["zz"], None, ["i1"]), r'history\[0\].*no item \'zz\'.*give it as {"id": "zz", "title": "..."'),
        (Request([], None, ["i1", "i2", "i1"]), r"candidates\[2\]: 'i1' was already given as candidates\[0\]"),
        (Request([], None, ["i1", {"id": "i1"}]), "already given"),
        (Request(["i1"], None, []), "candidates: expected at least one item"),
        (Request([], "  ", ["i1"]), "query: expected words, got '  '"),
        (Request([{"item": "i1", "task": "search"}], None, ["i2"]), "a search event needs a query"),
        (Request([{"item": "i1", "task": "rec", "query": "x"}], None, ["i2"]), "a recommendation event has no query"),
        (Request([{"item": "i1", "taks": "rec"}], None, ["i2"]), "no 'taks'; did you mean 'task'"),
        (Request([{"item": "i1", "task": "serch"}], None, ["i2"]), "unknown task 'serch'; did you mean"),
        (Request([None], None, ["i2"]), "expected a raw item id"),
        (Request([], None, "i2"), "candidates: expected a list of items, got 'i2'"),
    ],
)
def test_what_is_wrong_with_a_request_is_said_with_its_place(run, request_, message):
    with pytest.raises(BadInputError, match=message):
        run.rank_many([request_])


def test_a_bad_request_among_many_is_named(run):
    with pytest.raises(BadInputError, match=r"request 2: candidates\[0\]: the run's catalogue has no item 'zz'"):
        run.rank_many([{"candidates": ["i1"]}, {"candidates": ["zz"]}])
    with pytest.raises(BadInputError, match="a request has no 'historie'; did you mean 'history'"):
        run.rank_many([{"historie": [], "candidates": ["i1"]}])
    several = [{"candidates": ["i1"]}] * 4 + [{"candidates": ["zz"]}]
    with pytest.raises(BadInputError, match=r"^request 5: candidates\[0\]"):  # of all, not of its batch
        run.rank_many(several, batch_size=2)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda run: run.rank([], None, ["i1", "i2"], k=-1), "k: expected 1 or more, got -1"),
        (lambda run: run.rank_many([{"candidates": ["i1"]}], batch_size=0), "batch_size: expected 1 or more, got 0"),
        (lambda run: run.score(run.encode_request(), ["i1"], k=0), "k: expected 1 or more, got 0"),
        (lambda run: run.recommend([], chunk=0), "chunk: expected 1 or more, got 0"),
        (lambda run: run.search("family 1", -2), "k: expected 1 or more, got -2"),
    ],
)
def test_numbers_that_leave_nothing_are_refused_by_name(run, call, message):
    with pytest.raises(BadInputError, match=message):
        call(run)


def test_many_requests_rank_like_each_alone(run):
    requests = [
        {"history": ["i1", "i2"], "query": "family 2", "candidates": ["i5", "i12", {"id": "n", "title": "new"}]},
        {"candidates": ["i7"]},
        {"history": [{"item": "i4", "query": "unheard of"}], "candidates": ["i8", "i9"]},
    ]
    alone = [run.rank_many([request])[0] for request in requests]
    for size in (1, 2, 64):
        together = run.rank_many(requests, batch_size=size)
        for one, other in zip(alone, together, strict=True):
            assert ids(one) == ids(other)
            assert [r.score for r in one] == pytest.approx([r.score for r in other], abs=1e-6)


def test_equal_scores_keep_the_order_given(run):
    twins = [{"id": "n2", "title": "x"}, {"id": "n1", "title": "x"}, {"id": "n3", "title": "x"}]
    assert ids(run.rank(["i1"], None, twins)) == ["n2", "n1", "n3"]


def test_search_and_recommend_go_over_the_whole_catalogue(run):
    everything = run.catalogue.item_ids[1:]
    whole = run.rank(["i5"], "family 5", everything)
    found = run.search("family 5", 7, history=["i5"], chunk=11)
    assert ids(found) == ids(whole[:7])
    assert [r.rank for r in found] == list(range(1, 8))
    assert ids(run.recommend(["i5"], 3)) == ids(run.rank(["i5"], None, everything, k=3))
    assert len(run.recommend([], 1000)) == len(everything)


def test_a_request_that_was_read_once_ranks_any_candidates_as_rank_does(run):
    history, new = ["i1", {"id": "n", "title": "a lamp"}], {"id": "m", "title": "a chair"}
    for query in (None, "family 1", "words nobody asked"):
        request = run.encode_request(history, query)
        for candidates in (["i2", "i21", "i3"], [new, "i2"], [{"id": "n", "title": "a lamp"}, new, "i1"]):
            assert run.score(request, candidates) == run.rank(history, query, candidates)
        assert ids(run.score(request, ["i2", "i3"], k=1)) == ids(run.rank(history, query, ["i2", "i3"], k=1))


def test_the_cache_of_the_documentation_works(run):
    text = (Path(__file__).parents[1] / "docs" / "serving.md").read_text(encoding="utf-8")
    code = text.split("```python\n")[1].split("```")[0].replace('"runs/demo"', repr(str(run.path)))
    names = {}
    exec(code, names)
    expected = open_run(run.path).rank(["i1", "i2"], "family 1", ["i3", "i11"])
    assert names["answer"](["i1", "i2"], "family 1", ["i3", "i11"]) == expected
    assert names["answer"](["i1", "i2"], "family 1", ["i3"]) == [r._replace(rank=1) for r in expected if r.item == "i3"]
    assert names["request"].cache_info().hits == 1


def test_a_kept_request_can_be_a_key_and_prints_in_a_line(run):
    request, other = run.encode_request(["i1"]), run.encode_request(["i1"])
    assert {request: 1, other: 2}[request] == 1
    assert len(repr(request)) < 100


def test_new_items_of_one_list_are_not_those_of_the_next(run):
    request = run.encode_request([{"id": "n", "title": "a lamp"}])
    first = request.asked.with_candidates([[{"id": "m", "title": "a chair"}]])
    second = request.asked.with_candidates([[{"id": "o", "title": "a table"}]])
    assert (first.extra.items, second.extra.items) == (("a lamp", "a chair"), ("a lamp", "a table"))
    assert torch.equal(first.cand, second.cand)


def test_what_is_wrong_with_a_kept_request_or_its_candidates_is_said(run, tmp_path):
    shutil.copytree(run.path, tmp_path / "copy")
    with pytest.raises(BadInputError, match="was encoded by another run"):
        open_run(tmp_path / "copy").score(run.encode_request(["i1"]), ["i2"])
    with pytest.raises(BadInputError, match="candidates: expected at least one item"):
        run.score(run.encode_request(["i1"]), [])
    with pytest.raises(BadInputError, match="query: expected words"):
        run.encode_request(["i1"], " ")


def test_the_catalogue_is_scored_in_chunks_with_one_reading_of_the_request(run, monkeypatch):
    read, chunks = [], []
    score = run.ranker.score
    monkeypatch.setattr(run.ranker, "encode_request", lambda batch: read.append(len(batch)))
    monkeypatch.setattr(
        run.ranker, "score", lambda batch, state: (chunks.append(batch.cand.shape[1]), score(batch, state))[1]
    )
    run.recommend(["i5"], 3, chunk=50)
    assert read == [1]
    assert chunks == [50, 50, 20]


def test_a_compiled_run_meets_few_numbers_of_candidates_and_ranks_alike(run, monkeypatch):
    compiled, lengths = [], []

    def compile_with(self, compiler):
        compiled.append(compiler)

    monkeypatch.setattr(ToyRanker, "compile_with", compile_with)
    fast = open_run(run.path, compile=True)
    score = fast.ranker.score
    monkeypatch.setattr(
        fast.ranker, "score", lambda batch, state=None: (lengths.append(batch.cand.shape[1]), score(batch, state))[1]
    )
    for count in (1, 16, 17, 100, 120):
        candidates = [f"i{number}" for number in range(count)]
        assert fast.rank(["i1"], None, candidates) == run.rank(["i1"], None, candidates)
    assert lengths == [16, 16, 32, 128, 128]
    assert len(compiled) == 1
    monkeypatch.undo()
    with pytest.raises(BadInputError, match="ToyRanker has nothing to compile"):
        _ = open_run(run.path, compile=True).ranker


def test_a_precision_is_known_and_one_that_the_ranker_has(run):
    assert open_run(run.path).precision == "fp32"
    with pytest.raises(BadInputError, match="no precision named 'bf61'; did you mean 'bf16'"):
        open_run(run.path, precision="bf61")
    with pytest.raises(BadInputError, match="ToyRanker scores in fp32 only"):
        open_run(run.path, precision="bf16").rank([], None, ["i1"])
    with pytest.raises(BadInputError, match=r"evaluation\.precision: a ranker of type 'toy'"):
        evaluate(run, precision="bf16")


def test_a_run_needs_nothing_but_its_directory(run, tmp_path):
    shutil.copytree(run.path, tmp_path / "elsewhere")
    moved = open_run(str(tmp_path / "elsewhere"))
    asked = (["i1", "i2"], "family 1", ["i11", "i5", {"id": "n", "title": "new"}])
    assert moved.rank(*asked) == run.rank(*asked)
    assert moved.spec == run.spec
    assert not moved.ranker.training
    assert not torch.is_inference_mode_enabled()


def test_opening_what_is_no_run_says_so_with_the_nearest_one(run, tmp_path):
    with pytest.raises(BadInputError, match=f"is no run directory; did you mean '{run.path.name}'"):
        open_run(run.path.with_name(run.path.name[:-1]))
    with pytest.raises(BadInputError, match="is no run directory"):
        open_run(tmp_path / "nowhere" / "at all")
    shutil.copytree(run.path, tmp_path / "half")
    (tmp_path / "half/metrics.json").unlink()
    with pytest.raises(BadInputError, match=r"is not finished: it has no metrics\.json"):
        _ = open_run(tmp_path / "half").metrics
    shutil.rmtree(tmp_path / "half/model")
    with pytest.raises(BadInputError, match="holds no trained model yet"):
        open_run(tmp_path / "half")


def test_measuring_a_run_again_gives_its_metrics(run):
    assert evaluate(open_run(run.path)) == run.metrics


def test_measuring_in_another_precision_keeps_a_run_compiled(run, monkeypatch):
    compiled = []
    monkeypatch.setattr(ToyRanker, "compile_with", lambda self, compiler: compiled.append(self.precision))
    monkeypatch.setattr(ToyRanker, "_cast", lambda self, precision: None)
    monkeypatch.setattr(ToyRankerConfig, "check_scoring", lambda self, precision: None)
    evaluate(open_run(run.path, compile=True), max_requests=5, precision="bf16")
    assert compiled == ["bf16"]


def test_a_part_can_be_measured_and_the_run_stays_as_it_is(run):
    before = (run.path / "metrics.json").read_text()
    part = evaluate(run, tasks=["src"], candidates=["uniform-20"], max_requests=10)
    numbers = part["candidates"]["uniform-20"]["rankers"]["toy"]
    assert set(numbers) == {"search"}
    assert numbers["search"]["requests"] == 10
    assert (run.path / "metrics.json").read_text() == before
    with pytest.raises(BadInputError, match="no candidate list 'uniform-99'"):
        evaluate(run, candidates=["uniform-99"])
    with pytest.raises(BadInputError, match="unknown task 'serch'"):
        evaluate(run, tasks=["serch"])


def test_measuring_needs_the_data_the_run_was_built_from(run, tmp_path, monkeypatch):
    assert evaluate(run, root=tmp_path)["candidates"] == run.metrics["candidates"]  # prepared again
    monkeypatch.setattr(ToySourceConfig, "identity", lambda self: "changed")
    with pytest.raises(BadInputError, match=r"the source of .* has changed"):
        evaluate(run, root=tmp_path)


def test_data_that_have_changed_are_noticed_before_they_are_prepared(run, tmp_path, monkeypatch):
    monkeypatch.setattr(ToySourceConfig, "identity", lambda self: "changed")
    monkeypatch.setattr(ToySourceConfig, "read", lambda self: pytest.fail("prepared other data"))
    with pytest.raises(BadInputError, match=r"the source of .* has changed"):
        evaluate(run, root=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_same_id_with_two_texts_is_two_new_items(run):
    one, two = Item("a", "one"), Item("a", "two")
    batch = encode([Request([one, two, one], None, ["i1"])], run.catalogue, max_history=5)
    first = run.catalogue.num_items + 1
    assert batch.hist_item.tolist() == [[first, first + 1, first]]
    assert batch.extra.items == ("one", "two")
