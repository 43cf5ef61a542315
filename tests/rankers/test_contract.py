"""Every registered ranker keeps the contract, because it is registered."""

from __future__ import annotations

from typing import Any

from gensr.backbones.config import T5Config, T5Sizes
from gensr.encoders.cf.config import ALSConfig
from gensr.fusion.soft_filter.config import CrossAttentionConfig
from gensr.rankers.config import RANKERS, GenSRConfig
from gensr.testing.rankers import RankerContract

GENSR = GenSRConfig(
    cf=ALSConfig(dim=8),
    backbone=T5Config(scratch=T5Sizes(width=16, layers=1, heads=2, head_width=8, hidden=32, vocabulary=512)),
)
"""GenSR small enough to be built for every contract."""


def variant(**changes: Any) -> GenSRConfig:
    return GenSRConfig.model_validate({**dict(GENSR), **changes})


CONFIGS = {name: RANKERS.get(name)() for name in RANKERS.names() if name != "gensr"}
CONFIGS |= {
    "gensr": GENSR,
    "gensr_interleaved": variant(layout="interleaved"),
    "gensr_with_a_vector_for_each_event": variant(
        layout="interleaved", soft_filter=CrossAttentionConfig(output="sequence")
    ),
    "gensr_without_cf": variant(cf=None, contrastive=None),
    "gensr_without_text": variant(semantic=None, contrastive=None),
    "gensr_without_encoder_and_filter": variant(history=None, soft_filter=None),
}

for name, config in CONFIGS.items():
    globals()[f"Test_{name}"] = type(f"Test_{name}", (RankerContract,), {"config": config})


def test_every_ranker_has_its_contract():
    assert {f"Test_{name}" for name in RANKERS.names()} <= set(globals())
