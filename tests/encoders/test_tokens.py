import copy
import zlib

import pytest
import torch
from torch import nn

from gensr.encoders import TokenMeanEncoder
from gensr.encoders.semantic.config import SEMANTIC_ENCODERS

TEXTS = ["", "red shoe", "blue shoe", "", "red blue green hat with a brim"]


class FakeBackbone(nn.Module):
    """A word table: every word is the token its hash says."""

    width = 6

    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(50, self.width)

    def token(self, word):
        return 1 + zlib.crc32(word.encode()) % 49

    def tokenize(self, texts, length):
        ids = torch.zeros(len(texts), length, dtype=torch.int64)
        for row, text in enumerate(texts):
            words = text.split()[:length]
            ids[row, : len(words)] = torch.tensor([self.token(w) for w in words], dtype=torch.int64)
        return ids

    def embed(self, ids):
        return self.table(ids)


class Owner(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.backbone = FakeBackbone()
        self.text = TokenMeanEncoder(TEXTS, backbone=self.backbone, length=4)


def by_hand(backbone, text, length=4):
    words = text.split()[:length]
    if not words:
        return torch.zeros(backbone.width)
    return torch.stack([backbone.table.weight[backbone.token(w)] for w in words]).mean(0)


@pytest.mark.parametrize("grad", [True, False])
def test_an_items_vector_is_the_mean_over_its_tokens(grad):
    owner = Owner().train(grad)
    items = torch.tensor([[1, 4, 0], [3, 2, 1]])
    with torch.set_grad_enabled(grad):
        vectors = owner.text(items)
    assert vectors.shape == (2, 3, 6)
    for place in ((i, j) for i in range(2) for j in range(3)):
        torch.testing.assert_close(vectors[place], by_hand(owner.backbone, TEXTS[items[place]]))


def test_new_text_is_encoded_like_the_catalogues():
    owner = Owner().eval()
    torch.testing.assert_close(owner.text.encode_text(TEXTS), owner.text(torch.arange(len(TEXTS))))


def test_text_beyond_the_length_is_cut():
    owner = Owner()
    short, long = owner.text.encode_text(["a b c d", "a b c d e f"])
    assert torch.equal(short, long)


def test_no_text_gives_zeros():
    assert not Owner().text(torch.tensor([0, 3])).any()


def test_the_backbone_is_shared_and_not_registered_twice():
    owner = Owner()
    assert not list(owner.text.parameters())
    assert list(owner.state_dict()) == ["backbone.table.weight"]
    assert owner.text.width == owner.backbone.width


def test_gradients_reach_the_backbones_embeddings_once_per_use():
    owner = Owner()
    items = torch.tensor([1, 1, 2])
    owner.text(items).sum().backward()
    expected = torch.zeros(50, 6)
    for item in items:
        for word in TEXTS[item].split():
            expected[owner.backbone.token(word)] += 0.5
    torch.testing.assert_close(owner.backbone.table.weight.grad, expected)


@torch.no_grad()
def test_the_table_is_computed_once_and_dropped_by_training():
    owner = Owner().eval()
    items = torch.tensor([1, 2])
    before = owner.text(items)
    owner.backbone.table.weight.add_(1.0)
    assert torch.equal(owner.text(items), before)
    owner.eval()
    assert torch.equal(owner.text(items), before)
    owner.train().eval()
    torch.testing.assert_close(owner.text(items), before + 1)


@torch.no_grad()
def test_the_table_is_dropped_when_weights_are_loaded_or_on_request():
    owner = Owner().eval()
    items = torch.tensor([1, 2])
    before = owner.text(items)
    owner.load_state_dict({name: value + 1 for name, value in owner.state_dict().items()})
    torch.testing.assert_close(owner.text(items), before + 1)
    owner.backbone.table.weight.add_(1.0)
    owner.text.refresh()
    torch.testing.assert_close(owner.text(items), before + 2)


def test_eval_mode_with_gradients_does_not_read_the_table():
    owner = Owner().eval()
    with torch.inference_mode():
        owner.text(torch.tensor([1]))
    owner.text(torch.tensor([1])).sum().backward()
    assert owner.backbone.table.weight.grad.any()


def test_a_copy_uses_the_backbone_of_the_copy():
    owner = Owner().eval()
    twin = copy.deepcopy(owner)
    assert twin.text.backbone is twin.backbone
    with torch.no_grad():
        before = twin.text(torch.tensor([1]))
        twin.load_state_dict({name: value + 1 for name, value in owner.state_dict().items()})
        torch.testing.assert_close(twin.text(torch.tensor([1])), before + 1)


@pytest.mark.parametrize("name", SEMANTIC_ENCODERS.names())
def test_every_semantic_encoder_reads_catalogue_and_new_text_alike(name):
    encoder = SEMANTIC_ENCODERS.get(name)().build(texts=TEXTS, backbone=FakeBackbone()).eval()
    with torch.no_grad():
        vectors = encoder(torch.tensor([[1, 2], [4, 0]]))
        assert vectors.shape == (2, 2, encoder.width)
        torch.testing.assert_close(vectors[0], encoder.encode_text(TEXTS[1:3]))
