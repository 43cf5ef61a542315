"""The `soft_filter` kind: how a history meets a candidate."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field, PositiveInt

from gensr.registry import ComponentConfig, Registry

if TYPE_CHECKING:
    from torch import nn


class SoftFilterConfig(ComponentConfig):
    """Base of soft filters: weigh history items by their relevance to each candidate."""

    def build(self, *, dim: int) -> nn.Module:
        """A module as `gensr.fusion.soft_filter.base.SoftFilter` describes it, for views of width `dim`."""
        raise NotImplementedError


SOFT_FILTERS = Registry("soft_filter", SoftFilterConfig, builtins="gensr.fusion.soft_filter.config")


@SOFT_FILTERS.register
class CrossAttentionConfig(SoftFilterConfig):
    """Multi-head cross-attention importance of each history item for each candidate."""

    type: Literal["cross_attention"] = "cross_attention"
    reference = "GenSR section 4.1.2, eq. 5-6"
    heads: PositiveInt = 2
    """Attention heads; must divide the view's width."""
    output: Literal["pooled", "sequence"] = "pooled"
    """`pooled`: one vector, the weighted sum (K = 1). `sequence`: one weighted vector per item (K = L), as in eq. 6."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """Chance of dropping an attention weight in training."""

    def build(self, *, dim: int) -> nn.Module:
        """See `SoftFilterConfig.build`."""
        from gensr.fusion.soft_filter.cross_attention import CrossAttentionFilter

        return CrossAttentionFilter(dim, heads=self.heads, output=self.output, dropout=self.dropout)


@SOFT_FILTERS.register
class MeanConfig(SoftFilterConfig):
    """Every history item weighs the same: what remains when the soft filter is dropped."""

    type: Literal["mean"] = "mean"
    reference = "GenSR section 6.3, ablation without soft filtering"

    def build(self, *, dim: int) -> nn.Module:
        """See `SoftFilterConfig.build`."""
        from gensr.fusion.soft_filter.mean import MeanFilter

        return MeanFilter()
