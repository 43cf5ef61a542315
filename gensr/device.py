"""Which device a run computes on, and in which arithmetic it scores."""

from __future__ import annotations

from typing import Literal, cast, get_args

from gensr.errors import BadInputError, did_you_mean

Precision = Literal["fp32", "bf16"]
"""Arithmetic in which a trained model scores."""


def choose_precision(name: str) -> Precision:
    """`name` as a `Precision`.

    Raises:
        BadInputError: there is none of that name.
    """
    known = get_args(Precision)
    if name not in known:
        hint = did_you_mean(name, known) or "."
        raise BadInputError(f"no precision named {name!r}{hint} Known: {', '.join(known)}")
    return cast(Precision, name)


def choose_device(name: str) -> str:
    """Resolve "auto", "cpu" or "cuda" to "cpu" or "cuda"; "auto" takes a GPU where there is one.

    Raises:
        BadInputError: another name, or "cuda" on a machine without it.
    """
    import torch

    known = ("auto", "cpu", "cuda")
    if name not in known:
        hint = did_you_mean(name, known) or "."
        several = " With several GPUs, choose one by CUDA_VISIBLE_DEVICES." if name.startswith("cuda:") else ""
        raise BadInputError(f"no device named {name!r}{hint} Known: {', '.join(known)}.{several}")
    available = torch.cuda.is_available()
    if name == "cuda" and not available:
        raise BadInputError("device cuda was asked for, but torch finds no GPU here; use --device cpu or auto")
    return "cuda" if name != "cpu" and available else "cpu"
