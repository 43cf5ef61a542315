"""What a causal language model can do as a backbone, found by trying it: each way must give its own logits' margins."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from gensr.backbones.base import Prompt
from gensr.backbones.sharing import use_plain_attention, use_shared_attention
from gensr.errors import BadInputError

if TYPE_CHECKING:
    from gensr.backbones.decoder import DecoderBackbone


def try_shared_prefix(backbone: DecoderBackbone) -> str | None:
    """Let candidates share their prefix in the model's attention; why not, and the model as it was, if they cannot."""
    model = backbone.model
    try:
        use_shared_attention(model)
        if _equal(*_margins_both_ways(backbone), exact=model.dtype == torch.float32):
            return None
        reason = "its margins would differ"
    except Exception as error:  # an architecture fails in its own way where it lacks what a backbone needs
        reason = str(error) or type(error).__name__
    use_plain_attention(model)
    return reason


def check_architecture(backbone: DecoderBackbone) -> None:
    """Compare margins of small prompts, of unequal lengths and batched, with the model's own logits.

    Raises:
        BadInputError: they differ; names the architecture.
    """
    model, kind = backbone.model, backbone.model.config.model_type
    try:
        ours, theirs = _margins_both_ways(backbone)
    except Exception as error:  # as above
        raise BadInputError(
            f"backbone: the architecture {kind!r} cannot continue from the cache of a prefix as a causal language "
            f"model does: {type(error).__name__}: {error}"
        ) from error
    if not _equal(ours, theirs, exact=model.dtype == torch.float32):
        raise BadInputError(
            f"backbone: the architecture {kind!r} does not answer as a plain causal language model: margins are "
            f"{ours.tolist()} from the cache and two rows of the head, but {theirs.tolist()} by its own logits. It "
            "looks at later tokens, places tokens otherwise, or transforms its logits; choose another model"
        )


@torch.no_grad()
def _margins_both_ways(backbone: DecoderBackbone) -> tuple[Tensor, Tensor]:
    """Margins [2, 2] of two requests, of unequal lengths and with two candidates each: ours, and by the own logits."""
    model, training = backbone.model, backbone.model.training
    weight = model.get_input_embeddings().weight
    ids = torch.arange(9, device=weight.device) * 7 % len(weight) + 1  # eight in the prompt's numbering, after a 0
    ids[0] = 0
    prefix, block = ids[torch.tensor([[1, 2, 3], [0, 0, 4]])], ids[torch.tensor([[0, 5], [0, 0]])]
    candidates = ids[torch.tensor([[[5], [6]], [[7], [8]]])]  # [2, 2, 1] tokens whose embeddings stand in the slots
    slot = torch.tensor([[0, -1], [0, -1]], device=ids.device)
    task = torch.ones(2, dtype=torch.int64, device=ids.device)
    prompt = Prompt(prefix, prefix > 0, block, slot, (block > 0) | (slot >= 0), task)
    model.eval()
    try:
        ours = backbone.answer(backbone.hidden(backbone.encode(prompt), backbone.embed(candidates)), task)
        theirs = torch.empty_like(ours)
        for row, column in ((0, 0), (0, 1), (1, 0), (1, 1)):
            whole = torch.cat([prefix[row][prefix[row] > 0], candidates[row, column], block[row][block[row] > 0]]) - 1
            logits = model(input_ids=whole.unsqueeze(0)).logits[0, -1].float()
            theirs[row, column] = logits[backbone.yes] - logits[backbone.no]
    finally:
        model.train(training)
    return ours, theirs


def _equal(ours: Tensor, theirs: Tensor, exact: bool) -> bool:
    tolerance = 1e-3 if exact else 0.1
    return torch.allclose(ours, theirs, atol=tolerance, rtol=tolerance)
