"""UniSAR: its unit checks, its losses, and that it learns from queries and histories.

The log is planted: items come in kinds that their titles name, a query names a kind, a user takes items of one kind.
"""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from gensr.data.batch import Batch, Extra
from gensr.data.catalogue import Catalogue
from gensr.data.tasks import Task
from gensr.rankers.blocks.words import Vocabulary, WordBag
from gensr.rankers.peers import UniSARConfig
from gensr.rankers.unisar import UniSAR, by_task
from gensr.rankers.unisar_features import Features, FeatureVector
from gensr.rankers.unisar_history import HistoryEncoder, cross_type

KINDS, ITEMS, USERS, HISTORY = 6, 60, 50, 6
SMALL = {"dim": 16, "feature_dim": 8, "hidden": 16, "pool": 32, "events": 4, "words": 4}


def kind_of(items: torch.Tensor) -> torch.Tensor:
    return items % KINDS


def catalogue() -> Catalogue:
    titles = ["", *(f"kind{item % KINDS} thing{item}" for item in range(1, ITEMS + 1))]
    categories = ["", *(f"Shop|Kind {item % KINDS}" for item in range(1, ITEMS + 1))]
    queries = ["", *(f"kind{kind}" for kind in range(KINDS))]  # row 1 + kind
    return Catalogue(["", *map(str, range(1, ITEMS + 1))], titles, categories, queries)


def make(**options) -> UniSAR:
    texts = catalogue()
    config = UniSARConfig(**{**SMALL, **options})
    vocabulary = Vocabulary.build([*texts.queries, *texts.text])
    torch.manual_seed(0)
    return UniSAR(config, Features(config, texts, vocabulary, USERS)).eval()


def of_kind(kind: torch.Tensor) -> torch.Tensor:
    """A random item of each kind."""
    return kind + KINDS * torch.randint(1, ITEMS // KINDS, kind.shape)


def planted(rows: int, seed: int) -> Batch:
    """Requests of both tasks: searches want the kind that the query names, users the kind of their recommendations."""
    torch.manual_seed(seed)
    task, taste = torch.randint(1, 3, (rows,)), torch.randint(KINDS, (rows,))
    hist_task = torch.randint(1, 3, (rows, HISTORY))
    hist_task[:, :2] = torch.tensor([1, 2])  # everyone has both
    hist_kind = torch.where(hist_task == Task.SEARCH, torch.randint(KINDS, (rows, HISTORY)), taste.unsqueeze(1))
    asked = torch.randint(KINDS, (rows,))
    truth = torch.where(task == Task.SEARCH, asked, taste)
    others = (truth.unsqueeze(1) + torch.randint(1, KINDS, (rows, 4))) % KINDS
    place = torch.rand(rows, 5).argsort(1)
    return Batch(
        task=task,
        user=torch.arange(rows) % USERS + 1,
        time=torch.zeros(rows, dtype=torch.int64),
        query=torch.where(task == Task.SEARCH, asked + 1, 0),
        hist_item=of_kind(hist_kind),
        hist_task=hist_task,
        hist_query=torch.where(hist_task == Task.SEARCH, hist_kind + 1, 0),
        hist_time=torch.zeros_like(hist_task),
        cand=of_kind(torch.cat([truth.unsqueeze(1), others], 1)).gather(1, place),
        cand_mask=torch.ones(rows, 5, dtype=torch.bool),
        label=(place == 0).float(),
        request=torch.arange(rows),
    )


def score(ranker: UniSAR, batch: Batch) -> torch.Tensor:
    with torch.inference_mode():
        return ranker.score(batch)


def with_history_of(batch: Batch, *tasks: Task) -> Batch:
    kept = torch.isin(batch.hist_task, torch.tensor([*tasks], dtype=torch.int64))
    return batch.replace(hist_task=batch.hist_task * kept)


# -- The architecture ------------------------------------------------------------------------------------------------


def test_a_recommendation_event_changes_the_merged_history_only_at_searches_and_at_itself():
    torch.manual_seed(0)
    ranker = make()
    kind = torch.tensor([[1, 2, 1, 2, 1, 0]])
    events = torch.randn(1, 6, 16)
    moved = events.clone()
    moved[0, 2] += 1.0
    difference = (ranker.history.read_across(moved, kind) - ranker.history.read_across(events, kind)).abs().sum(2)[0]
    assert (difference[[1, 2, 3]] > 0).all()
    assert (difference[[0, 4, 5]] == 0).all()


def test_the_cross_type_mask_shows_events_of_the_other_kind_only():
    found = cross_type(torch.tensor([[1, 1, 2, 0]]))
    assert found[0].int().tolist() == [[0, 0, 1, 0], [0, 0, 1, 0], [1, 1, 0, 0], [1, 1, 1, 0]]


def test_the_merged_history_is_read_as_torchs_encoder_layer_reads_it():
    torch.manual_seed(0)
    encoder: HistoryEncoder = make().history
    block, layer = encoder.across, nn.TransformerEncoderLayer(16, 2, 16, dropout=0.0, batch_first=True).eval()
    with torch.no_grad():
        layer.self_attn.in_proj_weight.copy_(block.attention.qkv.weight)
        layer.self_attn.in_proj_bias.copy_(block.attention.qkv.bias)
        layer.self_attn.out_proj.load_state_dict(block.attention.out.state_dict())
        layer.linear1.load_state_dict(block.feed_forward.inner.state_dict())
        layer.linear2.load_state_dict(block.feed_forward.outer.state_dict())
    kind = torch.tensor([[1, 2, 2, 1], [2, 1, 1, 0]])
    events = torch.randn(2, 4, 16)
    blocked = (~cross_type(kind)).repeat_interleave(2, dim=0)
    expected = layer(events + encoder.positions[:4], src_mask=blocked).masked_fill((kind == 0).unsqueeze(2), 0.0)
    torch.testing.assert_close(encoder.read_across(events, kind), expected, atol=1e-5, rtol=1e-5)


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def test_the_published_kuaisar_shapes_give_the_published_parameter_count():
    """35,599,505, of which 34,924,320 are embeddings.

    Known: 673,415 items, 394,912 words, 22,700 users, 38 and 297 categories. The rows of the four user features are not
    given: the embeddings leave exactly 23 for them. The official code keeps layers that nothing calls: the template of
    each of the three encoders, one of the decoders, and PLE's shared gate over all 12 experts.
    """
    with torch.device("meta"):
        user = FeatureVector([22_700, 8, 3, 6, 6], 32, 64)  # how the 23 rows divide does not change the count
        item = FeatureVector([673_415, 38, 297], 32, 64, more=64)
        bag = WordBag(394_912, 32, projection="tanh", out=64)
    embeddings = sum(module.numel() for part in (user.tables, item.tables, bag.words) for module in part.parameters())
    assert embeddings == 34_924_320
    published = {name: UniSARConfig.model_fields[name].default for name in SMALL}
    ranker = make(**published)
    alive = count(user) + count(item) + count(bag) + count(ranker) - count(ranker.features)
    history = ranker.history
    dead = 3 * count(history.across) + count(history.kinds["search"].fusion) + 320 * 12 + 12
    assert alive + dead == 35_599_505


def test_mmoe_shares_all_experts_and_gives_each_gate_as_many():
    ple, mmoe = make(), make(experts="mmoe")
    assert len(ple.experts.own) == 2
    assert len(mmoe.experts.own) == 0
    assert [gate.out_features for gate in (*ple.experts.gates, *mmoe.experts.gates)] == [8] * 4
    assert score(mmoe, planted(8, 0)).isfinite().all()


def test_each_task_is_served_in_the_order_of_the_requests():
    task = torch.tensor([2, 1, 1, 2])
    found = by_task(task, lambda code, rows: rows * int(code), torch.arange(4.0))
    assert found.tolist() == [0.0, 1.0, 2.0, 6.0]


# -- Scores ----------------------------------------------------------------------------------------------------------


def test_eight_requests_score_like_eight_batches_of_one():
    ranker, batch = make(), planted(8, 1)
    alone = torch.cat([score(ranker, batch.select(torch.tensor([row]))) for row in range(8)])
    torch.testing.assert_close(alone, score(ranker, batch), atol=1e-5, rtol=1e-5)


def test_a_recommendation_does_not_depend_on_any_query():
    ranker, batch = make(), planted(16, 2)
    rec = batch.select(batch.task == Task.RECOMMENDATION)
    assert torch.equal(score(ranker, rec.replace(query=torch.ones_like(rec.query))), score(ranker, rec))


def test_candidates_carry_their_scores_along():
    ranker, batch = make(), planted(8, 3)
    order = torch.tensor([3, 1, 4, 0, 2])
    torch.testing.assert_close(score(ranker, batch.replace(cand=batch.cand[:, order])), score(ranker, batch)[:, order])


@pytest.mark.parametrize("tasks", [(Task.RECOMMENDATION,), (Task.SEARCH,), ()])
def test_users_with_one_kind_of_history_or_none_train_and_score_finitely(tasks):
    ranker, batch = make(), planted(12, 4)
    mixed = torch.where(
        (torch.arange(12) % 2 == 0).unsqueeze(1), batch.hist_task, with_history_of(batch, *tasks).hist_task
    )
    for some in (with_history_of(batch, *tasks), batch.replace(hist_task=mixed)):
        assert score(ranker, some).isfinite().all()
        ranker.zero_grad()
        ranker.train().loss(some).total.backward()
        ranker.eval()
        assert all(p.grad.isfinite().all() for p in ranker.parameters() if p.grad is not None)


def test_only_the_newest_events_of_each_kind_are_read():
    ranker, batch = make(events=2), planted(8, 5)
    newest = batch.hist_task.flip(1)
    read = torch.stack([(newest == task) & ((newest == task).cumsum(1) <= 2) for task in Task]).any(0).flip(1)
    changed = batch.replace(hist_item=torch.where(read, batch.hist_item, batch.hist_item % ITEMS + 1))
    assert not torch.equal(changed.hist_item, batch.hist_item)
    assert torch.equal(score(ranker, changed), score(ranker, batch))


def test_a_search_event_is_its_query_plus_the_mean_of_its_clicks():
    ranker, batch = make(), planted(8, 6)
    pair = torch.stack([batch.hist_item, batch.hist_item, torch.zeros_like(batch.hist_item)], 2)
    torch.testing.assert_close(score(ranker, batch.replace(hist_clicks=pair)), score(ranker, batch))
    other = torch.stack([batch.hist_item, batch.hist_item % ITEMS + 1], 2)
    assert not torch.allclose(score(ranker, batch.replace(hist_clicks=other)), score(ranker, batch))


def test_row_0_of_items_and_users_is_the_zero_vector():
    features = make(item_features=("id", "text", "categories")).features
    assert not features.items(torch.zeros(2, dtype=torch.int64)).any()
    assert not features.users(torch.tensor([0, USERS + 3])).any()


def test_the_hidden_state_is_the_mixture_of_experts():
    assert make().hidden_state(planted(3, 0)).shape == (3, 5, 16)


# -- Losses ----------------------------------------------------------------------------------------------------------


def test_the_total_weighs_tasks_and_alignments():
    ranker = make(search_weight=0.5, query_item_weight=0.3, history_weight=0.2)
    batch = planted(32, 7)
    searches = batch.task == Task.SEARCH
    expected = 0.0
    for rows, weight in ((~searches, 1.0), (searches, 0.5)):
        torch.manual_seed(0)
        parts = ranker.loss(batch.select(rows)).parts
        expected += weight * (parts["task"] + 0.3 * parts["query_item"] + 0.2 * parts["history"])
    torch.manual_seed(0)  # the same pools
    torch.testing.assert_close(ranker.loss(batch).total, torch.as_tensor(expected))


def test_at_no_similarity_the_alignments_cost_the_logarithm_of_their_options():
    ranker = make(pool=1024)
    for similarity in ranker.similarities.values():
        nn.init.zeros_(similarity.form)
    batch = planted(40, 8).replace(task=torch.ones(40, dtype=torch.int64))
    parts = ranker.loss(batch).parts
    assert parts["history"].item() == pytest.approx(2 * math.log(2 * 40 - 1), rel=1e-5)
    # A sixth of the queries in the pool are the pair's own, and left out.
    assert parts["query_item"].item() == pytest.approx(math.log(1025), rel=0.03)


def test_an_alignment_without_weight_has_no_parameters():
    ranker = make(query_item_weight=0, history_weight=0)
    assert len(ranker.similarities) == 0
    assert ranker.loss(planted(8, 0)).parts["history"] == 0


def test_pairs_are_counted_once_with_how_often_they_stand_there():
    ranker, batch = make(), planted(4, 9)
    pairs = ranker._pairs(batch)
    found = zip(pairs.query.tolist(), pairs.item.tolist(), pairs.times.tolist(), strict=True)
    shown = []
    for tasks, queries, items in zip(batch.hist_task, batch.hist_query, batch.hist_item, strict=True):
        events = [(int(q), int(i)) for t, q, i in zip(tasks, queries, items, strict=True) if t == Task.SEARCH]
        shown += events[-SMALL["events"] :]
    assert sorted(found) == sorted((*pair, float(shown.count(pair))) for pair in set(shown))


# -- Learning --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained() -> tuple[UniSAR, list[float]]:
    """UniSAR after 100 updates on planted requests, and its click losses."""
    ranker = make(dropout=0.0).train()
    optimizer = torch.optim.Adam(ranker.parameters(), lr=5e-3)
    losses = []
    for step in range(100):
        found = ranker.loss(planted(48, 100 + step))
        optimizer.zero_grad()
        found.total.backward()
        optimizer.step()
        losses.append(float(found.parts["task"]))
    return ranker.eval(), losses


def accuracy(ranker: UniSAR, batch: Batch) -> float:
    truth = batch.label.argmax(1)
    return float((score(ranker, batch).argmax(1) == truth).float().mean())


def test_the_click_loss_starts_at_ln_2_and_falls_below_the_base_rate(trained):
    losses = trained[1]
    assert losses[0] == pytest.approx(math.log(2), abs=0.1)
    assert sum(losses[-10:]) / 10 < 0.5


def test_blanking_the_query_hurts_search(trained):
    batch = planted(200, 1)
    search = batch.select(batch.task == Task.SEARCH)
    assert accuracy(trained[0], search) > 0.8
    assert accuracy(trained[0], search.with_queries(torch.zeros_like(search.query))) < 0.5


def test_taking_the_history_hurts_recommendation(trained):
    batch = planted(200, 2)
    rec = batch.select(batch.task == Task.RECOMMENDATION)
    assert accuracy(trained[0], rec) > 0.6
    assert accuracy(trained[0], rec.without_history()) < 0.4


def test_a_new_item_is_found_by_its_text(trained):
    kinds = torch.arange(KINDS)
    batch = planted(KINDS, 3)
    new = batch.replace(
        task=torch.full((KINDS,), 2),
        query=kinds + 1,
        cand=(ITEMS + 1 + kinds).expand(KINDS, KINDS),
        cand_mask=torch.ones(KINDS, KINDS, dtype=torch.bool),
        label=torch.eye(KINDS),
        extra=Extra(items=tuple(f"kind{kind} novelty" for kind in range(KINDS))),
    )
    assert accuracy(trained[0], new) >= 4 / 6


def test_it_overfits_a_batch():
    ranker, batch = make(dropout=0.0).train(), planted(8, 0)
    optimizer = torch.optim.Adam(ranker.parameters(), lr=1e-2)
    for _ in range(60):
        optimizer.zero_grad()
        ranker.loss(batch).total.backward()
        optimizer.step()
    assert accuracy(ranker.eval(), batch) == 1.0


# -- Options ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"heads": 3}, "heads=3 does not divide dim=64"),
        ({"item_features": ()}, "item_features is empty: expected at least one of id, text, categories"),
        ({"item_features": ("id", "text", "id")}, "item_features names id twice"),
    ],
)
def test_options_that_do_not_go_together_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        UniSARConfig(**options)


@pytest.mark.parametrize("features", [("id",), ("text",), ("id", "categories"), ("categories",)])
def test_any_features_describe_an_item(features):
    ranker, batch = make(item_features=features), planted(6, 0)
    assert score(ranker, batch).isfinite().all()
    assert score(ranker, batch.replace(cand=batch.cand + ITEMS)).isfinite().all()
