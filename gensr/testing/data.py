"""Prepared data small enough for every test: the demo shop with few users and few negatives."""

from __future__ import annotations

from pathlib import Path

from gensr.data.config import UniformConfig
from gensr.data.dataset import Dataset
from gensr.data.prepare import prepare
from gensr.data.sources.config import DemoConfig
from gensr.spec import DataSpec


def tiny_dataset(folder: Path, *, users: int = 40, items: int = 150, negatives: int = 9, seed: int = 42) -> Dataset:
    """Prepare a demo shop in `folder`, in a fraction of a second; what stands there already is opened.

    Args:
        folder: must be absent, or hold the same data.
        users: users of the shop.
        items: its items, at least 80.
        negatives: candidates beside the truth, in the list ``uniform-<negatives>``.
        seed: of the shop and of the lists.
    """
    source = DemoConfig(users=users, items=items, seed=seed)
    return prepare(DataSpec(source=source, seed=seed, candidates=(UniformConfig(count=negatives),)), folder)
