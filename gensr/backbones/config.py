"""The `backbone` kind: the language model that reads the prompt and answers Yes or No."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from gensr.registry import ComponentConfig, Registry, Section

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from gensr.backbones.base import Backbone


class BackboneConfig(ComponentConfig):
    """Base of backbones."""

    generative: ClassVar[bool] = True
    """Whether it answers with a token of a vocabulary, so that `Backbone.logits`, `yes` and `no` exist."""

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


class LoRA(Section):
    """Low-rank adapters beside frozen weights, by peft (Hu et al., ICLR 2022): W x + (alpha / rank) B A x."""

    rank: PositiveInt = 8
    """Width r of an adapter; each linear layer [m, n] gets r * (m + n) weights."""
    alpha: PositiveFloat = 16.0
    """Scale of the adapters, divided by the rank."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """Chance of dropping an adapter's input in training."""
    targets: tuple[str, ...] | None = Field(None, min_length=1)
    """Names of the linear layers that get adapters, such as `q_proj`; where absent, the attention projections that peft
    names for the architecture."""


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
    lora: LoRA | None = None
    """Train these adapters and freeze every other weight of the backbone, embeddings included (extra `lora`)."""

    @model_validator(mode="after")
    def _one_origin(self) -> T5Config:
        _exclusive(self.pretrained, self.scratch)
        return self

    def check_precision(self, precision: str) -> None:
        """See `BackboneConfig.check_precision`."""
        _refuse_fp16_of_t5(precision)

    def build(self, *, texts: Iterable[str], seed: int) -> Backbone:
        """See `BackboneConfig.build`."""
        from gensr.backbones.t5 import build_t5

        return build_t5(self, texts=texts, seed=seed)

    def open(self, folder: Path) -> Backbone:
        """See `BackboneConfig.open`."""
        from gensr.backbones.t5 import open_t5

        return open_t5(self, folder)


class DecoderSizes(Section):
    """Sizes of a decoder that is trained from scratch (a Llama: rotary positions, gated SiLU, untied head)."""

    width: PositiveInt = 128
    """Width of the hidden states; must be a multiple of twice the heads."""
    layers: PositiveInt = 2
    """Blocks."""
    heads: PositiveInt = 4
    """Attention heads."""
    hidden: PositiveInt = 256
    """Width of the feed-forward part."""
    vocabulary: PositiveInt = 4096
    """Most entries the tokenizer may have; it stops earlier where the texts hold fewer."""
    dropout: float = Field(0.1, ge=0, lt=1)
    """Chance of dropping an attention weight in training; the architecture has no other dropout."""

    @model_validator(mode="after")
    def _whole_heads(self) -> DecoderSizes:
        if self.width % (2 * self.heads):
            raise ValueError(
                f"width={self.width} cannot be cut into {self.heads} heads of an even width (rotary positions turn "
                f"pairs of numbers): choose a multiple of {2 * self.heads}"
            )
        return self


@BACKBONES.register
class DecoderConfig(BackboneConfig):
    """Any causal language model: pretrained by hub name, local folder or GGUF file, or from scratch."""

    type: Literal["decoder"] = "decoder"
    reference = "decoder-only language models; Touvron et al., 2023 (Llama); Allal et al., 2025 (SmolLM2)"
    pretrained: str | None = None
    """Hub name or local folder, or the path of a `.gguf` file (extra `gguf`; its weights are dequantised to float32),
    read by transformers; absent: from scratch."""
    scratch: DecoderSizes | None = None
    """Sizes of a model from scratch; the defaults where both are absent."""
    answers: tuple[str, str] = (" Yes", " No")
    """The positive and the negative answer; each must be one token of the tokenizer. Byte-level tokenizers (GPT-2,
    Llama 3, Qwen, SmolLM) keep a word's leading space in its token; sentencepiece ones (Llama 2, Gemma) want `Yes` and
    `No`."""
    lora: LoRA | None = None
    """Train these adapters and freeze every other weight of the backbone, embeddings included (extra `lora`)."""

    @model_validator(mode="after")
    def _one_origin(self) -> DecoderConfig:
        _exclusive(self.pretrained, self.scratch)
        return self

    def check_precision(self, precision: str) -> None:
        """See `BackboneConfig.check_precision`."""
        if precision == "fp16":
            raise ValueError(
                "fp16 overflows in decoders that were trained in bfloat16, which most were; use bf16 or fp32"
            )

    def build(self, *, texts: Iterable[str], seed: int) -> Backbone:
        """See `BackboneConfig.build`."""
        from gensr.backbones.decoder import build_decoder

        return build_decoder(self, texts=texts, seed=seed)

    def open(self, folder: Path) -> Backbone:
        """See `BackboneConfig.open`."""
        from gensr.backbones.decoder import open_decoder

        return open_decoder(self, folder)


@BACKBONES.register
class DiscriminativeConfig(BackboneConfig):
    """A shared T5 encoder with a head for each task: the paradigm that GenSR is compared with."""

    type: Literal["discriminative"] = "discriminative"
    reference = "Zhang et al., GenSR, 2025, Figure 1(a) and eq. 1"
    generative: ClassVar[bool] = False
    pretrained: str | None = None
    """Hub name or local folder of a T5, whose encoder is used; absent: from scratch."""
    scratch: T5Sizes | None = None
    """Sizes of an encoder from scratch, which starts as the encoder of a `t5` of these sizes and the run's seed; the
    defaults where both are absent."""
    dropout: float = Field(0.1, ge=0, lt=1)
    """Chance of dropping a hidden activation of a task's head in training."""
    lora: LoRA | None = None
    """Train these adapters and the heads, and freeze the encoder's weights, embeddings included (extra `lora`)."""

    @model_validator(mode="after")
    def _one_origin(self) -> DiscriminativeConfig:
        _exclusive(self.pretrained, self.scratch)
        if self.scratch is not None and self.scratch.decoder_layers is not None:
            raise ValueError("scratch.decoder_layers: this backbone has no decoder; remove the option")
        return self

    def check_precision(self, precision: str) -> None:
        """See `BackboneConfig.check_precision`."""
        _refuse_fp16_of_t5(precision)

    def build(self, *, texts: Iterable[str], seed: int) -> Backbone:
        """See `BackboneConfig.build`."""
        from gensr.backbones.discriminative import build_discriminative

        return build_discriminative(self, texts=texts, seed=seed)

    def open(self, folder: Path) -> Backbone:
        """See `BackboneConfig.open`."""
        from gensr.backbones.discriminative import open_discriminative

        return open_discriminative(self, folder)


def _exclusive(pretrained: str | None, scratch: Section | None) -> None:
    if pretrained is not None and scratch is not None:
        raise ValueError("pretrained and scratch exclude each other: remove one of them")


def _refuse_fp16_of_t5(precision: str) -> None:
    if precision == "fp16":
        raise ValueError(
            "fp16 overflows in T5 feed-forward layers and gives NaN (T5 was trained in bfloat16); use bf16 or fp32"
        )
