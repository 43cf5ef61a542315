from __future__ import annotations

import gzip
from urllib.parse import unquote

import numpy as np
import pytest
import pytrec_eval
import torch

from gensr.evaluation.evaluator import rank_requests, summarise
from gensr.evaluation.trec import TrecExport
from tests.evaluation.batches import ByItem, make_batch

ITEMS = ["", *(f"item {n}" if n % 2 else f"50%-off-{n}" for n in range(1, 21))]


def export(folder, batches, **names):
    run, qrels = folder / names.get("run", "run.trec"), folder / names.get("qrels", "qrels.txt")
    with TrecExport(run, qrels, ITEMS, tag="by item") as out:
        ranks = rank_requests(ByItem(), batches, on_scores=out.add)
    return run, qrels, ranks


def test_pytrec_eval_reads_the_files_and_finds_our_metrics(tmp_path):
    batches = [make_batch([2] * 6, candidates=12), make_batch([2] * 6, candidates=12, first=6, seed=2)]
    run, qrels, ranks = export(tmp_path, batches)
    with run.open() as file:
        scored = pytrec_eval.parse_run(file)
    with qrels.open() as file:
        judged = pytrec_eval.parse_qrel(file)
    found = pytrec_eval.RelevanceEvaluator(judged, {"ndcg_cut.5"}).evaluate(scored)
    ours = summarise(ranks, metrics=["ndcg@5"], bootstrap=0)["search"]["ndcg@5"]["value"]
    assert np.mean([values["ndcg_cut_5"] for values in found.values()]) == pytest.approx(ours)


def test_lines_hold_task_request_raw_id_rank_score_and_tag(tmp_path):
    batch = make_batch([1], first=41)
    batch.cand_mask[0, 0] = False
    batch.label[0] = torch.tensor([0.0, 1, 0, 0, 0])
    run, qrels, _ = export(tmp_path, [batch])
    rows = [line.split(" ") for line in run.read_text().splitlines()]
    expected = sorted(batch.cand[0, 1:].tolist(), reverse=True)
    assert [unquote(row[2]) for row in rows] == [ITEMS[item] for item in expected]
    assert [(row[0], row[1], row[3], row[5]) for row in rows] == [
        ("recommendation-41", "Q0", str(place), "by%20item") for place in range(1, 5)
    ]
    assert [float(row[4]) for row in rows] == expected
    assert [unquote(word) for word in qrels.read_text().split(" ")] == [
        "recommendation-41", "0", ITEMS[batch.cand[0, 1]], "1\n"
    ]  # fmt: skip


def test_a_name_in_gz_is_compressed_and_repeatable(tmp_path):
    first = export(tmp_path, [make_batch([1, 2])], run="a.gz")[0]
    second = export(tmp_path, [make_batch([1, 2])], run="b.gz")[0]
    assert first.read_bytes() == second.read_bytes()
    assert gzip.decompress(first.read_bytes()).startswith(b"recommendation-0 Q0 ")


def test_a_failed_export_leaves_nothing(tmp_path):
    batch = make_batch([1])
    with pytest.raises(ValueError, match="not in the catalogue"):
        export(tmp_path, [batch, batch.replace(cand=batch.cand + 100)])
    assert list(tmp_path.iterdir()) == []
