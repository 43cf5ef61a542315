"""The few operations in which a T5's time goes, in one pass each.

Where gradients are needed, and on GPUs, these are torch's plain operations. Without gradients on a CPU, a linear map
and what follows it (GELU, a product, a sum) are one oneDNN call, the one that `torch.compile` would choose: nothing is
written and read again in between, and oneDNN's float32 product is faster than MKL's on many CPUs.
"""

from __future__ import annotations

from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def rms_norm(norm: Any, x: Tensor) -> Tensor:
    """A ``T5LayerNorm`` of x [..., D], in the norm's own dtype."""
    return F.rms_norm(x.to(norm.weight.dtype), (x.shape[-1],), norm.weight, norm.variance_epsilon)


def linear(layer: nn.Module, x: Tensor, *, times: Tensor | None = None) -> Tensor:
    """``layer(x)``, [..., in] -> [..., out], or its product with `times` [..., out]."""
    if _one_pass(layer, x):
        weight = cast(nn.Linear, layer).weight
        if times is not None:
            return cast(Tensor, _fused().binary(x, times, weight, None, "mul"))
        return cast(Tensor, _fused()(x, weight, None, "none", [], ""))
    y = layer(x)
    return cast(Tensor, y if times is None else y * times)


def activated(layer: nn.Module, x: Tensor, activation: nn.Module) -> Tensor:
    """``activation(layer(x))``, [..., in] -> [..., out]."""
    # Both names are GELU's tanh form; the first class writes it out as a dozen operations.
    if type(activation).__name__ not in ("NewGELUActivation", "GELUTanh"):
        return cast(Tensor, activation(linear(layer, x)))
    if _one_pass(layer, x):
        return cast(Tensor, _fused()(x, cast(nn.Linear, layer).weight, None, "gelu", [], "tanh"))
    return F.gelu(layer(x), approximate="tanh")


def residual(hidden: Tensor, layer: nn.Module, x: Tensor, dropout: nn.Dropout) -> Tensor:
    """``hidden + dropout(layer(x))``, hidden [..., out] and x [..., in] with the same rows."""
    if not (dropout.training and dropout.p) and _one_pass(layer, x):
        return cast(Tensor, _fused().binary(x, hidden, cast(nn.Linear, layer).weight, None, "add"))
    return hidden + cast(Tensor, dropout(layer(x)))


def feed_forward(layer: Any, hidden: Tensor) -> Tensor:
    """A ``T5LayerFF`` with its residual, [..., D] -> [..., D]."""
    dense = layer.DenseReluDense
    x = rms_norm(layer.layer_norm, hidden)
    if hasattr(dense, "wi_0"):
        inner = linear(dense.wi_1, x, times=activated(dense.wi_0, x, dense.act))
    else:
        inner = activated(dense.wi, x, dense.act)
    return residual(hidden, dense.wo, dense.dropout(inner), layer.dropout)


def _one_pass(layer: nn.Module, x: Tensor) -> bool:
    # An adapter beside a weight is a module of its own kind: it must be called.
    return (
        type(layer) is nn.Linear
        and layer.bias is None
        and x.device.type == "cpu"
        and x.dtype == layer.weight.dtype
        and not torch.is_grad_enabled()
        and not torch.is_autocast_enabled("cpu")
        and not torch.compiler.is_compiling()
        and _supported(x.dtype)
    )


def _supported(dtype: torch.dtype) -> bool:
    if not (torch.backends.mkldnn.is_available() and torch.backends.mkldnn.enabled):  # type: ignore[no-untyped-call]
        return False
    return dtype == torch.float32 or (dtype == torch.bfloat16 and torch.ops.mkldnn._is_mkldnn_bf16_supported())


def _fused() -> Any:
    return torch.ops.mkldnn._linear_pointwise
