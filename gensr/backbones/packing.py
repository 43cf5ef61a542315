"""T5's encoder, and one step of its decoder, over a shared prefix and per-candidate blocks.

The prefix sees itself; a block sees the prefix and itself; nothing sees another candidate. With an empty prefix a block
is a whole prompt, so the paper's interleaved layout is the case P = 0 of the same function. T5's position bias depends
on distances alone: a prefix padded on the left therefore gives every block the positions it would have alone.

The same functions train and score. Two products are arranged for one decoder token beside many encoder states: its
query goes through the key matrix before it meets a state, and the weighted mean of the states through the value matrix
after it, so that no state of a block is projected at all.

B requests, C candidates, H heads, P prefix tokens, T block tokens, k head width, D model width.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from gensr.backbones.base import KeyValue
from gensr.backbones.kernels import feed_forward, linear, residual, rms_norm
from gensr.nested import map_tensors


class PrefixState(NamedTuple):
    """What all candidates of a request share.

    Attributes:
        layers: keys and values [B, H, P, k] of every encoder layer; empty where P is 0.
        final: [B, P, D] the encoder's final states, which the decoder reads.
        mask: additive float [B, P], 0 or half the lowest finite number.
    """

    layers: list[KeyValue]
    final: Tensor
    mask: Tensor

    def select(self, rows: Tensor) -> PrefixState:
        """The prefixes at `rows`, int64 [n]."""
        return map_tensors(lambda tensor: tensor.index_select(0, rows), self)


def encode_prefix(encoder: Any, inputs: Tensor, mask: Tensor, *, recompute: bool = False) -> PrefixState:
    """Run the prefixes through the encoder.

    Args:
        encoder: a transformers ``T5Stack``.
        inputs: [B, P, D] token embeddings, padded on the left.
        mask: bool [B, P].
        recompute: recompute activations in the backward pass instead of keeping them.
    """
    additive = _additive(mask, inputs.dtype)
    length = inputs.shape[1]
    if length == 0:
        return PrefixState([], inputs, additive)
    bias = _position_bias(encoder, length, length) + additive[:, None, None, :]  # [B, H, P, P]
    places = mask.flatten().nonzero().squeeze(1)  # [n] where real tokens stand: only they are worked on
    hidden = encoder.dropout(inputs.flatten(0, 1).index_select(0, places))  # [n, D]
    layers: list[KeyValue] = []
    for block in encoder.block:
        hidden, key, value = _call(recompute, _prefix_layer, block, hidden, places, bias)
        layers.append((key, value))
    final = encoder.dropout(rms_norm(encoder.final_layer_norm, hidden))
    return PrefixState(layers, _put(final, places, len(inputs), length), additive)


def _prefix_layer(block: Any, hidden: Tensor, places: Tensor, bias: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    layer = block.layer[0]
    attention = layer.SelfAttention
    normed = rms_norm(layer.layer_norm, hidden)
    query, key, value = (
        _split(_put(linear(part, normed), places, len(bias), bias.shape[-1]), attention).transpose(1, 2)
        for part in (attention.q, attention.k, attention.v)
    )  # each [B, H, P, k]
    weights = _probabilities(query @ key.transpose(-1, -2) + bias, attention)
    context = (weights @ value).transpose(1, 2).flatten(2).flatten(0, 1).index_select(0, places)  # [n, H * k]
    hidden = residual(hidden, attention.o, context, layer.dropout)
    return feed_forward(block.layer[-1], hidden), key, value


def _put(tokens: Tensor, places: Tensor, rows: int, length: int) -> Tensor:
    """Real tokens [n, d] at their places in zeros, [rows, length, d]."""
    if len(tokens) == rows * length:
        return tokens.view(rows, length, -1)
    return tokens.new_zeros(rows * length, tokens.shape[-1]).index_copy(0, places, tokens).view(rows, length, -1)


def encode_blocks(encoder: Any, state: PrefixState, inputs: Tensor, mask: Tensor, *, recompute: bool = False) -> Tensor:
    """Run the blocks through the encoder; their final states [B, C, T, D].

    Args:
        encoder: a transformers ``T5Stack``.
        state: the blocks' prefixes.
        inputs: [B, C, T, D] embeddings of text and vectors.
        mask: bool [B, T]; blocks of one request share it.
        recompute: recompute activations in the backward pass instead of keeping them.
    """
    prefix, length = state.mask.shape[1], inputs.shape[2]
    bias = _position_bias(encoder, length, prefix + length)[:, :, None]  # [1, H, 1, T, P + T]
    visible = torch.cat([state.mask, _additive(mask, inputs.dtype)], dim=1)
    bias = bias + visible[:, None, None, None, :]  # [B, H, 1, T, P + T]
    hidden = encoder.dropout(inputs)
    for number, block in enumerate(encoder.block):
        shared = state.layers[number] if prefix else None
        hidden = _call(recompute, _block_layer, block, hidden, shared, bias)
    return encoder.dropout(rms_norm(encoder.final_layer_norm, hidden))  # type: ignore[no-any-return]


def _block_layer(block: Any, hidden: Tensor, shared: KeyValue | None, bias: Tensor) -> Tensor:
    layer = block.layer[0]
    attention = layer.SelfAttention
    normed = rms_norm(layer.layer_norm, hidden)
    query, key, value = (
        _split(linear(part, normed), attention).permute(0, 3, 1, 2, 4)
        for part in (attention.q, attention.k, attention.v)
    )  # each [B, H, C, T, k]
    context = _attend(attention, query, key, value, shared, bias)
    hidden = residual(hidden, attention.o, context, layer.dropout)
    return feed_forward(block.layer[-1], hidden)


def _attend(attention: Any, query: Tensor, key: Tensor, value: Tensor, shared: KeyValue | None, bias: Tensor) -> Tensor:
    """Attention of blocks [B, H, C, T, k] to the prefix and themselves, in one softmax -> [B, C, T, H * k]."""
    batch, heads, candidates, length, width = query.shape
    if shared is None and not torch.is_grad_enabled():
        # One pass over whole prompts; with gradients, the bias's would make it take the long way as well.
        drop = attention.dropout if attention.training else 0.0
        asked = zip(
            query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2), bias.transpose(1, 2), strict=True
        )
        mixed = [
            F.scaled_dot_product_attention(q, k, v, attn_mask=b, dropout_p=drop, scale=1.0) for q, k, v, b in asked
        ]
        return torch.stack([part.transpose(1, 2).flatten(2) for part in mixed])
    scores = query @ key.transpose(-1, -2)  # [B, H, C, T, T]
    if shared is None:
        context = _probabilities(scores + bias, attention) @ value
    else:
        # One matrix product for all candidates: the prefix is never copied per candidate.
        shared_key, shared_value = shared
        rows = (batch, heads, candidates * length)
        to_prefix = query.reshape(*rows, width) @ shared_key.transpose(-1, -2)  # [B, H, C * T, P]
        scores = torch.cat([to_prefix.view(*scores.shape[:-1], -1), scores], dim=-1)  # [B, H, C, T, P + T]
        weights = _probabilities(scores + bias, attention)
        context = (weights[..., :-length].reshape(*rows, -1) @ shared_value).view_as(query)
        context = context + weights[..., -length:] @ value
    return context.permute(0, 2, 3, 1, 4).reshape(batch, candidates, length, heads * width)


def decode_step(
    decoder: Any, state: PrefixState, final: Tensor, mask: Tensor, start: Tensor, *, recompute: bool = False
) -> Tensor:
    """One decoder step over a prefix and each of its blocks; the decoder's hidden state [B, C, D].

    Args:
        decoder: a transformers ``T5Stack``.
        state: the blocks' prefixes.
        final: [B, C, T, D] the encoder's final states of the blocks.
        mask: bool [B, T]; blocks of one request share it.
        start: [D] embedding of the decoder's start token.
        recompute: recompute activations in the backward pass instead of keeping them.
    """
    batch, candidates = final.shape[:2]
    visible = torch.cat([state.mask, _additive(mask, final.dtype)], dim=1)[:, None, None, :]  # [B, 1, 1, P + T]
    # Until it has looked at a candidate, the token is the same for all of them, but for its dropout.
    rows = (batch, candidates) if decoder.training and decoder.dropout.p else (1, 1)
    hidden = decoder.dropout(start.expand(*rows, -1))
    for block in decoder.block:
        hidden = _call(recompute, _decoder_layer, block, hidden, state.final, final, visible)
    return decoder.dropout(rms_norm(decoder.final_layer_norm, hidden))  # type: ignore[no-any-return]


def _decoder_layer(block: Any, hidden: Tensor, prefix: Tensor, own: Tensor, visible: Tensor) -> Tensor:
    batch, candidates = own.shape[:2]
    own_layer, cross_layer = block.layer[0], block.layer[1]
    # One token attends to itself with weight 1, so its query, key and position bias never matter.
    value = linear(own_layer.SelfAttention.v, rms_norm(own_layer.layer_norm, hidden))
    hidden = residual(hidden, own_layer.SelfAttention.o, value, own_layer.dropout)
    attention = cross_layer.EncDecAttention
    query = _split(linear(attention.q, rms_norm(cross_layer.layer_norm, hidden)), attention)
    query = query.expand(batch, candidates, -1, -1)  # [B, C, H, k]
    memory, prefixes = _Memory(attention, own.flatten(0, 1), queries=1), prefix.shape[1]
    if prefixes == 0:
        context = memory.context(_probabilities(memory.scores(query) + visible, attention))  # [B, C, H, k]
    else:
        shared = _Memory(attention, prefix, queries=candidates)
        scores = torch.cat([shared.scores(query), memory.scores(query)], dim=-1)  # [B, C, H, P + T]
        weights = _probabilities(scores + visible, attention)
        context = shared.context(weights[..., :prefixes]) + memory.context(weights[..., prefixes:])
    hidden = residual(hidden.expand(batch, candidates, -1), attention.o, context.flatten(2), cross_layer.dropout)
    return feed_forward(block.layer[-1], hidden)


class _Memory:
    """Encoder states [n, t, D] that a decoder layer looks at with `queries` tokens each, n * queries = B * C.

    Few queries go through the key matrix themselves; many are cheaper met by projected states. An adapter beside one of
    the matrices is a function, not a matrix: there the states are projected.
    """

    def __init__(self, attention: Any, states: Tensor, *, queries: int) -> None:
        self.states, self.queries = states, queries
        plain = type(attention.k) is nn.Linear and type(attention.v) is nn.Linear
        self.folded = plain and queries < attention.key_value_proj_dim
        if self.folded:
            heads = attention.n_heads
            self.key, self.value = (
                part.weight.view(heads, -1, states.shape[-1]) for part in (attention.k, attention.v)
            )
        else:
            self.key, self.value = (
                _split(linear(part, states), attention).transpose(1, 2) for part in (attention.k, attention.v)
            )  # each [n, H, t, k]

    def scores(self, query: Tensor) -> Tensor:
        """Dot products of queries [B, C, H, k] with the states' keys, [B, C, H, t]."""
        batch, candidates, heads, width = query.shape
        rows = query.reshape(-1, self.queries, heads, width)  # [n, m, H, k]
        if not self.folded:
            found: Tensor = rows.transpose(1, 2) @ self.key.transpose(-1, -2)  # [n, H, m, t]
        else:
            looked = rows.permute(2, 0, 1, 3).flatten(1, 2) @ self.key  # [H, n * m, D]
            looked = looked.view(heads, -1, self.queries, looked.shape[-1]).permute(1, 0, 2, 3)  # [n, H, m, D]
            found = looked.reshape(len(looked), -1, looked.shape[-1]) @ self.states.transpose(1, 2)
            found = found.view(len(looked), heads, self.queries, -1)
        return found.transpose(1, 2).reshape(batch, candidates, heads, -1)

    def context(self, weights: Tensor) -> Tensor:
        """Sums of the states' values under weights [B, C, H, t], [B, C, H, k]."""
        batch, candidates, heads, length = weights.shape
        rows = weights.reshape(-1, self.queries, heads, length).transpose(1, 2)  # [n, H, m, t]
        if not self.folded:
            found: Tensor = rows @ self.value  # [n, H, m, k]
        else:
            mean = rows.reshape(len(rows), -1, length) @ self.states  # [n, H * m, D]
            mean = mean.view(len(rows), heads, self.queries, -1).transpose(0, 1).flatten(1, 2)  # [H, n * m, D]
            found = (mean @ self.value.transpose(1, 2)).view(heads, -1, self.queries, self.value.shape[1])
            found = found.transpose(0, 1)
        return found.transpose(1, 2).reshape(batch, candidates, heads, -1)


def _call(recompute: bool, layer: Any, *arguments: Any) -> Any:
    if recompute and torch.is_grad_enabled():
        return checkpoint(layer, *arguments, use_reentrant=False)
    return layer(*arguments)


def _probabilities(scores: Tensor, attention: Any) -> Tensor:
    weights = F.softmax(scores, dim=-1, dtype=torch.float32).type_as(scores)
    return F.dropout(weights, p=attention.dropout, training=attention.training)


def _position_bias(encoder: Any, queries: int, keys: int) -> Tensor:
    """Bias of the last `queries` of `keys` positions, [1, H, queries, keys]."""
    attention = encoder.block[0].layer[0].SelfAttention
    # The whole table, then its last rows: how to ask for these alone differs between releases of transformers.
    bias: Tensor = attention.compute_bias(keys, keys, device=attention.relative_attention_bias.weight.device)
    return bias[:, :, keys - queries :]


def _additive(mask: Tensor, dtype: torch.dtype) -> Tensor:
    # Half the lowest finite number, not -inf: a row of padding alone must stay finite.
    return torch.zeros_like(mask, dtype=dtype).masked_fill(~mask, torch.finfo(dtype).min / 2)


def _split(projected: Tensor, attention: Any) -> Tensor:
    return projected.view(*projected.shape[:-1], attention.n_heads, -1)  # [..., H, k]
