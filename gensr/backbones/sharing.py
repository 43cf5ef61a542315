"""Attention of candidates' blocks to a prefix of which there is one copy, inside a transformers model's own forward.

transformers lets a program register attention functions by name, and hands a forward's extra arguments on to them. Ours
takes two: `keep` collects the keys and values of a prefix, `prefix` is what was kept. Blocks then stand behind one
another in one row per request and attend to the prefix in one matrix product, and each to itself; without the two
arguments it is torch's scaled dot product attention, as before.

B requests, C candidates, H query heads in G groups of K key heads, P prefix tokens, T block tokens, k head width.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import torch
import torch.nn.functional as F
import transformers
from torch import Tensor

from gensr.backbones.base import KeyValue

NAME = "gensr_shared_prefix"
PLAIN = "sdpa"
HARMLESS = frozenset(
    {"scaling", "dropout", "is_causal", "sliding_window", "position_ids", "cache_position", "use_cache"}
    | {"output_attentions", "output_hidden_states", "return_dict"}
)
"""Options that `shared_attention` heeds or may ignore; the caller keeps prompts within a sliding window."""


def use_shared_attention(model: Any) -> None:
    """Make a transformers model call `shared_attention`.

    Raises:
        NotImplementedError: the architecture has attention of its own.
    """
    if not model.is_backend_compatible() or model.config._attn_implementation not in (PLAIN, NAME):
        raise NotImplementedError("its attention is its own, not one of transformers' functions")
    transformers.AttentionInterface.register(NAME, shared_attention)
    transformers.AttentionMaskInterface.register(NAME, transformers.AttentionMaskInterface()[PLAIN])
    model.set_attn_implementation(NAME)


def use_plain_attention(model: Any) -> None:
    """Undo `use_shared_attention`."""
    if model.config._attn_implementation == NAME:
        model.set_attn_implementation(PLAIN)


def shared_attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    keep: dict[int, KeyValue] | None = None,
    prefix: Mapping[int, KeyValue] | None = None,
    **options: Any,
) -> tuple[Tensor, Tensor | None]:
    """An attention function as transformers' layers call it.

    Args:
        module: the layer's attention, with its number as `layer_idx`.
        query: [B, H, C * T, k].
        key: [B, K, C * T, k].
        value: as `key`.
        attention_mask: as `block_mask` makes it where there is a prefix, else as transformers makes it.
        keep: gets keys and values under the layer's number.
        prefix: what was kept, by the layer's number, each [B, K, P, k].
        options: scale and dropout, and what an architecture adds.

    Returns:
        [B, C * T, H, k], and None for the weights, which nobody asks for.

    Raises:
        NotImplementedError: there is a prefix, and an option that may change the result, such as capped scores.
    """
    if keep is not None:
        keep[module.layer_idx] = key, value
    if prefix is None:
        plain = transformers.AttentionInterface()[PLAIN]
        return cast("tuple[Tensor, None]", plain(module, query, key, value, attention_mask, **options))
    if attention_mask is None:
        raise NotImplementedError("it drops masks")
    for name, option in options.items():
        if option is not None and name not in HARMLESS:
            raise NotImplementedError(f"its attention takes the option {name!r}")
    scale = query.shape[-1] ** -0.5 if options.get("scaling") is None else options["scaling"]
    shared, dropout = prefix[module.layer_idx], options.get("dropout", 0.0)
    return attend(query * scale, key, value, shared, attention_mask, dropout=dropout), None


def attend(
    query: Tensor, key: Tensor, value: Tensor, prefix: KeyValue, mask: Tensor, *, dropout: float = 0.0
) -> Tensor:
    """Attention of blocks to their request's prefix and, each, to itself, in one softmax.

    Args:
        query: [B, H, C * T, k], scaled.
        key: [B, K, C * T, k].
        value: as `key`.
        prefix: keys and values [B, K, P, k].
        mask: additive [B, 1, T, P + T].
        dropout: chance of dropping a weight.

    Returns:
        [B, C * T, H, k].
    """
    rows, heads, tokens, width = key.shape
    shared_key, shared_value = prefix
    length, known = mask.shape[2], shared_key.shape[2]
    candidates, groups = tokens // length, query.shape[1] // heads
    shape, group = (rows, heads, candidates, groups, length), groups * length
    # Query heads that read the same keys stand in one matrix, so that no key is repeated.
    query = query.view(rows, heads, groups, candidates, length, width).transpose(2, 3)  # [B, K, C, G, T, k]
    key, value = (
        part.view(rows, heads, candidates, length, part.shape[-1]) for part in (key, value)
    )  # [B, K, C, T, k]
    query = query.reshape(rows, heads, candidates * group, width)
    to_prefix = query @ shared_key.transpose(-1, -2)  # [B, K, C * G * T, P]
    to_own = query.view(rows, heads, candidates, group, width) @ key.transpose(-1, -2)  # [B, K, C, G * T, T]
    scores = torch.cat([to_prefix.view(*shape, known), to_own.view(*shape, length)], dim=-1)
    scores = scores + mask[:, :, None, None]  # [B, K, C, G, T, P + T]
    weights = F.softmax(scores, dim=-1, dtype=torch.float32).to(query.dtype)
    if dropout:
        weights = F.dropout(weights, p=dropout)
    context = weights[..., :known].reshape(rows, heads, candidates * group, known) @ shared_value
    own = weights[..., known:].reshape(rows, heads, candidates, group, length) @ value
    context = context.view(*shape, -1) + own.view(*shape, -1)  # [B, K, C, G, T, k]
    return context.permute(0, 2, 4, 1, 3, 5).reshape(rows, tokens, heads * groups, -1)


def block_mask(prefix: Tensor, length: int, dtype: torch.dtype) -> Tensor:
    """What each token of a block sees: the real tokens of `prefix`, bool [B, P], and its block up to itself.

    Padding behind a block needs no mask of its own: no real token looks there.

    Returns:
        Additive [B, 1, T, P + T] with T = `length`: 0, or minus infinity.
    """
    own = torch.ones(length, length, dtype=torch.bool, device=prefix.device).tril()
    visible = torch.cat([prefix.unsqueeze(1).expand(-1, length, -1), own.expand(len(prefix), -1, -1)], dim=2)
    return torch.zeros_like(visible, dtype=dtype).masked_fill(~visible, -torch.inf).unsqueeze(1)
