"""T5's encoder, and one step of its decoder, over a shared prefix and per-candidate blocks.

The prefix sees itself; a block sees the prefix and itself; nothing sees another candidate. With an empty prefix a block
is a whole prompt, so the paper's interleaved layout is the case P = 0 of the same function. T5's position bias depends
on distances alone: a prefix padded on the left therefore gives every block the positions it would have alone.

B requests, C candidates, H heads, P prefix tokens, T block tokens, k head width, D model width.
"""

from __future__ import annotations

from typing import Any, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor

KeyValue = tuple[Tensor, Tensor]


class PrefixState(NamedTuple):
    """What all candidates of a request share.

    Attributes:
        encoder: keys and values [B, H, P, k] of every encoder layer.
        decoder: keys and values [B, H, P, k] of every decoder layer's cross-attention; empty without a decoder.
        mask: additive float [B, 1, 1, P], 0 or the lowest finite number.
    """

    encoder: list[KeyValue]
    decoder: list[KeyValue]
    mask: Tensor

    def expand(self, rows: Tensor) -> PrefixState:
        """The state of requests that use prefix `rows` [B]."""

        def pick(layers: list[KeyValue]) -> list[KeyValue]:
            return [(key.index_select(0, rows), value.index_select(0, rows)) for key, value in layers]

        return PrefixState(pick(self.encoder), pick(self.decoder), self.mask.index_select(0, rows))


def encode_prefix(encoder: Any, inputs: Tensor, mask: Tensor, *, decoder: Any | None = None) -> PrefixState:
    """Run the prefixes through the encoder.

    Args:
        encoder: a transformers ``T5Stack``.
        inputs: [B, P, D] token embeddings, padded on the left.
        mask: bool [B, P].
        decoder: the ``T5Stack`` that will read the encoder's states, where there is one.
    """
    additive = _additive(mask, inputs.dtype)[:, None, None, :]  # [B, 1, 1, P]
    length = inputs.shape[1]
    keys_values: list[KeyValue] = []
    cross: list[KeyValue] = []
    if length:
        bias = encoder.block[0].layer[0].SelfAttention.compute_bias(length, length, device=inputs.device)
        hidden = encoder.dropout(inputs)
        for block in encoder.block:
            attention = block.layer[0].SelfAttention
            normed = block.layer[0].layer_norm(hidden)
            query = _heads(attention.q(normed), attention)  # [B, H, P, k]
            key, value = _heads(attention.k(normed), attention), _heads(attention.v(normed), attention)
            keys_values.append((key, value))
            scores = query @ key.transpose(-1, -2) + bias + additive
            context = _probabilities(scores, attention) @ value
            hidden = hidden + block.layer[0].dropout(attention.o(_merge(context)))
            hidden = block.layer[-1](hidden)
        if decoder is not None:
            final = encoder.dropout(encoder.final_layer_norm(hidden))
            cross = [_key_value(block.layer[1].EncDecAttention, final) for block in decoder.block]
    return PrefixState(keys_values, cross, additive)


def encode_blocks(encoder: Any, state: PrefixState, inputs: Tensor, mask: Tensor) -> Tensor:
    """Run the blocks through the encoder; their final states [B, C, T, D].

    Args:
        encoder: a transformers ``T5Stack``.
        state: the blocks' prefixes.
        inputs: [B, C, T, D] embeddings of text and vectors.
        mask: bool [B, T]; blocks of one request share it.
    """
    prefix = state.mask.shape[-1]
    additive = _block_additive(mask, inputs.dtype)  # [B, 1, 1, 1, T]
    total = prefix + inputs.shape[2]
    bias = encoder.block[0].layer[0].SelfAttention.compute_bias(total, total, device=inputs.device)[0, :, prefix:]
    hidden = encoder.dropout(inputs)
    for number, block in enumerate(encoder.block):
        attention = block.layer[0].SelfAttention
        normed = block.layer[0].layer_norm(hidden)
        query = _block_heads(attention.q(normed), attention)  # [B, H, C, T, k]
        own = (_block_heads(attention.k(normed), attention), _block_heads(attention.v(normed), attention))
        shared = state.encoder[number] if prefix else None
        context = _attend(attention, query, own, additive, shared, state.mask, bias)
        hidden = hidden + block.layer[0].dropout(attention.o(context))
        hidden = block.layer[-1](hidden)
    return cast(Tensor, encoder.dropout(encoder.final_layer_norm(hidden)))


def decode_step(decoder: Any, state: PrefixState, final: Tensor, mask: Tensor, start: Tensor) -> Tensor:
    """One decoder step over a prefix and each of its blocks; the decoder's hidden state [B, C, D].

    Args:
        decoder: a transformers ``T5Stack``.
        state: the blocks' prefixes, encoded for this decoder.
        final: [B, C, T, D] the encoder's final states of the blocks.
        mask: bool [B, T]; blocks of one request share it.
        start: [D] embedding of the decoder's start token.
    """
    prefix = state.mask.shape[-1]
    additive = _block_additive(mask, final.dtype)  # [B, 1, 1, 1, T]
    hidden = decoder.dropout(start.expand(*final.shape[:2], 1, -1))  # [B, C, 1, D]
    for number, block in enumerate(decoder.block):
        own_attention, cross = block.layer[0], block.layer[1]
        # One token attends to itself with weight 1, so its query, key and position bias never matter.
        value = own_attention.SelfAttention.v(own_attention.layer_norm(hidden))
        hidden = hidden + own_attention.dropout(own_attention.SelfAttention.o(value))
        attention = cross.EncDecAttention
        query = _block_heads(attention.q(cross.layer_norm(hidden)), attention)  # [B, H, C, 1, k]
        own = (_block_heads(attention.k(final), attention), _block_heads(attention.v(final), attention))
        shared = state.decoder[number] if prefix else None
        context = _attend(attention, query, own, additive, shared, state.mask, None)
        hidden = hidden + cross.dropout(attention.o(context))
        hidden = block.layer[-1](hidden)
    return cast(Tensor, decoder.dropout(decoder.final_layer_norm(hidden)).squeeze(2))


def _attend(
    attention: Any,
    query: Tensor,
    own: KeyValue,
    own_mask: Tensor,
    shared: KeyValue | None,
    shared_mask: Tensor,
    bias: Tensor | None,
) -> Tensor:
    """Attention of blocks [B, H, C, Tq, k] to the prefix and themselves, in one softmax -> [B, C, Tq, H * k]."""
    batch, heads, candidates, length, width = query.shape
    key, value = own
    scores = query @ key.transpose(-1, -2) + own_mask  # [B, H, C, Tq, T]
    if bias is not None:
        scores = scores + bias[None, :, None, :, -key.shape[3] :]
    if shared is None:
        context = _probabilities(scores, attention) @ value
    else:
        # One matrix product for all candidates: the prefix is never copied per candidate.
        flat = query.reshape(batch, heads, candidates * length, width)
        prefix = (flat @ shared[0].transpose(-1, -2) + shared_mask).view(batch, heads, candidates, length, -1)
        if bias is not None:
            prefix = prefix + bias[None, :, None, :, : prefix.shape[-1]]
        weights = _probabilities(torch.cat([prefix, scores], dim=-1), attention)
        to_prefix, to_own = weights[..., : prefix.shape[-1]], weights[..., prefix.shape[-1] :]
        context = (to_prefix.reshape(batch, heads, candidates * length, -1) @ shared[1]).view_as(query)
        context = context + to_own @ value
    return context.permute(0, 2, 3, 1, 4).reshape(batch, candidates, length, heads * width)


def _probabilities(scores: Tensor, attention: Any) -> Tensor:
    weights = F.softmax(scores.float(), dim=-1).type_as(scores)
    return F.dropout(weights, p=attention.dropout, training=attention.training)


def _additive(mask: Tensor, dtype: torch.dtype) -> Tensor:
    # The lowest finite number, not -inf: a row of padding alone must stay finite.
    return torch.where(mask, 0.0, torch.finfo(dtype).min / 2).to(dtype)


def _block_additive(mask: Tensor, dtype: torch.dtype) -> Tensor:
    return _additive(mask, dtype)[:, None, None, None, :]


def _key_value(attention: Any, hidden: Tensor) -> KeyValue:
    return _heads(attention.k(hidden), attention), _heads(attention.v(hidden), attention)


def _heads(projected: Tensor, attention: Any) -> Tensor:
    return projected.view(*projected.shape[:-1], attention.n_heads, -1).transpose(1, 2)  # [B, H, P, k]


def _merge(context: Tensor) -> Tensor:
    return context.transpose(1, 2).flatten(2)  # [B, P, H * k]


def _block_heads(projected: Tensor, attention: Any) -> Tensor:
    return projected.view(*projected.shape[:-1], attention.n_heads, -1).permute(0, 3, 1, 2, 4)  # [B, H, C, T, k]
