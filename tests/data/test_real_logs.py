"""The real data sets, where they lie beside the checkout."""

from __future__ import annotations

from pathlib import Path

import pytest

from gensr.data.dataset import Split
from gensr.data.prepare import prepare
from gensr.data.sources.config import TableConfig
from gensr.spec import DataSpec

FOLDER = Path(__file__).parents[3] / "shared" / "data"

pytestmark = [
    pytest.mark.shared,
    pytest.mark.skipif(not FOLDER.is_dir(), reason="the real datasets are not in ../shared/data"),
]

COUNTS = {
    "yelp": dict(users=30_431, items=20_033, queries=949, recommendation_events=316_354, search_events=300_511),
    "beauty": dict(users=22_363, items=12_101, queries=220, recommendation_events=198_502, search_events=188_531),
    "toys": dict(users=19_412, items=11_924, queries=360, recommendation_events=167_597, search_events=154_808),
    "kindle-search": dict(users=62_028, items=45_235, queries=1_259, recommendation_events=0, search_events=345_315),
    "ml-small": dict(users=604, items=9_742, queries=1_588, recommendation_events=61_702, search_events=3_552),
}


@pytest.mark.parametrize("name", COUNTS)
def test_real_logs_have_the_counts_of_their_readme_and_do_not_leak(name, tmp_path):
    data = prepare(DataSpec(source=TableConfig(path=str(FOLDER / name))), tmp_path / "d")
    expected = COUNTS[name]
    assert data.manifest["counts"] == expected | {
        "events": expected["recommendation_events"] + expected["search_events"]
    }
    for tasks in data.manifest["audit"]["splits"].values():
        for entry in tasks.values():
            assert entry.get("twin_leaks", 0) == entry.get("future_events", 0) == 0
    events, items = data.candidates("uniform-99").lists[Split.TEST]
    assert items.shape == (len(events), 100)
    assert (items == data.item[events][:, None]).sum() == len(events)
