"""Item text as a pretrained sentence model sees it: encoded once for the catalogue, on demand for what comes later."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gensr.encoders.semantic.table import FrozenTableEncoder, TextTable
from gensr.errors import BadInputError

MODEL = "model"


class SentenceModel:
    """A sentence-transformers model, loaded when it is first needed.

    Args:
        source: hub name or local folder.
        batch_size: texts encoded at once.
        normalise: scale vectors to length 1.
    """

    def __init__(self, source: str, *, batch_size: int, normalise: bool) -> None:
        self.source, self.batch_size, self.normalise = source, batch_size, normalise

    @cached_property
    def model(self) -> Any:
        """The library's model.

        Raises:
            BadInputError: it cannot be loaded.
        """
        return load_model(self.source)

    def encode(self, texts: Sequence[str], device: torch.device | str, *, progress: bool = False) -> Tensor:
        """Vectors float32 [n, d] of texts on the CPU, n > 0; of a text without words zeros, not the model's idea of it.

        Args:
            texts: what to encode, as documents where the model tells those from queries.
            device: where to compute.
            progress: show the library's bar on stderr, where that is a terminal.
        """
        vectors = self.model.encode_document(
            list(texts),
            batch_size=self.batch_size,
            normalize_embeddings=self.normalise,
            device=str(device),
            convert_to_numpy=True,  # its tensors are of inference mode, which training may not touch
            show_progress_bar=progress and sys.stderr.isatty(),
        )
        real = torch.tensor([bool(text.strip()) for text in texts])
        return torch.from_numpy(np.asarray(vectors, np.float32)) * real.unsqueeze(1)


class SentenceEncoder(FrozenTableEncoder):
    """The catalogue's vectors by a sentence model, and the model for new text.

    Args:
        table: the catalogue's vectors.
        model: what encoded them.
        keep_model: copy the model where the encoder is saved.
    """

    def __init__(self, table: TextTable, model: SentenceModel, *, keep_model: bool) -> None:
        super().__init__(table, model.encode)
        self.model, self.keep_model = model, keep_model

    def save(self, folder: Path) -> None:
        """Write the table and, where it is to be kept, the model."""
        super().save(folder)
        if self.keep_model:
            with _quiet():
                self.model.model.save_pretrained(str(folder / MODEL), create_model_card=False)


def encode_catalogue(model: SentenceModel, texts: Sequence[str], *, device: str, progress: bool) -> TextTable:
    """The table of item texts by row [I+1], row 0 empty."""
    return TextTable(model.encode(texts, device, progress=progress), {})


def load_model(source: str) -> Any:
    """The sentence-transformers model of that name or folder, on the CPU.

    Raises:
        BadInputError: it cannot be loaded; says why, and what was expected.
    """
    from sentence_transformers import SentenceTransformer

    try:
        with _quiet():
            return SentenceTransformer(source, device="cpu")
    except Exception as error:  # missing, damaged, no network, no such kind of model: each library has its own
        reason = f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else 'no reason'}"
        raise BadInputError(
            f"the sentence model {source!r} cannot be loaded ({reason}). Expected the name of a sentence-transformers "
            "model on the hub, reachable or downloaded before, such as 'sentence-transformers/all-MiniLM-L6-v2', or a "
            "folder with one, relative to the working directory"
        ) from error


def hash_folder(folder: Path) -> str:
    """sha256 of the names and contents of all files in a folder, hidden ones apart."""
    whole = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        if path.is_file() and not any(part.startswith(".") for part in name.parts):
            whole.update(f"{name.as_posix()}|{path.stat().st_size}|".encode())
            with path.open("rb") as file:
                whole.update(hashlib.file_digest(file, "sha256").digest())
    return whole.hexdigest()


@contextmanager
def _quiet() -> Iterator[None]:
    """Off a terminal, no bars for loading and writing weights, which transformers shows by default."""
    from transformers.utils import logging

    if sys.stderr.isatty() or not logging.is_progress_bar_enabled():
        yield
        return
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.enable_progress_bar()
