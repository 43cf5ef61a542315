"""SASRec: what it reads, what it is trained on, and that it has the published shape."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gensr.data.batch import Batch
from gensr.data.dataset import Split
from gensr.data.loader import RequestLoader
from gensr.data.tasks import Task
from gensr.errors import BadInputError
from gensr.rankers.base import Resources
from gensr.rankers.blocks.sequence import events_of, newest_events, next_items
from gensr.rankers.blocks.transformer import Rows
from gensr.rankers.fmlp import FMLP
from gensr.rankers.peers import FMLPConfig, SASRecConfig
from gensr.rankers.sasrec import SASRec
from gensr.testing.data import tiny_dataset

LENGTH = 6
SMALL = {"dim": 8, "length": LENGTH, "dropout": 0.0}


def sasrec(items: int = 30, **options: Any) -> SASRec:
    """A ranker whose parameters all matter."""
    torch.manual_seed(0)
    ranker = SASRec(SASRecConfig(**{**SMALL, **options}), num_items=items, max_history=20)
    with torch.no_grad():
        for p in ranker.parameters():
            p.add_(0.2 * torch.randn_like(p))
        ranker.items.weight[0] = 0
    return ranker.eval()


def request(*items: int, task: Task = Task.RECOMMENDATION, slots: int = 8) -> Batch:
    """One request after these recommendation events, with all of items 1..9 as candidates."""
    row = torch.zeros(1, slots, dtype=torch.int64)
    row[0, : len(items)] = torch.tensor(items, dtype=torch.int64)
    one, none = torch.ones(1, dtype=torch.int64), torch.zeros_like(row)
    cand = torch.arange(1, 10).unsqueeze(0)
    return Batch(
        task=one * task,
        user=one,
        time=one,
        query=one * 0,
        hist_item=row,
        hist_task=(row > 0).long(),
        hist_query=none,
        hist_time=none,
        cand=cand,
        cand_mask=cand > 0,
        label=(cand == 1).float(),
        request=one,
    )


def states(ranker: SASRec, items: torch.Tensor) -> torch.Tensor:
    rows = Rows(items > 0)
    with torch.no_grad():
        return rows.pad(ranker._states(items, rows))


@pytest.mark.parametrize("norm", ["post", "pre", "original"])
def test_a_position_sees_itself_and_what_came_before(norm):
    ranker = sasrec(norm=norm, activation="relu", ffn_mult=1)
    before = states(ranker, torch.tensor([[3, 4, 5, 6]]))
    after = states(ranker, torch.tensor([[3, 4, 9, 6]]))
    torch.testing.assert_close(before[:, :2], after[:, :2])
    assert not torch.allclose(before[:, 2], after[:, 2])


def test_the_order_of_events_matters():
    ranker = sasrec()
    assert not torch.allclose(ranker.score(request(3, 4, 5)), ranker.score(request(4, 3, 5)))


def test_older_events_than_it_reads_change_nothing():
    ranker = sasrec()
    torch.testing.assert_close(ranker.score(request(7, 8, 1, 2, 3, 4, 5, 6)), ranker.score(request(1, 2, 3, 4, 5, 6)))


def test_searches_are_not_part_of_the_sequence():
    ranker, batch = sasrec(), request(3, 9, 4)
    searched = batch.replace(hist_task=torch.tensor([[1, 2, 1, 0, 0, 0, 0, 0]]))
    torch.testing.assert_close(ranker.score(searched), ranker.score(request(3, 4)))


def test_a_score_is_the_product_of_state_and_item():
    ranker, batch = sasrec(), request(3, 4)
    state = ranker.encode_request(batch)
    torch.testing.assert_close(ranker.score(batch)[0, 4], state.user[0] @ ranker.items.weight[5])


def test_a_user_without_a_past_scores_all_items_alike():
    assert not sasrec().score(request()).any()


def test_it_has_as_many_parameters_as_in_s3_rec():
    """On Beauty: 774,528 of items, 3,200 of positions, 128 of the layer norm, 49,984 a block."""
    published = SASRec(SASRecConfig(), num_items=12_101, max_history=50)
    assert sum(p.numel() for p in published.parameters()) == 877_824
    assert sum(p.numel() for p in FMLP(FMLPConfig(), num_items=12_101).parameters()) == 851_200


def test_sizes_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="heads=3 does not divide dim=64"):
        SASRecConfig(heads=3)


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    return tiny_dataset(tmp_path_factory.mktemp("shop") / "data")


def training_batch(shop, ranker, *, size: int = 16, slots: int = 20) -> Batch:
    stream = RequestLoader(shop, slots).epoch(seed=0, epoch=0, batch_size=size, negatives=4, examples=ranker.examples)
    return next(stream)


def test_every_position_is_trained_to_predict_the_next_recommendation_event(shop):
    ranker = sasrec(shop.num_items)
    batch = training_batch(shop, ranker, size=64)
    sequence = next_items(batch, Task.RECOMMENDATION, 6)
    for row in range(len(batch)):
        last = int(batch.request[row])
        past = [
            e for e in range(shop.offsets[shop.user[last]], shop.past[last]) if shop.task[e] == Task.RECOMMENDATION
        ][-20:]
        # What the batch shows holds both tasks, so some of the oldest may be cut; the newest are all there.
        shown = sequence.items[row][sequence.mask[row]].tolist()
        kept = past[len(past) - len(shown) :]
        assert shown == [int(shop.item[e]) for e in kept]
        following = [*kept[1:], last]
        real = slice(0, len(kept))
        assert sequence.target[row, real].tolist() == [int(shop.item[e]) for e in following[: len(kept)]]
        trained = [bool(shop.split[e] == Split.TRAIN) for e in following[: len(kept)]]
        assert sequence.trains[row, real].tolist() == trained
        user = shop.user[last]
        touched = set(shop.item[(shop.user == user) & (shop.split == Split.TRAIN)].tolist())
        assert not touched & set(sequence.negatives[row][sequence.trains[row]].flatten().tolist())


def test_a_batch_of_requests_is_refused_for_training(shop):
    ranker = sasrec(shop.num_items)
    batch = training_batch(shop, ranker).replace(hist_negatives=None)
    with pytest.raises(BadInputError, match="trained on sequences"):
        ranker.loss(batch)


@pytest.mark.parametrize("loss", ["bce", "gbce", "softmax"])
def test_padding_and_users_without_a_past_add_nothing_to_the_loss(shop, loss):
    ranker = sasrec(shop.num_items, loss=loss)
    batch = training_batch(shop, ranker)
    before = ranker.loss(batch).total
    first = batch.select(torch.arange(len(batch)))
    empty = batch.select(torch.tensor([0, 1])).without_history()
    names = ("hist_item", "hist_task", "hist_query", "hist_time", "cand", "cand_mask", "label", "hist_negatives")
    more = first.replace(
        **{name: torch.cat([getattr(batch, name), getattr(empty, name)]) for name in (*names, "task", "user")}
    )
    torch.testing.assert_close(ranker.loss(more).total, before)


def test_the_loss_starts_at_two_ln_two_and_leaves_the_padding_row_alone(shop):
    torch.manual_seed(0)
    ranker = SASRec(SASRecConfig(), num_items=shop.num_items, max_history=20).train()
    loss = ranker.loss(training_batch(shop, ranker)).total
    assert float(loss.detach()) == pytest.approx(2 * math.log(2), abs=0.05)
    loss.backward()
    assert not ranker.items.weight.grad[0].any()


@pytest.mark.parametrize("loss", ["bce", "gbce", "softmax", "sampled_softmax"])
def test_it_learns_twenty_users_by_heart(shop, loss):
    resources = Resources(shop.catalogue, max_history=20, seed=0, dataset=shop)
    # Calibrated in full, gBCE gives positives so little weight that learning takes twice the updates.
    options = {"negatives": 8, "calibration": 0.2, "samples": 64}
    ranker = SASRecConfig(dim=32, dropout=0.0, loss=loss, **options).build(resources).train()
    batch = training_batch(shop, ranker, size=20)
    optimizer = torch.optim.Adam(ranker.parameters(), lr=1e-2)
    torch.manual_seed(0)
    for _ in range(200):
        optimizer.zero_grad()
        ranker.loss(with_other_negatives(batch, shop.num_items)).total.backward()
        optimizer.step()
    sequence = next_items(batch, Task.RECOMMENDATION, 20)
    with torch.no_grad():
        everything = states(ranker.eval(), sequence.items) @ ranker.items.weight[1:].T
    first = everything.argmax(-1) + 1 == sequence.target
    later = sequence.trains.clone()
    later[:, 0] = False  # users with one first item go on differently
    assert later.sum() > 10
    assert first[later].float().mean() > 0.9


def with_other_negatives(batch: Batch, items: int) -> Batch:
    drawn = torch.randint(1, items + 1, batch.hist_negatives.shape).masked_fill(batch.hist_negatives == 0, 0)
    others = torch.randint(1, items + 1, batch.cand.shape)
    return batch.replace(hist_negatives=drawn, cand=torch.where(batch.label > 0.5, batch.cand, others))


@settings(max_examples=50, deadline=None)
@given(rows=st.lists(st.lists(st.booleans(), min_size=6, max_size=6), min_size=1, max_size=4), most=st.integers(1, 7))
def test_the_newest_events_of_a_kind_come_oldest_first(rows, most):
    chosen = torch.tensor(rows)
    events = newest_events(chosen, most)
    values = torch.arange(1, 7).expand_as(chosen)
    for row, picked in enumerate(rows):
        expected = [n + 1 for n, kept in enumerate(picked) if kept][-most:]
        assert events.take(values)[row].tolist() == expected + [0] * (events.mask.shape[1] - len(expected))
        assert int(events.mask[row].sum()) == len(expected)
    assert events.mask.shape[1] == max(1, int(events.mask.sum(1).max()))


def test_a_history_without_slots_has_one_empty_slot():
    batch = request()
    bare = batch.replace(hist_task=batch.hist_task[:, :0], hist_item=batch.hist_item[:, :0])
    events = events_of(bare, Task.RECOMMENDATION, 5)
    assert events.mask.tolist() == [[False]]
    assert events.take(bare.hist_item).tolist() == [[0]]
    torch.testing.assert_close(sasrec().score(bare), sasrec().score(batch))
