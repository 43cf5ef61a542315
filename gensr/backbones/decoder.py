"""Any causal language model as a backbone: transformers' own forward, a prefix read once, a block for each candidate.

A causal model reads from left to right, so its keys and values of a prefix are the same whatever follows: every
candidate's block continues from the prefix's cache, which is exact, and the answer is read at the block's last token.

B requests, R distinct prefixes, C candidates, P prefix tokens, T block tokens, D width of embeddings.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
import transformers
from torch import Tensor, nn

from gensr.backbones.base import Backbone, Prompt, head_logits, head_margin
from gensr.backbones.config import DecoderConfig, DecoderSizes
from gensr.backbones.lora import add_adapters
from gensr.backbones.pretrained import load_decoder
from gensr.backbones.prompt import distinct_prefixes, fill_slots
from gensr.backbones.tokenizer import answer_ids, tokenize, train_tokenizer
from gensr.errors import BadInputError

TOKENS = 16_384
"""Most tokens, prefix copies included, read at once where no gradient is needed: bounds the memory of scoring."""


class DecoderState(NamedTuple):
    """A batch of prompts whose prefixes have been read.

    Attributes:
        cache: keys and values of the distinct prefixes, [R, heads, P, width] for every layer; empty where P is 0.
        rows: int64 [B] the prefix of each request.
        prompt: the prompts.
    """

    cache: list[tuple[Tensor, Tensor]]
    rows: Tensor
    prompt: Prompt


class DecoderBackbone(Backbone):
    """A causal language model that answers at the last token of a candidate's block, with two rows of its head.

    Token id 0 is a real token of most decoders, while a prompt's 0 is padding: ids are shifted by one on the way out
    (`tokenize`) and back on the way in (`embed`). `yes` and `no` are the head's own rows.

    Args:
        model: a transformers model for causal language modelling.
        tokenizer: its tokenizer.
        answers: the positive and the negative answer, one token each.

    Raises:
        BadInputError: an answer is not a single token, or the architecture does not answer as its cache, its positions
            and two rows of its head make expect (bidirectional attention, no such cache, capped or scaled logits).
    """

    def __init__(self, model: Any, tokenizer: Any, *, answers: tuple[str, str] = (" Yes", " No")) -> None:
        super().__init__()
        self.model, self.tokenizer = model, tokenizer
        self.yes, self.no = answer_ids(tokenizer, answers)
        self.width = model.get_input_embeddings().embedding_dim
        self._space = " " if _keeps_spaces(tokenizer) else ""
        self._takes_positions = "position_ids" in inspect.signature(self._body.forward).parameters
        check_architecture(self)

    def tokenize(self, texts: Sequence[str], length: int) -> Tensor:
        """See `Backbone.tokenize`. Each text stands in the middle of a prompt: its first word gets a word's space."""
        spaced = [self._space + text if text else "" for text in texts]
        return tokenize(self.tokenizer, spaced, length, first=1)

    def embed(self, ids: Tensor) -> Tensor:
        """See `Backbone.embed`; padding gets some token's embedding."""
        return cast(Tensor, self.model.get_input_embeddings()((ids - 1).clamp(min=0)))

    def encode(self, prompt: Prompt) -> DecoderState:
        """See `Backbone.encode`. Equal prefixes of a batch are read once, and share their dropout in training."""
        self._check_length(prompt)
        if prompt.prefix.shape[1] == 0:
            return DecoderState([], torch.zeros_like(prompt.task), prompt)
        distinct, rows = distinct_prefixes(prompt)
        cache = transformers.DynamicCache()
        self._read(self.embed(distinct), distinct > 0, cache)
        return DecoderState([(layer.keys, layer.values) for layer in cache.layers], rows, prompt)

    def hidden(self, state: DecoderState, slots: Tensor) -> Tensor:
        """See `Backbone.hidden`. Without gradients, candidates are read in parts, so that memory stays bounded."""
        prompt = state.prompt
        length = prompt.prefix.shape[1] + prompt.block.shape[1]
        part = slots.shape[1]
        if not torch.is_grad_enabled():
            part = max(1, TOKENS // (length * slots.shape[0]))
        text = self.embed(prompt.block)
        parts = [self._hidden(state, fill_slots(text, prompt.slot, some)) for some in torch.split(slots, part, dim=1)]
        return torch.cat(parts, dim=1)

    def _hidden(self, state: DecoderState, inputs: Tensor) -> Tensor:
        """Hidden states [B, C, D] at the last token of blocks [B, C, T, D]."""
        prompt = state.prompt
        _, candidates, length, _ = inputs.shape
        mask = torch.cat([prompt.prefix_mask, prompt.block_mask], dim=1)  # [B, P + T]
        cache = None
        if state.cache:
            cache = transformers.DynamicCache()
            rows = state.rows.repeat_interleave(candidates)  # [B * C]
            for number, (key, value) in enumerate(state.cache):
                cache.update(key.index_select(0, rows), value.index_select(0, rows), number)
        states = self._read(inputs.flatten(0, 1), mask.repeat_interleave(candidates, dim=0), cache)
        last = prompt.block_mask.sum(1) - 1  # [B]
        # A product with a 0/1 vector: unlike gather, its gradient is summed in a fixed order.
        chosen = (torch.arange(length, device=last.device) == last.unsqueeze(1)).to(states.dtype)  # [B, T]
        return torch.einsum("bctd,bt->bcd", torch.unflatten(states, 0, (-1, candidates)), chosen)

    def _read(self, inputs: Tensor, mask: Tensor, cache: Any | None) -> Tensor:
        """Last hidden states [n, t, D] of inputs [n, t, D], whose mask [n, cached + t] covers what `cache` holds."""
        # Padding does not count: a token's position is the number of real tokens before it.
        positions = (mask.long().cumsum(1) - 1).clamp(min=0)[:, -inputs.shape[1] :]
        extra = {"position_ids": positions} if self._takes_positions else {}
        output = self._body(
            inputs_embeds=inputs,
            attention_mask=mask.long(),
            past_key_values=cache,
            use_cache=cache is not None,
            **extra,
        )
        return cast(Tensor, output.last_hidden_state)

    def answer(self, hidden: Tensor, task: Tensor) -> Tensor:
        """See `Backbone.answer`."""
        head = self.model.get_output_embeddings()
        return head_margin(hidden, self.yes, self.no, head.weight, head.bias)

    def logits(self, hidden: Tensor) -> Tensor:
        """See `Backbone.logits`; rows are the tokenizer's own ids."""
        head = self.model.get_output_embeddings()
        return head_logits(hidden, head.weight, head.bias)

    @property
    def _body(self) -> Any:
        """The model without its head."""
        return self.model.base_model

    @property
    def embedding_rms(self) -> float:
        """See `Backbone.embedding_rms`; of up to 8,192 tokens, as the model's own layer embeds (and may scale) them."""
        count = self.model.get_input_embeddings().num_embeddings
        ids = torch.arange(1, count + 1, step=-(-count // 8192), device=self.model.device)
        with torch.no_grad():
            return float(self.embed(ids).float().square().mean().sqrt())

    def save(self, folder: Path) -> None:
        """See `Backbone.save`."""
        folder.mkdir(parents=True, exist_ok=True)
        self.model.config.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)

    def _check_length(self, prompt: Prompt) -> None:
        limit = getattr(self.model.config, "max_position_embeddings", None)
        if limit is None:
            return
        # Padding takes no position: a request must not be refused for its batch mates' lengths.
        length = int((prompt.prefix_mask.sum(1) + prompt.block_mask.sum(1)).max())
        if length > limit:
            raise BadInputError(
                f"backbone: a prompt of {length} tokens does not fit this {self.model.config.model_type}, which reads "
                f"{limit}: shorten the templates, query_length or data.max_history"
            )


@torch.no_grad()
def check_architecture(backbone: DecoderBackbone) -> None:
    """Compare margins of two small prompts, of unequal lengths and batched, with the model's own logits.

    Raises:
        BadInputError: they differ; names the architecture.
    """
    model = backbone.model
    kind, training = model.config.model_type, model.training
    count = model.get_input_embeddings().num_embeddings
    device = model.get_input_embeddings().weight.device
    ids = torch.arange(1, 7, device=device) * 7 % count + 1  # six ids in the prompt's numbering
    rows = [(ids[:3], ids[3:5]), (ids[5:], ids[:1])]
    prefix, block = torch.zeros(2, 3, dtype=torch.int64), torch.zeros(2, 2, dtype=torch.int64)
    for row, (first, second) in enumerate(rows):
        prefix[row, 3 - len(first) :], block[row, : len(second)] = first, second
    prefix, block = prefix.to(device), block.to(device)
    task = torch.ones(2, dtype=torch.int64, device=device)
    prompt = Prompt(prefix, prefix > 0, block, torch.full_like(block, -1), block > 0, task)
    model.eval()
    try:
        slots = torch.zeros(2, 1, 1, backbone.width, device=device)
        ours = backbone.answer(backbone.hidden(backbone.encode(prompt), slots), task).squeeze(1)
        logits = [model(input_ids=(torch.cat(row) - 1).unsqueeze(0)).logits[0, -1].float() for row in rows]
    except Exception as error:  # an architecture fails in its own way where it lacks what a backbone needs
        raise BadInputError(
            f"backbone: the architecture {kind!r} cannot continue from the cache of a prefix as a causal language "
            f"model does: {type(error).__name__}: {error}"
        ) from error
    finally:
        model.train(training)
    theirs = torch.stack([row[backbone.yes] - row[backbone.no] for row in logits])
    if not torch.allclose(ours, theirs, atol=1e-3, rtol=1e-3):
        raise BadInputError(
            f"backbone: the architecture {kind!r} does not answer as a plain causal language model: margins are "
            f"{ours.tolist()} from the cache and two rows of the head, but {theirs.tolist()} by its own logits. It "
            "looks at later tokens, places tokens otherwise, or transforms its logits; choose another model"
        )


def build_decoder(config: DecoderConfig, *, texts: Iterable[str], seed: int) -> DecoderBackbone:
    """A pretrained causal language model, or a random one with a tokenizer trained on `texts`.

    Raises:
        BadInputError: the pretrained model cannot be read, or is no causal language model.
        MissingExtraError: a GGUF file is to be read without gguf, or adapters are wanted without peft.
    """
    if config.pretrained is not None:
        model, tokenizer = load_decoder(config.pretrained)
    else:
        sizes = config.scratch or DecoderSizes()
        tokenizer = train_tokenizer(texts, vocabulary=sizes.vocabulary, answers=config.answers)
        model = random_decoder(sizes, vocabulary=len(tokenizer), seed=seed)
    if config.lora is not None:
        add_adapters(model, config.lora, seed=seed)
    return DecoderBackbone(model, tokenizer, answers=config.answers)


def open_decoder(config: DecoderConfig, folder: Path) -> DecoderBackbone:
    """The architecture and tokenizer that `DecoderBackbone.save` wrote; weights are random."""
    architecture = transformers.AutoConfig.from_pretrained(folder)
    model = transformers.AutoModelForCausalLM.from_config(architecture, dtype=torch.float32)
    if config.lora is not None:
        add_adapters(model, config.lora, seed=0)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    return DecoderBackbone(model, tokenizer, answers=config.answers)


def random_decoder(sizes: DecoderSizes, *, vocabulary: int, seed: int) -> Any:
    """A Llama with random weights, at scales that suit its width."""
    architecture = transformers.LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=sizes.width,
        intermediate_size=sizes.hidden,
        num_hidden_layers=sizes.layers,
        num_attention_heads=sizes.heads,
        attention_dropout=sizes.dropout,
        initializer_range=sizes.width**-0.5,
        tie_word_embeddings=False,
        bos_token_id=None,
        eos_token_id=None,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = transformers.LlamaForCausalLM(architecture)
        # Words are told apart, and a query meets a title, by their embeddings: at T5's unit size they outlast the first
        # updates, at transformers' 0.02 a learning rate of 1e-3 rewrites them.
        nn.init.normal_(model.model.embed_tokens.weight)
    return model


def _keeps_spaces(tokenizer: Any) -> bool:
    """Whether a word's leading space is part of its token, as byte-level tokenizers have it."""
    plain, spaced = (tokenizer(text, add_special_tokens=False)["input_ids"] for text in ("the", " the"))
    return plain != spaced and len(spaced) <= len(plain)
