"""Low-rank adapters inside a transformers model, by peft: training a large backbone by a thousandth of its weights."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from gensr.backbones.config import LoRA
from gensr.errors import BadInputError, MissingExtraError, did_you_mean


def add_adapters(model: Any, options: LoRA, *, seed: int) -> None:
    """Freeze `model` and put trainable adapters into it, in place.

    The adapted layers keep their place among the modules, so whoever calls them, a model's own forward or ours, runs
    the adapters. A new adapter changes nothing: its second matrix starts at zero.

    Args:
        model: a transformers model.
        options: rank, scale and places of the adapters.
        seed: draws their first matrices.

    Raises:
        MissingExtraError: peft is not installed.
        BadInputError: a target names no linear layer, or there are none by default for this architecture.
    """
    try:
        import peft
    except ImportError:
        raise MissingExtraError("peft", "lora", "backbone.lora") from None
    linear = _linear_layers(model)
    _check_targets(options, linear, model.config.model_type)
    settings = peft.LoraConfig(
        r=options.rank,
        lora_alpha=options.alpha,  # type: ignore[arg-type]  # peft scales by alpha / r, whole or not
        lora_dropout=options.dropout,
        target_modules=list(options.targets) if options.targets else None,
        fan_in_fan_out=any(isinstance(layer, Conv1D) for layer in linear.values()),  # GPT-2 stores weights transposed
    )
    model.requires_grad_(False)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        peft.inject_adapter_in_model(settings, model)


def _linear_layers(model: Any) -> dict[str, nn.Module]:
    # The head is read by rows, not called: an adapter there would do nothing.
    head = model.get_output_embeddings()
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear | Conv1D) and module is not head
    }


def _check_targets(options: LoRA, linear: dict[str, nn.Module], architecture: str) -> None:
    from peft.utils import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING as DEFAULTS

    known = list(dict.fromkeys(name.rpartition(".")[2] for name in linear))
    if options.targets is None and architecture not in DEFAULTS:
        raise BadInputError(
            f"backbone.lora.targets: peft has no default for the architecture {architecture!r}; name the linear layers "
            f"that get adapters. Known: {', '.join(known)}"
        )
    for target in options.targets or ():
        if not any(name == target or name.endswith(f".{target}") for name in linear):
            raise BadInputError(
                f"backbone.lora.targets: no linear layer {target!r} inside this {architecture}"
                f"{did_you_mean(target, known) or '.'} Known: {', '.join(known)}"
            )
