"""Every registered ranker keeps the contract, because it is registered."""

from __future__ import annotations

from gensr.backbones.config import T5Config, T5Sizes
from gensr.encoders.config import ALSConfig
from gensr.rankers.config import RANKERS, GenSRConfig
from gensr.testing.rankers import RankerContract

SMALL = {
    "gensr": GenSRConfig(
        cf=ALSConfig(dim=8),
        backbone=T5Config(scratch=T5Sizes(width=16, layers=1, heads=2, head_width=8, hidden=32, vocabulary=512)),
    )
}

for name in RANKERS.names():
    config = SMALL.get(name) or RANKERS.get(name)()
    globals()[f"Test_{name}"] = type(f"Test_{name}", (RankerContract,), {"config": config})


def test_every_ranker_has_its_contract():
    assert {f"Test_{name}" for name in RANKERS.names()} <= set(globals())
