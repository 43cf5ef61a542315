"""The `soft_filter` and `contrastive` kinds: how a history meets a candidate, and how two views are aligned."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt

from gensr.registry import ComponentConfig, Registry

if TYPE_CHECKING:
    from torch import nn


class SoftFilterConfig(ComponentConfig):
    """Base of soft filters: weigh history items by their relevance to each candidate."""

    def build(self, *, dim: int) -> nn.Module:
        """A module as `gensr.fusion.soft_filter.base.SoftFilter` describes it, for views of width `dim`."""
        raise NotImplementedError


SOFT_FILTERS = Registry("soft_filter", SoftFilterConfig, builtins="gensr.fusion.config")


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


class ContrastiveConfig(ComponentConfig):
    """Base of contrastive losses: align a user's CF view with the same user's semantic view."""

    weight: NonNegativeFloat = 0.01
    """Factor alpha of this loss beside the task loss (eq. 8)."""

    def build(self, *, dim: int) -> nn.Module:
        """A module ``forward(a [B, dim], b [B, dim], group [B]) -> scalar``; rows of one group are no negatives."""
        raise NotImplementedError


CONTRASTIVE_LOSSES = Registry("contrastive", ContrastiveConfig, builtins="gensr.fusion.config")


@CONTRASTIVE_LOSSES.register
class InfoNCEConfig(ContrastiveConfig):
    """InfoNCE on cosine, both directions, negatives across and within the views."""

    type: Literal["info_nce"] = "info_nce"
    reference = "GenSR section 4.2.2, eq. 10"
    temperature: PositiveFloat = 0.07
    """tau; smaller is sharper."""

    def build(self, *, dim: int) -> nn.Module:
        """See `ContrastiveConfig.build`."""
        from gensr.fusion.contrastive.info_nce import InfoNCE

        return InfoNCE(temperature=self.temperature)
