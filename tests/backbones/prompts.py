"""Prompts of the backbone contract for tests of single backbones, and the same prompts as whole sequences."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import torch

from gensr.backbones.base import Backbone
from gensr.backbones.prompt import fill_slots
from gensr.backbones.templates import Layout
from gensr.testing.backbone import BackboneContract, BackboneInputs


def inputs(backbone: Backbone, layout: Layout = "packed") -> BackboneInputs:
    """Four requests of both tasks, three candidates each."""
    return BackboneContract().inputs(backbone, layout)


def margins(backbone: Backbone, given: BackboneInputs) -> torch.Tensor:
    return backbone.answer(backbone.hidden(backbone.encode(given.prompt), given.slots), given.prompt.task)


def whole_sequence(backbone: Backbone, given: BackboneInputs, row: int, candidate: int) -> torch.Tensor:
    """Embeddings [1, n, D] of one request's prefix and one candidate's block, without any padding."""
    prompt, slots = given
    block = fill_slots(backbone.embed(prompt.block), prompt.slot, slots)[row, candidate][prompt.block_mask[row]]
    return torch.cat([backbone.embed(prompt.prefix)[row][prompt.prefix_mask[row]], block]).unsqueeze(0)


def one_by_one(given: BackboneInputs, margin: Callable[[int, int], torch.Tensor]) -> torch.Tensor:
    """Margins [B, C] by a function of row and candidate."""
    rows, candidates = given.slots.shape[:2]
    found = [margin(row, candidate) for row, candidate in itertools.product(range(rows), range(candidates))]
    return torch.stack(found).view(rows, candidates)


def margins_of_transformers(backbone, given: BackboneInputs) -> torch.Tensor:
    """Margins [B, C] of a decoder by the model's own logits on whole sequences, one at a time."""

    def margin(row: int, candidate: int) -> torch.Tensor:
        logits = backbone.model(inputs_embeds=whole_sequence(backbone, given, row, candidate)).logits[0, -1]
        return logits[backbone.yes] - logits[backbone.no]

    return one_by_one(given, margin)


def states_under_the_block_mask(backbone, given: BackboneInputs, row: int, candidate: int) -> torch.Tensor:
    """A whole sequence through the layers of transformers' T5 encoder, its prefix blind to the block, [1, n, D]."""
    hidden, encoder = whole_sequence(backbone, given, row, candidate), backbone.model.encoder
    length, shared = hidden.shape[1], int(given.prompt.prefix_mask[row].sum())
    mask = torch.zeros(1, 1, length, length)
    mask[:, :, :shared, shared:] = torch.finfo(torch.float32).min
    # Releases of transformers differ in whether a given bias already holds the mask: here it does.
    bias = encoder.block[0].layer[0].SelfAttention.compute_bias(length, length) + mask
    for layer in encoder.block:
        hidden = layer(hidden, attention_mask=mask, position_bias=bias)[0]
    return encoder.final_layer_norm(hidden)
