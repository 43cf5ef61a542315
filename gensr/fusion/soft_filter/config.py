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
    context: bool = True
    """Let the query, in search, decide with the candidate. In eq. 5 the candidate decides alone."""

    def build(self, *, dim: int) -> nn.Module:
        """See `SoftFilterConfig.build`."""
        from gensr.fusion.soft_filter.cross_attention import CrossAttentionFilter

        return CrossAttentionFilter(
            dim, heads=self.heads, output=self.output, dropout=self.dropout, context=self.context
        )


@SOFT_FILTERS.register
class BilinearConfig(SoftFilterConfig):
    """Bilinear target attention over the items themselves, pooled to one vector."""

    type: Literal["bilinear"] = "bilinear"
    reference = "GenSR, released code (target attention)"
    context: bool = True
    """Let the query, in search, decide with the candidate. The released code does not."""

    def build(self, *, dim: int) -> nn.Module:
        """See `SoftFilterConfig.build`."""
        from gensr.fusion.soft_filter.bilinear import BilinearFilter

        return BilinearFilter(dim, context=self.context)


@SOFT_FILTERS.register
class DINConfig(SoftFilterConfig):
    """DIN's activation unit: a small network looks at candidate, item, their difference and their product."""

    type: Literal["din"] = "din"
    reference = "DIN (Zhou et al., KDD 2018), activation unit; widths and softmax of the authors' repository"
    hidden: tuple[PositiveInt, ...] = Field((80, 40), min_length=1)
    """Widths of the hidden layers."""
    activation: Literal["sigmoid", "prelu", "dice"] = "sigmoid"
    """Of the hidden layers. `dice` adapts to the data: batch statistics in training, running ones afterwards."""
    weights: Literal["softmax", "relu"] = "softmax"
    """`softmax`: weights sum to 1. `relu`: they do not, so a strong interest counts more; the paper's raw weights, with
    negative ones cut to 0 because importances are never negative."""

    def build(self, *, dim: int) -> nn.Module:
        """See `SoftFilterConfig.build`."""
        from gensr.fusion.soft_filter.din import DINFilter

        return DINFilter(dim, hidden=self.hidden, activation=self.activation, weights=self.weights)


@SOFT_FILTERS.register
class GatedConfig(SoftFilterConfig):
    """A sigmoid gate for each history item; items do not compete, as they do under a softmax."""

    type: Literal["gated"] = "gated"
    reference = "GenSR eq. 5-6 with sigmoid attention (Ramapuram et al., 2024) in place of the softmax"
    heads: PositiveInt = 2
    """Attention heads, averaged; must divide the view's width."""
    output: Literal["pooled", "sequence"] = "pooled"
    """`pooled`: one vector, the mean of the gated items (K = 1). `sequence`: one gated vector per item (K = L)."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """Chance of dropping a gate in training."""

    def build(self, *, dim: int) -> nn.Module:
        """See `SoftFilterConfig.build`."""
        from gensr.fusion.soft_filter.gated import GatedFilter

        return GatedFilter(dim, heads=self.heads, output=self.output, dropout=self.dropout)


@SOFT_FILTERS.register
class TopKConfig(SoftFilterConfig):
    """The k most relevant history items, with equal weights; the rest is not seen."""

    type: Literal["top_k"] = "top_k"
    reference = "GenSR eq. 5, cut to k items; straight-through estimator (Bengio et al., 2013)"
    k: PositiveInt = 5
    """Items kept for each candidate; a shorter history is kept whole."""
    heads: PositiveInt = 2
    """Attention heads that decide on relevance; must divide the view's width."""

    def build(self, *, dim: int) -> nn.Module:
        """See `SoftFilterConfig.build`."""
        from gensr.fusion.soft_filter.top_k import TopKFilter

        return TopKFilter(dim, k=self.k, heads=self.heads)


@SOFT_FILTERS.register
class MeanConfig(SoftFilterConfig):
    """Every history item weighs the same: what remains when the soft filter is dropped."""

    type: Literal["mean"] = "mean"
    reference = "GenSR section 6.3, ablation without soft filtering"

    def build(self, *, dim: int) -> nn.Module:
        """See `SoftFilterConfig.build`."""
        from gensr.fusion.soft_filter.mean import MeanFilter

        return MeanFilter()
