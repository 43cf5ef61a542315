"""Scoring speed as ratios within one run: histories and prompts read once per request, against once per candidate.

`reference` is the straightforward evaluation: every candidate is a request of its own, its history encoded and its
prompt read anew, through the same weights. Run with ``make bench``; the ratio of the medians is the result.
"""

import pytest
import torch

from gensr.backbones.config import T5Config, T5Sizes
from gensr.data.batch import Batch
from gensr.data.tasks import Task
from gensr.encoders.cf.config import ALSConfig
from gensr.rankers.config import GenSRConfig
from gensr.rankers.gensr import GenSR

CANDIDATES, HISTORY, ITEMS, REQUESTS = 100, 20, 2000, 2


def ranker(layout: str) -> GenSR:
    sizes = T5Sizes(width=256, layers=4, heads=4, head_width=64, hidden=512, vocabulary=2000)
    config = GenSRConfig(cf=ALSConfig(), backbone=T5Config(scratch=sizes), layout=layout)
    generator = torch.Generator().manual_seed(0)
    words = [f"word{number}" for number in range(500)]
    texts = ["", *(" ".join(words[(7 * i + j) % 500] for j in range(8)) for i in range(ITEMS))]
    backbone = config.backbone.build(texts=texts, seed=0)
    table = torch.randn(ITEMS + 1, 64, generator=generator)
    table[0] = 0
    return GenSR(
        config,
        backbone=backbone,
        item_texts=texts,
        query_texts=["", "word1 word2 word3"],
        cf_items=table,
        max_history=HISTORY,
    ).eval()


def requests() -> Batch:
    generator = torch.Generator().manual_seed(1)
    items = torch.randint(1, ITEMS + 1, (REQUESTS, HISTORY), generator=generator)
    candidates = torch.stack([torch.randperm(ITEMS, generator=generator)[:CANDIDATES] + 1 for _ in range(REQUESTS)])
    ones = torch.ones(REQUESTS, dtype=torch.int64)
    return Batch(
        task=torch.tensor([Task.SEARCH, Task.RECOMMENDATION]),
        user=ones,
        time=ones,
        query=torch.tensor([1, 0]),
        hist_item=items,
        hist_task=torch.full_like(items, Task.RECOMMENDATION),
        hist_query=torch.zeros_like(items),
        hist_time=torch.zeros_like(items),
        cand=candidates,
        cand_mask=torch.ones_like(candidates, dtype=torch.bool),
        label=torch.zeros(candidates.shape),
        request=-ones,
    )


def one_candidate_at_a_time(model: GenSR, batch: Batch) -> torch.Tensor:
    """Every (request, candidate) pair as a row of its own, in batches of the same number of prompts."""
    rows = torch.arange(REQUESTS).repeat_interleave(CANDIDATES)
    pairs = batch.select(rows).replace(
        cand=batch.cand.reshape(-1, 1), cand_mask=batch.cand_mask.reshape(-1, 1), label=batch.label.reshape(-1, 1)
    )
    return model.score(pairs).view(REQUESTS, CANDIDATES)


@pytest.fixture(scope="module", params=["packed", "interleaved"])
def model(request):
    torch.set_num_threads(2)
    return ranker(request.param), request.param


@pytest.mark.benchmark(group="score 2 requests x 100 candidates (d 256, 4+4 layers, fp32)")
@pytest.mark.parametrize("path", ["shared", "reference"])
def test_scoring(benchmark, model, path):
    scorer, layout = model
    batch = requests()
    call = scorer.score if path == "shared" else lambda b: one_candidate_at_a_time(scorer, b)
    with torch.inference_mode():
        torch.testing.assert_close(scorer.score(batch), one_candidate_at_a_time(scorer, batch), atol=1e-4, rtol=0)
        benchmark.extra_info["layout"] = layout
        benchmark.pedantic(call, args=(batch,), rounds=3, warmup_rounds=1)


@pytest.mark.benchmark(group="training step, 32 requests x 5 candidates (d 256, 4+4 layers, fp32)")
def test_training_step(benchmark, model):
    scorer, layout = model
    batch = requests().select(torch.arange(REQUESTS).repeat(16))
    batch = batch.replace(cand=batch.cand[:, :5], cand_mask=batch.cand_mask[:, :5], label=torch.eye(5)[0].repeat(32, 1))

    def step():
        scorer.train()
        scorer.loss(batch).total.backward()
        scorer.zero_grad()
        scorer.eval()

    benchmark.extra_info["layout"] = layout
    benchmark.pedantic(step, rounds=3, warmup_rounds=1)
