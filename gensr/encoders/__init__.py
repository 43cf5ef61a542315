"""Where vectors come from: collaborative tables, item text, a user's past.

Names are imported at first use, so that reading a spec, which imports configs only, loads no torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gensr.exports import lazy_exports

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
__getattr__, __dir__ = lazy_exports(__name__, _EXPORTS)
