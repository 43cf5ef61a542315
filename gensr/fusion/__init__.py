"""Where the views of a history meet: soft filters, contrastive losses, projection to the backbone.

Names are imported at first use, so that reading a spec, which imports `gensr.fusion.config`, loads no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

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


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_EXPORTS[name]), name)


def __dir__() -> list[str]:
    return __all__
