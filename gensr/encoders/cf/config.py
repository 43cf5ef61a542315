"""The `cf` kind: where collaborative vectors come from."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from gensr.registry import ComponentConfig, Registry

if TYPE_CHECKING:
    from collections.abc import Sequence

    import scipy.sparse

    from gensr.encoders.cf.table import CFTable


class CFConfig(ComponentConfig):
    """Base of collaborative-filtering sources: item (and user) vectors from who interacted with what."""

    fitted: ClassVar[bool] = True
    """Whether the vectors come from the interactions. Where not, there is nothing to fit by fold."""

    def identity(self) -> str:
        """What the table depends on beside the options and the interactions: a hash of the files it reads."""
        return ""

    def table(
        self,
        user_items: scipy.sparse.csr_matrix,
        *,
        user_ids: Sequence[str],
        item_ids: Sequence[str],
        seed: int,
        device: str = "cpu",
        progress: bool = False,
    ) -> CFTable:
        """Vectors for users and items known by raw ids; `fit`, unless the source brings ids of its own.

        Args:
            user_items: as in `fit`.
            user_ids: raw id by row [U+1], row 0 empty.
            item_ids: raw id by row [I+1], row 0 empty.
            seed: as in `fit`.
            device: as in `fit`.
            progress: as in `fit`.
        """
        return self.fit(user_items, seed=seed, device=device, progress=progress)

    def fit(
        self, user_items: scipy.sparse.csr_matrix, *, seed: int, device: str = "cpu", progress: bool = False
    ) -> CFTable:
        """Vectors from training interactions.

        Args:
            user_items: float32 [U+1, I+1], row and column 0 empty; training events only.
            seed: makes the result repeatable.
            device: where to compute, where the method can choose.
            progress: show progress on stderr.

        Returns:
            Float32 tables, row 0 zero, and zero in every row without an interaction.
        """
        raise NotImplementedError


CF_SOURCES = Registry("cf", CFConfig, builtins="gensr.encoders.cf.config")


@CF_SOURCES.register
class LightGCNConfig(CFConfig):
    """LightGCN: BPR over embeddings propagated on the interaction graph; the mean over layers is exported."""

    type: Literal["lightgcn"] = "lightgcn"
    reference = "He et al., SIGIR 2020, eq. 3-8 and 14; GenSR section 6.1.3"
    dim: PositiveInt = 64
    """Width of the vectors."""
    layers: NonNegativeInt = 2
    """Propagation steps K; the exported table is the mean of layers 0..K."""
    epochs: PositiveInt = 20
    """Passes over the interactions."""
    batch_size: PositiveInt = 8192
    """Most interactions per step, one uniform negative each; an epoch has at least 16 steps. A step costs the whole
    graph's propagation whatever its size, so large batches with a large step size get furthest in a given time: on
    Yelp (247,000 interactions) 30 s on two cores are 20 epochs, and item-item recall@5 .624 among 100 candidates;
    batches of 2048 at 1e-3, LightGCN's published setting, do 6 epochs, and .490, in that time."""
    learning_rate: PositiveFloat = 1e-2
    """Adam step size."""
    regularization: NonNegativeFloat = 1e-4
    """Weight of the squared layer-0 embeddings of a batch."""
    layer0: bool = False
    """Export the layer-0 table instead of the propagated mean, as the released GenSR code reads it."""

    def fit(
        self, user_items: scipy.sparse.csr_matrix, *, seed: int, device: str = "cpu", progress: bool = False
    ) -> CFTable:
        """See `CFConfig.fit`."""
        from gensr.encoders.cf.lightgcn import fit_lightgcn

        return fit_lightgcn(
            user_items,
            dim=self.dim,
            layers=self.layers,
            epochs=self.epochs,
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
            regularization=self.regularization,
            layer0=self.layer0,
            seed=seed,
            device=device,
            progress=progress,
        )


@CF_SOURCES.register
class ALSConfig(CFConfig):
    """Implicit-feedback alternating least squares, through the `implicit` library."""

    type: Literal["als"] = "als"
    reference = "Hu, Koren, Volinsky, ICDM 2008; Takacs et al., RecSys 2011"
    dim: PositiveInt = 64
    """Width of the vectors."""
    iterations: PositiveInt = 15
    """Alternations."""
    regularization: NonNegativeFloat = 0.01
    """Ridge weight."""
    alpha: PositiveFloat = 1.0
    """Confidence of an interaction."""
    threads: PositiveInt = 1
    """Threads; one makes the result repeatable."""

    def fit(
        self, user_items: scipy.sparse.csr_matrix, *, seed: int, device: str = "cpu", progress: bool = False
    ) -> CFTable:
        """See `CFConfig.fit`."""
        from gensr.encoders.cf.als import fit_als

        return fit_als(
            user_items,
            dim=self.dim,
            iterations=self.iterations,
            regularization=self.regularization,
            alpha=self.alpha,
            threads=self.threads,
            seed=seed,
            progress=progress,
        )
