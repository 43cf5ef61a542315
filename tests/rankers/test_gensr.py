"""GenSR's own promises (joint.md A.12): what moves a score, what must not, and what is trained."""

import math

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from gensr.backbones.config import T5Config, T5Sizes
from gensr.data.batch import Batch, Extra
from gensr.data.dataset import Split
from gensr.data.loader import RequestLoader
from gensr.data.tasks import Task
from gensr.encoders.cf.config import ALSConfig
from gensr.encoders.cf.folds import aligned, fit_table, pair_folds, without_fold
from gensr.encoders.cf.table import CFTable
from gensr.encoders.history.config import TransformerConfig
from gensr.fusion.contrastive.config import InfoNCEConfig
from gensr.fusion.soft_filter.config import CrossAttentionConfig
from gensr.rankers.base import Resources
from gensr.rankers.config import GenSRConfig
from gensr.rankers.gensr import CFVectors, GenSR
from gensr.testing.data import tiny_dataset

SIZES = T5Sizes(width=16, layers=1, heads=2, head_width=8, hidden=32, vocabulary=400, dropout=0.0)
BASE = GenSRConfig(cf=ALSConfig(dim=8), backbone=T5Config(scratch=SIZES), cf_folds=2)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return tiny_dataset(tmp_path_factory.mktemp("shop") / "data")


def build(dataset, config: GenSRConfig = BASE, **changes) -> GenSR:
    def cf_table(cf, fold=None):
        return fit_table(cf, dataset, seed=0, fold=fold)

    config = GenSRConfig.model_validate({**dict(config), **changes})
    return config.build(Resources(dataset.catalogue, max_history=6, seed=0, dataset=dataset, cf_table=cf_table))


def some_batch(dataset, rows: int = 8) -> Batch:
    """Mixed tasks, every history with at least two events."""
    loader = RequestLoader(dataset, 6)
    batch = next(loader.epoch(seed=0, epoch=0, batch_size=64, negatives=3))
    long = batch.hist_mask.sum(1) >= 2
    chosen = torch.cat([(long & (batch.task == task)).nonzero()[: rows // 2, 0] for task in Task])
    return batch.select(chosen)


def margins(ranker: GenSR, batch: Batch) -> torch.Tensor:
    with torch.no_grad():
        return ranker.eval().margins(batch)


def swapped(batch: Batch) -> Batch:
    """The two oldest events of every history in the other order."""
    order = torch.tensor([1, 0, 2, 3, 4, 5])
    return batch.replace(
        hist_item=batch.hist_item[:, order], hist_task=batch.hist_task[:, order], hist_query=batch.hist_query[:, order]
    )


def test_order_of_the_history_matters_exactly_when_positions_are_on(dataset):
    batch = some_batch(dataset)
    with_positions = build(dataset)
    assert not torch.allclose(margins(with_positions, batch), margins(with_positions, swapped(batch)), atol=1e-6)
    without = build(dataset, history=TransformerConfig(positions=False))
    torch.testing.assert_close(margins(without, batch), margins(without, swapped(batch)), atol=1e-5, rtol=0)


@pytest.mark.parametrize("layout", ["packed", "interleaved"])
def test_another_query_moves_search_scores_and_no_recommendation_score(dataset, layout):
    ranker, batch = build(dataset, layout=layout), some_batch(dataset)
    other = batch.with_queries(batch.query % ranker.num_queries + 1)
    before, after = margins(ranker, batch), margins(ranker, other)
    # Not to the bit: the longest query decides how wide the matrices are.
    torch.testing.assert_close(before[~batch.is_search], after[~batch.is_search], atol=1e-6, rtol=0)
    assert (before[batch.is_search] - after[batch.is_search]).abs().max() > 1e-6


@pytest.mark.parametrize("layout", ["packed", "interleaved"])
@pytest.mark.parametrize("output", ["pooled", "sequence"])
def test_shared_scoring_equals_one_candidate_at_a_time(dataset, layout, output):
    ranker = build(dataset, layout=layout, soft_filter=CrossAttentionConfig(output=output))
    batch = some_batch(dataset)
    together = margins(ranker, batch)
    for row in range(len(batch)):
        for column in range(batch.cand.shape[1]):
            single = batch.select(torch.tensor([row])).replace(
                cand=batch.cand[row : row + 1, column : column + 1],
                cand_mask=batch.cand_mask[row : row + 1, column : column + 1],
                label=batch.label[row : row + 1, column : column + 1],
            )
            torch.testing.assert_close(margins(ranker, single)[0, 0], together[row, column], atol=1e-4, rtol=0)


def test_a_filtered_event_is_as_large_in_the_prompt_as_its_weight(dataset):
    """Eq. 6 survives the projection: slots of one event over candidates grow with the event's share."""
    ranker = build(dataset, soft_filter=CrossAttentionConfig(output="sequence"), layout="interleaved")
    batch = some_batch(dataset)
    with torch.no_grad():
        state = ranker.encode_request(batch).views["text"]
        candidates = ranker.vectors["text"].candidates(batch, None) * 50  # sharp weights
        slots, _, _, weights = ranker.views["text"].filter(state, candidates)
    sizes = slots.square().mean(-1).sqrt()  # [B, C, K]
    shares = weights * state.mask.sum(1)[:, None, None]
    torch.testing.assert_close(sizes, shares * ranker.backbone.embedding_rms, atol=0.02, rtol=0.02)
    assert shares.max() > 2 * shares[shares > 0].min()


def test_templates_that_show_all_candidates_alike_are_refused():
    template = "is it {cf_candidate} ?"
    with pytest.raises(ValidationError, match=r"shows all candidates alike.*needs \{text_candidate\}"):
        GenSRConfig(
            cf=None, contrastive=None, templates={"recommendation": template, "search": "find {query} " + template}
        )


def test_every_trainable_parameter_gets_a_gradient_and_the_cf_table_stays(dataset):
    ranker, batch = build(dataset).train(), some_batch(dataset)
    empty = batch.select(torch.arange(2)).without_history()
    unknown = batch.replace(hist_item=torch.where(torch.arange(6) == 0, dataset.num_items + 5, batch.hist_item))
    table = ranker.vectors["cf"].table.clone()
    optimizer = torch.optim.AdamW(ranker.parameters(), lr=0.1)
    (ranker.loss(unknown).total + ranker.loss(empty).total).backward()
    missing = [name for name, p in ranker.named_parameters() if p.requires_grad and p.grad is None]
    assert missing == []
    optimizer.step()
    assert torch.equal(ranker.vectors["cf"].table, table)


def test_without_weight_no_gradient_comes_from_the_contrastive_loss(dataset):
    batch = some_batch(dataset)
    gradients = {}
    for name, contrastive in (("zero", InfoNCEConfig(weight=0.0)), ("none", None), ("some", InfoNCEConfig(weight=0.5))):
        ranker = build(dataset, contrastive=contrastive, history=TransformerConfig(dropout=0.0))
        ranker.loss(batch).total.backward()
        gradients[name] = torch.cat([p.grad.flatten() for p in ranker.shared_parameters()])
    torch.testing.assert_close(gradients["zero"], gradients["none"])
    assert not torch.allclose(gradients["some"], gradients["none"])


def test_contrastive_loss_of_distinct_users_starts_near_the_log_of_its_options(dataset):
    ranker = build(dataset, contrastive=InfoNCEConfig(temperature=1.0))
    batch = some_batch(dataset)
    batch = batch.replace(user=torch.arange(1, len(batch) + 1))
    value = float(ranker.loss(batch).parts["contrastive"].detach())
    assert value == pytest.approx(math.log(2 * len(batch) - 1), rel=0.25)


def test_task_loss_is_binary_cross_entropy_on_the_yes_no_margin(dataset):
    ranker, batch = build(dataset, cf_folds=0, history=TransformerConfig(dropout=0.0)), some_batch(dataset)
    x, y = margins(ranker, batch).double(), batch.label.double()
    p = 1 / (1 + np.exp(-x.numpy()))
    expected = -(y.numpy() * np.log(p) + (1 - y.numpy()) * np.log(1 - p)).mean()
    assert float(ranker.loss(batch).parts["task"]) == pytest.approx(expected, rel=1e-5)


def test_a_history_that_shows_the_answer_is_learned_at_once(dataset):
    """Documents the leak path: two items, the truth stands in the history."""
    torch.manual_seed(0)
    ranker = build(dataset, contrastive=None, cf=None, history=TransformerConfig(dropout=0.0, layers=1))
    pairs = torch.randint(1, 60, (256, 2))
    pairs = pairs[pairs[:, 0] != pairs[:, 1]]
    rows, ones = len(pairs), torch.ones(len(pairs), dtype=torch.int64)
    history = torch.zeros(rows, 6, dtype=torch.int64)
    history[:, 0] = pairs[:, 0]
    task = torch.zeros_like(history)
    task[:, 0] = Task.RECOMMENDATION
    batch = Batch(
        task=ones * Task.RECOMMENDATION, user=ones, time=ones, query=ones * 0, hist_item=history, hist_task=task,
        hist_query=history * 0, hist_time=history * 0, cand=pairs, cand_mask=pairs > 0,
        label=torch.tensor([[1.0, 0.0]]).repeat(rows, 1), request=-ones,
    )  # fmt: skip
    optimizer = torch.optim.Adam(ranker.parameters(), lr=3e-3)
    for _ in range(150):
        ranker.train()
        optimizer.zero_grad()
        ranker.loss(batch).total.backward()
        optimizer.step()
    scores = margins(ranker, batch)
    assert (scores[:, 0] > scores[:, 1]).float().mean() > 0.95


def test_weights_that_lie_transposed_in_memory_are_saved(dataset, tmp_path):
    """As transformers reads those of a GPT-2 from a GGUF file."""
    ranker, batch = build(dataset), some_batch(dataset)
    head = ranker.backbone.model.lm_head
    head.weight = torch.nn.Parameter(head.weight.detach().T.contiguous().T)
    ranker.save(tmp_path)
    again = ranker.config.build(Resources(dataset.catalogue, max_history=6, seed=1, folder=tmp_path))
    torch.testing.assert_close(margins(again, batch), margins(ranker, batch))


def test_dropping_a_view_leaves_its_slots_out(dataset):
    only_text = build(dataset, cf=None, contrastive=None)
    only_cf = build(dataset, semantic=None, contrastive=None)
    assert list(only_text.slots) == ["text_history", "text_candidate", "text_match"]
    assert list(only_cf.slots) == ["cf_history", "cf_candidate", "cf_match"]
    batch = some_batch(dataset)
    assert margins(only_text, batch).isfinite().all()
    assert margins(only_cf, batch).isfinite().all()


def test_unknown_items_and_queries_are_read_from_their_text(dataset):
    ranker, batch = build(dataset), some_batch(dataset)
    batch = batch.select(batch.is_search)
    text = dataset.catalogue.text[int(batch.cand[0, 0])]
    query = dataset.catalogue.queries[int(batch.query[0])]
    new = batch.cand.clone()
    new[:, 0] = dataset.num_items + 1
    with_text = batch.replace(cand=new, query=torch.full_like(batch.query, ranker.num_queries + 1))
    red = margins(ranker, with_text.replace(extra=Extra(items=(text,), queries=(query,))))
    blue = margins(ranker, with_text.replace(extra=Extra(items=("something else",), queries=(query,))))
    assert (red[:, 0] - blue[:, 0]).abs().max() > 1e-6
    torch.testing.assert_close(red[:, 1:], blue[:, 1:], atol=1e-6, rtol=0)
    known = ranker.vectors["cf"]
    known.table[int(batch.cand[0, 0])] = 0  # the same item, without a collaborative vector
    again = margins(ranker, batch.select(torch.tensor([0])))
    torch.testing.assert_close(again[0, 0], red[0, 0], atol=1e-5, rtol=0)


def test_explanations_weigh_real_events_only(dataset):
    ranker, batch = build(dataset), some_batch(dataset)
    for weights in ranker.explain(batch).values():
        assert weights.shape == (len(batch), 4, 6)
        torch.testing.assert_close(weights.sum(-1), torch.ones(weights.shape[:2]))
        assert not weights[~batch.hist_mask.unsqueeze(1).expand_as(weights)].any()


def test_a_training_request_reads_a_table_that_never_saw_its_truth(dataset):
    ranker, pairs = build(dataset), dataset.user_items()
    batch = some_batch(dataset)
    folds = ranker._folds(batch)
    for row in range(len(batch)):
        truth = int(batch.cand[row][batch.label[row] > 0])
        kept = without_fold(pairs, int(folds[row]), 2)
        assert kept[int(batch.user[row]), truth] == 0


def test_folds_cut_the_interactions_into_nearly_equal_disjoint_parts(dataset):
    pairs = dataset.user_items()
    removed = [pairs.nnz - without_fold(pairs, fold, 4).nnz for fold in range(4)]
    assert sum(removed) == pairs.nnz
    users, items = torch.randint(1, 10**6, (2, 10_000))
    counts = pair_folds(users, items, 4).bincount(minlength=4)
    assert counts.min() > 2300
    assert torch.equal(pair_folds(users, items, 4), pair_folds(users, items, 4))


def test_a_search_with_several_clicks_is_read_as_their_mean(dataset):
    ranker, batch = build(dataset).eval(), some_batch(dataset)
    alone = torch.nn.functional.pad(batch.hist_item.unsqueeze(2), (0, 2))  # [B, L, 3]
    assert torch.equal(margins(ranker, batch.replace(hist_clicks=alone)), margins(ranker, batch))
    twice = alone.clone()
    twice[:, :, 1] = torch.where(batch.hist_mask, batch.hist_item % dataset.num_items + 1, 0)
    scores = margins(ranker, batch.replace(hist_clicks=twice))
    assert not torch.allclose(scores, margins(ranker, batch))
    assert torch.allclose(margins(ranker, batch.replace(hist_clicks=twice.flip(2))), scores, atol=1e-5)


def test_alignment_undoes_a_rotation():
    generator = torch.Generator().manual_seed(0)
    items = torch.randn(30, 5, generator=generator)
    items[0] = 0
    rotation, _ = torch.linalg.qr(torch.randn(5, 5, generator=generator))
    table = CFTable(torch.zeros(3, 5), items)
    turned = CFTable(torch.zeros(3, 5), items @ rotation)
    torch.testing.assert_close(aligned(turned, table).items, items, atol=1e-5, rtol=0)


def test_cf_dropout_hides_vectors_in_training_only():
    table = torch.ones(50, 3)
    table[0] = 0
    vectors = CFVectors(table, dropout=0.5)
    items = torch.arange(1, 50).unsqueeze(0)
    torch.manual_seed(0)
    hidden = (vectors.train()(items) == vectors.unknown).all(-1).float().mean()
    assert 0.2 < float(hidden) < 0.8
    assert not (vectors.eval()(items) == vectors.unknown).all(-1).any()


def test_searches_and_recommendations_are_evaluated_as_they_are_served(dataset):
    """The held-out batches of the loader score alike with and without their batch mates."""
    ranker = build(dataset)
    found = dataset.candidates(dataset.candidate_names[0])
    batch = next(RequestLoader(dataset, 6).evaluation(found, Split.TEST, batch_size=16))
    with torch.no_grad():
        together = ranker.score(batch)
        alone = torch.cat([ranker.score(batch.select(torch.tensor([row]))) for row in range(len(batch))])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)


def test_the_match_slot_holds_what_item_item_scoring_adds_up(dataset):
    """With equal weights its parts sum to the mean dot product of candidate and history."""
    ranker, batch = build(dataset, soft_filter=None, cf_folds=0), some_batch(dataset)
    seen = []
    ranker.views["cf"].match.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    margins(ranker, batch)
    vectors = ranker.vectors["cf"]
    history = vectors(batch.hist_item) * batch.hist_mask.unsqueeze(-1)  # [B, L, d]
    dots = torch.einsum("bld,bcd->bcl", history, vectors(batch.cand)).sum(-1) / batch.hist_mask.sum(1, keepdim=True)
    torch.testing.assert_close(seen[0].sum(-1), dots, atol=1e-4, rtol=1e-4)


def test_templates_without_a_place_for_the_match_are_refused():
    template = {"recommendation": "is it {cf_candidate} ?", "search": "find {query} : {cf_candidate} ?"}
    with pytest.raises(ValidationError, match=r"has no place for \{cf_match\}: add it, or set match_slots to false"):
        GenSRConfig(templates=template)
    assert GenSRConfig(templates=template, match_slots=False).match_slots is False
