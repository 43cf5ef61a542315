"""The `semantic` kind: where text vectors of items come from."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import PositiveInt, model_validator

from gensr.registry import ComponentConfig, Registry

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from gensr.backbones.base import Backbone
    from gensr.encoders.semantic.base import SemanticEncoder
    from gensr.encoders.semantic.sentence import SentenceModel
    from gensr.encoders.semantic.table import TextTable


class SemanticConfig(ComponentConfig):
    """Base of semantic encoders: item vectors from item text."""

    seeded: ClassVar[bool] = True
    """Whether `table` depends on the seed. Where it does not, the seeds of a study share one table."""

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


class FrozenConfig(SemanticConfig):
    """Base of encoders whose vectors are `SemanticConfig.table` and nothing else: a run reopens from its own copy."""

    def open(self, folder: Path, *, texts: Sequence[str], backbone: Backbone) -> SemanticEncoder:
        """See `SemanticConfig.open`."""
        from gensr.encoders.semantic.table import FILE, TextTable

        return self.build(texts=texts, backbone=backbone, table=TextTable.load(folder / FILE))


SEMANTIC_ENCODERS = Registry("semantic", SemanticConfig, builtins="gensr.encoders.semantic.config")


@SEMANTIC_ENCODERS.register
class TokensConfig(SemanticConfig):
    """The backbone's own (trained) token embeddings of the item text: their mean, or in histories each by itself."""

    type: Literal["tokens"] = "tokens"
    reference = "GenSR section 4.1.1 and eq. 7; released code: mean title embedding, 10 tokens of a history item"
    length: PositiveInt = 24
    """Tokens read of an item's text; the rest is cut."""
    unit: Literal["item", "token"] = "item"
    """What one vector of a history stands for: an item, by the mean of its tokens, or a token, as in the released
    code. A candidate is a mean either way. With tokens the history encoder and the soft filter read `history_tokens`
    times as many vectors."""
    history_tokens: PositiveInt = 10
    """Tokens read of a history item, at most `length`; only with the unit `token`."""

    @model_validator(mode="after")
    def _history_is_read_from_the_text(self) -> TokensConfig:
        if self.unit == "token" and self.history_tokens > self.length:
            raise ValueError(f"history_tokens={self.history_tokens} is more than length={self.length}, which is read")
        return self

    def build(self, *, texts: Sequence[str], backbone: Backbone, table: TextTable | None = None) -> SemanticEncoder:
        """See `SemanticConfig.build`."""
        from gensr.encoders.semantic.tokens import TokenLevelEncoder, TokenMeanEncoder

        if self.unit == "item":
            return TokenMeanEncoder(texts, backbone=backbone, length=self.length)
        return TokenLevelEncoder(texts, backbone=backbone, length=self.length, history_tokens=self.history_tokens)


@SEMANTIC_ENCODERS.register
class SentenceConfig(SemanticConfig):
    """A pretrained sentence model, frozen: any that sentence-transformers loads. The catalogue is encoded once."""

    type: Literal["sentence"] = "sentence"
    reference = "Reimers and Gurevych, EMNLP 2019"
    seeded = False
    model: str = "sentence-transformers/all-MiniLM-L6-v2"
    """Hub name, or a local folder (a relative one starts at the working directory, not at the spec's folder)."""
    batch_size: PositiveInt = 64
    """Texts encoded at once."""
    normalise: bool = True
    """Scale vectors to length 1."""
    keep_model: bool = True
    """Copy the model into the run, so that the run encodes new text wherever it is; otherwise it is loaded from where
    it came."""

    def identity(self) -> str:
        """See `SemanticConfig.identity`: a hash of a local folder; what a hub name holds is taken to stay the same."""
        from pathlib import Path

        from gensr.encoders.semantic.sentence import hash_folder

        folder = Path(self.model)
        return hash_folder(folder) if folder.is_dir() else ""

    def table(
        self,
        texts: Sequence[str],
        *,
        item_ids: Sequence[str],
        seed: int,
        device: str = "cpu",
        progress: bool = False,
    ) -> TextTable:
        """See `SemanticConfig.table`."""
        from gensr.encoders.semantic.sentence import encode_catalogue

        return encode_catalogue(self._source(self.model), texts, device=device, progress=progress)

    def build(self, *, texts: Sequence[str], backbone: Backbone, table: TextTable | None = None) -> SemanticEncoder:
        """See `SemanticConfig.build`."""
        from gensr.encoders.semantic.sentence import SentenceEncoder
        from gensr.encoders.semantic.table import require_table

        found = require_table(table, self.type)
        return SentenceEncoder(found, self._source(self.model), keep_model=self.keep_model)

    def open(self, folder: Path, *, texts: Sequence[str], backbone: Backbone) -> SemanticEncoder:
        """See `SemanticConfig.open`."""
        from gensr.encoders.semantic.sentence import MODEL, SentenceEncoder
        from gensr.encoders.semantic.table import FILE, TextTable

        source = str(folder / MODEL) if self.keep_model else self.model
        return SentenceEncoder(TextTable.load(folder / FILE), self._source(source), keep_model=self.keep_model)

    def _source(self, source: str) -> SentenceModel:
        from gensr.encoders.semantic.sentence import SentenceModel

        return SentenceModel(source, batch_size=self.batch_size, normalise=self.normalise)


@SEMANTIC_ENCODERS.register
class TfidfConfig(FrozenConfig):
    """The control without a model: tf-idf of hashed words, reduced by a truncated SVD (latent semantic analysis)."""

    type: Literal["tfidf"] = "tfidf"
    reference = "Deerwester et al., JASIS 1990; Salton and Buckley, IPM 1988"
    dim: PositiveInt = 64
    """Width of the vectors; columns beyond what the catalogue has words or items for are zero."""

    def table(
        self,
        texts: Sequence[str],
        *,
        item_ids: Sequence[str],
        seed: int,
        device: str = "cpu",
        progress: bool = False,
    ) -> TextTable:
        """See `SemanticConfig.table`."""
        from gensr.encoders.semantic.tfidf import fit_tfidf

        return fit_tfidf(texts, dim=self.dim, seed=seed)

    def build(self, *, texts: Sequence[str], backbone: Backbone, table: TextTable | None = None) -> SemanticEncoder:
        """See `SemanticConfig.build`."""
        from gensr.encoders.semantic.table import FrozenTableEncoder, require_table
        from gensr.encoders.semantic.tfidf import encode_tfidf

        found = require_table(table, self.type)
        return FrozenTableEncoder(found, lambda texts, device: encode_tfidf(texts, found.state))


@SEMANTIC_ENCODERS.register
class TextFileConfig(FrozenConfig):
    """Vectors of item texts computed elsewhere, from a file. New item text cannot be encoded."""

    type: Literal["file"] = "file"
    seeded = False
    path: str
    """A .npy, .safetensors or torch checkpoint file (.pt, .pth, .pth.tar, .bin; pickled code in it is never run). A
    relative path starts at the working directory, not at the spec's folder."""
    key: str | None = None
    """Name of the table in a file that holds several."""
    ids: str | None = None
    """A text file of raw item ids, one a line, in the order of the table's rows. Without it the rows are the
    catalogue's, in its order, with or without a row of padding in front."""
    missing: Literal["refuse", "zero"] = "refuse"
    """What becomes of items that `ids` lacks: an error, or a vector of zeros."""

    def identity(self) -> str:
        """See `SemanticConfig.identity`."""
        from gensr.encoders.tables import hash_files

        return hash_files(self.path, self.ids)

    def table(
        self,
        texts: Sequence[str],
        *,
        item_ids: Sequence[str],
        seed: int,
        device: str = "cpu",
        progress: bool = False,
    ) -> TextTable:
        """See `SemanticConfig.table`."""
        from gensr.encoders.semantic.file import read_text_table

        return read_text_table(self, item_ids)

    def build(self, *, texts: Sequence[str], backbone: Backbone, table: TextTable | None = None) -> SemanticEncoder:
        """See `SemanticConfig.build`."""
        from gensr.encoders.semantic.file import refuse_text
        from gensr.encoders.semantic.table import FrozenTableEncoder, require_table

        return FrozenTableEncoder(require_table(table, self.type), refuse_text)
