"""Causal language models: cache, positions and two rows of the head against transformers' own forward."""

import copy
import importlib.util

import pytest
import torch
import torch.nn.functional as F
import transformers
from pydantic import ValidationError
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from gensr.backbones.base import Prompt
from gensr.backbones.config import DecoderConfig, DecoderSizes
from gensr.backbones.decoder import DecoderBackbone, random_decoder
from gensr.errors import BadInputError, MissingExtraError
from gensr.testing.backbone import TEXTS, BackboneInputs
from gensr.training.checkpoint import restore_tensors, unique_tensors
from tests.backbones.prompts import inputs, margins, margins_of_transformers, whole_sequence

SIZES = DecoderSizes(width=32, layers=2, heads=2, hidden=48, vocabulary=300, dropout=0.0)


@pytest.fixture(scope="module")
def llama() -> DecoderBackbone:
    return DecoderConfig(scratch=SIZES).build(texts=TEXTS, seed=0).eval()


@pytest.fixture(scope="module")
def byte_tokenizer():
    """Byte-level, as GPT-2's: token 0 is '!', and a word's leading space belongs to it."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(vocab_size=600, initial_alphabet=alphabet, show_progress=False, min_frequency=1)
    tokenizer.train_from_iterator([*TEXTS, *[" Yes No the Yes No the"] * 5], trainer=trainer)
    return transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="~", pad_token="~")


@pytest.fixture(scope="module")
def gpt2_folder(byte_tokenizer, tmp_path_factory):
    """Random weights with absolute positions, where a misplaced token would show."""
    folder = tmp_path_factory.mktemp("gpt2")
    torch.manual_seed(0)
    architecture = transformers.GPT2Config(
        vocab_size=len(byte_tokenizer),
        n_embd=32,
        n_layer=2,
        n_head=2,
        n_positions=64,
        initializer_range=0.2,
        attn_pdrop=0.0,
        embd_pdrop=0.0,
        resid_pdrop=0.0,
    )
    transformers.GPT2LMHeadModel(architecture).save_pretrained(folder)
    byte_tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def gpt2(gpt2_folder) -> DecoderBackbone:
    return DecoderConfig(pretrained=str(gpt2_folder)).build(texts=[], seed=0).eval()


@pytest.mark.parametrize("layout", ["packed", "interleaved"])
@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_margins_equal_transformers_own_logits_on_whole_sequences(request, name, layout):
    backbone = request.getfixturevalue(name)
    given = inputs(backbone, layout)
    assert (given.prompt.prefix.shape[1] > 0) == (layout == "packed")
    with torch.no_grad():
        torch.testing.assert_close(
            margins(backbone, given), margins_of_transformers(backbone, given), atol=1e-4, rtol=1e-4
        )


def test_margins_of_plain_text_equal_those_of_its_token_ids(gpt2):
    prefix, block = gpt2.tokenize(["!red! mug"], 20), gpt2.tokenize(["!a kettle!"], 20)
    prefix, block = prefix[prefix > 0].unsqueeze(0), block[block > 0].unsqueeze(0)
    task = torch.tensor([1])
    prompt = Prompt(prefix, prefix > 0, block, torch.full_like(block, -1), block > 0, task)
    with torch.no_grad():
        ours = gpt2.answer(gpt2.hidden(gpt2.encode(prompt), torch.zeros(1, 1, 1, 32)), task)[0, 0]
        logits = gpt2.model(input_ids=torch.cat([prefix, block], dim=1) - 1).logits[0, -1]
    torch.testing.assert_close(ours, logits[gpt2.yes] - logits[gpt2.no], atol=1e-4, rtol=1e-4)


def test_token_zero_is_a_real_token_and_no_padding(gpt2, byte_tokenizer):
    assert byte_tokenizer.convert_ids_to_tokens(0) == "!"
    ids = gpt2.tokenize(["red!"], 30)[0]
    assert byte_tokenizer.decode(ids[ids > 0] - 1) == " red!"
    last = ids[ids > 0][-1]
    assert int(last) == 1
    assert torch.equal(gpt2.embed(last), gpt2.model.transformer.wte.weight[0])


def test_a_text_gets_the_space_of_a_word_where_the_tokenizer_keeps_spaces(gpt2, llama):
    assert gpt2.tokenize(["the"], 4).tolist() == [[gpt2.tokenizer(" the")["input_ids"][0] + 1, 0, 0, 0]]
    assert torch.equal(llama.tokenize(["red mug"], 9)[0], llama.tokenize(["RED mug"], 9)[0])
    expected = torch.tensor(llama.tokenizer("red mug")["input_ids"]) + 1
    assert torch.equal(llama.tokenize(["red mug"], len(expected))[0], expected)


@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_training_through_the_cache_gives_the_gradients_of_whole_sequences(request, name):
    """Of all weights, in training mode: the cache neither detaches nor is it switched off."""
    backbone = request.getfixturevalue(name)
    given = inputs(backbone, "packed")
    backbone.train()
    weights = list(backbone.parameters())
    ours = torch.autograd.grad(margins(backbone, given).square().sum(), weights)
    theirs = torch.autograd.grad(margins_of_transformers(backbone, given).square().sum(), weights)
    backbone.eval()
    for mine, other in zip(ours, theirs, strict=True):
        scale = max(1.0, float(other.abs().max()))
        torch.testing.assert_close(mine / scale, other / scale, atol=1e-4, rtol=0)


def test_logits_of_the_vocabulary_equal_transformers_own(gpt2):
    given = inputs(gpt2, "interleaved")
    with torch.no_grad():
        ours = gpt2.logits(gpt2.hidden(gpt2.encode(given.prompt), given.slots))
        theirs = gpt2.model(inputs_embeds=whole_sequence(gpt2, given, row=1, candidate=2)).logits[0, -1]
    assert ours.shape == (4, 3, len(gpt2.tokenizer))
    torch.testing.assert_close(ours[1, 2], theirs, atol=1e-4, rtol=1e-4)


def test_a_biased_head_counts(byte_tokenizer):
    torch.manual_seed(0)
    architecture = transformers.PhiConfig(
        vocab_size=len(byte_tokenizer),
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        tie_word_embeddings=False,
    )
    model = transformers.PhiForCausalLM(architecture)
    torch.nn.init.normal_(model.lm_head.bias)
    backbone = DecoderBackbone(model, byte_tokenizer).eval()
    given = inputs(backbone, "packed")
    with torch.no_grad():
        torch.testing.assert_close(margins(backbone, given), margins_of_transformers(backbone, given))


def test_a_pretrained_decoder_saves_reopens_and_scores_the_same(gpt2, gpt2_folder, tmp_path):
    gpt2.save(tmp_path)
    again = DecoderConfig(pretrained=str(gpt2_folder)).open(tmp_path)
    again.load_state_dict(gpt2.state_dict())
    given = inputs(gpt2)
    with torch.no_grad():
        assert torch.equal(margins(again.eval(), given), margins(gpt2, given))
    assert again.model.lm_head.weight is again.model.transformer.wte.weight


def test_a_head_that_only_the_config_ties_reopens_as_it_was(gpt2, byte_tokenizer, tmp_path):
    """transformers then keeps both weights, and says so in no config."""
    model = copy.deepcopy(gpt2.model)
    model.lm_head.weight = torch.nn.Parameter(2 * model.lm_head.weight.detach())
    weights = {name: value.contiguous() for name, value in model.state_dict().items()}
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    assert model.config.tie_word_embeddings
    model.config.save_pretrained(tmp_path)
    byte_tokenizer.save_pretrained(tmp_path)
    config = DecoderConfig(pretrained=str(tmp_path))
    backbone = config.build(texts=[], seed=0).eval()
    backbone.save(tmp_path / "saved")
    again = config.open(tmp_path / "saved").eval()
    restore_tensors(again, unique_tensors(backbone))
    given = inputs(gpt2)
    with torch.no_grad():
        torch.testing.assert_close(margins(backbone, given), 2 * margins(gpt2, given), atol=1e-4, rtol=1e-4)
        assert torch.equal(margins(again, given), margins(backbone, given))


def test_a_prompt_beyond_the_learned_positions_is_refused(gpt2):
    prompt, _ = inputs(gpt2, "packed")
    ones = torch.ones(4, 64, dtype=torch.int64)
    with pytest.raises(BadInputError, match=r"a prompt of 7\d tokens does not fit this gpt2, which reads 64"):
        gpt2.encode(prompt._replace(block=ones, block_mask=ones > 0))


def test_padding_takes_none_of_the_learned_positions(gpt2):
    prompt, slots = inputs(gpt2, "packed")
    wide = prompt._replace(
        block=F.pad(prompt.block, (0, 64)),
        slot=F.pad(prompt.slot, (0, 64), value=-1),
        block_mask=F.pad(prompt.block_mask, (0, 64)),
    )
    with torch.no_grad():
        torch.testing.assert_close(
            margins(gpt2, BackboneInputs(wide, slots)), margins(gpt2, BackboneInputs(prompt, slots))
        )


def test_capped_logits_are_refused_with_the_architecture(byte_tokenizer):
    architecture = transformers.Gemma2Config(
        vocab_size=len(byte_tokenizer),
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
        initializer_range=1.0,
        final_logit_softcapping=0.5,
        pad_token_id=None,
        bos_token_id=None,
        eos_token_id=None,
    )
    model = transformers.Gemma2ForCausalLM(architecture)
    with pytest.raises(BadInputError, match=r"architecture 'gemma2' does not answer as a plain causal language model"):
        DecoderBackbone(model, byte_tokenizer)


def test_a_model_without_a_cache_of_keys_and_values_is_refused(byte_tokenizer):
    architecture = transformers.MambaConfig(vocab_size=len(byte_tokenizer), hidden_size=16, num_hidden_layers=1)
    with pytest.raises(BadInputError, match=r"architecture 'mamba' cannot continue from the cache"):
        DecoderBackbone(transformers.MambaForCausalLM(architecture), byte_tokenizer)


def test_a_checkpoint_that_is_no_language_model_is_refused(tmp_path, byte_tokenizer):
    byte_tokenizer.save_pretrained(tmp_path)
    sizes = {"vocab_size": 600, "num_hidden_layers": 1, "num_attention_heads": 2, "hidden_size": 8}
    transformers.ViTConfig(hidden_size=8).save_pretrained(tmp_path)
    with pytest.raises(BadInputError, match=r"is not a causal language model: its architecture is 'vit'"):
        DecoderConfig(pretrained=str(tmp_path)).build(texts=[], seed=0)
    transformers.BertModel(transformers.BertConfig(**sizes, intermediate_size=8)).save_pretrained(tmp_path)
    with pytest.raises(BadInputError, match=r"is not a causal language model: it lacks the weights cls"):
        DecoderConfig(pretrained=str(tmp_path)).build(texts=[], seed=0)
    transformers.BertForMaskedLM(transformers.BertConfig(**sizes, intermediate_size=8)).save_pretrained(tmp_path)
    with pytest.raises(BadInputError, match=r"architecture 'bert' "):
        DecoderConfig(pretrained=str(tmp_path)).build(texts=[], seed=0)


def test_a_missing_folder_and_a_damaged_file_are_named(tmp_path):
    with pytest.raises(BadInputError, match=r"cannot load .*nowhere"):
        DecoderConfig(pretrained=str(tmp_path / "nowhere")).build(texts=[], seed=0)
    if importlib.util.find_spec("gguf") is not None:
        with pytest.raises(BadInputError, match=r"there is no file '.*model\.gguf'"):
            DecoderConfig(pretrained=str(tmp_path / "model.gguf")).build(texts=[], seed=0)
        (tmp_path / "model.gguf").write_bytes(b"GGUF, or so it says")
        with pytest.raises(BadInputError, match=r"cannot load .*model\.gguf.* a GGUF file must hold a language model"):
            DecoderConfig(pretrained=str(tmp_path / "model.gguf")).build(texts=[], seed=0)


def test_a_gguf_file_without_gguf_names_the_install_line(monkeypatch):
    monkeypatch.setattr("gensr.backbones.pretrained.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"reading a GGUF file needs gguf.*pip install 'gensr\[gguf\]'"):
        DecoderConfig(pretrained="some/model.gguf").build(texts=[], seed=0)


def test_answers_of_several_tokens_are_refused_with_their_pieces(byte_tokenizer):
    model = random_decoder(SIZES, vocabulary=len(byte_tokenizer), seed=0)
    with pytest.raises(BadInputError, match=r"' kettle Yes' is 2 tokens .*kettle.* ' Yes'"):
        DecoderBackbone(model, byte_tokenizer, answers=(" kettle Yes", " No"))


def test_sizes_that_leave_no_whole_heads_are_refused():
    with pytest.raises(ValidationError, match=r"width=30 .* choose a multiple of 8"):
        DecoderSizes(width=30, heads=4)


def test_two_origins_are_refused():
    with pytest.raises(ValidationError, match="pretrained and scratch exclude each other"):
        DecoderConfig(pretrained="x", scratch=SIZES)


def test_fp16_is_refused_with_the_reason():
    with pytest.raises(ValueError, match=r"fp16 overflows .* use bf16 or fp32"):
        DecoderConfig().check_precision("fp16")
    DecoderConfig().check_precision("bf16")
