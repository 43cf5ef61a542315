"""The `semantic` kind: where text vectors of items come from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import PositiveInt

from gensr.registry import ComponentConfig, Registry

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from gensr.backbones.base import Backbone
    from gensr.encoders.semantic.base import SemanticEncoder
    from gensr.encoders.semantic.table import TextTable


class SemanticConfig(ComponentConfig):
    """Base of semantic encoders: item vectors from item text."""

    def identity(self) -> str:
        """What `table` depends on beside the options and the texts: a hash of the files it reads."""
        return ""

    def table(
        self,
        texts: Sequence[str],
        *,
        item_ids: Sequence[str],
        seed: int,
        device: str = "cpu",
        progress: bool = False,
    ) -> TextTable | None:
        """The catalogue's frozen vectors, computed once and cached; None for encoders that are trained.

        Args:
            texts: item texts by row [I+1], row 0 empty.
            item_ids: raw id by row [I+1], row 0 empty.
            seed: makes the result repeatable.
            device: where to compute, where the method can choose.
            progress: show progress on stderr.
        """
        return None

    def build(self, *, texts: Sequence[str], backbone: Backbone, table: TextTable | None = None) -> SemanticEncoder:
        """A new encoder.

        Args:
            texts: item texts by row, row 0 empty.
            backbone: the language model; supplies tokenizer and token embeddings.
            table: what `table` gave.
        """
        raise NotImplementedError

    def open(self, folder: Path, *, texts: Sequence[str], backbone: Backbone) -> SemanticEncoder:
        """The encoder that `SemanticEncoder.save` wrote to `folder`; trained weights are loaded by the caller."""
        return self.build(texts=texts, backbone=backbone)


SEMANTIC_ENCODERS = Registry("semantic", SemanticConfig, builtins="gensr.encoders.semantic.config")


@SEMANTIC_ENCODERS.register
class TokensConfig(SemanticConfig):
    """Mean of the backbone's own (trained) token embeddings of the item text."""

    type: Literal["tokens"] = "tokens"
    reference = "GenSR section 4.1.1 and eq. 7; released code, mean title embedding"
    length: PositiveInt = 24
    """Tokens read of an item's text; the rest is cut."""

    def build(self, *, texts: Sequence[str], backbone: Backbone, table: TextTable | None = None) -> SemanticEncoder:
        """See `SemanticConfig.build`."""
        from gensr.encoders.semantic.tokens import TokenMeanEncoder

        return TokenMeanEncoder(texts, backbone=backbone, length=self.length)
