import copy

import pytest
import torch
from torch import nn

from gensr.encoders import TokenLevelEncoder, TokenMeanEncoder
from gensr.encoders.semantic.config import TokensConfig
from gensr.testing.semantic import WordEmbeddings

TEXTS = ["", "red shoe", "blue shoe", "", "red blue green hat with a brim"]


class Owner(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.backbone = WordEmbeddings()
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


# Token level


def token_level(owner, history_tokens=3):
    return TokenLevelEncoder(TEXTS, backbone=owner.backbone, length=4, history_tokens=history_tokens)


@torch.no_grad()
def test_a_history_item_is_the_embeddings_of_its_first_tokens():
    owner = Owner()
    items = torch.tensor([[2, 4], [1, 2]])
    vectors, real = token_level(owner).parts(items)
    assert vectors.shape == (2, 2, 3, 6)
    for place in ((i, j) for i in range(2) for j in range(2)):
        words = TEXTS[items[place]].split()[:3]
        tokens = torch.tensor([owner.backbone.token(word) for word in words])
        assert real[place].tolist() == [True] * len(words) + [False] * (3 - len(words))
        assert torch.equal(vectors[place][: len(words)], owner.backbone.table(tokens))
        assert not vectors[place][len(words) :].any()


@torch.no_grad()
def test_an_item_without_tokens_keeps_one_zero_vector():
    vectors, real = token_level(Owner()).parts(torch.tensor([3]))
    assert real.tolist() == [[True, False, False]]
    assert not vectors.any()


@torch.no_grad()
def test_a_candidate_is_still_the_mean():
    owner = Owner().eval()
    items = torch.tensor([1, 4])
    torch.testing.assert_close(token_level(owner).eval()(items), owner.text(items))


def test_padding_tokens_get_no_gradient():
    owner = Owner()
    token_level(owner).parts(torch.tensor([1, 3]))[0].sum().backward()
    assert not owner.backbone.table.weight.grad[0].any()


def test_the_unit_is_an_option_and_history_tokens_must_be_read():
    backbone = WordEmbeddings()
    assert TokensConfig().build(texts=TEXTS, backbone=backbone).units == 1
    assert TokensConfig(unit="token").build(texts=TEXTS, backbone=backbone).units == 10
    assert TokensConfig(length=5).history_tokens == 10  # says nothing with the unit `item`
    with pytest.raises(ValueError, match="history_tokens=10 is more than length=5, which is read"):
        TokensConfig(unit="token", length=5)
