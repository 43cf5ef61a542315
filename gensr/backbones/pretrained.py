"""Reading published language models: hub name, local folder or GGUF file, and refusing what is none."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from gensr.errors import BadInputError, GensrError, MissingExtraError


def load_t5(name: str, loader: Any) -> tuple[Any, Any]:
    """A T5's model and tokenizer, in float32.

    Args:
        name: hub name or local folder.
        loader: the transformers class whose ``from_pretrained`` reads the model.

    Raises:
        BadInputError: it cannot be read, is no T5, or lacks weights that `loader` wants.
    """
    try:
        architecture = transformers.AutoConfig.from_pretrained(name)
        if architecture.model_type not in ("t5", "mt5"):
            raise BadInputError(f"backbone.pretrained: {name!r} is a {architecture.model_type}, expected a t5")
        model, report = loader.from_pretrained(name, dtype=torch.float32, output_loading_info=True)
        missing = sorted(report["missing_keys"])
        if missing:  # transformers would leave them random and warn
            raise BadInputError(
                f"backbone.pretrained: {name!r} is no whole {architecture.model_type}: it lacks the weights "
                f"{', '.join(missing[:3])}. Expected encoder, decoder and head; backbone 'discriminative' needs the "
                "encoder alone"
            )
        tokenizer = transformers.AutoTokenizer.from_pretrained(name)
    except (GensrError, MemoryError):
        raise
    except Exception as error:  # safetensors and pickle have kinds of their own for damaged weights, tokenizers none
        raise BadInputError(
            f"backbone.pretrained: cannot load {name!r} (a hub name needs the network or a local cache; a local folder "
            f"needs config.json, weights and tokenizer files, all whole): {type(error).__name__}: {error}"
        ) from None
    return model, tokenizer


def load_decoder(name: str) -> tuple[Any, Any]:
    """A causal language model and its tokenizer, in float32.

    Args:
        name: hub name or local folder; or a folder (or hub name), a slash, and the name of a ``.gguf`` file in it.

    Raises:
        BadInputError: it cannot be read, or is no causal language model.
        MissingExtraError: a GGUF file is to be read and gguf is not installed.
    """
    place, source = name, {}
    if name.lower().endswith(".gguf"):
        if find_spec("gguf") is None:
            raise MissingExtraError("gguf", "gguf", "reading a GGUF file")
        path = Path(name)
        if not path.is_file() and (path.is_absolute() or path.parent.is_dir()):
            raise BadInputError(f"backbone.pretrained: there is no file {name!r}")
        place, _, file = name.rpartition("/")
        place, source = place or ".", {"gguf_file": file}
    try:
        architecture = transformers.AutoConfig.from_pretrained(place, **source)
        kind = architecture.model_type
        if kind not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
            raise _no_language_model(name, f"its architecture is {kind!r}")
        model, report = transformers.AutoModelForCausalLM.from_pretrained(
            place, config=architecture, dtype=torch.float32, output_loading_info=True, **source
        )
        missing = sorted(report["missing_keys"])
        if missing:
            raise _no_language_model(
                name, f"it lacks the weights {', '.join(missing[:3])} of a {kind} that writes text"
            )
        if model.get_output_embeddings().weight is not model.get_input_embeddings().weight:
            # A config may tie two weights that differ in the file: the file wins, here and when a run is reopened.
            model.config.tie_word_embeddings = False
        tokenizer = transformers.AutoTokenizer.from_pretrained(place, **source)
        if source and hasattr(model.config, "quantization_config"):
            del model.config.quantization_config  # its weights are plain float32 now, and so will the saved ones be
    except (GensrError, MemoryError):
        raise
    except Exception as error:  # safetensors, gguf and pickle have kinds of their own for damaged files
        raise BadInputError(
            f"backbone.pretrained: cannot load {name!r} as a causal language model (a hub name needs the network or a "
            "local cache; a local folder needs config.json, weights and tokenizer files, all whole; a GGUF file must "
            f"hold a language model of an architecture that transformers reads): {type(error).__name__}: {error}"
        ) from None
    return model, tokenizer


def _no_language_model(name: str, reason: str) -> BadInputError:
    return BadInputError(
        f"backbone.pretrained: {name!r} is not a causal language model: {reason}. Expected one that predicts the next "
        "token, such as a llama, gpt2 or qwen2; a T5 is backbone 't5'"
    )
