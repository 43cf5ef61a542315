"""The `contrastive` kind: how the two views of a user are aligned."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field, FiniteFloat, NonNegativeFloat, PositiveFloat

from gensr.registry import ComponentConfig, Registry

if TYPE_CHECKING:
    from torch import nn


class ContrastiveConfig(ComponentConfig):
    """Base of contrastive losses: align a user's CF view with the same user's semantic view.

    The losses differ in size: unrelated views of 200 users, 768 wide, cost 6.0 by `info_nce`, 5.3 by
    `symmetric_info_nce`, about 1,000 by `layernorm_nce`, 10 by `sigmoid`, 1.0 by `barlow_twins` and at most 2 by `mmd`.
    The default weights make up for it, so that a swap changes the kind of the loss and not its share; `layernorm_nce`
    keeps the released code's weight, with which it is three quarters of the loss at the start.
    """

    has_negatives: ClassVar[bool] = True
    """Whether rows of other groups are pushed away; where not, groups matter only when all rows are one group."""
    pairs_rows: ClassVar[bool] = True
    """Whether row u of one view belongs to row u of the other; where not, each view is a set of its own."""
    weight: NonNegativeFloat = 0.01
    """Factor alpha of this loss beside the task loss (eq. 8)."""

    def build(self, *, dim: int) -> nn.Module:
        """A module ``forward(a [B, dim], b [B, dim], group [B] or None) -> float32 scalar``.

        Rows of one group are never negatives of each other; where all rows are one group, it is exactly 0.
        """
        raise NotImplementedError


CONTRASTIVE_LOSSES = Registry("contrastive", ContrastiveConfig, builtins="gensr.fusion.contrastive.config")


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


@CONTRASTIVE_LOSSES.register
class SymmetricInfoNCEConfig(ContrastiveConfig):
    """InfoNCE on cosine, both directions, negatives across the views only."""

    type: Literal["symmetric_info_nce"] = "symmetric_info_nce"
    reference = "Radford et al., CLIP, ICML 2021, figure 3; van den Oord et al., 2018"
    temperature: PositiveFloat = 0.07
    """tau; smaller is sharper."""

    def build(self, *, dim: int) -> nn.Module:
        """See `ContrastiveConfig.build`."""
        from gensr.fusion.contrastive.symmetric_info_nce import SymmetricInfoNCE

        return SymmetricInfoNCE(temperature=self.temperature)


@CONTRASTIVE_LOSSES.register
class LayerNormNCEConfig(ContrastiveConfig):
    """What GenSR's released code computes: cross-view InfoNCE on dot products behind a LayerNorm, not on cosine."""

    type: Literal["layernorm_nce"] = "layernorm_nce"
    reference = "GenSR, released code; the paper's own form is info_nce"
    temperature: PositiveFloat = 0.07
    """tau. The LayerNorm makes rows sqrt(width) long: in terms of cosine, the temperature is tau / width."""

    def build(self, *, dim: int) -> nn.Module:
        """See `ContrastiveConfig.build`."""
        from gensr.fusion.contrastive.layernorm_nce import LayerNormNCE

        return LayerNormNCE(dim, temperature=self.temperature)


@CONTRASTIVE_LOSSES.register
class SigmoidConfig(ContrastiveConfig):
    """Each pair of rows for itself: one user or two? Scale and bias of the answer are learnt."""

    type: Literal["sigmoid"] = "sigmoid"
    reference = "Zhai et al., SigLIP, ICCV 2023, section 3.2 and algorithm 1"
    scale: PositiveFloat = 10.0
    """Factor t of the cosine at the start; its logarithm is learnt."""
    bias: FiniteFloat = -10.0
    """Bias b at the start; learnt."""

    def build(self, *, dim: int) -> nn.Module:
        """See `ContrastiveConfig.build`."""
        from gensr.fusion.contrastive.sigmoid import SigmoidContrast

        return SigmoidContrast(scale=self.scale, bias=self.bias)


@CONTRASTIVE_LOSSES.register
class BarlowTwinsConfig(ContrastiveConfig):
    """Cross-correlation of the views' features against the identity; no negatives."""

    type: Literal["barlow_twins"] = "barlow_twins"
    reference = "Zbontar et al., ICML 2021, eq. 1-2"
    has_negatives: ClassVar[bool] = False
    weight: NonNegativeFloat = 0.05
    """Factor alpha of this loss beside the task loss (eq. 8). The loss is the published sum divided by the width."""
    redundancy: NonNegativeFloat = 5e-3
    """lambda: weight of features that repeat each other."""

    def build(self, *, dim: int) -> nn.Module:
        """See `ContrastiveConfig.build`."""
        from gensr.fusion.contrastive.barlow_twins import BarlowTwins

        return BarlowTwins(redundancy=self.redundancy)


@CONTRASTIVE_LOSSES.register
class MMDConfig(ContrastiveConfig):
    """Maximum mean discrepancy: the views' distributions as wholes, by a mixture of Gaussian kernels."""

    type: Literal["mmd"] = "mmd"
    reference = "Gretton et al., JMLR 2012, eq. 5"
    has_negatives: ClassVar[bool] = False
    pairs_rows: ClassVar[bool] = False
    weight: NonNegativeFloat = 0.05
    """Factor alpha of this loss beside the task loss (eq. 8). The loss lies between 0 and 2."""
    bandwidths: Annotated[tuple[PositiveFloat, ...], Field(min_length=1)] = (0.25, 0.5, 1.0, 2.0, 4.0)
    """Kernel widths, as multiples of the mean squared distance between rows."""

    def build(self, *, dim: int) -> nn.Module:
        """See `ContrastiveConfig.build`."""
        from gensr.fusion.contrastive.mmd import MMD

        return MMD(bandwidths=self.bandwidths)
