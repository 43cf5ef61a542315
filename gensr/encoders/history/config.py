"""The `history` kind: what an event means among the others."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field, PositiveInt

from gensr.registry import ComponentConfig, Registry

if TYPE_CHECKING:
    from torch import nn


class HistoryConfig(ComponentConfig):
    """Base of history encoders: contextual vectors of a user's past."""

    def build(self, *, dim: int, max_length: int) -> nn.Module:
        """A module as `gensr.encoders.history.base.HistoryEncoder` describes it, though it need not derive from it.

        It is called as ``forward(x [B, L, dim], mask [B, L], task [B, L]) -> [B, L, dim]``.

        Args:
            dim: width in and out.
            max_length: longest history L it will see.
        """
        raise NotImplementedError


HISTORY_ENCODERS = Registry("history", HistoryConfig, builtins="gensr.encoders.history.config")


@HISTORY_ENCODERS.register
class TransformerConfig(HistoryConfig):
    """Transformer encoder with learned positions and task-type embeddings."""

    type: Literal["transformer"] = "transformer"
    reference = "GenSR eq. 3-4"
    revision: ClassVar[int] = 2  # its weights have other names
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


@HISTORY_ENCODERS.register
class GRUConfig(HistoryConfig):
    """Recurrent encoder: an event's vector is the state of a GRU after it."""

    type: Literal["gru"] = "gru"
    reference = "GRU4Rec (Hidasi et al., ICLR 2016)"
    layers: PositiveInt = 1
    """GRU layers."""
    hidden: PositiveInt | None = None
    """Width of the state; the view's width where absent."""
    dropout: float = Field(0.1, ge=0, lt=1)
    """Chance of dropping an activation in training: inputs, between layers, and states."""
    task_types: bool = True
    """Learn whether an event was a search or a recommendation."""
    residual: bool = True
    """Add the event's own vector to its state, so that a soft filter can tell which item it is. GRU4Rec does not."""

    def build(self, *, dim: int, max_length: int) -> nn.Module:
        """See `HistoryConfig.build`."""
        from gensr.encoders.history.gru import GRUHistoryEncoder

        return GRUHistoryEncoder(
            dim,
            max_length=max_length,
            layers=self.layers,
            hidden=self.hidden,
            dropout=self.dropout,
            task_types=self.task_types,
            residual=self.residual,
        )


@HISTORY_ENCODERS.register
class FilterMLPConfig(HistoryConfig):
    """Learned frequency filters and MLPs; costs the longest history's time for every history."""

    type: Literal["filter_mlp"] = "filter_mlp"
    reference = "FMLP-Rec (Zhou et al., WWW 2022)"
    layers: PositiveInt = 2
    """Blocks of a filter and an MLP."""
    dropout: float = Field(0.1, ge=0, lt=1)
    """Chance of dropping an activation in training. FMLP-Rec alone, from scratch, uses 0.5."""
    positions: bool = True
    """Learn positions (counted from the newest event). The order of events matters without them, too."""
    task_types: bool = True
    """Learn whether an event was a search or a recommendation."""

    def build(self, *, dim: int, max_length: int) -> nn.Module:
        """See `HistoryConfig.build`."""
        from gensr.encoders.history.filter_mlp import FilterMLPHistoryEncoder

        return FilterMLPHistoryEncoder(
            dim,
            max_length=max_length,
            layers=self.layers,
            dropout=self.dropout,
            positions=self.positions,
            task_types=self.task_types,
        )


@HISTORY_ENCODERS.register
class NoHistoryConfig(HistoryConfig):
    """Items as they are, without context: what remains when the history encoder is dropped."""

    type: Literal["none"] = "none"
    reference = "the control; GenSR without eq. 3-4"

    def build(self, *, dim: int, max_length: int) -> nn.Module:
        """See `HistoryConfig.build`."""
        from gensr.encoders.history.none import NoHistory

        return NoHistory(dim, max_length=max_length)
