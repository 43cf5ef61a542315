"""Adapters: nothing else trains, every layout runs through them, and they come back from a run's folder."""

import builtins

import pytest
import torch
from pydantic import ValidationError

pytest.importorskip("peft", reason="adapters need peft (extra lora)")

from gensr.backbones.config import (
    BackboneConfig,
    DecoderConfig,
    DecoderSizes,
    DiscriminativeConfig,
    LoRA,
    T5Config,
    T5Sizes,
)
from gensr.backbones.lora import add_adapters
from gensr.backbones.t5 import random_t5
from gensr.errors import BadInputError, MissingExtraError
from gensr.testing.backbone import TEXTS
from gensr.training.checkpoint import restore_tensors, unique_tensors
from tests.backbones.prompts import inputs, margins, margins_of_transformers

T5 = T5Sizes(width=32, layers=2, heads=2, head_width=8, hidden=48, vocabulary=300, dropout=0.0)
DECODER = DecoderSizes(width=32, layers=2, heads=2, hidden=48, vocabulary=300, dropout=0.0)
PLAIN = {
    "t5": T5Config(scratch=T5),
    "decoder": DecoderConfig(scratch=DECODER),
    "discriminative": DiscriminativeConfig(scratch=T5, dropout=0.0),
}


def build(name: str, **options):
    config: BackboneConfig = PLAIN[name].model_copy(update={"lora": LoRA(rank=2, alpha=8.0, **options)})
    return config, config.build(texts=TEXTS, seed=0)


def is_adapter(name: str) -> bool:
    return ".lora_A." in name or ".lora_B." in name


def shake(backbone) -> None:
    """Second matrices start at zero; move them, so that adapters do something."""
    with torch.no_grad():
        for name, parameter in backbone.named_parameters():
            if ".lora_B." in name:
                parameter.normal_(generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("name", PLAIN)
def test_only_adapters_and_new_heads_are_trainable(name):
    _, backbone = build(name)
    trainable = {key for key, parameter in backbone.named_parameters() if parameter.requires_grad}
    adapters = {key for key in trainable if is_adapter(key)}
    assert adapters
    assert all(key.startswith("heads.") for key in trainable - adapters)
    assert (name == "discriminative") == bool(trainable - adapters)


@pytest.mark.parametrize("name", PLAIN)
def test_an_optimiser_step_moves_the_adapters_alone(name):
    _, backbone = build(name)
    shake(backbone)
    before = {key: value.clone() for key, value in backbone.state_dict().items()}
    backbone.train()
    optimizer = torch.optim.AdamW([p for p in backbone.parameters() if p.requires_grad], lr=0.1, weight_decay=0.1)
    margins(backbone, inputs(backbone)).square().sum().backward()
    optimizer.step()
    moved = {key for key, value in backbone.state_dict().items() if not torch.equal(value, before[key])}
    assert moved == {key for key, parameter in backbone.named_parameters() if parameter.requires_grad}
    assert not {"model.shared.weight", "model.lm_head.weight", "model.model.embed_tokens.weight"} & moved


@pytest.mark.parametrize("layout", ["packed", "interleaved"])
@pytest.mark.parametrize("name", PLAIN)
def test_adapters_change_margins_in_both_layouts_once_they_are_trained(name, layout):
    plain = PLAIN[name].build(texts=TEXTS, seed=0).eval()
    _, backbone = build(name)
    backbone.eval()
    given = inputs(plain, layout)
    with torch.no_grad():
        if name != "discriminative":
            # A new adapter changes nothing, but the linear maps beside it are arranged differently.
            torch.testing.assert_close(margins(backbone, given), margins(plain, given), atol=1e-5, rtol=0)
        before = margins(backbone, given)
        shake(backbone)
        after = margins(backbone, given)
    assert bool(((after - before).abs() > 1e-4).all())


def test_every_adapter_of_a_t5_takes_part_in_the_answer():
    """Our scoring forward calls the modules themselves, none of them around its adapter."""
    _, backbone = build("t5", targets=("q", "k", "v", "o", "wi_0", "wi_1", "wo"))
    shake(backbone)
    backbone.eval()
    for layout in ("packed", "interleaved"):
        backbone.zero_grad()
        margins(backbone, inputs(backbone, layout)).square().sum().backward()
        silent = [
            key for key, p in backbone.named_parameters() if p.requires_grad and (p.grad is None or not p.grad.any())
        ]
        assert silent == []


def test_margins_of_an_adapted_decoder_equal_transformers_own_logits():
    _, backbone = build("decoder")
    shake(backbone)
    given = inputs(backbone.eval())
    with torch.no_grad():
        torch.testing.assert_close(
            margins(backbone, given), margins_of_transformers(backbone, given), atol=1e-4, rtol=1e-4
        )


@pytest.mark.parametrize("name", PLAIN)
def test_an_adapted_backbone_reopens_from_its_weights_file(name, tmp_path):
    config, backbone = build(name)
    shake(backbone)
    backbone.save(tmp_path)
    again = config.open(tmp_path)
    restore_tensors(again, unique_tensors(backbone))
    given = inputs(backbone.eval())
    with torch.no_grad():
        assert torch.equal(margins(again.eval(), given), margins(backbone, given))


def test_an_adapter_adds_rank_times_the_layers_two_widths():
    """W x + (alpha / rank) B A x, against the matrices written out."""
    _, backbone = build("decoder", targets=("q_proj",))
    shake(backbone)
    layer = backbone.model.model.layers[0].self_attn.q_proj
    first, second = layer.lora_A["default"].weight, layer.lora_B["default"].weight
    assert first.shape == (2, 32)
    assert second.shape == (32, 2)
    x = torch.randn(5, 32)
    torch.testing.assert_close(layer(x), x @ (layer.base_layer.weight + (8 / 2) * second @ first).T)
    assert sum(p.numel() for p in backbone.parameters() if p.requires_grad) == 2 * (32 + 32) * 2


def test_a_target_that_is_no_linear_layer_is_refused_with_the_nearest_one():
    with pytest.raises(
        BadInputError, match=r"no linear layer 'q_prj' inside this llama; did you mean 'q_proj'\?.*o_proj"
    ):
        build("decoder", targets=("q_prj",))
    with pytest.raises(BadInputError, match=r"no linear layer 'lm_head'"):
        build("t5", targets=("lm_head",))


def test_no_targets_at_all_are_refused():
    with pytest.raises(ValidationError, match=r"targets\n.*at least 1 item"):
        LoRA(targets=())


def test_an_architecture_without_default_targets_asks_for_them():
    model = random_t5(T5, vocabulary=50, seed=0)
    model.config.model_type = "novel"
    with pytest.raises(BadInputError, match=r"no default for the architecture 'novel'.* Known: q, k, v, o"):
        add_adapters(model, LoRA(), seed=0)


def test_without_peft_the_install_line_is_named(monkeypatch):
    real = builtins.__import__

    def without_peft(name, *args, **kwargs):
        if name.partition(".")[0] == "peft":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without_peft)
    with pytest.raises(MissingExtraError, match=r"backbone\.lora needs peft.*pip install 'gensr\[lora\]'"):
        build("t5")
