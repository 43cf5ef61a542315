"""The `cf`, `semantic` and `history` kinds: where item and history vectors come from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from gensr.registry import ComponentConfig, Registry

if TYPE_CHECKING:
    from collections.abc import Sequence

    import scipy.sparse
    from torch import nn

    from gensr.backbones.base import Backbone
    from gensr.encoders.cf.table import CFTable


class CFConfig(ComponentConfig):
    """Base of collaborative-filtering sources: item (and user) vectors from who interacted with what."""

    def fit(
        self, user_items: scipy.sparse.csr_matrix, *, seed: int, device: str = "cpu", progress: bool = False
    ) -> CFTable:
        """Vectors from training interactions.

        Args:
            user_items: float32 [U+1, I+1], row and column 0 empty; training events only.
            seed: makes the result repeatable.
            device: where to compute, where the method can choose.
            progress: show progress on stderr.

        Returns:
            Float32 tables, row 0 zero, and zero in every row without an interaction.
        """
        raise NotImplementedError


CF_SOURCES = Registry("cf", CFConfig, builtins="gensr.encoders.config")


@CF_SOURCES.register
class LightGCNConfig(CFConfig):
    """LightGCN: BPR over embeddings propagated on the interaction graph; the mean over layers is exported."""

    type: Literal["lightgcn"] = "lightgcn"
    reference = "He et al., SIGIR 2020, eq. 3-8 and 14; GenSR section 6.1.3"
    dim: PositiveInt = 64
    """Width of the vectors."""
    layers: NonNegativeInt = 2
    """Propagation steps K; the exported table is the mean of layers 0..K."""
    epochs: PositiveInt = 20
    """Passes over the interactions."""
    batch_size: PositiveInt = 8192
    """Most interactions per step, one uniform negative each; an epoch has at least 16 steps. A step costs the whole
    graph's propagation whatever its size, so large batches with a large step size get furthest in a given time: on
    Yelp (247,000 interactions) 30 s on two cores are 20 epochs, and item-item recall@5 .624 among 100 candidates;
    batches of 2048 at 1e-3, LightGCN's published setting, do 6 epochs, and .490, in that time."""
    learning_rate: PositiveFloat = 1e-2
    """Adam step size."""
    regularization: NonNegativeFloat = 1e-4
    """Weight of the squared layer-0 embeddings of a batch."""
    layer0: bool = False
    """Export the layer-0 table instead of the propagated mean, as the released GenSR code reads it."""

    def fit(
        self, user_items: scipy.sparse.csr_matrix, *, seed: int, device: str = "cpu", progress: bool = False
    ) -> CFTable:
        """See `CFConfig.fit`."""
        from gensr.encoders.cf.lightgcn import fit_lightgcn

        return fit_lightgcn(
            user_items,
            dim=self.dim,
            layers=self.layers,
            epochs=self.epochs,
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
            regularization=self.regularization,
            layer0=self.layer0,
            seed=seed,
            device=device,
            progress=progress,
        )


@CF_SOURCES.register
class ALSConfig(CFConfig):
    """Implicit-feedback alternating least squares, through the `implicit` library."""

    type: Literal["als"] = "als"
    reference = "Hu, Koren, Volinsky, ICDM 2008; Takacs et al., RecSys 2011"
    dim: PositiveInt = 64
    """Width of the vectors."""
    iterations: PositiveInt = 15
    """Alternations."""
    regularization: NonNegativeFloat = 0.01
    """Ridge weight."""
    alpha: PositiveFloat = 1.0
    """Confidence of an interaction."""
    threads: PositiveInt = 1
    """Threads; one makes the result repeatable."""

    def fit(
        self, user_items: scipy.sparse.csr_matrix, *, seed: int, device: str = "cpu", progress: bool = False
    ) -> CFTable:
        """See `CFConfig.fit`."""
        from gensr.encoders.cf.als import fit_als

        return fit_als(
            user_items,
            dim=self.dim,
            iterations=self.iterations,
            regularization=self.regularization,
            alpha=self.alpha,
            threads=self.threads,
            seed=seed,
            progress=progress,
        )


class SemanticConfig(ComponentConfig):
    """Base of semantic encoders: item vectors from item text."""

    def build(self, *, texts: Sequence[str], backbone: Backbone) -> nn.Module:
        """A module ``forward(items int64 [...]) -> [..., width]`` with ``encode_text(texts) -> [n, width]``.

        Args:
            texts: item texts by row, row 0 empty.
            backbone: the language model; supplies tokenizer and token embeddings.
        """
        raise NotImplementedError


SEMANTIC_ENCODERS = Registry("semantic", SemanticConfig, builtins="gensr.encoders.config")


@SEMANTIC_ENCODERS.register
class TokensConfig(SemanticConfig):
    """Mean of the backbone's own (trained) token embeddings of the item text."""

    type: Literal["tokens"] = "tokens"
    reference = "GenSR section 4.1.1 and eq. 7; released code, mean title embedding"
    length: PositiveInt = 24
    """Tokens read of an item's text; the rest is cut."""

    def build(self, *, texts: Sequence[str], backbone: Backbone) -> nn.Module:
        """See `SemanticConfig.build`."""
        from gensr.encoders.semantic.tokens import TokenMeanEncoder

        return TokenMeanEncoder(texts, backbone=backbone, length=self.length)


class HistoryConfig(ComponentConfig):
    """Base of history encoders: contextual vectors of a user's past."""

    def build(self, *, dim: int, max_length: int) -> nn.Module:
        """A module ``forward(x [B, L, dim], mask [B, L], task [B, L]) -> [B, L, dim]``.

        Args:
            dim: width in and out.
            max_length: longest history L it will see.
        """
        raise NotImplementedError


HISTORY_ENCODERS = Registry("history", HistoryConfig, builtins="gensr.encoders.config")


@HISTORY_ENCODERS.register
class TransformerConfig(HistoryConfig):
    """Transformer encoder with learned positions and task-type embeddings."""

    type: Literal["transformer"] = "transformer"
    reference = "GenSR eq. 3-4"
    layers: PositiveInt = 1
    """Encoder blocks."""
    heads: PositiveInt = 2
    """Attention heads; must divide the view's width."""
    hidden: PositiveInt | None = None
    """Width of the feed-forward part; the view's width where absent."""
    dropout: float = Field(0.1, ge=0, lt=1)
    """Chance of dropping an activation in training."""
    positions: bool = True
    """Learn positions (counted from the newest event)."""
    task_types: bool = True
    """Learn whether an event was a search or a recommendation."""

    def build(self, *, dim: int, max_length: int) -> nn.Module:
        """See `HistoryConfig.build`."""
        from gensr.encoders.history.transformer import TransformerHistoryEncoder

        return TransformerHistoryEncoder(
            dim,
            max_length=max_length,
            layers=self.layers,
            heads=self.heads,
            hidden=self.hidden,
            dropout=self.dropout,
            positions=self.positions,
            task_types=self.task_types,
        )
