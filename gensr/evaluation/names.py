"""Names of metrics, without the arrays that measuring them takes: specs are checked before anything heavy is loaded."""

from __future__ import annotations

from gensr.errors import BadInputError, did_you_mean

KNOWN_METRICS = ("recall@5", "recall@10", "ndcg@5", "ndcg@10", "mrr")


def parse_metric(name: str) -> tuple[str, int | None]:
    """Split ``"ndcg@5"`` into ``("ndcg", 5)``; ``"mrr"`` into ``("mrr", None)``.

    Raises:
        BadInputError: unknown metric, with the nearest known one.
    """
    kind, _, cut = name.partition("@")
    if name == "mrr":
        return kind, None
    if kind in ("recall", "ndcg") and cut.isdecimal() and int(cut) > 0:
        return kind, int(cut)
    raise BadInputError(
        f"no metric named {name!r}{did_you_mean(name, KNOWN_METRICS) or '.'} Known: recall@k, ndcg@k, mrr"
    )
