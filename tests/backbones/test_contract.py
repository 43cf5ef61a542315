"""Every registered backbone keeps the contract, because it is registered."""

from __future__ import annotations

from importlib.util import find_spec

import pytest

from gensr.backbones.config import (
    BACKBONES,
    DecoderConfig,
    DecoderSizes,
    DiscriminativeConfig,
    LoRA,
    T5Config,
    T5Sizes,
)
from gensr.testing.backbone import BackboneContract

T5 = T5Sizes(width=32, layers=2, heads=2, head_width=8, hidden=48, vocabulary=300)
DECODER = DecoderSizes(width=32, layers=2, heads=2, hidden=48, vocabulary=300)
ADAPTERS = LoRA(rank=2, dropout=0.1)
CONFIGS = {
    "t5": T5Config(scratch=T5),
    "decoder": DecoderConfig(scratch=DECODER),
    "discriminative": DiscriminativeConfig(scratch=T5),
    "t5_with_adapters": T5Config(scratch=T5, lora=ADAPTERS),
    "decoder_with_adapters": DecoderConfig(scratch=DECODER, lora=ADAPTERS),
    "discriminative_with_adapters": DiscriminativeConfig(scratch=T5, lora=ADAPTERS),
}

for name, config in CONFIGS.items():
    contract = type(f"Test_{name}", (BackboneContract,), {"config": config})
    if config.lora is not None:
        contract = pytest.mark.skipif(find_spec("peft") is None, reason="needs peft (extra lora)")(contract)
    globals()[f"Test_{name}"] = contract
del contract  # or pytest would collect the last one twice


def test_every_backbone_has_its_contract():
    assert {f"Test_{name}" for name in BACKBONES.names()} <= set(globals())
