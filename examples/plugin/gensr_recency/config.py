"""What a spec can say about the two components. Imports nothing heavy: specs and listings read it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import PositiveFloat, PositiveInt

from gensr.encoders.cf.config import CFConfig
from gensr.fusion.soft_filter.config import SoftFilterConfig

if TYPE_CHECKING:
    import scipy.sparse
    from torch import nn

    from gensr.encoders import CFTable


class RecencyConfig(SoftFilterConfig):
    """Recent events weigh more, whatever the candidate; how much more is learnt."""

    type: Literal["recency"] = "recency"
    reference = "Ding, Li, Time weight collaborative filtering, CIKM 2005"
    half_life: PositiveFloat = 5.0
    """After how many further events an item weighs half as much, at the start of training."""

    def build(self, *, dim: int) -> nn.Module:
        """See `SoftFilterConfig.build`."""
        from gensr_recency.recency import RecencyFilter

        return RecencyFilter(half_life=self.half_life)


class PMIConfig(CFConfig):
    """Items by the company they keep: truncated SVD of shifted positive PMI; users are the mean of their items."""

    type: Literal["pmi"] = "pmi"
    reference = "Levy, Goldberg, NeurIPS 2014, sections 3 and 4.2"
    dim: PositiveInt = 64
    """Width of the vectors; columns beyond what the items can span are zero."""
    negatives: PositiveFloat = 1.0
    """k of the shift log k: larger ones keep stronger associations only. Stands for word2vec's negative samples."""

    def fit(
        self, user_items: scipy.sparse.csr_matrix, *, seed: int, device: str = "cpu", progress: bool = False
    ) -> CFTable:
        """See `CFConfig.fit`. Nothing is random: every seed gives the same table."""
        from gensr_recency.pmi import fit_pmi

        return fit_pmi(user_items, dim=self.dim, negatives=self.negatives)
