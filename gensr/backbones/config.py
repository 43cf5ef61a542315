"""The `backbone` kind: the language model that reads the prompt and answers Yes or No."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field, PositiveInt, model_validator

from gensr.registry import ComponentConfig, Registry, Section

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from gensr.backbones.base import Backbone


class BackboneConfig(ComponentConfig):
    """Base of backbones."""

    def build(self, *, texts: Iterable[str], seed: int) -> Backbone:
        """A new backbone: pretrained weights, or random ones and a tokenizer trained on `texts`.

        Args:
            texts: item texts, templates and queries; read only where a tokenizer is trained.
            seed: for random weights.
        """
        raise NotImplementedError

    def open(self, folder: Path) -> Backbone:
        """The backbone that `Backbone.save` wrote to `folder`; its weights are loaded by the caller."""
        raise NotImplementedError

    def check_precision(self, precision: str) -> None:
        """Raise `ValueError` with the reason where this backbone cannot be trained in `precision`."""


BACKBONES = Registry("backbone", BackboneConfig, builtins="gensr.backbones.config")


class T5Sizes(Section):
    """Sizes of a T5 that is trained from scratch (gated GELU, untied head, as in T5 v1.1 and flan-t5)."""

    width: PositiveInt = 128
    """d_model."""
    layers: PositiveInt = 2
    """Encoder blocks."""
    decoder_layers: PositiveInt | None = None
    """Decoder blocks; as many as the encoder's where absent."""
    heads: PositiveInt = 4
    """Attention heads."""
    head_width: PositiveInt = 32
    """Width of one head (d_kv)."""
    hidden: PositiveInt = 256
    """Width of the feed-forward part (d_ff)."""
    vocabulary: PositiveInt = 4096
    """Most entries the tokenizer may have; it stops earlier where the texts hold fewer."""
    dropout: float = Field(0.1, ge=0, lt=1)
    """Chance of dropping an activation in training."""


@BACKBONES.register
class T5Config(BackboneConfig):
    """Any T5: pretrained by hub name or local folder, or from scratch with given sizes."""

    type: Literal["t5"] = "t5"
    reference = "Raffel et al., JMLR 2020; Chung et al., JMLR 2024 (flan-t5)"
    pretrained: str | None = None
    """Hub name or local folder, read by transformers; absent: from scratch."""
    scratch: T5Sizes | None = None
    """Sizes of a model from scratch; the defaults where both are absent."""
    answers: tuple[str, str] = ("Yes", "No")
    """The positive and the negative answer; each must be one token of the tokenizer."""

    @model_validator(mode="after")
    def _one_origin(self) -> T5Config:
        if self.pretrained is not None and self.scratch is not None:
            raise ValueError("pretrained and scratch exclude each other: remove one of them")
        return self

    def check_precision(self, precision: str) -> None:
        """See `BackboneConfig.check_precision`."""
        if precision == "fp16":
            raise ValueError(
                "fp16 overflows in T5 feed-forward layers and gives NaN (T5 was trained in bfloat16); use bf16 or fp32"
            )

    def build(self, *, texts: Iterable[str], seed: int) -> Backbone:
        """See `BackboneConfig.build`."""
        from gensr.backbones.t5 import build_t5

        return build_t5(self, texts=texts, seed=seed)

    def open(self, folder: Path) -> Backbone:
        """See `BackboneConfig.open`."""
        from gensr.backbones.t5 import open_t5

        return open_t5(self, folder)
