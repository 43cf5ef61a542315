"""How well a ranking is, and how sure one can be of it. Names are imported at first use."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gensr.exports import lazy_exports

if TYPE_CHECKING:
    from gensr.evaluation.metrics import Ranks as Ranks
    from gensr.evaluation.metrics import check_metric_consistency as check_metric_consistency
    from gensr.evaluation.metrics import metric as metric
    from gensr.evaluation.metrics import rank_truth as rank_truth

_EXPORTS = {
    "Ranks": "gensr.evaluation.metrics",
    "check_metric_consistency": "gensr.evaluation.metrics",
    "metric": "gensr.evaluation.metrics",
    "rank_truth": "gensr.evaluation.metrics",
}
__all__ = sorted(_EXPORTS)
__getattr__, __dir__ = lazy_exports(__name__, _EXPORTS)
