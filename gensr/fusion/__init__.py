"""Where the views of a history meet: soft filters, contrastive losses, projection to the backbone.

Names are imported at first use, so that reading a spec, which imports configs only, loads no torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gensr.exports import lazy_exports

if TYPE_CHECKING:
    from gensr.fusion.contrastive.info_nce import InfoNCE as InfoNCE
    from gensr.fusion.projection import SlotProjection as SlotProjection
    from gensr.fusion.soft_filter.base import Filtered as Filtered
    from gensr.fusion.soft_filter.base import SoftFilter as SoftFilter
    from gensr.fusion.soft_filter.cross_attention import CrossAttentionFilter as CrossAttentionFilter
    from gensr.fusion.soft_filter.mean import MeanFilter as MeanFilter

_EXPORTS = {
    "CrossAttentionFilter": "gensr.fusion.soft_filter.cross_attention",
    "Filtered": "gensr.fusion.soft_filter.base",
    "InfoNCE": "gensr.fusion.contrastive.info_nce",
    "MeanFilter": "gensr.fusion.soft_filter.mean",
    "SlotProjection": "gensr.fusion.projection",
    "SoftFilter": "gensr.fusion.soft_filter.base",
}
__all__ = sorted(_EXPORTS)
__getattr__, __dir__ = lazy_exports(__name__, _EXPORTS)
