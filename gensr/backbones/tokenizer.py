"""A small tokenizer for models trained from scratch, and the checks every tokenizer must pass."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from gensr.errors import BadInputError

PAD, EOS, UNKNOWN = "<pad>", "</s>", "<unk>"


def train_tokenizer(texts: Iterable[str], *, vocabulary: int, answers: Sequence[str]) -> Any:
    """A lower-casing BPE tokenizer over `texts`, as a transformers fast tokenizer.

    Lower-casing lets a query meet the words of a title or category. The answers are special tokens, so that each is one
    token whatever the texts hold; padding has id 0.
    """
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE(unk_token=UNKNOWN))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Punctuation(), pre_tokenizers.Digits(individual_digits=False), pre_tokenizers.Metaspace()]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[PAD, EOS, UNKNOWN, *answers],
        show_progress=False,
        limit_alphabet=500,
    )
    tokenizer.train_from_iterator(texts, trainer=trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token=PAD, eos_token=EOS, unk_token=UNKNOWN)


def tokenize(tokenizer: Any, texts: Sequence[str], length: int, *, first: int = 0) -> Tensor:
    """Ids without special tokens, int64 [n, length], cut at `length`, padded on the right with 0.

    Args:
        tokenizer: a transformers tokenizer.
        texts: n texts.
        length: most tokens of a text.
        first: what the tokenizer's id 0 becomes, and the others after it: 1 where 0 is a real token.
    """
    ids = torch.zeros(len(texts), length, dtype=torch.int64)
    if len(texts):
        rows = tokenizer(list(texts), add_special_tokens=False, truncation=True, max_length=length)["input_ids"]
        for row, tokens in enumerate(rows):
            ids[row, : len(tokens)] = torch.tensor(tokens, dtype=torch.int64) + first
    return ids


def answer_ids(tokenizer: Any, answers: Sequence[str]) -> tuple[int, int]:
    """Token ids of the positive and the negative answer.

    Raises:
        BadInputError: an answer is not exactly one known token, or both are the same.
    """
    ids = []
    for answer in answers:
        tokens = tokenizer(answer, add_special_tokens=False)["input_ids"]
        if len(tokens) != 1 or tokens[0] == tokenizer.unk_token_id:
            pieces = tokenizer.convert_ids_to_tokens(tokens)
            raise BadInputError(
                f"backbone.answers: {answer!r} is {len(tokens)} tokens for this tokenizer ({pieces}); each answer must "
                "be exactly one known token, such as 'Yes' or, where the tokenizer keeps a word's space, ' Yes'"
            )
        ids.append(int(tokens[0]))
    if ids[0] == ids[1]:
        raise BadInputError(f"backbone.answers: {answers[0]!r} and {answers[1]!r} are the same token; they must differ")
    return ids[0], ids[1]
