"""The no-model control among text encoders: which words a text has, in few dimensions (latent semantic analysis).

Words are known by a hash, so what encodes new text is a handful of tensors: no vocabulary of strings, no pickle.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from gensr.encoders.semantic.table import TextTable

FEATURES = 2**20
"""Hash values of words; to change it is to change every table, so it takes a new `revision` of the config."""
ALONE = "\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"
WORD = rf"[{ALONE}]|(?:(?![{ALONE}])\w)+"
"""Scripts written without spaces give a word for each character; the others, for each run of letters and digits."""
NOISE = 1e-5
"""A singular value below this share of the largest is rounding: its direction is arbitrary, and of new text only."""


def fit_tfidf(texts: Sequence[str], *, dim: int, seed: int = 0) -> TextTable:
    """Weigh the words of a catalogue and find its `dim` leading directions.

    A text is its counts of words times ``ln((1 + n) / (1 + df)) + 1``, scaled to length 1 (n texts, df of which have
    the word), projected on the right singular vectors of all of them (Deerwester et al., JASIS 1990).

    Args:
        texts: item texts by row, row 0 empty.
        dim: width of the vectors; columns beyond the rank of the catalogue are zero.
        seed: for the randomised decomposition (Halko et al., SIAM Review 2011).

    Returns:
        The table float32 [I+1, dim], with the state `encode_tfidf` reads: ``columns`` int64 [V] the hash values of the
        catalogue's words in ascending order, ``idf`` float32 [V], ``components`` float32 [dim, V].
    """
    from sklearn.utils.extmath import randomized_svd  # type: ignore[import-untyped]

    counts = _hashed(texts)
    columns = np.unique(counts.indices)
    counts = counts[:, columns]
    frequency = counts.getnnz(axis=0)
    documents = len(texts) - 1
    idf = (np.log((1 + documents) / (1 + frequency)) + 1).astype(np.float32)
    components = np.zeros((dim, len(columns)), np.float32)
    weighted = _weighted(counts, idf)
    rank = min(dim, len(columns), documents)
    if rank:
        _, sizes, directions = randomized_svd(weighted, n_components=rank, random_state=seed)
        components[:rank] = np.where(sizes[:, None] > NOISE * sizes[0], directions, 0.0)
    state = {"columns": torch.from_numpy(columns.astype(np.int64))}
    state |= {"idf": torch.from_numpy(idf), "components": torch.from_numpy(components)}
    return TextTable(_project(weighted, components), state)


def encode_tfidf(texts: Sequence[str], state: dict[str, Tensor]) -> Tensor:
    """Vectors float32 [n, dim] of texts by the `state` of `fit_tfidf`; words the catalogue lacks are not read."""
    columns, idf, components = (state[name].numpy() for name in ("columns", "idf", "components"))
    return _project(_weighted(_hashed(texts)[:, columns], idf), components)


def _hashed(texts: Sequence[str]) -> sp.csr_matrix:
    """Counts of hashed words, float32 [n, FEATURES]."""
    from sklearn.feature_extraction.text import HashingVectorizer  # type: ignore[import-untyped]

    vectorizer: Any = HashingVectorizer(
        n_features=FEATURES,
        alternate_sign=False,
        norm=None,
        preprocessor=_plain,
        token_pattern=WORD,
        dtype=np.float32,
    )
    return vectorizer.transform(texts)


def _plain(text: str) -> str:
    # One spelling for what looks the same: composed or not, full width or not, upper case or not.
    return unicodedata.normalize("NFKC", text).casefold()


def _weighted(counts: sp.csr_matrix, idf: np.ndarray) -> sp.csr_matrix:
    weighted = (counts @ sp.diags(idf)).tocsr()
    lengths = np.sqrt(np.asarray(weighted.multiply(weighted).sum(axis=1)).ravel())
    return (sp.diags(np.divide(1, lengths, out=np.zeros_like(lengths), where=lengths > 0)) @ weighted).tocsr()


def _project(weighted: sp.csr_matrix, components: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(weighted @ components.T, dtype=np.float32))
