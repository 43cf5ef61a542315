"""What every backbone is: a language model that reads a prompt with vectors in it and answers Yes or No."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gensr.errors import BadInputError

Function = Callable[..., Any]
KeyValue = tuple[Tensor, Tensor]


class Prompt(NamedTuple):
    """B prompts, at least one: a prefix read once per request, and a block read once per candidate.

    Attributes:
        prefix: int64 [B, P] token ids, padded on the left with 0; P may be 0.
        prefix_mask: bool [B, P], True where `prefix` is not 0.
        block: int64 [B, T] token ids (0 where a vector stands), padded on the right.
        slot: int64 [B, T] which vector stands here, -1 for text.
        block_mask: bool [B, T].
        task: int64 [B] task codes.
    """

    prefix: Tensor
    prefix_mask: Tensor
    block: Tensor
    slot: Tensor
    block_mask: Tensor
    task: Tensor

    def select(self, rows: Tensor) -> Prompt:
        """The prompts `rows` [n], their blocks cut to the longest of them."""
        chosen = Prompt(*(value.index_select(0, rows) for value in self))
        length = int(chosen.block_mask.sum(1).max())
        return chosen._replace(
            block=chosen.block[:, :length], slot=chosen.slot[:, :length], block_mask=chosen.block_mask[:, :length]
        )


class Backbone(nn.Module, ABC):
    """A language model behind the four calls a ranker needs. It never generates: one answer position, two head rows.

    Token ids are the backbone's own numbering, in which 0 is padding and nothing else.
    """

    width: int
    """D, width of token embeddings and slots."""
    yes: int
    """Row of `logits` that holds the positive answer; only where there is a vocabulary."""
    no: int
    """Row of `logits` that holds the negative answer; only where there is a vocabulary."""
    checkpointing: bool = False
    """Whether the backward pass recomputes the layers' activations instead of keeping them: less memory, more time."""

    @abstractmethod
    def tokenize(self, texts: Sequence[str], length: int) -> Tensor:
        """Token ids without special tokens, int64 [n, length], cut at `length`, padded on the right with 0."""

    @abstractmethod
    def embed(self, ids: Tensor) -> Tensor:
        """Token embeddings of ids [...] -> [..., D]."""

    @abstractmethod
    def encode(self, prompt: Prompt) -> Any:
        """Read the part of the prompts that all candidates of a request share."""

    @abstractmethod
    def hidden(self, state: Any, slots: Tensor) -> Tensor:
        """Hidden state at the answer position, [B, C, D], of blocks with the vectors `slots` [B, C, S, D]."""

    @abstractmethod
    def answer(self, hidden: Tensor, task: Tensor) -> Tensor:
        """logit(Yes) - logit(No), float32 [B, C], of hidden states [B, C, D] of requests of `task` [B]."""

    def logits(self, hidden: Tensor) -> Tensor:
        """Logits of the whole vocabulary at the answer position, float32 [..., V], of hidden states [..., D] (eq. 9).

        Raises:
            BadInputError: the backbone answers without a vocabulary.
        """
        raise BadInputError(
            f"{type(self).__name__} answers with a number, not with a token: it has no vocabulary to take logits over"
        )

    def cast(self, dtype: torch.dtype) -> None:
        """Cast the language model's weights, for serving; slots come and margins leave in float32 as before."""
        self.to(dtype)

    def compile_with(self, compiler: Callable[[Function], Function]) -> None:
        """From now on, run the functions in which the time goes as `compiler` returns them (`torch.compile`, say).

        Raises:
            BadInputError: there is nothing to compile.
        """
        raise BadInputError(f"{type(self).__name__} holds nothing that could be compiled")

    @property
    @abstractmethod
    def embedding_rms(self) -> float:
        """Root mean square of the token embeddings: the scale a vector in their place should start with."""

    @abstractmethod
    def save(self, folder: Path) -> None:
        """Write architecture and tokenizer (not weights) to `folder`, for `BackboneConfig.open`."""


def head_logits(hidden: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """A head in float32, whatever the precision around: hidden [..., D], weight [V, D], bias [V] -> [..., V]."""
    with torch.autocast(hidden.device.type, enabled=False):
        return F.linear(hidden.float(), weight.float(), None if bias is None else bias.float())


def head_margin(hidden: Tensor, yes: int, no: int, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """``logits[yes] - logits[no]`` of `head_logits` from two of its rows alone, float32 [...]."""
    # The difference of the rows before the product: two nearly equal logits would lose its last digits.
    row = (weight[yes].float() - weight[no].float()).unsqueeze(0)
    shift = None if bias is None else (bias[yes].float() - bias[no].float()).unsqueeze(0)
    return head_logits(hidden, row, shift).squeeze(-1)
