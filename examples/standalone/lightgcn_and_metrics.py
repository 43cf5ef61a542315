"""LightGCN on a small generated log, and metrics that are fair to ties: parts of gensr, and no spec."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp

from gensr.encoders import fit_lightgcn
from gensr.evaluation import Ranks, metric, rank_truth

USERS, ITEMS, EACH, TASTES, CANDIDATES = 120, 80, 10, 4, 20


def generated_log(generator: np.random.Generator) -> tuple[sp.csr_matrix, np.ndarray]:
    """Users of four tastes: training interactions [U+1, I+1] (row and column 0 are padding), a held-out item each."""
    items = np.arange(1, ITEMS + 1)
    touched = [generator.choice(items[user % TASTES :: TASTES], EACH, replace=False) for user in range(USERS)]
    users = np.repeat(np.arange(1, USERS + 1), EACH - 1)
    past = np.concatenate([row[:-1] for row in touched])
    log = sp.csr_matrix((np.ones(len(past), np.float32), (users, past)), shape=(USERS + 1, ITEMS + 1))
    return log, np.array([row[-1] for row in touched])


def measure(scores: np.ndarray, label: np.ndarray) -> str:
    """Recall and NDCG at 5 of scores [R, C], where `label` [R, C] marks the one truth of each request."""
    better, equal, candidates = rank_truth(scores, label)
    requests = np.arange(len(scores))
    ranks = Ranks(requests, np.zeros(len(scores), np.int8), better, equal, candidates)
    return "  ".join(f"{name} {metric(ranks, name).mean():.3f}" for name in ("recall@5", "ndcg@5"))


def main() -> None:
    """Fit, rank the held-out item among 19 others, and compare with a scorer that says the same of everything."""
    generator = np.random.default_rng(0)
    log, truth = generated_log(generator)
    table = fit_lightgcn(
        log, dim=16, layers=2, epochs=20, batch_size=256, learning_rate=0.01, regularization=1e-4, seed=0
    )
    unseen = [np.setdiff1d(np.arange(1, ITEMS + 1), [*log[user + 1].indices, truth[user]]) for user in range(USERS)]
    others = np.stack([generator.choice(pool, CANDIDATES - 1, replace=False) for pool in unseen])
    candidates = np.column_stack([truth, others])  # [U, C]
    label = np.arange(CANDIDATES)[None, :] == np.zeros((USERS, 1))
    scores = np.einsum("ud,ucd->uc", table.users[1:].numpy(), table.items.numpy()[candidates])
    print("lightgcn ", measure(scores, label))
    print("constant ", measure(np.zeros_like(scores), label))  # 5 of 20, although the truth stands first


if __name__ == "__main__":
    main()
