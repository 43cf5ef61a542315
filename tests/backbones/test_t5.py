"""The scoring forward against transformers' own, for both layouts."""

import copy

import pytest
import torch
import transformers
from torch import nn

from gensr.backbones.config import DiscriminativeConfig, T5Config, T5Sizes
from gensr.backbones.prompt import PromptBuilder, by_length
from gensr.backbones.t5 import T5Backbone, random_t5
from gensr.backbones.templates import INTERLEAVED, PACKED, SLOTS
from gensr.backbones.tokenizer import train_tokenizer
from gensr.data.tasks import Task
from gensr.errors import BadInputError
from gensr.testing.backbone import BackboneInputs
from tests.backbones.prompts import margins, one_by_one, states_under_the_block_mask, whole_sequence

WORDS = [
    "red kettle",
    "blue mug",
    "steel pan for soup",
    "Yes or No",
    *vars(PACKED).values(),
    *vars(INTERLEAVED).values(),
]
SIZES = T5Sizes(width=32, layers=2, heads=2, head_width=8, hidden=48, vocabulary=300)
LAYOUTS = {"packed": PACKED, "interleaved": INTERLEAVED}


@pytest.fixture(scope="module")
def backbone() -> T5Backbone:
    return T5Config(scratch=SIZES).build(texts=WORDS, seed=0).eval()


def prompts(backbone: T5Backbone, layout: str, *, history: int = 1, candidates: int = 3) -> BackboneInputs:
    """Four requests of mixed tasks and query lengths; the first one's history has one vector only."""
    counts = {name: history if "history" in name else 1 for name in SLOTS}
    builder = PromptBuilder(LAYOUTS[layout], layout=layout, tokenize=backbone.tokenize, slots=counts, query_length=6)
    task = torch.tensor([Task.RECOMMENDATION, Task.SEARCH, Task.SEARCH, Task.RECOMMENDATION])
    queries = backbone.tokenize(["", "red", "steel pan for blue soup", ""], 6)
    present = torch.ones(4, sum(counts.values()), dtype=torch.bool)
    present[0, 1:history] = present[0, history + 1 : 2 * history] = False
    generator = torch.Generator().manual_seed(1)
    slots = torch.randn(4, candidates, sum(counts.values()), backbone.width, generator=generator)
    return BackboneInputs(builder(task, queries, present), slots)


def margin_of_transformers(backbone: T5Backbone, **read) -> torch.Tensor:
    """Of one prompt, through ``T5ForConditionalGeneration.forward`` and its whole head."""
    logits = backbone.model(**read, decoder_input_ids=torch.zeros(1, 1, dtype=torch.long)).logits[0, 0]
    return logits[backbone.yes] - logits[backbone.no]


def packed_reference(backbone: T5Backbone, given: BackboneInputs) -> torch.Tensor:
    """One candidate at a time, with the block mask written out."""

    def margin(row: int, candidate: int) -> torch.Tensor:
        states = states_under_the_block_mask(backbone, given, row, candidate)
        return margin_of_transformers(backbone, encoder_outputs=(states,))

    return one_by_one(given, margin)


@pytest.mark.parametrize("history", [1, 8])
def test_interleaved_margins_equal_transformers_own_forward(backbone, history):
    given = prompts(backbone, "interleaved", history=history)
    assert given.prompt.prefix.shape[1] == 0
    assert len(by_length(given.prompt)) == (1 if history == 1 else 2)  # prompts of unequal lengths are read apart

    def margin(row: int, candidate: int) -> torch.Tensor:
        return margin_of_transformers(backbone, inputs_embeds=whole_sequence(backbone, given, row, candidate))

    with torch.no_grad():
        torch.testing.assert_close(margins(backbone, given), one_by_one(given, margin), atol=1e-4, rtol=0)


@pytest.mark.parametrize(("history", "candidates"), [(1, 3), (4, 3), (1, 12)])
def test_packed_margins_equal_one_candidate_at_a_time_under_the_block_mask(backbone, history, candidates):
    """Few candidates meet the prefix through the key matrix, more than a head is wide (8) meet projected states."""
    given = prompts(backbone, "packed", history=history, candidates=candidates)
    assert given.prompt.prefix.shape[1] > 0
    with torch.no_grad():
        torch.testing.assert_close(margins(backbone, given), packed_reference(backbone, given), atol=1e-4, rtol=0)


def test_gradients_of_many_candidates_equal_those_of_single_ones(backbone):
    """More than a head is wide: they meet the prefix otherwise than one does. (The contract has few.)"""
    prompt, slots = prompts(backbone, "packed", candidates=12)
    slots.requires_grad_()
    (together,) = torch.autograd.grad(margins(backbone, BackboneInputs(prompt, slots)).square().sum(), slots)
    for candidate in range(12):
        single = slots[:, candidate : candidate + 1].detach().requires_grad_()
        (alone,) = torch.autograd.grad(margins(backbone, BackboneInputs(prompt, single)).square().sum(), single)
        torch.testing.assert_close(together[:, candidate : candidate + 1], alone, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_model_in_double_precision_scores_the_same(backbone, layout):
    given = prompts(backbone, layout)
    with torch.no_grad():
        torch.testing.assert_close(
            margins(copy.deepcopy(backbone).double(), given), margins(backbone, given), atol=1e-4, rtol=0
        )


@pytest.mark.parametrize("layout", LAYOUTS)
def test_attention_weights_are_dropped_in_training_whether_gradients_are_kept_or_not(layout):
    sizes = SIZES.model_copy(update={"dropout": 0.5})
    backbone = T5Config(scratch=sizes).build(texts=WORDS, seed=0).train()
    for module in backbone.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    for block in backbone.model.decoder.block:
        block.layer[1].EncDecAttention.dropout = 0.0
    given = prompts(backbone, layout)
    for gradients in (True, False):
        with torch.set_grad_enabled(gradients):
            assert not torch.equal(margins(backbone, given), margins(backbone, given))


def test_a_tokenizer_that_pads_with_another_id_is_refused(backbone):
    tokenizer = copy.deepcopy(backbone.tokenizer)
    tokenizer.pad_token = tokenizer.eos_token
    with pytest.raises(BadInputError, match="the tokenizer pads with id 1; a T5's is 0"):
        T5Backbone(backbone.model, tokenizer)


def test_flan_t5_base_shape_has_247577856_parameters():
    sizes = T5Sizes(width=768, layers=12, heads=12, head_width=64, hidden=2048)
    with torch.device("meta"):
        model = random_t5(sizes, vocabulary=32128, seed=0)
    assert sum(parameter.numel() for parameter in model.parameters()) == 247_577_856


def test_a_local_pretrained_folder_scores_like_the_model_that_was_saved(backbone, tmp_path):
    backbone.model.save_pretrained(tmp_path)
    backbone.tokenizer.save_pretrained(tmp_path)
    again = T5Config(pretrained=str(tmp_path)).build(texts=[], seed=0).eval()
    given = prompts(backbone, "packed")
    with torch.no_grad():
        torch.testing.assert_close(margins(again, given), margins(backbone, given))


def test_one_seed_gives_one_model_and_another_seed_another():
    first, same, other = (random_t5(SIZES, vocabulary=50, seed=seed).lm_head.weight for seed in (0, 0, 1))
    assert torch.equal(first, same)
    assert not torch.equal(first, other)


def test_a_missing_pretrained_folder_is_named(tmp_path):
    with pytest.raises(BadInputError, match=r"cannot load .*nowhere"):
        T5Config(pretrained=str(tmp_path / "nowhere")).build(texts=[], seed=0)


def test_a_folder_with_another_architecture_is_refused(tmp_path):
    transformers.BertConfig(hidden_size=8, num_attention_heads=2, num_hidden_layers=1).save_pretrained(tmp_path)
    with pytest.raises(BadInputError, match=r"is a bert, expected a t5"):
        T5Config(pretrained=str(tmp_path)).build(texts=[], seed=0)


def test_answers_of_several_tokens_are_refused_with_their_pieces():
    tokenizer = train_tokenizer(WORDS, vocabulary=100, answers=("Yes", "No"))
    model = random_t5(SIZES, vocabulary=len(tokenizer), seed=0)
    with pytest.raises(BadInputError, match=r"'red kettle' is .* tokens .* exactly one known token"):
        T5Backbone(model, tokenizer, answers=("red kettle", "No"))
    with pytest.raises(BadInputError, match="the same token"):
        T5Backbone(model, tokenizer, answers=("Yes", "Yes"))


def test_fp16_is_refused_with_the_reason():
    with pytest.raises(ValueError, match=r"fp16 overflows .* use bf16 or fp32"):
        T5Config().check_precision("fp16")


def test_tokenizer_training_is_repeatable_and_lower_cases():
    first = train_tokenizer(WORDS, vocabulary=120, answers=("Yes", "No"))
    second = train_tokenizer(WORDS, vocabulary=120, answers=("Yes", "No"))
    assert first.get_vocab() == second.get_vocab()
    assert first("RED Kettle")["input_ids"] == first("red kettle")["input_ids"]


def test_a_checkpoint_that_lacks_the_decoder_is_refused(backbone, tmp_path):
    """Its decoder would be random; of the encoder alone, transformers itself writes such folders."""
    transformers.T5EncoderModel(backbone.model.config).save_pretrained(tmp_path)
    backbone.tokenizer.save_pretrained(tmp_path)
    with pytest.raises(BadInputError, match=r"is no whole t5: it lacks the weights decoder\.block.*'discriminative'"):
        T5Config(pretrained=str(tmp_path)).build(texts=[], seed=0)
    assert DiscriminativeConfig(pretrained=str(tmp_path)).build(texts=[], seed=0).width == backbone.width


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json"])
def test_a_truncated_pretrained_folder_is_named(backbone, tmp_path, name):
    backbone.model.save_pretrained(tmp_path)
    backbone.tokenizer.save_pretrained(tmp_path)
    (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:-100])
    with pytest.raises(BadInputError, match=rf"backbone\.pretrained: cannot load '{tmp_path}'"):
        T5Config(pretrained=str(tmp_path)).build(texts=[], seed=0)
