"""What a cached stage is known by: everything it depends on, and nothing else."""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np
import pytest
import torch

from gensr.cache import StageCache
from gensr.encoders import CFTable, TextTable
from gensr.encoders.cf.config import CFConfig, CFFileConfig
from gensr.encoders.semantic.config import SemanticConfig, SentenceConfig, TextFileConfig, TfidfConfig
from gensr.rankers.config import CFRankerConfig, GenSRConfig, PopularityConfig
from gensr.testing.data import tiny_dataset


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return tiny_dataset(tmp_path_factory.mktemp("shop") / "data")


@pytest.fixture
def cache(tmp_path):
    return StageCache(tmp_path / "cache")


class CountedConfig(SemanticConfig):
    type: Literal["counted"] = "counted"

    def table(self, texts, *, item_ids, seed, device="cpu", progress=False):
        self.calls.append(seed)
        return TextTable(torch.zeros(len(texts), 2), {})


@pytest.fixture
def counted():
    """A seeded and a seedless encoder that note their calls."""

    class Seeded(CountedConfig):
        calls: ClassVar[list[int]] = []

    class Seedless(CountedConfig):
        calls: ClassVar[list[int]] = []
        seeded = False

    return Seeded, Seedless


def test_a_text_table_depends_on_the_seed_only_where_its_encoder_does(cache, dataset, counted):
    for cls in counted:
        for seed in (1, 2, 1):
            cache.text_table(cls(), dataset, seed=seed)
    assert [cls.calls for cls in counted] == [[1, 2], [1]]
    assert TfidfConfig.seeded
    assert not SentenceConfig.seeded
    assert not TextFileConfig.seeded


def test_other_candidates_leave_a_text_table_alone_and_other_texts_do_not(cache, dataset, counted, tmp_path):
    config = counted[0]
    others = tiny_dataset(tmp_path / "others", negatives=5)
    assert others.fingerprint != dataset.fingerprint
    for shop in (dataset, others):
        cache.text_table(config(), shop, seed=1)
    assert config.calls == [1]
    cache.text_table(config(), tiny_dataset(tmp_path / "shop", items=151), seed=1)
    assert config.calls == [1, 1]


def test_other_candidates_leave_a_cf_table_alone_and_other_interactions_do_not(cache, dataset, tmp_path):
    fits = []

    class Counted(CFConfig):
        type: Literal["counted"] = "counted"

        def fit(self, user_items, *, seed, device="cpu", progress=False):
            fits.append(user_items.nnz)
            return CFTable(*(torch.zeros(size, 2) for size in user_items.shape))

    for shop in (dataset, tiny_dataset(tmp_path / "others", negatives=5)):
        for fold in (None, (0, 2)):
            cache.cf_table(Counted(), shop, seed=1, fold=fold)
    assert len(fits) == 2
    cache.cf_table(Counted(), tiny_dataset(tmp_path / "shop", users=41), seed=1)
    assert len(fits) == 3


def test_ranks_of_a_floor_depend_on_the_file_it_reads(cache, dataset, tmp_path):
    path = tmp_path / "items.npy"
    np.save(path, np.ones((dataset.num_items, 2)))
    floor = CFRankerConfig(cf=CFFileConfig(path=str(path)))
    before = cache.ranks_path(floor, dataset, [])
    assert cache.ranks_path(floor, dataset, []) == before
    np.save(path, np.zeros((dataset.num_items, 2)))
    assert cache.ranks_path(floor, dataset, []) != before


def test_a_ranker_is_known_by_the_files_of_its_views(tmp_path):
    for name in "ab":
        np.save(tmp_path / f"{name}.npy", np.full((3, 2), ord(name)))
    cf, semantic = CFFileConfig(path=str(tmp_path / "a.npy")), TextFileConfig(path=str(tmp_path / "b.npy"))
    assert GenSRConfig().identity() == PopularityConfig().identity() == ""
    assert GenSRConfig(cf=cf, semantic=semantic).identity() == cf.identity() + semantic.identity()
    assert GenSRConfig(semantic=None, contrastive=None, cf=cf).identity() == cf.identity() != ""
