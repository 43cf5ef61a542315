"""The `contrastive` kind: how the two views of a user are aligned."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import NonNegativeFloat, PositiveFloat

from gensr.registry import ComponentConfig, Registry

if TYPE_CHECKING:
    from torch import nn


class ContrastiveConfig(ComponentConfig):
    """Base of contrastive losses: align a user's CF view with the same user's semantic view."""

    weight: NonNegativeFloat = 0.01
    """Factor alpha of this loss beside the task loss (eq. 8)."""

    def build(self, *, dim: int) -> nn.Module:
        """A module ``forward(a [B, dim], b [B, dim], group [B]) -> scalar``; rows of one group are no negatives."""
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
