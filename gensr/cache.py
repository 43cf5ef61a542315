"""Results of stages that runs share: prepared data, CF and text tables, ranks of floors.

Each lies under the hash of exactly what it depends on, so the variants of a study compute it once. A lock makes a
second process wait for the first instead of doing the same work beside it.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gensr.files import locked, new_folder, traceless
from gensr.spec import DataSpec, PipelineSpec, fingerprint

if TYPE_CHECKING:
    from gensr.data.dataset import Dataset
    from gensr.data.log import EventLog
    from gensr.data.sources.config import SourceConfig
    from gensr.encoders.cf.config import CFConfig
    from gensr.encoders.cf.table import CFTable
    from gensr.encoders.semantic.config import SemanticConfig
    from gensr.encoders.semantic.table import TextTable
    from gensr.rankers.base import Resources
    from gensr.rankers.config import RankerConfig


class StageCache:
    """The cache of a root folder of runs.

    Args:
        folder: ``<root>/.cache``; made when something is kept.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def data(self, spec: DataSpec, *, progress: bool = False) -> Dataset:
        """The prepared data of `spec`.

        Raises:
            BadInputError: the source is bad; nothing is left behind.
        """
        from gensr.data.prepare import prepare

        path = self.data_path(spec)
        with self.alone(path):
            return prepare(spec, path, progress=progress, read=self.log)

    def log(self, source: SourceConfig) -> EventLog:
        """The log of `source`, read once: data prepared in several ways, or after an interruption, start from it.

        Raises:
            BadInputError: the source is bad; nothing is left behind.
        """
        from gensr.data.log import SCHEMA, EventLog

        if not type(source).slow:
            return source.read_parts(self.log)
        path = self._path("log", "", SCHEMA, source.type, type(source).revision, source.identity())
        with self.alone(path):
            if not path.exists():
                with new_folder(path) as folder:
                    source.read().save(folder)
            return EventLog.load(path)

    def data_path(self, spec: DataSpec) -> Path:
        """Where the prepared data of `spec` lie, or would."""
        from gensr.data.prepare import data_fingerprint

        return self.folder / f"data-{data_fingerprint(spec)[:16]}"

    def cf_table(
        self,
        config: CFConfig,
        dataset: Dataset,
        *,
        seed: int,
        fold: tuple[int, int] | None = None,
        device: str = "cpu",
        progress: bool = False,
    ) -> CFTable:
        """The table of `config`, fitted on the recommendation events of the training split.

        Args:
            config: the method.
            dataset: the prepared data.
            seed: for the fit.
            fold: ``(fold, folds)`` to leave one fold of the interactions out (see `gensr.encoders.cf.folds`).
            device: where to fit.
            progress: show progress.
        """
        from gensr.encoders.cf.folds import fit_table
        from gensr.encoders.cf.table import CFTable

        read = dataset.interactions_digest  # of the data only these: not candidates, nor histories
        key = (fingerprint(config), config.identity(), read, seed) + ((fold,) if fold else ())
        path = self._path("cf", ".safetensors", *key)
        with self.alone(path):
            if not path.exists():
                fit_table(config, dataset, seed=seed, fold=fold, device=device, progress=progress).save(path)
            return CFTable.load(path)

    def text_table(
        self,
        config: SemanticConfig,
        dataset: Dataset,
        *,
        seed: int,
        device: str = "cpu",
        progress: bool = False,
    ) -> TextTable | None:
        """The frozen vectors of `config` for the catalogue; None where there are none to compute ahead.

        Args:
            config: the method.
            dataset: the prepared data.
            seed: for the method.
            device: where to compute.
            progress: show progress.
        """
        from gensr.encoders.semantic.config import SemanticConfig
        from gensr.encoders.semantic.table import TextTable

        if type(config).table is SemanticConfig.table:
            return None
        catalogue = dataset.catalogue
        # Of the data only these: not candidates, nor histories.
        read = _digest([list(catalogue.item_ids), list(catalogue.text)])
        seeds = [seed] if type(config).seeded else []
        path = self._path("text", ".safetensors", fingerprint(config), config.identity(), read, *seeds)
        with self.alone(path):
            if not path.exists():
                table = config.table(
                    catalogue.text, item_ids=catalogue.item_ids, seed=seed, device=device, progress=progress
                )
                if table is None:
                    return None
                table.save(path)
            return TextTable.load(path)

    def resources(
        self, spec: PipelineSpec, dataset: Dataset, *, device: str = "cpu", progress: bool = False
    ) -> Resources:
        """What rankers are built from; CF tables come from this cache."""
        from gensr.rankers.base import Resources

        return Resources(
            dataset.catalogue,
            max_history=spec.data.max_history,
            seed=spec.seed,
            dataset=dataset,
            cf_table=lambda config, fold=None: self.cf_table(
                config, dataset, seed=spec.seed, fold=fold, device=device, progress=progress
            ),
            text_table=lambda config: self.text_table(
                config, dataset, seed=spec.seed, device=device, progress=progress
            ),
        )

    def ranks_path(self, floor: RankerConfig, dataset: Dataset, asked: list[Any]) -> Path:
        """Where the ranks of a floor on the requests that `asked` identifies are kept."""
        files = [identity] if (identity := floor.identity()) else []
        return self._path("ranks", ".npz", fingerprint(floor), dataset.fingerprint, asked, *files)

    @contextmanager
    def alone(self, path: Path) -> Iterator[None]:
        """Be the only process that makes `path`."""
        lock = path.with_name(f"{path.name}.lock")
        with traceless(self.folder, self.folder.parent), locked(lock):
            # What a killed process left under a temporary name.
            for left in [*self.folder.glob(f"{path.name}.tmp*"), *self.folder.glob(f".{path.name}.tmp*")]:
                shutil.rmtree(left) if left.is_dir() else left.unlink()
            try:
                yield
            finally:
                lock.unlink(missing_ok=True)

    def _path(self, stage: str, suffix: str, *inputs: Any) -> Path:
        return self.folder / f"{stage}-{_digest(inputs)[:16]}{suffix}"


def _digest(value: Any) -> str:
    """sha256 of the value as JSON."""
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()
