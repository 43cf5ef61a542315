"""What GenSR keeps of a request, in which precision it scores, and how it bounds its memory."""

from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError

import gensr.rankers.gensr as module
from gensr.backbones.config import DecoderConfig, DecoderSizes, DiscriminativeConfig
from gensr.errors import BadInputError
from gensr.nested import tensors
from gensr.rankers.base import Resources
from gensr.rankers.config import PopularityConfig
from gensr.rankers.gensr import listwise_loss
from gensr.spec import load_spec
from gensr.testing.data import tiny_dataset
from tests.rankers.test_gensr import SIZES, build, margins, some_batch
from tests.toy import ToyRanker, ToyRankerConfig, registered

DECODER = DecoderSizes(width=16, layers=1, heads=2, hidden=32, vocabulary=400)
BACKBONES = {
    "t5": {},
    "discriminative": {"backbone": DiscriminativeConfig(scratch=SIZES)},
    "decoder": {"backbone": DecoderConfig(scratch=DECODER)},
}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return tiny_dataset(tmp_path_factory.mktemp("shop") / "data")


@pytest.fixture(scope="module", params=BACKBONES)
def ranker(request, dataset):
    return build(dataset, cf_folds=0, **BACKBONES[request.param]).eval()


def read(ranker, batch):
    with torch.inference_mode():
        return ranker.encode_request(batch)


# The state


def test_a_state_holds_a_row_for_each_request_and_neither_candidate_nor_graph(ranker, dataset):
    batch = some_batch(dataset)
    state = read(ranker, batch)
    assert {len(tensor) for tensor in tensors(state)} == {len(batch)}
    assert not any(tensor.requires_grad for tensor in tensors(state))
    other = read(ranker, batch.replace(cand=batch.cand[:, :1], cand_mask=batch.cand_mask[:, :1]))
    assert all(torch.equal(one, two) for one, two in zip(tensors(state), tensors(other), strict=True))
    assert state.nbytes == other.nbytes > 0


def test_a_request_of_a_batch_can_be_kept_alone(ranker, dataset):
    batch = some_batch(dataset)
    state, rows = read(ranker, batch), torch.tensor([5, 2])
    with torch.inference_mode():
        kept = state.select(rows).to("cpu")
        together = ranker.score(batch, state)
        alone = ranker.score(batch.select(rows), kept)
    torch.testing.assert_close(alone, together[rows], atol=1e-6, rtol=0)
    assert kept.nbytes < state.nbytes


def test_a_state_of_other_requests_is_refused_and_never_spread_over_them(ranker, dataset):
    batch = some_batch(dataset)
    one = read(ranker, batch.select(torch.tensor([0])))
    for call in (ranker.score, ranker.hidden_state, ranker.explain):
        with pytest.raises(BadInputError, match="a state of 1 requests cannot score a batch of 8"):
            call(batch, one)


def test_a_state_serves_explanations_and_hidden_states_too(ranker, dataset):
    batch = some_batch(dataset)
    batch = batch.replace(**{name: getattr(batch, name)[:, :3] for name in ("cand", "cand_mask", "label")})
    state, bare = read(ranker, batch), batch.without_history()
    with torch.inference_mode():
        assert torch.equal(ranker.hidden_state(bare, state), ranker.hidden_state(batch))
        expected = ranker.explain(batch)
        assert all(torch.equal(weights, expected[name]) for name, weights in ranker.explain(bare, state).items())


# Pieces


def test_candidates_in_pieces_score_like_all_at_once(ranker, dataset, monkeypatch):
    batch = some_batch(dataset)
    calls = []
    ranker.views["cf"].soft_filter.register_forward_pre_hook(lambda _, given: calls.append(given[1].shape[1]))
    whole = margins(ranker, batch)
    monkeypatch.setattr(module, "PIECE", 1)
    torch.testing.assert_close(margins(ranker, batch), whole, atol=1e-6, rtol=0)
    assert calls == [batch.cand.shape[1], *[1] * batch.cand.shape[1]]
    calls.clear()
    ranker.hidden_state(batch)  # with gradients: in one, whatever it takes
    assert calls == [batch.cand.shape[1]]


# Precision


@pytest.mark.parametrize("name", BACKBONES)
def test_a_cast_ranker_scores_nearly_alike_and_keeps_its_views_in_float32(dataset, name):
    ranker, batch = build(dataset, cf_folds=0, **BACKBONES[name]).eval(), some_batch(dataset)
    before = margins(ranker, batch)
    ranker.cast("bf16")
    after, state = margins(ranker, batch), read(ranker, batch)
    assert after.dtype == torch.float32
    assert 0 < (after - before).abs().max() < 0.05 * before.std() + 0.02
    assert {weight.dtype for weight in ranker.backbone.model.parameters()} == {torch.bfloat16}
    parts = [*ranker.views.parameters(), *ranker.vectors.parameters(), *tensors(state.views)]
    assert {part.dtype for part in parts if part.is_floating_point()} == {torch.float32}


def test_a_cast_ranker_is_neither_trained_nor_saved_nor_cast_back(dataset, tmp_path):
    ranker, batch = build(dataset), some_batch(dataset)
    ranker.cast("fp32")
    ranker.loss(batch)
    ranker.cast("bf16")
    ranker.cast("bf16")
    for action, call in (
        ("be trained", lambda: ranker.loss(batch)),
        ("be saved", lambda: ranker.save(tmp_path / "model")),
        ("be cast to fp32", lambda: ranker.cast("fp32")),
    ):
        with pytest.raises(BadInputError, match=f"this GenSR was cast to bf16 for serving and cannot {action}"):
            call()
    assert not (tmp_path / "model").exists()


def test_what_has_no_model_stays_as_it_is_and_what_cannot_be_cast_says_so_before_it_is_trained(dataset):
    floor = PopularityConfig().build(Resources(dataset.catalogue, max_history=6, dataset=dataset))
    floor.cast("bf16")
    assert floor.precision == "fp32"
    with pytest.raises(BadInputError, match="ToyRanker scores in fp32 only, got precision 'bf16'"):
        ToyRanker(ToyRankerConfig(), 5, 5).cast("bf16")
    with (
        registered(),
        pytest.raises(BadInputError, match=r"evaluation\.precision: a ranker of type 'toy' scores"),
    ):
        load_spec({"ranker": "toy", "evaluation": {"precision": "bf16"}})
    assert load_spec({"ranker": "popularity", "evaluation": {"precision": "bf16"}}).evaluation.precision == "bf16"


# Compilation


def test_a_ranker_hands_the_compiler_to_its_backbone(dataset):
    ranker, batch = build(dataset).eval(), some_batch(dataset)
    before, compiled = margins(ranker, batch), []

    def compiler(function):
        compiled.append(function)
        return function

    ranker.compile_with(compiler)
    assert compiled
    assert torch.equal(margins(ranker, batch), before)
    with pytest.raises(BadInputError, match="ToyRanker has nothing to compile"):
        ToyRanker(ToyRankerConfig(), 5, 5).compile_with(compiler)


# The listwise loss


def test_the_listwise_loss_is_the_cross_entropy_of_a_requests_softmax():
    generator = torch.Generator().manual_seed(0)
    margins = torch.randn(4, 5, generator=generator)
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0], [1, 1, 1, 1, 0], [1, 1, 0, 0, 0]]).bool()
    label = torch.zeros(4, 5)
    label[0, 3] = label[1, 0] = label[2, 1] = label[2, 2] = 1  # the third has two truths, the last has none
    label[3, 4] = 1  # under the mask
    expected = []
    for row in range(3):
        real = margins[row][mask[row]].double()
        probability = real.exp() / real.exp().sum()
        expected.append(-probability.log()[label[row][mask[row]] > 0].mean())
    found = listwise_loss(margins.masked_fill(~mask, 1e9), label, mask)
    assert float(found) == pytest.approx(float(torch.stack(expected).mean()), rel=1e-5)
    assert float(listwise_loss(margins, torch.zeros(4, 5), mask)) == 0


def test_the_listwise_loss_is_added_with_its_weight(dataset):
    batch = some_batch(dataset)
    losses = {}
    for weight in (0.0, 0.3):
        torch.manual_seed(0)
        losses[weight] = build(dataset, listwise=weight).eval().loss(batch)
    added = losses[0.3].parts["listwise"]
    assert "listwise" not in losses[0.0].parts
    torch.testing.assert_close(losses[0.3].total, losses[0.0].total + 0.3 * added)
    assert float(added) == pytest.approx(torch.tensor(4.0).log().item(), rel=0.5)  # one of four, at first
    with pytest.raises(ValidationError, match="greater than or equal to 0"):
        build(dataset, listwise=-1)
