"""The optimiser of every training: Adam, with decay where it belongs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

if TYPE_CHECKING:
    from gensr.spec import TrainingSpec


def build_optimizer(model: nn.Module, spec: TrainingSpec) -> torch.optim.Optimizer:
    """AdamW, or Adam with L2, over what `model` trains; only tensors of two or more dimensions decay."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim >= 2], "weight_decay": spec.weight_decay},
        {"params": [p for p in trained if p.ndim < 2], "weight_decay": 0.0},
    ]
    kind = torch.optim.AdamW if spec.optimizer == "adamw" else torch.optim.Adam
    # Fused is one kernel for all tensors; torch has it for CPU and CUDA.
    return kind([group for group in groups if group["params"]], lr=spec.learning_rate, fused=True)
