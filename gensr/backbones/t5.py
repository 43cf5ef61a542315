"""T5 as a backbone: transformers' own weights and modules, our scoring forward."""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
import transformers
from torch import Tensor, nn

from gensr.backbones.base import Backbone, Function, Prompt, head_logits, head_margin
from gensr.backbones.config import T5Config, T5Sizes
from gensr.backbones.lora import add_adapters
from gensr.backbones.packing import PrefixState, decode_step, encode_blocks, encode_prefix
from gensr.backbones.pretrained import load_t5
from gensr.backbones.prompt import by_length, distinct_prefixes, fill_slots
from gensr.backbones.tokenizer import answer_ids, tokenize, train_tokenizer
from gensr.errors import BadInputError


class T5State(NamedTuple):
    """A batch of prompts whose prefixes have been read."""

    prefix: PrefixState
    prompt: Prompt

    def select(self, rows: Tensor) -> T5State:
        """The requests `rows` [n]."""
        return T5State(self.prefix.select(rows), self.prompt.select(rows))


class T5Reader(Backbone):
    """A T5's encoder reading prompts: what backbones share that differ in the answer alone.

    Args:
        model: a transformers T5, with or without its decoder.
        tokenizer: its tokenizer; padding must have id 0.

    Raises:
        BadInputError: the tokenizer pads with another id.
    """

    def __init__(self, model: Any, tokenizer: Any) -> None:
        super().__init__()
        if tokenizer.pad_token_id != 0:
            raise BadInputError(f"backbone: the tokenizer pads with id {tokenizer.pad_token_id}; a T5's is 0")
        self.model, self.tokenizer = model, tokenizer
        self.width = model.config.d_model
        self._encode_blocks = encode_blocks

    def tokenize(self, texts: Sequence[str], length: int) -> Tensor:
        """See `Backbone.tokenize`."""
        return tokenize(self.tokenizer, texts, length)

    def embed(self, ids: Tensor) -> Tensor:
        """See `Backbone.embed`."""
        return cast(Tensor, self.model.shared(ids))

    def encode(self, prompt: Prompt) -> T5State:
        """See `Backbone.encode`. Equal prefixes of a batch are read once, and share their dropout in training."""
        encoder = self.model.encoder
        if prompt.prefix.shape[1] == 0:
            return T5State(encode_prefix(encoder, self.embed(prompt.prefix), prompt.prefix_mask), prompt)
        distinct, rows = distinct_prefixes(prompt)
        prefix = encode_prefix(encoder, self.embed(distinct), distinct > 0, recompute=self.checkpointing)
        return T5State(prefix.select(rows), prompt)

    def hidden(self, state: T5State, slots: Tensor) -> Tensor:
        """See `Backbone.hidden`. Requests with blocks of very different lengths are read apart."""
        groups = by_length(state.prompt)
        if len(groups) == 1:
            return self._hidden(state, slots)
        parts = [self._hidden(state.select(rows), slots.index_select(0, rows)) for rows in groups]
        return torch.cat(parts).index_select(0, torch.cat(groups).argsort())

    def _hidden(self, state: T5State, slots: Tensor) -> Tensor:
        prompt = state.prompt
        inputs = fill_slots(self.embed(prompt.block), prompt.slot, slots)
        mask, recompute = prompt.block_mask, self.checkpointing
        final = self._encode_blocks(self.model.encoder, state.prefix, inputs, mask, recompute=recompute)
        return self._at_answer(state, final)

    @abstractmethod
    def _at_answer(self, state: T5State, final: Tensor) -> Tensor:
        """Hidden state at the answer position, [B, C, D], from the blocks' final states [B, C, T, D]."""

    def compile_with(self, compiler: Callable[[Function], Function]) -> None:
        """See `Backbone.compile_with`; the prefixes, of many lengths and read once, stay as they are."""
        self._encode_blocks = compiler(encode_blocks)

    @property
    def embedding_rms(self) -> float:
        """See `Backbone.embedding_rms`."""
        return float(self.model.shared.weight.detach().float().square().mean().sqrt())

    def save(self, folder: Path) -> None:
        """See `Backbone.save`."""
        folder.mkdir(parents=True, exist_ok=True)
        self.model.config.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)


class T5Backbone(T5Reader):
    """A T5 encoder-decoder that answers with one decoder step and two rows of its head.

    Args:
        model: transformers ``T5ForConditionalGeneration``.
        tokenizer: its tokenizer; padding must have id 0.
        answers: the positive and the negative answer, one token each.

    Raises:
        BadInputError: an answer is not a single token, or the tokenizer pads with another id.
    """

    def __init__(self, model: Any, tokenizer: Any, *, answers: tuple[str, str] = ("Yes", "No")) -> None:
        super().__init__(model, tokenizer)
        self.yes, self.no = answer_ids(tokenizer, answers)
        self._decode_step = decode_step
        for block in model.decoder.block:
            # A single decoder token attends to itself alone: these weights have no effect and no gradient.
            attention = block.layer[0].SelfAttention
            dead = [attention.q, attention.k]
            if attention.has_relative_attention_bias:
                dead.append(attention.relative_attention_bias)
            for module in dead:
                module.requires_grad_(False)

    def _at_answer(self, state: T5State, final: Tensor) -> Tensor:
        start = self.model.shared.weight[self.model.config.decoder_start_token_id or 0]
        mask, recompute = state.prompt.block_mask, self.checkpointing
        return self._decode_step(self.model.decoder, state.prefix, final, mask, start, recompute=recompute)

    def answer(self, hidden: Tensor, task: Tensor) -> Tensor:
        """See `Backbone.answer`."""
        return head_margin(hidden, self.yes, self.no, self.model.lm_head.weight) * self._output_scale

    def logits(self, hidden: Tensor) -> Tensor:
        """See `Backbone.logits`."""
        return head_logits(hidden, self.model.lm_head.weight) * self._output_scale

    def compile_with(self, compiler: Callable[[Function], Function]) -> None:
        """See `Backbone.compile_with`."""
        super().compile_with(compiler)
        self._decode_step = compiler(decode_step)

    @property
    def _output_scale(self) -> float:
        return self.width**-0.5 if _scales_output(self.model.config) else 1.0

    def save(self, folder: Path) -> None:
        """See `Backbone.save`."""
        super().save(folder)
        untied = self.model.lm_head.weight is not self.model.shared.weight
        facts = {"untied_head": untied, "scale_decoder_outputs": _scales_output(self.model.config)}
        (folder / "backbone.json").write_text(json.dumps(facts), encoding="utf-8")


def _scales_output(config: Any) -> bool:
    # transformers before 5.x had no such option: there the tied T5 1.0 scales, the untied 1.1 does not.
    return bool(getattr(config, "scale_decoder_outputs", config.tie_word_embeddings))


def build_t5(config: T5Config, *, texts: Iterable[str], seed: int) -> T5Backbone:
    """A pretrained T5, or a random one with a tokenizer trained on `texts`.

    Raises:
        BadInputError: the pretrained model cannot be read, or is no whole T5; a wrong answer or adapter target.
        MissingExtraError: adapters are wanted without peft.
    """
    if config.pretrained is not None:
        model, tokenizer = load_t5(config.pretrained, transformers.AutoModelForSeq2SeqLM)
    else:
        sizes = config.scratch or T5Sizes()
        tokenizer = train_tokenizer(texts, vocabulary=sizes.vocabulary, answers=config.answers)
        model = random_t5(sizes, vocabulary=len(tokenizer), seed=seed)
    if config.lora is not None:
        add_adapters(model, config.lora, seed=seed)
    return T5Backbone(model, tokenizer, answers=config.answers)


def open_t5(config: T5Config, folder: Path) -> T5Backbone:
    """The architecture and tokenizer that `T5Backbone.save` wrote; weights are uninitialised."""
    facts = json.loads((folder / "backbone.json").read_text(encoding="utf-8"))
    architecture = transformers.T5Config.from_pretrained(folder)
    architecture.scale_decoder_outputs = facts["scale_decoder_outputs"]
    model = transformers.T5ForConditionalGeneration(architecture)
    if facts["untied_head"]:
        _untie_head(model)
    if config.lora is not None:
        add_adapters(model, config.lora, seed=0)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    return T5Backbone(model, tokenizer, answers=config.answers)


def random_t5(sizes: T5Sizes, *, vocabulary: int, seed: int) -> Any:
    """A T5 v1.1 (gated GELU, untied head) with random weights, initialised as transformers does but for the head."""
    architecture = transformers.T5Config(
        vocab_size=vocabulary,
        d_model=sizes.width,
        d_kv=sizes.head_width,
        d_ff=sizes.hidden,
        num_layers=sizes.layers,
        num_decoder_layers=sizes.decoder_layers or sizes.layers,
        num_heads=sizes.heads,
        dropout_rate=sizes.dropout,
        feed_forward_proj="gated-gelu",
        tie_word_embeddings=False,
        decoder_start_token_id=0,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = transformers.T5ForConditionalGeneration(architecture)
        _untie_head(model)
        # transformers draws the untied head with unit variance, which starts Yes/No margins at +-sqrt(2 * width).
        nn.init.normal_(model.lm_head.weight, std=sizes.width**-0.5)
    return model


def _untie_head(model: Any) -> None:
    # transformers 5 ties every T5 it builds from a config, also where the published model does not.
    if model.lm_head.weight is model.shared.weight:
        model.lm_head.weight = nn.Parameter(model.shared.weight.detach().clone())
