"""One copy of a prefix for all its candidates: against transformers' own logits, against copies, and where not."""

from __future__ import annotations

import copy
import warnings

import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st

from gensr.backbones import decoder as decoder_module
from gensr.backbones.base import Prompt
from gensr.backbones.config import DecoderConfig, DecoderSizes, LoRA
from gensr.backbones.decoder import DecoderBackbone
from gensr.backbones.sharing import attend, block_mask, shared_attention
from gensr.backbones.tokenizer import train_tokenizer
from gensr.errors import BadInputError
from gensr.testing.backbone import TEXTS, BackboneInputs
from tests.backbones.prompts import inputs, margins, margins_of_transformers

ANSWERS = (" Yes", " No")
SMALL = {"bos_token_id": None, "eos_token_id": None, "pad_token_id": None}
SIZES = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "initializer_range": 0.2,
    "tie_word_embeddings": False,
    **SMALL,
}
SHARING = {
    "llama": lambda n: transformers.LlamaConfig(vocab_size=n, **SIZES),
    "one key head": lambda n: transformers.LlamaConfig(vocab_size=n, **{**SIZES, "num_key_value_heads": 1}),
    "qwen2": lambda n: transformers.Qwen2Config(vocab_size=n, **SIZES),
    "qwen3": lambda n: transformers.Qwen3Config(vocab_size=n, head_dim=8, **SIZES),
    "mistral": lambda n: transformers.MistralConfig(vocab_size=n, **SIZES),
    "phi": lambda n: transformers.PhiConfig(vocab_size=n, **SIZES),
    "gpt2": lambda n: transformers.GPT2Config(
        vocab_size=n,
        n_embd=32,
        n_layer=2,
        n_head=4,
        n_positions=64,
        initializer_range=0.2,
        attn_pdrop=0.0,
        embd_pdrop=0.0,
        resid_pdrop=0.0,
        **SMALL,
    ),
}
COPYING = {
    "bloom": (
        lambda n: transformers.BloomConfig(
            vocab_size=n, hidden_size=32, n_layer=2, n_head=4, initializer_range=0.2, **SMALL
        ),
        "its attention is its own",
    ),
    "gemma2": (
        lambda n: transformers.Gemma2Config(vocab_size=n, head_dim=8, final_logit_softcapping=None, **SIZES),
        "its attention is its own",
    ),
}


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(TEXTS, vocabulary=300, answers=ANSWERS)


def model(tokenizer, architecture):
    torch.manual_seed(0)
    return transformers.AutoModelForCausalLM.from_config(architecture(len(tokenizer)), dtype=torch.float32)


def build(tokenizer, name: str) -> DecoderBackbone:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return DecoderBackbone(model(tokenizer, SHARING[name]), tokenizer).eval()


@pytest.fixture(scope="module")
def llama(tokenizer) -> DecoderBackbone:
    return build(tokenizer, "llama")


def copying(backbone: DecoderBackbone) -> DecoderBackbone:
    other = copy.deepcopy(backbone)
    other.shares_prefix = False
    return other


def gradients(backbone: DecoderBackbone, given: BackboneInputs) -> list[torch.Tensor]:
    """Of every weight and every slot, in training mode; scaled to compare."""
    slots = given.slots.clone().requires_grad_()
    backbone.train()
    total = margins(backbone, BackboneInputs(given.prompt, slots)).square().sum()
    found = torch.autograd.grad(total, [slots, *(p for p in backbone.parameters() if p.requires_grad)])
    backbone.eval()
    return [gradient / max(1.0, float(gradient.abs().max())) for gradient in found]


def assert_equal_gradients(found: list[torch.Tensor], expected: list[torch.Tensor]) -> None:
    for mine, other in zip(found, expected, strict=True):
        torch.testing.assert_close(mine, other, atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", SHARING)
def test_margins_are_those_of_transformers_own_logits(tokenizer, name):
    backbone = build(tokenizer, name)
    assert backbone.shares_prefix
    given = inputs(backbone)
    with torch.no_grad():
        torch.testing.assert_close(
            margins(backbone, given), margins_of_transformers(backbone, given), atol=1e-4, rtol=1e-4
        )


@settings(max_examples=15, deadline=None)
@given(
    lengths=st.lists(st.tuples(st.integers(0, 7), st.integers(1, 5)), min_size=1, max_size=4),
    candidates=st.integers(1, 4),
    seed=st.integers(0, 5),
)
def test_any_mix_of_lengths_and_candidates_gives_what_each_gives_alone(llama, lengths, candidates, seed):
    generator = torch.Generator().manual_seed(seed)
    prefixes, blocks = (max(column) for column in zip(*lengths, strict=True))
    prefix, block = torch.zeros(len(lengths), prefixes, dtype=torch.int64), torch.zeros(len(lengths), blocks).long()
    slot, mask = torch.full_like(block, -1), torch.zeros_like(block, dtype=torch.bool)
    for row, (before, own) in enumerate(lengths):
        prefix[row, prefixes - before :] = torch.randint(1, 50, (before,), generator=generator)
        block[row, 1:own] = torch.randint(1, 50, (own - 1,), generator=generator)
        slot[row, 0], mask[row, :own] = 0, True
    prompt = Prompt(prefix, prefix > 0, block, slot, mask, torch.ones(len(lengths), dtype=torch.int64))
    given = BackboneInputs(prompt, torch.randn(len(lengths), candidates, 1, 32, generator=generator))
    with torch.no_grad():
        torch.testing.assert_close(margins(llama, given), margins_of_transformers(llama, given), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", ["llama", "gpt2", "qwen3"])
def test_gradients_are_those_of_copied_prefixes(tokenizer, name):
    backbone = build(tokenizer, name)
    given = inputs(backbone)
    assert_equal_gradients(gradients(backbone, given), gradients(copying(backbone), given))


def test_a_prefix_is_kept_once_per_request_and_no_cache_is_made(llama, monkeypatch):
    given = inputs(llama)
    monkeypatch.delattr(transformers, "DynamicCache")
    with torch.no_grad():
        state = llama.encode(given.prompt)
        llama.hidden(state, given.slots)
    length = given.prompt.prefix.shape[1]
    assert {tuple(part.shape) for layer in state.layers.values() for part in layer} == {(4, 2, length, 8)}


def test_attention_is_a_softmax_over_the_prefix_and_the_own_block():
    """Written out, head by head and token by token; two query heads read one pair of keys and values."""
    generator = torch.Generator().manual_seed(0)
    query = torch.randn(2, 4, 3 * 2, 5, generator=generator)
    key, value = torch.randn(2, 2, 2, 3 * 2, 5, generator=generator)
    shared_key, shared_value = torch.randn(2, 2, 2, 4, 5, generator=generator)
    visible = torch.tensor([[True] * 4, [False, False, True, True]])
    found = attend(query, key, value, (shared_key, shared_value), block_mask(visible, 2, torch.float32))
    for row, head, token in ((0, 0, 0), (0, 1, 3), (1, 2, 4), (1, 3, 5)):
        kv, start = head // 2, token // 2 * 2
        keys = torch.cat([shared_key[row, kv][visible[row]], key[row, kv, start : token + 1]])
        values = torch.cat([shared_value[row, kv][visible[row]], value[row, kv, start : token + 1]])
        expected = (keys @ query[row, head, token]).softmax(0) @ values
        torch.testing.assert_close(found[row, token, head], expected)


def test_dropout_drops_attention_weights_and_keeps_their_mean():
    torch.manual_seed(0)
    nothing, ones = torch.zeros(1, 2, 3000, 4), torch.ones(1, 2, 3000, 4)
    prefix = torch.zeros(1, 2, 7, 4), torch.ones(1, 2, 7, 4)
    mask = block_mask(torch.ones(1, 7, dtype=torch.bool), 3, torch.float32)
    found = attend(nothing, nothing, ones, prefix, mask, dropout=0.5)
    assert float(found.std()) > 0.1
    assert float(found.mean()) == pytest.approx(1, abs=0.02)


def test_the_models_attention_dropout_acts_in_training_alone(tokenizer):
    config = DecoderConfig(scratch=DecoderSizes(width=32, layers=2, heads=2, hidden=48, vocabulary=300, dropout=0.5))
    backbone = config.build(texts=TEXTS, seed=0)
    given = inputs(backbone)
    with torch.no_grad():
        assert not torch.equal(margins(backbone.train(), given), margins(backbone, given))
        assert torch.equal(margins(backbone.eval(), given), margins(backbone, given))


@pytest.mark.parametrize("cast", ["cast", "to"])
def test_a_model_in_bfloat16_takes_float32_slots_and_gives_float32_margins(llama, cast):
    given = inputs(llama)
    half = copy.deepcopy(llama)
    getattr(half, cast)(torch.bfloat16)
    assert half.model.dtype == torch.bfloat16
    with torch.no_grad():
        found, exact = margins(half, given), margins(llama, given)
    assert given.slots.dtype == found.dtype == torch.float32
    torch.testing.assert_close(found, exact, atol=0.05 * float(exact.abs().max()), rtol=0.05)


def test_a_cast_leaves_rotary_frequencies_alone(llama):
    half = copy.deepcopy(llama)
    half.cast(torch.bfloat16)
    assert torch.equal(half.model.model.rotary_emb.inv_freq, llama.model.model.rotary_emb.inv_freq)


def test_a_model_that_comes_in_bfloat16_shares_too(tokenizer):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert DecoderBackbone(model(tokenizer, SHARING["llama"]).to(torch.bfloat16), tokenizer).shares_prefix


def test_an_adapted_model_has_the_gradients_of_copied_prefixes():
    pytest.importorskip("peft", reason="adapters need peft (extra lora)")
    sizes = DecoderSizes(width=32, layers=2, heads=2, hidden=48, vocabulary=300, dropout=0.0)
    backbone = DecoderConfig(scratch=sizes, lora=LoRA(rank=2)).build(texts=TEXTS, seed=0)
    assert backbone.shares_prefix
    given = inputs(backbone)
    assert_equal_gradients(gradients(backbone, given), gradients(copying(backbone), given))


def test_the_models_own_forward_is_left_as_it_was(tokenizer, llama, tmp_path):
    """With padding on the left, too; and nothing of it is written to a config."""
    ids, mask = torch.randint(1, 50, (2, 6)), torch.ones(2, 6, dtype=torch.int64)
    mask[1, :3] = 0
    untouched = model(tokenizer, SHARING["llama"]).eval()
    with torch.no_grad():
        expected = untouched(input_ids=ids, attention_mask=mask).logits[:, -1]
        assert torch.equal(llama.model(input_ids=ids, attention_mask=mask).logits[:, -1], expected)
    llama.save(tmp_path)
    assert "gensr" not in (tmp_path / "config.json").read_text()


@pytest.mark.parametrize("name", COPYING)
def test_an_architecture_that_cannot_share_copies_and_says_so(tokenizer, name):
    architecture, reason = COPYING[name]
    with pytest.warns(UserWarning, match=f"'{name}' reads every candidate behind a copy of its prefix.*: {reason}"):
        backbone = DecoderBackbone(model(tokenizer, architecture), tokenizer).eval()
    assert not backbone.shares_prefix
    given = inputs(backbone)
    with torch.no_grad():
        torch.testing.assert_close(
            margins(backbone, given), margins_of_transformers(backbone, given), atol=1e-4, rtol=1e-4
        )
    assert all(bool(gradient.any()) for gradient in gradients(backbone, given)[:1])
    with pytest.raises(BadInputError, match=rf"{name}' cannot recompute activations: its layers continue from a cache"):
        backbone.checkpointing = True


def test_copies_are_made_for_a_few_candidates_at_a_time_unless_gradients_need_them_all(llama, monkeypatch):
    given, backbone = inputs(llama), copying(llama)
    rows = []
    forward = backbone._forward
    monkeypatch.setattr(
        backbone, "_forward", lambda body, **read: rows.append(len(read["inputs_embeds"])) or forward(body, **read)
    )
    with torch.no_grad():
        at_once = margins(backbone, given)
        monkeypatch.setattr(decoder_module, "COPIED", 1)
        in_parts = margins(backbone, given)
    margins(backbone, given)
    assert rows == [12, 4, 4, 4, 12]
    torch.testing.assert_close(in_parts, at_once, atol=1e-5, rtol=1e-5)


def test_an_attention_that_comes_out_otherwise_is_not_shared(tokenizer, monkeypatch):
    monkeypatch.setattr("gensr.backbones.sharing.attend", lambda query, *rest, **options: query.transpose(1, 2))
    with pytest.warns(UserWarning, match=r"'llama' reads every candidate .*: its margins would differ"):
        backbone = DecoderBackbone(model(tokenizer, SHARING["llama"]), tokenizer)
    assert backbone.model.config._attn_implementation == "sdpa"


def test_an_architecture_that_is_refused_gives_no_warning_before(tokenizer):
    architecture = transformers.MambaConfig(vocab_size=len(tokenizer), hidden_size=16, num_hidden_layers=1)
    mamba = transformers.MambaForCausalLM(architecture)
    with warnings.catch_warnings(record=True) as given:
        warnings.simplefilter("always")
        with pytest.raises(BadInputError, match="'mamba' cannot continue from the cache"):
            DecoderBackbone(mamba, tokenizer)
    assert [str(warning.message) for warning in given if "copy" in str(warning.message)] == []


def test_options_that_may_change_the_result_are_not_ignored():
    query, layers = torch.zeros(1, 1, 2, 4), {0: (torch.zeros(1, 1, 3, 4), torch.zeros(1, 1, 3, 4))}
    module = torch.nn.Module()
    module.layer_idx = 0
    mask = block_mask(torch.ones(1, 3, dtype=torch.bool), 2, torch.float32)
    found, _ = shared_attention(module, query, query, query, mask, prefix=layers, softcap=None, sliding_window=9)
    assert found.shape == (1, 2, 1, 4)
    with pytest.raises(NotImplementedError, match="takes the option 'softcap'"):
        shared_attention(module, query, query, query, mask, prefix=layers, softcap=30.0)
    with pytest.raises(NotImplementedError, match="drops masks"):
        shared_attention(module, query, query, query, None, prefix=layers)


def test_prompts_longer_than_a_sliding_window_are_read_behind_copies(tokenizer):
    def narrow(count):
        return transformers.MistralConfig(vocab_size=count, sliding_window=6, **SIZES)

    backbone = DecoderBackbone(model(tokenizer, narrow), tokenizer).eval()
    given = inputs(backbone)
    with torch.no_grad(), pytest.warns(UserWarning, match=r"'mistral' .* longer than its sliding window of 6"):
        found = margins(backbone, given)
    with torch.no_grad():
        torch.testing.assert_close(found, margins_of_transformers(backbone, given), atol=1e-4, rtol=1e-4)
    backbone.checkpointing = True
    with pytest.raises(BadInputError, match=r"'mistral' cannot recompute activations: a prompt of"):
        margins(backbone, given)


@pytest.mark.parametrize("layout", ["packed", "interleaved"])
def test_recomputed_activations_give_the_same_gradients(tokenizer, layout):
    backbone = build(tokenizer, "llama")
    given = inputs(backbone, layout)
    calls = []
    backbone.model.model.layers[0].mlp.register_forward_pre_hook(lambda *_: calls.append(1))
    expected, kept = gradients(backbone, given), len(calls)
    backbone.checkpointing = True
    assert backbone.checkpointing
    assert_equal_gradients(gradients(backbone, given), expected)
    assert len(calls) == 3 * kept  # once without, once and again with
    calls.clear()
    backbone.checkpointing = False
    gradients(backbone, given)
    assert len(calls) == kept


def test_a_compiler_gets_the_reading_of_blocks(tokenizer):
    """Traced by torch, but not compiled: that takes minutes, and is torch's own business."""
    backbone = build(tokenizer, "llama")
    given = inputs(backbone)
    with torch.no_grad():
        expected = margins(backbone, given)
        backbone.compile_with(lambda function: torch.compile(function, backend="eager"))
        torch.testing.assert_close(margins(backbone, given), expected, atol=1e-5, rtol=1e-5)
