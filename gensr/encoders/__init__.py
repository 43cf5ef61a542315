"""Where vectors come from: collaborative tables, item text, a user's past.

Names are imported at first use, so that reading a spec, which imports configs only, loads no torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gensr.exports import lazy_exports

if TYPE_CHECKING:
    from gensr.encoders.cf.implicit_models import fit_als as fit_als
    from gensr.encoders.cf.implicit_models import fit_bpr as fit_bpr
    from gensr.encoders.cf.implicit_models import fit_lmf as fit_lmf
    from gensr.encoders.cf.lightgcn import LightGCN as LightGCN
    from gensr.encoders.cf.lightgcn import fit_lightgcn as fit_lightgcn
    from gensr.encoders.cf.random import random_table as random_table
    from gensr.encoders.cf.table import CFTable as CFTable
    from gensr.encoders.history.base import HistoryEncoder as HistoryEncoder
    from gensr.encoders.history.filter_mlp import FilterMLPHistoryEncoder as FilterMLPHistoryEncoder
    from gensr.encoders.history.gru import GRUHistoryEncoder as GRUHistoryEncoder
    from gensr.encoders.history.none import NoHistory as NoHistory
    from gensr.encoders.history.transformer import TransformerHistoryEncoder as TransformerHistoryEncoder
    from gensr.encoders.semantic.base import SemanticEncoder as SemanticEncoder
    from gensr.encoders.semantic.sentence import SentenceEncoder as SentenceEncoder
    from gensr.encoders.semantic.table import FrozenTableEncoder as FrozenTableEncoder
    from gensr.encoders.semantic.table import TextTable as TextTable
    from gensr.encoders.semantic.tfidf import encode_tfidf as encode_tfidf
    from gensr.encoders.semantic.tfidf import fit_tfidf as fit_tfidf
    from gensr.encoders.semantic.tokens import TokenLevelEncoder as TokenLevelEncoder
    from gensr.encoders.semantic.tokens import TokenMeanEncoder as TokenMeanEncoder

_EXPORTS = {
    "CFTable": "gensr.encoders.cf.table",
    "FrozenTableEncoder": "gensr.encoders.semantic.table",
    "FilterMLPHistoryEncoder": "gensr.encoders.history.filter_mlp",
    "GRUHistoryEncoder": "gensr.encoders.history.gru",
    "HistoryEncoder": "gensr.encoders.history.base",
    "LightGCN": "gensr.encoders.cf.lightgcn",
    "NoHistory": "gensr.encoders.history.none",
    "SemanticEncoder": "gensr.encoders.semantic.base",
    "SentenceEncoder": "gensr.encoders.semantic.sentence",
    "TextTable": "gensr.encoders.semantic.table",
    "TokenLevelEncoder": "gensr.encoders.semantic.tokens",
    "TokenMeanEncoder": "gensr.encoders.semantic.tokens",
    "TransformerHistoryEncoder": "gensr.encoders.history.transformer",
    "encode_tfidf": "gensr.encoders.semantic.tfidf",
    "fit_als": "gensr.encoders.cf.implicit_models",
    "fit_bpr": "gensr.encoders.cf.implicit_models",
    "fit_lightgcn": "gensr.encoders.cf.lightgcn",
    "fit_lmf": "gensr.encoders.cf.implicit_models",
    "fit_tfidf": "gensr.encoders.semantic.tfidf",
    "random_table": "gensr.encoders.cf.random",
}
__all__ = sorted(_EXPORTS)
__getattr__, __dir__ = lazy_exports(__name__, _EXPORTS)
