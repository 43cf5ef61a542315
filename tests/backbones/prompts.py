"""Prompts of the backbone contract for tests of single backbones, and the same prompts as whole sequences."""

from __future__ import annotations

import itertools

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


def margins_of_transformers(backbone, given: BackboneInputs) -> torch.Tensor:
    """Margins [B, C] by the model's own logits on whole sequences, one at a time."""
    found = torch.zeros(given.slots.shape[:2])
    for row, candidate in itertools.product(range(found.shape[0]), range(found.shape[1])):
        logits = backbone.model(inputs_embeds=whole_sequence(backbone, given, row, candidate)).logits[0, -1]
        found[row, candidate] = logits[backbone.yes] - logits[backbone.no]
    return found
