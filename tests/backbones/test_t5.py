"""The scoring forward against transformers' own, for both layouts."""

import itertools

import pytest
import torch
import transformers

from gensr.backbones.base import Prompt
from gensr.backbones.config import DiscriminativeConfig, T5Config, T5Sizes
from gensr.backbones.prompt import PromptBuilder, fill_slots
from gensr.backbones.t5 import T5Backbone, open_t5, random_t5
from gensr.backbones.templates import INTERLEAVED, PACKED, SLOTS
from gensr.backbones.tokenizer import train_tokenizer
from gensr.data.tasks import Task
from gensr.errors import BadInputError

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


def prompts(backbone: T5Backbone, layout: str, *, history: int = 1, rows: int = 4) -> tuple[Prompt, torch.Tensor]:
    """Mixed tasks and query lengths; slots [B, 3, S, D]."""
    counts = {name: history if "history" in name else 1 for name in SLOTS}
    builder = PromptBuilder(LAYOUTS[layout], layout=layout, tokenize=backbone.tokenize, slots=counts, query_length=6)
    task = torch.tensor([Task.RECOMMENDATION, Task.SEARCH, Task.SEARCH, Task.RECOMMENDATION])[:rows]
    queries = backbone.tokenize(["", "red", "steel pan for blue soup", ""], 6)[:rows]
    present = torch.ones(rows, sum(counts.values()), dtype=torch.bool)
    if history > 1:
        present[0, 1:history] = present[0, history + 1 : 2 * history] = False
    generator = torch.Generator().manual_seed(1)
    slots = torch.randn(rows, 3, sum(counts.values()), backbone.width, generator=generator)
    return builder(task, queries, present), slots


def margins(backbone: T5Backbone, prompt: Prompt, slots: torch.Tensor) -> torch.Tensor:
    return backbone.answer(backbone.hidden(backbone.encode(prompt), slots), prompt.task)


def margins_of_transformers(
    backbone: T5Backbone, prompt: Prompt, slots: torch.Tensor, row: int, candidate: int
) -> float:
    """One prompt, one candidate, through ``T5ForConditionalGeneration.forward`` (no padding at all)."""
    block = fill_slots(backbone.embed(prompt.block), prompt.slot, slots)[row, candidate][prompt.block_mask[row]]
    prefix = backbone.embed(prompt.prefix)[row][prompt.prefix_mask[row]]
    inputs = torch.cat([prefix, block]).unsqueeze(0)
    logits = backbone.model(
        inputs_embeds=inputs,
        attention_mask=torch.ones(inputs.shape[:2]),
        decoder_input_ids=torch.zeros(1, 1, dtype=torch.long),
    ).logits[0, 0]
    return float(logits[backbone.yes] - logits[backbone.no])


@pytest.mark.parametrize("history", [1, 4])
def test_interleaved_margins_equal_transformers_own_forward(backbone, history):
    prompt, slots = prompts(backbone, "interleaved", history=history)
    assert prompt.prefix.shape[1] == 0
    with torch.no_grad():
        ours = margins(backbone, prompt, slots)
        for row, candidate in itertools.product(range(4), range(3)):
            theirs = margins_of_transformers(backbone, prompt, slots, row, candidate)
            assert float(ours[row, candidate]) == pytest.approx(theirs, abs=1e-4)


def masked_reference(backbone: T5Backbone, prompt: Prompt, slots: torch.Tensor, row: int, candidate: int) -> float:
    """One candidate of a packed prompt through transformers' own layers, with the block mask written out."""
    block = fill_slots(backbone.embed(prompt.block), prompt.slot, slots)[row, candidate][prompt.block_mask[row]]
    prefix = backbone.embed(prompt.prefix)[row][prompt.prefix_mask[row]]
    inputs = torch.cat([prefix, block]).unsqueeze(0)
    length, shared = inputs.shape[1], prefix.shape[0]
    mask = torch.zeros(1, 1, length, length)
    mask[:, :, :shared, shared:] = torch.finfo(torch.float32).min  # the prefix sees no candidate
    hidden, bias = inputs, None
    for layer in backbone.model.encoder.block:
        hidden, bias = layer(hidden, attention_mask=mask, position_bias=bias)[:2]
        bias = backbone.model.encoder.block[0].layer[0].SelfAttention.compute_bias(length, length)
    hidden = backbone.model.encoder.final_layer_norm(hidden)
    logits = backbone.model(encoder_outputs=(hidden,), decoder_input_ids=torch.zeros(1, 1, dtype=torch.long)).logits[
        0, 0
    ]
    return float(logits[backbone.yes] - logits[backbone.no])


def test_packed_margins_equal_one_candidate_at_a_time_under_the_block_mask(backbone):
    prompt, slots = prompts(backbone, "packed")
    assert prompt.prefix.shape[1] > 0
    with torch.no_grad():
        ours = margins(backbone, prompt, slots)
        for row, candidate in itertools.product(range(4), range(3)):
            assert float(ours[row, candidate]) == pytest.approx(
                masked_reference(backbone, prompt, slots, row, candidate), abs=1e-4
            )


@pytest.mark.parametrize("layout", ["packed", "interleaved"])
def test_scores_do_not_depend_on_batch_mates_or_their_query_lengths(backbone, layout):
    prompt, slots = prompts(backbone, layout)
    with torch.no_grad():
        together = margins(backbone, prompt, slots)
        alone_prompt, alone_slots = prompts(backbone, layout, rows=2)
        alone = margins(backbone, alone_prompt, alone_slots[:, :1])
    # The slots are drawn anew for two rows: compare on the same vectors.
    with torch.no_grad():
        same = margins(backbone, alone_prompt, slots[:2, :1])
    assert alone.shape == (2, 1)
    torch.testing.assert_close(together[:2, :1], same, atol=1e-5, rtol=0)


def test_gradients_of_packed_equal_those_of_single_candidates(backbone):
    prompt, slots = prompts(backbone, "packed")
    slots.requires_grad_()
    (together,) = torch.autograd.grad(margins(backbone, prompt, slots).square().sum(), slots)
    for candidate in range(3):
        single = slots[:, candidate : candidate + 1].detach().requires_grad_()
        (alone,) = torch.autograd.grad(margins(backbone, prompt, single).square().sum(), single)
        torch.testing.assert_close(together[:, candidate : candidate + 1], alone, atol=1e-4, rtol=1e-4)


def test_flan_t5_base_shape_has_247577856_parameters():
    sizes = T5Sizes(width=768, layers=12, heads=12, head_width=64, hidden=2048)
    with torch.device("meta"):
        model = random_t5(sizes, vocabulary=32128, seed=0)
    assert sum(parameter.numel() for parameter in model.parameters()) == 247_577_856


def test_every_trainable_parameter_gets_a_gradient(backbone):
    prompt, slots = prompts(backbone, "packed")
    backbone.zero_grad()
    margins(backbone, prompt, slots).sum().backward()
    without = [
        name for name, parameter in backbone.named_parameters() if parameter.requires_grad and parameter.grad is None
    ]
    assert without == []
    backbone.zero_grad()


def test_saved_backbone_reopens_with_the_same_shapes_and_tokens(backbone, tmp_path):
    backbone.save(tmp_path)
    again = open_t5(T5Config(), tmp_path)
    again.load_state_dict(backbone.state_dict())
    again.eval()
    assert torch.equal(again.tokenize(["red kettle"], 8), backbone.tokenize(["red kettle"], 8))
    prompt, slots = prompts(backbone, "packed")
    with torch.no_grad():
        assert torch.equal(margins(again, prompt, slots), margins(backbone, prompt, slots))


def test_a_local_pretrained_folder_scores_like_the_model_that_was_saved(backbone, tmp_path):
    backbone.model.save_pretrained(tmp_path)
    backbone.tokenizer.save_pretrained(tmp_path)
    again = T5Config(pretrained=str(tmp_path)).build(texts=[], seed=0).eval()
    prompt, slots = prompts(backbone, "packed")
    with torch.no_grad():
        torch.testing.assert_close(margins(again, prompt, slots), margins(backbone, prompt, slots))


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
