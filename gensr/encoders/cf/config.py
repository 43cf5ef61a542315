"""The `cf` kind: where collaborative vectors come from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

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
            Float32 tables, row 0 zero, and zero in every row without an interaction, unless it brings a vector from
            elsewhere.
        """
        raise NotImplementedError


CF_SOURCES = Registry("cf", CFConfig, builtins="gensr.encoders.cf.config")


@CF_SOURCES.register
class LightGCNConfig(CFConfig):
    """LightGCN: BPR over embeddings propagated on the interaction graph; the mean over layers is exported."""

    type: Literal["lightgcn"] = "lightgcn"
    reference = "He et al., SIGIR 2020, eq. 3-8 and 15; GenSR section 6.1.3"
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
    revision = 2
    reference = "Hu, Koren, Volinsky, ICDM 2008; Takacs et al., RecSys 2011"
    dim: PositiveInt = 64
    """Width of the vectors."""
    iterations: PositiveInt = 15
    """Alternations."""
    regularization: NonNegativeFloat = 0.01
    """Ridge weight."""
    alpha: PositiveFloat = 1.0
    """Confidence of an interaction."""
    threads: PositiveInt | None = None
    """Threads; as many as torch computes with where absent. The result is the same for any number of them."""

    def fit(
        self, user_items: scipy.sparse.csr_matrix, *, seed: int, device: str = "cpu", progress: bool = False
    ) -> CFTable:
        """See `CFConfig.fit`."""
        from gensr.encoders.cf.implicit_models import fit_als

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


@CF_SOURCES.register
class BPRConfig(CFConfig):
    """Matrix factorisation trained by Bayesian personalised ranking, through the `implicit` library.

    What LightGCN becomes without propagation, by plain gradient descent. Negatives are drawn by popularity.
    """

    type: Literal["bpr"] = "bpr"
    reference = "Rendle et al., UAI 2009, BPR-Opt and LearnBPR"
    dim: Annotated[int, Field(ge=2)] = 64
    """Width of the vectors; the last column is the item's bias, against a 1 for every user."""
    epochs: PositiveInt = 100
    """Passes over the interactions."""
    learning_rate: PositiveFloat = 0.05
    """Step size. On Yelp (244,000 interactions, 10 s on one core) this and `regularization` reach item-item recall@5
    .55 among 100 candidates, dot product or cosine; the library's defaults, 0.01 and 0.01, reach .50 and .43."""
    regularization: NonNegativeFloat = 0.03
    """Ridge weight."""
    threads: PositiveInt = 1
    """Threads; one makes the result repeatable."""

    def fit(
        self, user_items: scipy.sparse.csr_matrix, *, seed: int, device: str = "cpu", progress: bool = False
    ) -> CFTable:
        """See `CFConfig.fit`."""
        from gensr.encoders.cf.implicit_models import fit_bpr

        return fit_bpr(
            user_items,
            dim=self.dim,
            epochs=self.epochs,
            learning_rate=self.learning_rate,
            regularization=self.regularization,
            threads=self.threads,
            seed=seed,
            progress=progress,
        )


@CF_SOURCES.register
class LMFConfig(CFConfig):
    """Logistic matrix factorisation: the chance that a user touches an item, through the `implicit` library."""

    type: Literal["lmf"] = "lmf"
    reference = "Johnson, NIPS 2014 workshop on distributed machine learning and matrix computations"
    dim: Annotated[int, Field(ge=3)] = 64
    """Width of the vectors; the last two columns are the biases of items and of users, each against a 1 for the other
    side."""
    epochs: PositiveInt = 30
    """Alternations over users and items."""
    learning_rate: PositiveFloat = 1.0
    """AdaGrad step size."""
    regularization: NonNegativeFloat = 2.0
    """Ridge weight. On Yelp (244,000 interactions, 13 s on one core) this and `negatives` reach item-item recall@5 .61
    among 100 candidates by dot product, .46 by cosine, to which the constant column says little; the library's
    defaults, 0.6 and 30, take twice as long for .48 and .37."""
    negatives: PositiveInt = 5
    """Items sampled as not touched, for each interaction."""
    threads: PositiveInt = 1
    """Threads; one makes the result repeatable."""

    def fit(
        self, user_items: scipy.sparse.csr_matrix, *, seed: int, device: str = "cpu", progress: bool = False
    ) -> CFTable:
        """See `CFConfig.fit`."""
        from gensr.encoders.cf.implicit_models import fit_lmf

        return fit_lmf(
            user_items,
            dim=self.dim,
            epochs=self.epochs,
            learning_rate=self.learning_rate,
            regularization=self.regularization,
            negatives=self.negatives,
            threads=self.threads,
            seed=seed,
            progress=progress,
        )


@CF_SOURCES.register
class CFRandomConfig(CFConfig):
    """The control: seeded standard normal vectors, which tell items apart and say nothing about them."""

    type: Literal["random"] = "random"
    fitted = False
    dim: PositiveInt = 64
    """Width of the vectors."""

    def fit(
        self, user_items: scipy.sparse.csr_matrix, *, seed: int, device: str = "cpu", progress: bool = False
    ) -> CFTable:
        """See `CFConfig.fit`."""
        from gensr.encoders.cf.random import random_table

        return random_table(user_items, dim=self.dim, seed=seed)


@CF_SOURCES.register
class CFFileConfig(CFConfig):
    """Vectors computed elsewhere, from a file.

    Whether they have seen the events that are held out here, only their maker knows.
    """

    type: Literal["file"] = "file"
    fitted = False
    path: str
    """A .npy, .safetensors or torch checkpoint file (.pt, .pth, .pth.tar, .bin; pickled code in it is never run). A
    relative path starts at the working directory, not at the spec's folder."""
    key: str | None = None
    """Name of the table of items in a file that holds several; `state_dict.items.weight` reaches into a nested one."""
    user_key: str | None = None
    """Name of the table of users; absent, users have no vectors, which only user-item scores need."""
    ids: str | None = None
    """A text file of raw item ids, one a line, in the order of the table's rows. Without it the rows are the
    catalogue's, in its order, with or without a row of padding in front."""
    user_ids: str | None = None
    """The same for users."""
    missing: Literal["refuse", "zero"] = "refuse"
    """What becomes of items and users that the files of ids lack: an error, or a vector of zeros, as for any item
    nobody has touched."""

    @model_validator(mode="after")
    def _users_have_a_table(self) -> CFFileConfig:
        if self.user_ids is not None and self.user_key is None:
            raise ValueError("user_ids says whose the rows of a table of users are: name that table by user_key")
        return self

    def identity(self) -> str:
        """See `CFConfig.identity`."""
        from gensr.encoders.tables import hash_files

        return hash_files(self.path, self.ids, self.user_ids)

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
        """See `CFConfig.table`."""
        from gensr.encoders.cf.file import read_cf_table

        users, items = (size - 1 for size in user_items.shape)
        return read_cf_table(self, num_users=users, num_items=items, user_ids=user_ids, item_ids=item_ids)

    def fit(
        self, user_items: scipy.sparse.csr_matrix, *, seed: int, device: str = "cpu", progress: bool = False
    ) -> CFTable:
        """See `CFConfig.fit`; of the interactions only the number of rows and columns is read."""
        from gensr.encoders.cf.file import read_cf_table

        users, items = (size - 1 for size in user_items.shape)
        return read_cf_table(self, num_users=users, num_items=items)
