"""The `history` kind: what an event means among the others."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field, PositiveInt

from gensr.registry import ComponentConfig, Registry

if TYPE_CHECKING:
    from torch import nn


class HistoryConfig(ComponentConfig):
    """Base of history encoders: contextual vectors of a user's past."""

    def build(self, *, dim: int, max_length: int) -> nn.Module:
        """A module ``forward(x [B, L, dim], mask [B, L], task [B, L]) -> [B, L, dim]``.

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
