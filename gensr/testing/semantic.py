"""What every semantic encoder owes its users, as a pytest base class; and a sentence model small enough for a test."""

from __future__ import annotations

import string
import zlib
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import cast

import pytest
import torch
from torch import Tensor, nn

from gensr.backbones.base import Backbone
from gensr.encoders.semantic.base import SemanticEncoder
from gensr.encoders.semantic.config import SemanticConfig
from gensr.encoders.semantic.table import TextTable
from gensr.errors import BadInputError


class WordEmbeddings(nn.Module):
    """As much of a backbone as semantic encoders read: every word is the token that its hash says.

    Args:
        width: of the embeddings.
        vocabulary: tokens, the padding included.
    """

    def __init__(self, width: int = 6, vocabulary: int = 50) -> None:
        super().__init__()
        self.width = width
        self.table = nn.Embedding(vocabulary, width)

    def token(self, word: str) -> int:
        """The token of a word, never 0."""
        return 1 + zlib.crc32(word.encode()) % (self.table.num_embeddings - 1)

    def tokenize(self, texts: Sequence[str], length: int) -> Tensor:
        """See `Backbone.tokenize`."""
        ids = torch.zeros(len(texts), length, dtype=torch.int64)
        for row, text in enumerate(texts):
            words = text.split()[:length]
            ids[row, : len(words)] = torch.tensor([self.token(word) for word in words], dtype=torch.int64)
        return ids

    def embed(self, ids: Tensor) -> Tensor:
        """See `Backbone.embed`."""
        return cast(Tensor, self.table(ids))


def word_embeddings(seed: int = 0, width: int = 6) -> Backbone:
    """`WordEmbeddings` with seeded weights, where a backbone is expected."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return cast(Backbone, WordEmbeddings(width))


class SemanticContract:
    """Derive from it, return your config from `config`, and pytest does the rest.

    Example:
        >>> class TestMyEncoder(SemanticContract):
        ...     def config(self):
        ...         return MyEncoderConfig()
    """

    encodes_text: bool = True
    """Whether it reads texts that the catalogue lacks."""
    texts: tuple[str, ...] = (
        "",
        "red shoe",
        "blue shoe",
        "",
        "Größe 靴 обувь",
        "a red, blue and green hat with a brim",
    )
    """The catalogue: item text by row, row 0 empty. One item has no text."""

    def config(self) -> SemanticConfig:
        """The config under test, small enough for a second."""
        raise NotImplementedError

    @cached_property
    def backbone(self) -> Backbone:
        """The language model: see `WordEmbeddings`."""
        return word_embeddings()

    @cached_property
    def table(self) -> TextTable | None:
        """What the config computes ahead for `texts`; item ids are i1, i2, ..."""
        return self._table()

    def encoder(self) -> SemanticEncoder:
        """A new encoder, in eval mode."""
        return self.config().build(texts=self.texts, backbone=self.backbone, table=self.table).eval()

    @torch.no_grad()
    def test_every_item_has_a_vector_of_the_width_promised(self) -> None:
        """Float32 [..., width], finite, the item without text included."""
        encoder, items = self.encoder(), torch.tensor([[1, 2, 5], [4, 0, 3]])
        vectors = encoder(items)
        assert vectors.shape == (2, 3, encoder.width)
        assert vectors.dtype == torch.float32
        assert vectors.isfinite().all()
        assert torch.equal(vectors[0, 1], encoder(torch.tensor([2]))[0])

    @torch.no_grad()
    def test_the_padding_row_is_zero(self) -> None:
        """And rows with text are not."""
        vectors = self.encoder()(torch.tensor([0, 1, 2, 5]))
        assert not vectors[0].any()
        assert vectors[1:].any(dim=1).all()

    @torch.no_grad()
    def test_items_of_different_text_have_different_vectors(self) -> None:
        """The text is read."""
        one, other = self.encoder()(torch.tensor([1, 5]))
        assert not torch.allclose(one, other, atol=1e-3)

    @torch.no_grad()
    def test_new_text_is_encoded_like_the_catalogues(self) -> None:
        """An item unknown to the catalogue gets what it would have got, an item without text included."""
        encoder = self.encoder()
        if not self.encodes_text:
            with pytest.raises(BadInputError, match="cannot encode"):
                encoder.encode_text(["red shoe"])
            return
        expected = encoder(torch.arange(len(self.texts)))
        torch.testing.assert_close(encoder.encode_text(list(self.texts)), expected, atol=1e-5, rtol=1e-5)
        new = encoder.encode_text(["purple sandals", "", "   "])
        assert new.shape == (3, encoder.width)
        assert new.isfinite().all()

    @torch.no_grad()
    def test_no_texts_give_no_rows(self) -> None:
        """[0, width]."""
        encoder = self.encoder()
        assert encoder.encode_text([]).shape == (0, encoder.width)

    @torch.no_grad()
    def test_a_history_item_is_the_units_promised(self) -> None:
        """Parts [..., units, width] and bool [..., units]: at least one exists, and what does not exist is zero."""
        encoder, items = self.encoder(), torch.tensor([[1, 2, 5], [4, 0, 3]])
        vectors, real = encoder.parts(items)
        assert vectors.shape == (2, 3, encoder.units, encoder.width)
        assert real.shape == (2, 3, encoder.units)
        assert real.dtype == torch.bool
        assert real.any(dim=-1).all()
        assert not vectors[~real].any()
        if encoder.units == 1:
            assert torch.equal(vectors.squeeze(2), encoder(items))

    @torch.no_grad()
    def test_the_parts_of_new_text_are_those_of_an_item(self) -> None:
        """`text_parts` and `parts` agree."""
        encoder = self.encoder()
        if not self.encodes_text:
            pytest.skip("it reads the catalogue only")
        vectors, real = encoder.text_parts(list(self.texts))
        expected, expected_real = encoder.parts(torch.arange(len(self.texts)))
        torch.testing.assert_close(vectors, expected, atol=1e-5, rtol=1e-5)
        assert torch.equal(real, expected_real)

    @torch.no_grad()
    def test_one_seed_gives_one_table(self) -> None:
        """Bit for bit; or there is none."""
        one, other = self.table, self._table()
        assert (one is None) == (other is None)
        if one is not None and other is not None:
            assert torch.equal(one.items, other.items)
            assert one.state.keys() == other.state.keys()
            assert all(torch.equal(one.state[name], other.state[name]) for name in one.state)

    def test_a_table_without_a_seed_is_the_same_under_every_seed(self) -> None:
        """Seeds of a study share it: see `SemanticConfig.seeded`."""
        other = self._table(seed=1)
        if self.config().seeded or self.table is None or other is None:
            pytest.skip("its table, where it has one, may depend on the seed")
        assert torch.equal(self.table.items, other.items)

    def test_gradients_reach_what_is_trained_and_nothing_else(self) -> None:
        """An encoder without a table is trained through the backbone or by itself; one with a table is frozen."""
        encoder = self.encoder().train()
        vectors = encoder(torch.tensor([1, 2]))
        parts, _ = encoder.parts(torch.tensor([1, 2]))
        assert vectors.requires_grad == parts.requires_grad == (self.table is None)
        if vectors.requires_grad:
            (vectors.sum() + parts.sum()).backward()
            parameters = [*encoder.parameters(), *self.backbone.parameters()]
            assert any(p.grad is not None and bool(p.grad.any()) for p in parameters)

    @torch.no_grad()
    def test_it_comes_back_from_a_folder_as_it_was(self, tmp_path: Path) -> None:
        """`save`, `open` and the trained weights give the same vectors, of the catalogue and of new text."""
        encoder = self.encoder()
        encoder.save(tmp_path / "semantic")
        again = self.config().open(tmp_path / "semantic", texts=self.texts, backbone=self.backbone).eval()
        again.load_state_dict(encoder.state_dict())
        rows = torch.arange(len(self.texts))
        assert torch.equal(again(rows), encoder(rows))
        assert all(torch.equal(a, b) for a, b in zip(again.parts(rows), encoder.parts(rows), strict=True))
        if self.encodes_text:
            new = ["purple sandals", "", "red hat"]
            torch.testing.assert_close(again.encode_text(new), encoder.encode_text(new), atol=1e-6, rtol=1e-6)

    @torch.no_grad()
    def test_a_table_from_the_cache_is_as_good_as_a_new_one(self, tmp_path: Path) -> None:
        """What is computed ahead survives a safetensors file."""
        if self.table is None:
            pytest.skip("it computes nothing ahead")
        before = self.encoder()(torch.arange(len(self.texts)))
        self.table.save(tmp_path / "table.safetensors")
        table = TextTable.load(tmp_path / "table.safetensors")
        encoder = self.config().build(texts=self.texts, backbone=self.backbone, table=table)
        assert torch.equal(encoder(torch.arange(len(self.texts))), before)
        if self.encodes_text:
            torch.testing.assert_close(encoder.encode_text(list(self.texts)), before, atol=1e-5, rtol=1e-5)

    def _table(self, seed: int = 0) -> TextTable | None:
        ids = ["", *(f"i{row}" for row in range(1, len(self.texts)))]
        return self.config().table(self.texts, item_ids=ids, seed=seed)


def tiny_sentence_model(folder: Path, *, width: int = 16, seed: int = 0) -> Path:
    """Write a sentence-transformers model with random weights: one layer of BERT over letters, mean pooling.

    Args:
        folder: where to; the model stands in a folder of its own in it.
        width: of its vectors.
        seed: for the weights.

    Returns:
        The model's folder.
    """
    from sentence_transformers import SentenceTransformer
    from transformers import BertConfig, BertModel, BertTokenizerFast

    letters = string.ascii_lowercase + string.digits
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *(f"##{letter}" for letter in letters)]
    sizes = BertConfig(
        vocab_size=len(pieces),
        hidden_size=width,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=width,
        max_position_embeddings=64,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        BertModel(sizes).save_pretrained(folder / "bert")
    BertTokenizerFast(vocab={piece: row for row, piece in enumerate(pieces)}).save_pretrained(folder / "bert")
    # A plain language model becomes a sentence model by the library's own default, mean pooling.
    model = SentenceTransformer(str(folder / "bert"), device="cpu")
    model.save_pretrained(str(folder / "sentence"), create_model_card=False)
    return folder / "sentence"
