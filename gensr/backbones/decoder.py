"""Any causal language model as a backbone: transformers' own forward, a prefix read once, a block for each candidate.

A causal model reads from left to right, so its keys and values of a prefix are the same whatever follows: every
candidate's block continues from them, which is exact, and the answer is read at the block's last token. All blocks of a
request share one copy of them (`gensr.backbones.sharing`). The few architectures whose attention cannot do that
continue from a copy for each candidate, and a warning says so.

B requests, R distinct prefixes, C candidates, P prefix tokens, T block tokens, D width of embeddings, K key heads.
"""

from __future__ import annotations

import inspect
import math
import warnings
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
import transformers
from torch import Tensor, nn

from gensr.backbones.architecture import check_architecture, try_shared_prefix
from gensr.backbones.base import Backbone, Function, KeyValue, Prompt, head_logits, head_margin
from gensr.backbones.config import DecoderConfig, DecoderSizes
from gensr.backbones.lora import add_adapters
from gensr.backbones.pretrained import load_decoder
from gensr.backbones.prompt import distinct_prefixes, fill_slots
from gensr.backbones.sharing import block_mask
from gensr.backbones.tokenizer import answer_ids, tokenize, train_tokenizer
from gensr.errors import BadInputError
from gensr.nested import map_tensors

COPIED = 16_384
"""Most tokens, copies of prefixes included, that are read at once where prefixes are copied and no gradient is kept."""
WINDOWS = ("sliding_window", "attention_chunk_size")
"""Options of architectures whose tokens look back no farther than this."""


class DecoderState(NamedTuple):
    """A batch of prompts whose prefixes have been read.

    Attributes:
        layers: keys and values of the requests' prefixes, [B, K, P, width], by layer; empty where P is 0.
        prompt: the prompts.
    """

    layers: dict[int, KeyValue]
    prompt: Prompt


class DecoderBackbone(Backbone):
    """A causal language model that answers at the last token of a candidate's block, with two rows of its head.

    Token id 0 is a real token of most decoders, while a prompt's 0 is padding: ids are shifted by one on the way out
    (`tokenize`) and back on the way in (`embed`). `yes` and `no` are the head's own rows.

    Args:
        model: a transformers model for causal language modelling.
        tokenizer: its tokenizer.
        answers: the positive and the negative answer, one token each.

    Attributes:
        shares_prefix: whether candidates share one copy of their prefix; found by trying. Where they cannot, a warning
            says so.

    Raises:
        BadInputError: an answer is not a single token, or the architecture does not answer as its keys and values, its
            positions and two rows of its head make expect (bidirectional attention, no such cache, capped or scaled
            logits).
    """

    def __init__(self, model: Any, tokenizer: Any, *, answers: tuple[str, str] = (" Yes", " No")) -> None:
        super().__init__()
        self.model, self.tokenizer = model, tokenizer
        self.yes, self.no = answer_ids(tokenizer, answers)
        self.width = model.get_input_embeddings().embedding_dim
        self._space = " " if _keeps_spaces(tokenizer) else ""
        self._forward, self._checkpointing = _last_states, False
        self._takes_positions = "position_ids" in inspect.signature(self._body.forward).parameters
        self._window = min(getattr(model.config, name, None) or math.inf for name in WINDOWS)
        self.shares_prefix = True
        refusal = try_shared_prefix(self)
        if refusal is not None:
            self.shares_prefix = False
            check_architecture(self)
            _warn_of_copies(model, refusal)

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
            return DecoderState({}, prompt)
        distinct, rows = distinct_prefixes(prompt)
        return DecoderState(map_tensors(lambda kept: kept.index_select(0, rows), self._read_prefixes(distinct)), prompt)

    def hidden(self, state: DecoderState, slots: Tensor) -> Tensor:
        """See `Backbone.hidden`."""
        prompt = state.prompt
        inputs = fill_slots(self.embed(prompt.block), prompt.slot, slots)  # [B, C, T, D]
        if state.layers and self._shares(prompt):
            states = self._read_behind_shared(state, inputs)
        else:
            parts = torch.split(inputs, self._copied_at_once(state, inputs.shape[1]), dim=1)
            states = torch.cat([self._read_behind_copies(state, part) for part in parts], dim=1)
        last = prompt.block_mask.sum(1, keepdim=True) - 1  # [B, 1]
        # A product with a 0/1 vector: unlike gather, its gradient is summed in a fixed order.
        chosen = (torch.arange(inputs.shape[2], device=last.device) == last).to(states.dtype)  # [B, T]
        return torch.einsum("bctd,bt->bcd", states, chosen)

    def _copied_at_once(self, state: DecoderState, candidates: int) -> int:
        """How many of a request's candidates get their copies of its prefix at one time."""
        if torch.is_grad_enabled() or not state.layers:
            return candidates
        prefix, block = state.prompt.prefix, state.prompt.block
        return max(1, COPIED // (len(prefix) * (prefix.shape[1] + block.shape[1])))

    def _read_prefixes(self, prefix: Tensor) -> dict[int, KeyValue]:
        """Keys and values of prefixes, int64 [R, P], in every layer."""
        mask = prefix > 0
        inputs = {"inputs_embeds": self.embed(prefix), "attention_mask": mask.long(), **self._at(_positions(mask))}
        if self.shares_prefix:
            kept: dict[int, KeyValue] = {}
            _last_states(self._body, **inputs, use_cache=False, keep=kept)
            return kept
        cache = transformers.DynamicCache()
        _last_states(self._body, **inputs, use_cache=True, past_key_values=cache)
        return {number: (layer.keys, layer.values) for number, layer in enumerate(cache.layers)}

    def _read_behind_shared(self, state: DecoderState, inputs: Tensor) -> Tensor:
        """Last hidden states [B, C, T, D] of blocks [B, C, T, D], those of a request behind one another in one row."""
        _, candidates, length, _ = inputs.shape
        prompt = state.prompt
        positions = _positions(prompt.prefix_mask, prompt.block_mask).repeat(1, candidates)  # [B, C * T]
        states = self._forward(
            self._body,
            inputs_embeds=inputs.flatten(1, 2),
            attention_mask=block_mask(prompt.prefix_mask, length, inputs.dtype),
            use_cache=False,
            prefix=state.layers,
            **self._at(positions),
        )
        return torch.unflatten(states, 1, (candidates, length))

    def _read_behind_copies(self, state: DecoderState, inputs: Tensor) -> Tensor:
        """The same, each block in a row of its own behind a copy of its prefix, if there is one."""
        candidates, prompt = inputs.shape[1], state.prompt
        cache = transformers.DynamicCache() if state.layers else None
        for number, (key, value) in state.layers.items():
            copies = (kept.repeat_interleave(candidates, dim=0) for kept in (key, value))
            cast(Any, cache).update(*copies, number)
        mask = torch.cat([prompt.prefix_mask, prompt.block_mask], dim=1).repeat_interleave(candidates, dim=0)
        positions = _positions(prompt.prefix_mask, prompt.block_mask).repeat_interleave(candidates, dim=0)
        states = self._forward(
            self._body,
            inputs_embeds=inputs.flatten(0, 1),
            attention_mask=mask.long(),
            use_cache=cache is not None,
            past_key_values=cache,
            **self._at(positions),
        )
        return torch.unflatten(states, 0, (-1, candidates))

    def _at(self, positions: Tensor) -> dict[str, Tensor]:
        return {"position_ids": positions} if self._takes_positions else {}

    def _shares(self, prompt: Prompt) -> bool:
        """Whether candidates can share these prefixes: in a longer prompt, a sliding window would cut some off."""
        length = prompt.prefix.shape[1] + prompt.block.shape[1]
        fits = length <= self._window
        if self.shares_prefix and not fits:
            reason = f"a prompt of {length} tokens is longer than its sliding window of {self._window}"
            if self.checkpointing:
                raise _no_checkpointing(self.model, reason)
            _warn_of_copies(self.model, reason)
        return self.shares_prefix and fits

    @property
    def checkpointing(self) -> bool:
        """See `Backbone`; done by transformers' own layers.

        Raises:
            BadInputError: when set, for an architecture that cannot.
        """
        return self._checkpointing

    @checkpointing.setter
    def checkpointing(self, wanted: bool) -> None:
        if wanted and not self.shares_prefix:
            raise _no_checkpointing(self.model, "its layers continue from a cache, which they drop when they recompute")
        # Newer releases of transformers have both under a new name, and warn of the old one.
        kind = "activation" if hasattr(self.model, "activation_checkpointing_enable") else "gradient"
        try:
            if wanted:
                getattr(self.model, f"{kind}_checkpointing_enable")({"use_reentrant": False})
            elif self._checkpointing:
                getattr(self.model, f"{kind}_checkpointing_disable")()
        except ValueError as error:
            raise _no_checkpointing(self.model, str(error)) from None
        self._checkpointing = wanted

    def cast(self, dtype: torch.dtype) -> None:
        """See `Backbone.cast`. Buffers keep their digits: rotary frequencies in bfloat16 would misplace far tokens."""
        for parameter in self.parameters():
            parameter.data = parameter.data.to(dtype)

    def compile_with(self, compiler: Callable[[Function], Function]) -> None:
        """See `Backbone.compile_with`; the prefixes, of many lengths and read once, stay as they are."""
        self._forward = compiler(_last_states)

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


def _warn_of_copies(model: Any, reason: str) -> None:
    warnings.warn(
        f"backbone: the architecture {model.config.model_type!r} reads every candidate behind a copy of its prefix, "
        f"which takes more time and memory than sharing it: {reason}",
        stacklevel=2,
    )


def _no_checkpointing(model: Any, reason: str) -> BadInputError:
    return BadInputError(
        f"backbone: the architecture {model.config.model_type!r} cannot recompute activations: {reason}; switch "
        "checkpointing off"
    )


def _last_states(body: Any, **inputs: Any) -> Tensor:
    """Last hidden states [n, t, D] of a model without its head: the one call in which the time goes."""
    return cast(Tensor, body(**inputs).last_hidden_state)


def _positions(*masks: Tensor) -> Tensor:
    """Positions, int64 [n, t], of the tokens of the last mask, behind those of the masks before; padding takes none."""
    counted = torch.cat(masks, dim=1).long().cumsum(1) - 1
    return counted.clamp(min=0)[:, -masks[-1].shape[1] :]


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
