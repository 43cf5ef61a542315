"""The options with which GenSR imitates the paper's text and the released code (joint.md, part A)."""

import pytest
import torch
import torch.nn.functional as F
import transformers
from pydantic import ValidationError

from gensr.backbones.config import DiscriminativeConfig, T5Config, T5Sizes
from gensr.backbones.t5 import random_t5
from gensr.backbones.tokenizer import train_tokenizer
from gensr.data.loader import RequestLoader
from gensr.edits import Edit, apply_edits
from gensr.encoders.semantic.config import TfidfConfig, TokensConfig
from gensr.fusion.contrastive.config import InfoNCEConfig
from gensr.fusion.soft_filter.config import CrossAttentionConfig
from gensr.rankers.config import GenSRConfig
from gensr.spec import load_spec
from gensr.testing.data import tiny_dataset
from tests.rankers.test_gensr import build, margins, some_batch

SECTIONS = ("data", "ranker", "training", "evaluation")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return tiny_dataset(tmp_path_factory.mktemp("shop") / "data")


@pytest.mark.parametrize("layout", ["packed", "interleaved"])
def test_a_query_that_is_not_read_moves_no_score(dataset, layout):
    ranker, batch = build(dataset, layout=layout, read_query=False), some_batch(dataset)
    other = batch.with_queries(batch.query % ranker.num_queries + 1)
    assert torch.equal(margins(ranker, batch), margins(ranker, other))


def test_templates_hold_a_query_exactly_when_it_is_read():
    asks, asks_not = "find {query} {cf_candidate}", "take {cf_candidate} ?"
    with pytest.raises(ValidationError, match=r"search template must not hold \{query\} while read_query is off"):
        GenSRConfig(match_slots=False, read_query=False, templates={"recommendation": asks_not, "search": asks})
    with pytest.raises(ValidationError, match=r"search template must hold \{query\}"):
        GenSRConfig(match_slots=False, templates={"recommendation": asks_not, "search": asks_not})
    GenSRConfig(match_slots=False, read_query=False, templates={"recommendation": asks_not, "search": asks_not})


def test_the_loss_over_the_vocabulary_is_the_answers_cross_entropy(dataset):
    ranker, batch = build(dataset, loss="vocabulary", contrastive=None), some_batch(dataset)
    with torch.no_grad():
        logits = ranker.backbone.logits(ranker.hidden_state(batch, ranker.encode_request(batch, ranker._folds(batch))))
        task = ranker.loss(batch).parts["task"]
    answers = torch.where(batch.label > 0, ranker.backbone.yes, ranker.backbone.no)
    expected = -logits.double().log_softmax(-1).gather(-1, answers.unsqueeze(-1)).squeeze(-1)
    torch.testing.assert_close(task.double(), expected[batch.cand_mask].mean(), atol=1e-5, rtol=0)
    # The margin is what both losses share: its order is the order of scores.
    yes, no = logits[..., ranker.backbone.yes], logits[..., ranker.backbone.no]
    assert (yes - no).shape == batch.cand.shape


def test_a_backbone_without_a_vocabulary_refuses_its_loss():
    with pytest.raises(ValidationError, match=r"discriminative has no vocabulary: set loss to 'answers'"):
        GenSRConfig(loss="vocabulary", backbone=DiscriminativeConfig())


def test_filtered_histories_of_all_rows_can_be_aligned(dataset):
    ranker = build(dataset, align="candidates", contrastive=InfoNCEConfig(weight=1.0))
    batch = some_batch(dataset)
    seen = []
    ranker.alignment.register_forward_pre_hook(lambda _, given: seen.append(given))
    ranker.loss(batch)
    (cf, text, group), rows = seen[0], int(batch.cand_mask.sum())
    assert cf.shape == text.shape == (rows, ranker.backbone.width)
    assert group is None


def test_padding_takes_no_part_in_the_alignment_of_filtered_sequences(dataset):
    ranker = build(
        dataset,
        align="candidates",
        scale_slots=False,  # a plain linear map has a bias, which padding must not bring in
        soft_filter=CrossAttentionConfig(output="sequence"),
        contrastive=InfoNCEConfig(weight=1.0),
    )
    batch = some_batch(dataset)
    batch = batch.select(batch.hist_mask.sum(1) < 5)
    assert len(batch)
    columns = ("hist_item", "hist_task", "hist_query", "hist_time")
    cut = batch.replace(**{name: getattr(batch, name)[:, :4] for name in columns})
    torch.testing.assert_close(ranker.loss(cut).parts["contrastive"], ranker.loss(batch).parts["contrastive"])


def test_unscaled_slots_are_a_linear_map_of_the_table_or_nothing(dataset):
    ranker = build(dataset, scale_slots=False)
    cf, text = ranker.views["cf"].projection, ranker.views["text"].projection
    assert isinstance(cf, torch.nn.Linear)
    assert isinstance(text, torch.nn.Identity)
    batch = some_batch(dataset)
    vectors = ranker.vectors["cf"].candidates(batch, None)
    expected = F.embedding(batch.cand, ranker.vectors["cf"].table)
    assert torch.equal(vectors[expected.any(-1)], expected[expected.any(-1)])


def test_frozen_text_vectors_are_read_as_they_are_where_slots_are_unscaled(dataset):
    batch = some_batch(dataset)
    for scaled in (True, False):
        vectors = build(dataset, scale_slots=scaled, semantic=TfidfConfig(dim=8)).vectors["text"]
        as_they_are = F.embedding(batch.cand, vectors.encoder.table)
        assert torch.equal(vectors.candidates(batch, None), as_they_are) == (not scaled)
        assert torch.equal(vectors.history(batch, None).vectors, vectors.encoder(batch.hist_item)) == (not scaled)


def test_weights_of_tokens_add_up_to_weights_of_events(dataset):
    ranker = build(dataset, semantic=TokensConfig(unit="token", history_tokens=3))
    batch = some_batch(dataset)
    weights = ranker.eval().explain(batch)
    assert weights["text"].shape == weights["cf"].shape == (*batch.cand.shape, batch.hist_item.shape[1])
    torch.testing.assert_close(weights["text"].sum(-1), torch.ones(batch.cand.shape), atol=1e-5, rtol=0)
    assert not weights["text"][~batch.hist_mask.unsqueeze(1).expand_as(weights["text"])].any()


def test_a_token_level_history_scores_the_same_in_any_batch(dataset):
    ranker = build(dataset, semantic=TokensConfig(unit="token", history_tokens=3))
    batch = some_batch(dataset)
    together = margins(ranker, batch)
    for row in range(len(batch)):
        alone = margins(ranker, batch.select(torch.tensor([row])))
        torch.testing.assert_close(alone[0], together[row], atol=1e-4, rtol=0)


def test_negatives_that_are_not_fresh_stay_with_their_request(dataset):
    loader = RequestLoader(dataset, 6)

    def candidates(epoch, fresh, skip=0):
        found = {}
        for batch in loader.epoch(seed=0, epoch=epoch, batch_size=7, negatives=3, fresh=fresh, skip=skip):
            found |= {int(request): tuple(row.tolist()) for request, row in zip(batch.request, batch.cand, strict=True)}
        return found

    assert candidates(0, fresh=False) == candidates(1, fresh=False)
    assert candidates(0, fresh=True) != candidates(1, fresh=True)
    rest = candidates(1, fresh=False, skip=3)
    assert len(rest) == len(candidates(1, fresh=False)) - 21
    assert rest.items() <= candidates(0, fresh=False).items()


@pytest.fixture(scope="module")
def local_t5(tmp_path_factory, dataset):
    """A random T5 in a folder: what stands for flan-t5-base where there is no hub."""
    folder = tmp_path_factory.mktemp("t5") / "model"
    sizes = T5Sizes(width=16, layers=1, heads=2, head_width=8, hidden=32)
    texts = [*dataset.catalogue.text, "Question: The user liked the items. Is this one next? Answer Yes or No. Answer:"]
    tokenizer = train_tokenizer(texts, vocabulary=500, answers=("Yes", "No"))
    random_t5(sizes, vocabulary=len(tokenizer), seed=0).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    assert isinstance(transformers.AutoConfig.from_pretrained(folder), transformers.T5Config)
    return str(folder)


@pytest.mark.parametrize("name", ["paper", "reference-code"])
def test_presets_of_what_was_published_build_and_train(name, local_t5, dataset):
    edits = [Edit("set", "backbone.pretrained", local_t5), Edit("set", "ranker.cf.epochs", 1)]
    ranker = build(dataset, apply_edits(load_spec(f"preset:{name}"), edits).ranker)
    batch = some_batch(dataset)
    losses = ranker.train().loss(batch)
    losses.total.backward()
    assert losses.total.isfinite()
    assert set(losses.parts) == {"task", "task_search", "task_recommendation", "contrastive"}
    assert margins(ranker, batch).isfinite().all()


def test_the_released_code_differs_from_the_paper_in_what_the_documentation_lists():
    specs = [load_spec(f"preset:{name}").model_dump() for name in ("paper", "reference-code")]
    paper, released = ({f"{s}.{k}": v for s in SECTIONS for k, v in spec[s].items()} for spec in specs)
    assert {name for name in paper if paper[name] != released[name]} == {
        "ranker.cf",
        "ranker.semantic",
        "ranker.history",
        "ranker.soft_filter",
        "ranker.contrastive",
        "ranker.read_query",
        "ranker.align",
        "ranker.templates",
        "training.fresh_negatives",
        "evaluation.ties",
    }


def test_the_released_codes_parts_have_4218752_parameters(dataset):
    """joint.md A.8: 255,369,728 logged = flan-t5-base + 7,791,872, of which 3,573,120 are never used."""
    spec = apply_edits(load_spec("preset:reference-code"), [Edit("set", "ranker.cf.epochs", 1)])
    sizes = T5Sizes(width=768, layers=1, heads=2, head_width=8, hidden=32, vocabulary=300)
    ranker = build(dataset, spec.ranker, backbone=T5Config(scratch=sizes))
    ours = [ranker.vectors["cf"].unknown, *(view.encoder.empty for view in ranker.views.values())]
    parts = sum(p.numel() for p in ranker.parameters()) - sum(p.numel() for p in ranker.backbone.parameters())
    assert parts - sum(p.numel() for p in ours) == 4_218_752
