"""Where vectors come from: collaborative tables, item text, a user's past.

Names are imported at first use, so that reading a spec, which imports `gensr.encoders.config`, loads no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gensr.encoders.cf.als import fit_als as fit_als
    from gensr.encoders.cf.lightgcn import LightGCN as LightGCN
    from gensr.encoders.cf.lightgcn import fit_lightgcn as fit_lightgcn
    from gensr.encoders.cf.table import CFTable as CFTable
    from gensr.encoders.history.transformer import TransformerHistoryEncoder as TransformerHistoryEncoder
    from gensr.encoders.semantic.tokens import TokenMeanEncoder as TokenMeanEncoder

_EXPORTS = {
    "CFTable": "gensr.encoders.cf.table",
    "LightGCN": "gensr.encoders.cf.lightgcn",
    "TokenMeanEncoder": "gensr.encoders.semantic.tokens",
    "TransformerHistoryEncoder": "gensr.encoders.history.transformer",
    "fit_als": "gensr.encoders.cf.als",
    "fit_lightgcn": "gensr.encoders.cf.lightgcn",
}
__all__ = sorted(_EXPORTS)


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_EXPORTS[name]), name)


def __dir__() -> list[str]:
    return __all__
