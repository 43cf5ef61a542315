"""Shared scoring is exact: any mix of requests in one batch scores, and learns, as one candidate at a time would."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gensr.backbones.config import DecoderConfig, DecoderSizes, T5Config, T5Sizes
from gensr.data.batch import Batch, Extra
from gensr.data.tasks import Task
from gensr.encoders.cf.config import CFRandomConfig
from gensr.fusion.soft_filter.config import CrossAttentionConfig
from gensr.rankers.config import GenSRConfig
from gensr.rankers.gensr import GenSR
from gensr.testing.data import tiny_dataset
from tests.rankers.test_gensr import build

LENGTH = 4
QUERY = "steel kettle with a long handle and a lid"
"""What queries of every length are cut from."""
BACKBONES = {
    "t5": T5Config(scratch=T5Sizes(width=16, layers=1, heads=2, head_width=8, hidden=32, vocabulary=400)),
    "decoder": DecoderConfig(scratch=DecoderSizes(width=16, layers=1, heads=2, hidden=32, vocabulary=400)),
}
CASES = list(itertools.product(BACKBONES, ("packed", "interleaved"), ("pooled", "sequence")))


@pytest.fixture(scope="module")
def rankers(tmp_path_factory):
    """One ranker for every backbone, layout, and number of vectors for a history: one, or one an event."""
    dataset = tiny_dataset(tmp_path_factory.mktemp("shop") / "data")

    def ranker(backbone, layout, output):
        config = GenSRConfig(
            cf=CFRandomConfig(dim=8),
            backbone=BACKBONES[backbone],
            layout=layout,
            soft_filter=CrossAttentionConfig(output=output),
            contrastive=None,
        )
        return build(dataset, config).eval()

    return {case: ranker(*case) for case in CASES}


@dataclass(frozen=True)
class Ask:
    """One request: how long its history, how many words its query (0 = a recommendation), and its candidates."""

    history: int
    words: int
    candidates: list[int]


asks = st.lists(
    st.builds(
        Ask,
        history=st.integers(0, LENGTH),
        words=st.integers(0, 8),
        candidates=st.lists(st.integers(1, 60), min_size=1, max_size=4, unique=True),
    ),
    min_size=1,
    max_size=4,
)


def batch_of(asked: list[Ask], ranker: GenSR) -> Batch:
    """All requests as one batch; every length of query is a new text."""
    count, most = len(asked), max(len(ask.candidates) for ask in asked)
    places = torch.arange(LENGTH).repeat(count, 1)
    real = places < torch.tensor([ask.history for ask in asked]).unsqueeze(1)
    words = torch.tensor([ask.words for ask in asked])
    cand = torch.tensor([ask.candidates + [0] * (most - len(ask.candidates)) for ask in asked])
    task = torch.where(words > 0, int(Task.SEARCH), int(Task.RECOMMENDATION))
    zeros = torch.zeros_like(words)
    return Batch(
        task=task,
        user=zeros,
        time=zeros,
        query=torch.where(words > 0, ranker.num_queries + words, 0),
        hist_item=torch.where(real, 7 * places + 3 * torch.arange(count).unsqueeze(1) + 1, 0),
        hist_task=torch.where(real, places % 2 + 1, 0),
        hist_query=torch.zeros_like(places),
        hist_time=torch.zeros_like(places),
        cand=cand,
        cand_mask=cand > 0,
        label=(torch.arange(most) == 0).float().repeat(count, 1),
        request=zeros - 1,
        extra=Extra(queries=tuple(" ".join(QUERY.split()[:n]) for n in range(1, 9))),
    )


def alone(batch: Batch) -> list[Batch]:
    """Every real candidate as a request of its own, without batch mates and without padding of the batch's making."""
    found = []
    for row, column in batch.cand_mask.nonzero().tolist():
        one = batch.select(torch.tensor([row]))
        places = slice(column, column + 1)
        one = one.replace(**{name: getattr(one, name)[:, places] for name in ("cand", "cand_mask", "label")})
        length = max(1, int(one.hist_mask.sum()))
        names = ("hist_item", "hist_task", "hist_query", "hist_time")
        found.append(one.replace(**{name: getattr(one, name)[:, :length] for name in names}))
    return found


def scores_and_gradients(ranker: GenSR, batches: list[Batch]) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Margins of all real candidates, and the gradients of their answers' summed cross-entropy."""
    ranker.zero_grad()
    found = []
    for batch in batches:
        margins, labels = (values[batch.cand_mask] for values in (ranker.margins(batch), batch.label))
        torch.nn.functional.binary_cross_entropy_with_logits(margins, labels, reduction="sum").backward()
        found.append(margins.detach())
    gradients = {name: p.grad.clone() for name, p in ranker.named_parameters() if p.grad is not None}
    return torch.cat(found), gradients


@pytest.mark.parametrize("case", CASES, ids="-".join)
@settings(max_examples=6, deadline=None, derandomize=True)
@given(asked=asks)
def test_a_batch_scores_and_learns_as_one_candidate_at_a_time(rankers, case, asked):
    ranker = rankers[case]
    batch = batch_of(asked, ranker)
    together, gradients = scores_and_gradients(ranker, [batch])
    apart, summed = scores_and_gradients(ranker, alone(batch))
    torch.testing.assert_close(together, apart, atol=1e-4, rtol=0)
    assert gradients.keys() == summed.keys()
    for name, gradient in gradients.items():
        size = max(1.0, float(summed[name].abs().max()))
        assert (gradient - summed[name]).abs().max() <= 1e-4 * size, name


@pytest.mark.parametrize("case", CASES, ids="-".join)
def test_scoring_without_gradients_gives_the_same_numbers(rankers, case):
    """Where no gradient is kept, other kernels may run, and candidates are read in pieces."""
    ranker = rankers[case]
    batch = batch_of([Ask(4, 0, [3, 9, 12]), Ask(0, 5, [8]), Ask(2, 1, [5, 6])], ranker)
    expected, _ = scores_and_gradients(ranker, [batch])
    with torch.inference_mode():
        scores = ranker.score(batch)
    torch.testing.assert_close(scores[batch.cand_mask], expected, atol=1e-4, rtol=0)
