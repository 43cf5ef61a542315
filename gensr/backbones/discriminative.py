"""A shared encoder with task-specific heads: the discriminative paradigm (GenSR, Figure 1(a) and eq. 1).

It reads the very prompts that `T5Backbone` reads, with the same encoder, and differs in the answer alone: no decoder
and no vocabulary, but one small network a task. Swapping one for the other changes the paradigm, not the reader.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor, nn

from gensr.backbones.config import DiscriminativeConfig, T5Sizes
from gensr.backbones.lora import add_adapters
from gensr.backbones.pretrained import load_t5
from gensr.backbones.t5 import T5Reader, T5State, random_t5
from gensr.backbones.tokenizer import train_tokenizer
from gensr.data.tasks import Task


class DiscriminativeBackbone(T5Reader):
    """A T5 encoder; the mean over a candidate's block goes through the head of the request's task.

    Args:
        model: transformers ``T5EncoderModel``.
        tokenizer: its tokenizer; padding must have id 0.
        dropout: of a head's hidden layer, in training.

    Raises:
        BadInputError: the tokenizer pads with another id.
    """

    def __init__(self, model: Any, tokenizer: Any, *, dropout: float = 0.1) -> None:
        super().__init__(model, tokenizer)
        self.heads = nn.ModuleDict({task.label: task_head(self.width, dropout) for task in Task})

    def _at_answer(self, state: T5State, final: Tensor) -> Tensor:
        # The mean of a block's real tokens; no one of them is the answer's.
        real = state.prompt.block_mask.to(final.dtype)[:, None, :, None]  # [B, 1, T, 1]
        return (final * real).sum(2) / real.sum(2).clamp(min=1)

    def answer(self, hidden: Tensor, task: Tensor) -> Tensor:
        """Logit of the task's head, float32 [B, C]; see `Backbone.answer`."""
        with torch.autocast(hidden.device.type, enabled=False):
            states = hidden.float()
            # Every head reads every row: they are small beside the encoder, and no head is ever without a gradient.
            margins = torch.stack([self.heads[kind.label](states).squeeze(-1) for kind in Task])  # [tasks, B, C]
        mine = task == torch.tensor([int(kind) for kind in Task], device=task.device).unsqueeze(1)  # [tasks, B]
        return torch.where(mine.unsqueeze(-1), margins, 0.0).sum(0)

    def cast(self, dtype: torch.dtype) -> None:
        """See `Backbone.cast`; the heads keep their digits, or close candidates would tie."""
        self.model.to(dtype)


def task_head(width: int, dropout: float) -> nn.Sequential:
    """A task's own network: [..., width] -> logit [..., 1]."""
    return nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Dropout(dropout), nn.Linear(width, 1))


def build_discriminative(config: DiscriminativeConfig, *, texts: Iterable[str], seed: int) -> DiscriminativeBackbone:
    """The encoder of a pretrained T5, or a random one with a tokenizer trained on `texts`; the heads are random.

    Raises:
        BadInputError: the pretrained model cannot be read, or is no T5; a wrong adapter target.
        MissingExtraError: adapters are wanted without peft.
    """
    if config.pretrained is not None:
        model, tokenizer = load_t5(config.pretrained, transformers.T5EncoderModel)
    else:
        sizes = config.scratch or T5Sizes()
        tokenizer = train_tokenizer(texts, vocabulary=sizes.vocabulary, answers=("Yes", "No"))
        model = _random_encoder(sizes, vocabulary=len(tokenizer), seed=seed)
    if config.lora is not None:
        add_adapters(model, config.lora, seed=seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return DiscriminativeBackbone(model, tokenizer, dropout=config.dropout)


def open_discriminative(config: DiscriminativeConfig, folder: Path) -> DiscriminativeBackbone:
    """The architecture and tokenizer that `DiscriminativeBackbone.save` wrote; weights are uninitialised."""
    model = transformers.T5EncoderModel(transformers.T5Config.from_pretrained(folder))
    if config.lora is not None:
        add_adapters(model, config.lora, seed=0)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    return DiscriminativeBackbone(model, tokenizer, dropout=config.dropout)


def _random_encoder(sizes: T5Sizes, *, vocabulary: int, seed: int) -> Any:
    # The encoder of the T5 that these sizes and this seed give, so that both paradigms start with one reader.
    whole = random_t5(sizes, vocabulary=vocabulary, seed=seed)
    with torch.random.fork_rng(devices=[]):
        model = transformers.T5EncoderModel(whole.config)
    model.load_state_dict(
        {name: value for name, value in whole.state_dict().items() if name.startswith(("shared.", "encoder."))}
    )
    return model
