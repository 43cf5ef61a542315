"""What components need that a test of all of them cannot leave at its default: files and models of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from gensr.data.dataset import Dataset
from gensr.testing.semantic import tiny_sentence_model


def required_options(kind: str, name: str, dataset: Dataset | None, folder: Path) -> dict[str, Any]:
    """Options for a small component `name` of `kind` on `dataset`; files it reads are written to `folder`."""
    make = OPTIONS.get((kind, name))
    return make(dataset, folder) if make else {}


def _vectors(dataset: Dataset, folder: Path) -> dict[str, Any]:
    table = np.random.default_rng(0).standard_normal((dataset.num_items, 8)).astype(np.float32)
    np.save(folder / "items.npy", table)
    return {"path": str(folder / "items.npy")}


def _log(dataset: Dataset | None, folder: Path) -> dict[str, Any]:
    rows = ["user_id,item_id,timestamp,task,query"]
    for user in range(4):
        rows += [
            f"u{user},i{user + time},{time},{'search' if time % 2 else 'rec'},{'red shoe' if time % 2 else ''}"
            for time in range(6)
        ]
    (folder / "events.csv").write_text("\n".join(rows) + "\n")
    (folder / "items.csv").write_text("item_id,title\n" + "".join(f"i{item},thing {item}\n" for item in range(9)))
    return {"path": str(folder)}


OPTIONS = {
    ("source", "table"): _log,
    ("cf", "file"): _vectors,
    ("semantic", "file"): _vectors,
    ("semantic", "sentence"): lambda dataset, folder: {"model": str(tiny_sentence_model(folder))},
}
