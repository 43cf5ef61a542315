"""Where the views of a history meet: soft filters, contrastive losses, projection to the backbone.

Names are imported at first use, so that reading a spec, which imports configs only, loads no torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gensr.exports import lazy_exports

if TYPE_CHECKING:
    from gensr.fusion.contrastive.barlow_twins import BarlowTwins as BarlowTwins
    from gensr.fusion.contrastive.barlow_twins import barlow_twins as barlow_twins
    from gensr.fusion.contrastive.info_nce import InfoNCE as InfoNCE
    from gensr.fusion.contrastive.info_nce import info_nce as info_nce
    from gensr.fusion.contrastive.layernorm_nce import LayerNormNCE as LayerNormNCE
    from gensr.fusion.contrastive.layernorm_nce import layernorm_nce as layernorm_nce
    from gensr.fusion.contrastive.mmd import MMD as MMD
    from gensr.fusion.contrastive.mmd import mmd as mmd
    from gensr.fusion.contrastive.sigmoid import SigmoidContrast as SigmoidContrast
    from gensr.fusion.contrastive.sigmoid import sigmoid_contrast as sigmoid_contrast
    from gensr.fusion.contrastive.symmetric_info_nce import SymmetricInfoNCE as SymmetricInfoNCE
    from gensr.fusion.contrastive.symmetric_info_nce import symmetric_info_nce as symmetric_info_nce
    from gensr.fusion.projection import SlotProjection as SlotProjection
    from gensr.fusion.soft_filter.attention import AttentionFilter as AttentionFilter
    from gensr.fusion.soft_filter.base import Filtered as Filtered
    from gensr.fusion.soft_filter.base import SoftFilter as SoftFilter
    from gensr.fusion.soft_filter.bilinear import BilinearFilter as BilinearFilter
    from gensr.fusion.soft_filter.cross_attention import CrossAttentionFilter as CrossAttentionFilter
    from gensr.fusion.soft_filter.din import DINFilter as DINFilter
    from gensr.fusion.soft_filter.gated import GatedFilter as GatedFilter
    from gensr.fusion.soft_filter.mean import MeanFilter as MeanFilter
    from gensr.fusion.soft_filter.top_k import TopKFilter as TopKFilter

_EXPORTS = {
    "AttentionFilter": "gensr.fusion.soft_filter.attention",
    "BarlowTwins": "gensr.fusion.contrastive.barlow_twins",
    "BilinearFilter": "gensr.fusion.soft_filter.bilinear",
    "CrossAttentionFilter": "gensr.fusion.soft_filter.cross_attention",
    "DINFilter": "gensr.fusion.soft_filter.din",
    "Filtered": "gensr.fusion.soft_filter.base",
    "GatedFilter": "gensr.fusion.soft_filter.gated",
    "InfoNCE": "gensr.fusion.contrastive.info_nce",
    "LayerNormNCE": "gensr.fusion.contrastive.layernorm_nce",
    "MMD": "gensr.fusion.contrastive.mmd",
    "MeanFilter": "gensr.fusion.soft_filter.mean",
    "SigmoidContrast": "gensr.fusion.contrastive.sigmoid",
    "SlotProjection": "gensr.fusion.projection",
    "SoftFilter": "gensr.fusion.soft_filter.base",
    "SymmetricInfoNCE": "gensr.fusion.contrastive.symmetric_info_nce",
    "TopKFilter": "gensr.fusion.soft_filter.top_k",
    "barlow_twins": "gensr.fusion.contrastive.barlow_twins",
    "info_nce": "gensr.fusion.contrastive.info_nce",
    "layernorm_nce": "gensr.fusion.contrastive.layernorm_nce",
    "mmd": "gensr.fusion.contrastive.mmd",
    "sigmoid_contrast": "gensr.fusion.contrastive.sigmoid",
    "symmetric_info_nce": "gensr.fusion.contrastive.symmetric_info_nce",
}
__all__ = sorted(_EXPORTS)
__getattr__, __dir__ = lazy_exports(__name__, _EXPORTS)
