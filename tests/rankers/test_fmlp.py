"""FMLP-Rec: the filter at the newest position, what the model reads, and that it learns."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F

from gensr.data.loader import RequestLoader
from gensr.data.tasks import Task
from gensr.rankers.base import Resources
from gensr.rankers.blocks.frequency import FilterBlock, frequency_filter, last_filtered
from gensr.rankers.fmlp import FMLP
from gensr.rankers.peers import FMLPConfig
from gensr.testing.data import tiny_dataset
from tests.rankers.test_sasrec import request


def fmlp(items: int = 30, **options) -> FMLP:
    torch.manual_seed(0)
    ranker = FMLP(FMLPConfig(**{"dim": 8, "length": 6, "dropout": 0.0, **options}), num_items=items)
    with torch.no_grad():
        for p in ranker.parameters():
            p.add_(0.2 * torch.randn_like(p))
        ranker.items.weight[0] = 0
    return ranker.eval()


@pytest.mark.parametrize("length", [1, 2, 5, 8])
def test_the_last_position_alone_is_filtered_as_among_all(length):
    torch.manual_seed(length)
    x = torch.randn(3, length, 4, dtype=torch.float64)
    weight = torch.randn(length // 2 + 1, 4, 2, dtype=torch.float64)
    torch.testing.assert_close(last_filtered(x, weight), frequency_filter(x, weight)[:, -1])


def test_a_block_at_the_newest_position_is_the_whole_blocks_last_row():
    torch.manual_seed(0)
    block, x = FilterBlock(8, length=6, dropout=0.5).eval(), torch.randn(3, 6, 8)
    torch.testing.assert_close(block.newest(x), block(x)[:, -1])


def test_the_last_item_changes_what_the_first_position_holds():
    torch.manual_seed(0)
    block, x = FilterBlock(8, length=6, dropout=0.0).eval(), torch.randn(1, 6, 8)
    with torch.no_grad():
        block.filter.add_(torch.randn_like(block.filter))
    changed = x.clone()
    changed[:, -1] += 1
    assert not torch.allclose(block(x)[:, 0], block(changed)[:, 0])


@torch.no_grad()
def test_a_request_is_read_as_published_from_a_row_padded_on_the_left():
    ranker = fmlp()
    ids = torch.tensor([[0, 0, 0, 3, 4, 5]])
    columns = torch.arange(6)
    x = ranker.items.weight[ids] + ranker.embedding.positions[5 - columns]
    x = F.layer_norm(x, (8,), ranker.embedding.norm.weight, ranker.embedding.norm.bias, 1e-12)
    for block in ranker.blocks:
        spectrum = torch.fft.rfft(x, dim=1, norm="ortho") * torch.view_as_complex(block.filter)
        x = block.norm1(x + torch.fft.irfft(spectrum, n=6, dim=1, norm="ortho"))
        inner = F.gelu(x @ block.inner.weight.T + block.inner.bias)
        x = block.norm2(x + inner @ block.outer.weight.T + block.outer.bias)
    torch.testing.assert_close(ranker.encode_request(request(3, 4, 5)).user, x[:, -1])


def test_an_empty_history_has_a_state_of_its_own():
    scores = fmlp().score(request())
    assert scores.isfinite().all()
    assert scores.std() > 0


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    return tiny_dataset(tmp_path_factory.mktemp("shop") / "data")


def test_every_training_recommendation_is_an_example_the_first_of_a_user_too(shop):
    ranker = fmlp(shop.num_items)
    loader = RequestLoader(shop, 20)
    batches = list(loader.epoch(seed=0, epoch=0, batch_size=64, negatives=4, examples=ranker.examples))
    asked = sorted(event for batch in batches for event in batch.request.tolist())
    assert asked == [e for e in loader._requests(ranker.examples) if shop.task[e] == Task.RECOMMENDATION]
    assert len(asked) == len(loader._requests(ranker.examples))
    assert all(batch.cand.shape[1] == 2 for batch in batches)
    assert any(not mask.any() for batch in batches for mask in batch.hist_mask)


def test_the_loss_starts_at_two_ln_two_and_leaves_the_padding_row_alone(shop):
    torch.manual_seed(0)
    ranker = FMLP(FMLPConfig(), num_items=shop.num_items).train()
    stream = RequestLoader(shop, 20).epoch(seed=0, epoch=0, batch_size=64, negatives=4, examples=ranker.examples)
    loss = ranker.loss(next(stream)).total
    assert float(loss.detach()) == pytest.approx(2 * math.log(2), abs=0.02)
    loss.backward()
    assert not ranker.items.weight.grad[0].any()


def test_it_learns_a_few_requests_by_heart(shop):
    resources = Resources(shop.catalogue, max_history=20, seed=0, dataset=shop)
    ranker = FMLPConfig(dim=32, length=8, dropout=0.0).build(resources).train()
    stream = RequestLoader(shop, 20).epoch(seed=0, epoch=0, batch_size=30, negatives=4, examples=ranker.examples)
    batch = next(stream)
    batch = batch.select((batch.hist_task == Task.RECOMMENDATION).any(1))  # users without a past are all alike
    catalogue = torch.arange(1, shop.num_items + 1).expand(len(batch), -1)
    truth = batch.cand[batch.label > 0.5].unsqueeze(1)
    optimizer = torch.optim.Adam(ranker.parameters(), lr=5e-3)
    for step in range(350):
        others = catalogue.gather(
            1, torch.rand(catalogue.shape, generator=torch.Generator().manual_seed(step)).argsort(1)
        )
        cand = torch.cat([truth, others[:, :30]], 1)
        label = torch.zeros(cand.shape).index_fill_(1, torch.tensor([0]), 1.0)
        optimizer.zero_grad()
        ranker.loss(batch.replace(cand=cand, cand_mask=cand > 0, label=label)).total.backward()
        optimizer.step()
    everything = batch.replace(cand=catalogue, cand_mask=catalogue > 0, label=(catalogue == truth).float())
    with torch.inference_mode():
        first = ranker.eval().score(everything).argmax(1, keepdim=True) + 1 == truth
    assert first.float().mean() > 0.9
