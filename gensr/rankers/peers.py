"""Configs of the published rankers that GenSR is compared with, each with the settings it was published with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt, model_validator

from gensr.rankers.config import RANKERS, RankerConfig

if TYPE_CHECKING:
    from gensr.rankers.base import Ranker, Resources

S3_TRAINING: Mapping[str, Any] = {
    "epochs": 200,
    "batch_size": 256,
    "learning_rate": 1e-3,
    "weight_decay": 0.0,
    "schedule": "constant",
    "warmup_steps": 0,
    "clip_norm": None,
    "patience": 10,
    "selection": "mrr",
    "validation_requests": None,
}
"""Adam as S3-Rec (CIKM 2020) and FMLP-Rec (WWW 2022) use it, and their early stopping."""


@RANKERS.register
class SASRecConfig(RankerConfig):
    """SASRec: causal self-attention over the user's items; the last position's state scores the next item."""

    type: Literal["sasrec"] = "sasrec"
    reference = "Kang, McAuley, ICDM 2018; defaults as in S3-Rec (Zhou et al., CIKM 2020)"
    trainable: ClassVar[bool] = True
    training: ClassVar[Mapping[str, Any]] = S3_TRAINING
    dim: PositiveInt = 64
    """Width d of items and states."""
    layers: PositiveInt = 2
    """Transformer blocks."""
    heads: PositiveInt = 2
    """Attention heads; must divide `dim`."""
    length: PositiveInt = 50
    """Newest recommendation events that are read, of those that `data.max_history` shows."""
    dropout: float = Field(0.5, ge=0, lt=1)
    """Chance of dropping an activation in training; of embeddings, attention weights and the blocks' outputs."""
    norm: Literal["post", "pre", "original"] = "post"
    """Where layer norm stands: after each residual sum (S3-Rec), before each part with one at the end, or as in the
    authors' own code, whose residual carries the normalised input while keys and values are not normalised."""
    activation: Literal["gelu", "relu"] = "gelu"
    """Of the feed-forward part; the authors' own is relu."""
    ffn_mult: PositiveInt = 4
    """Width of the feed-forward part in widths of the model; the authors' own is 1."""
    output_projection: bool = True
    """Mix the heads by a matrix; the authors' own code has none."""
    scale_embeddings: bool = False
    """Multiply item vectors by sqrt(dim) on the input side, as the authors' own code does."""
    loss: Literal["bce", "gbce", "softmax", "sampled_softmax"] = "bce"
    """Against sampled negatives (`gbce`: corrected for over-confidence, Petrov, Macdonald, RecSys 2023), over the whole
    catalogue, or over `samples` items drawn once a batch."""
    negatives: PositiveInt = 1
    """Uniform negatives at each position, for `bce` and `gbce`."""
    calibration: float = Field(0.75, ge=0, le=1)
    """t of `gbce`: 0 is plain BCE, 1 corrects in full."""
    samples: PositiveInt = 2048
    """Items of a batch that `sampled_softmax` compares with."""
    sample_power: float = Field(0.5, ge=0, le=1)
    """They are drawn in proportion to (training count)^power; the loss corrects for it (logQ)."""

    @model_validator(mode="after")
    def _heads(self) -> SASRecConfig:
        if self.dim % self.heads:
            raise ValueError(f"heads={self.heads} does not divide dim={self.dim}")
        return self

    def build(self, resources: Resources) -> Ranker:
        """See `RankerConfig.build`."""
        from gensr.rankers.sasrec import SASRec

        return SASRec.build(self, resources)


@RANKERS.register
class FMLPConfig(RankerConfig):
    """FMLP-Rec: learned frequency filters instead of attention; the last position's state scores the next item."""

    type: Literal["fmlp"] = "fmlp"
    reference = "Zhou et al., WWW 2022"
    trainable: ClassVar[bool] = True
    training: ClassVar[Mapping[str, Any]] = S3_TRAINING
    dim: PositiveInt = 64
    """Width d of items and states."""
    layers: PositiveInt = 2
    """Blocks of a filter and an MLP."""
    length: PositiveInt = 50
    """Length L of the filters: the newest recommendation events, padded on the left."""
    dropout: float = Field(0.5, ge=0, lt=1)
    """Chance of dropping an activation in training."""
    negatives: PositiveInt = 1
    """Uniform negatives of each prefix."""

    def build(self, resources: Resources) -> Ranker:
        """See `RankerConfig.build`."""
        from gensr.rankers.fmlp import FMLP

        return FMLP.build(self, resources)


class ProductSearchConfig(RankerConfig):
    """What QEM and ZAM share: words and items as vectors, told from negatives, and a language model of item texts."""

    trainable: ClassVar[bool] = True
    training: ClassVar[Mapping[str, Any]] = {
        "epochs": 20,
        "batch_size": 384,
        "learning_rate": 5e-3,
        "weight_decay": 0.0,
        "schedule": "constant",
        "warmup_steps": 0,
        "clip_norm": 5.0,
    }
    """Adam as ProdSearch, the PyTorch code of a co-author's lab, runs these models, but for the step size: its 2e-3
    needs twice the epochs."""
    dim: PositiveInt = 128
    """Width d of words, queries and items."""
    dropout: float = Field(0.1, ge=0, lt=1)
    """Chance of dropping a dimension of the mean of a query's words in training."""
    similarity: Literal["product", "bias_product", "cosine"] = "product"
    """How a request and an item are compared: dot product, dot product and a bias of the item (its popularity, against
    uniform negatives), or cosine."""
    loss: Literal["ns", "bce"] = "ns"
    """Of a request's scores: the sum over its candidates, as published, or their mean, as in the UniSAR authors' runs;
    the language model weighs more beside a mean."""
    negatives: PositiveInt = 5
    """Uniform items beside each truth, and words beside each word of the language model."""
    lm_weight: NonNegativeFloat = 1.0
    """Weight of predicting words of the item's text from its vector; 0: no language model."""
    lm_words: PositiveInt = 1
    """Words of the bought item's text that a request predicts."""
    subsampling: PositiveFloat = 1e-4
    """Share of all item text above which a word counts as frequent and is drawn more seldom."""
    init_std: PositiveFloat = 0.1
    """Standard deviation of new word and item vectors; the smaller, the longer it takes until queries differ.
    ProdSearch begins with 1, the authors with zeros for items."""
    query_length: PositiveInt = 50
    """Known words read of a query; the rest is cut."""
    text_length: PositiveInt = 64
    """Known words read of an item's text."""


@RANKERS.register
class QEMConfig(ProductSearchConfig):
    """QEM: the product of a query's mean word vector, through a tanh layer, with an item's vector; reads no history."""

    type: Literal["qem"] = "qem"
    reference = "Ai et al., CIKM 2019; defaults as in ProdSearch (Bi et al., SIGIR 2020)"

    def build(self, resources: Resources) -> Ranker:
        """See `RankerConfig.build`."""
        from gensr.rankers.qem import QEM

        return QEM.build(self, resources)


@RANKERS.register
class ZAMConfig(ProductSearchConfig):
    """ZAM: QEM whose query attends to earlier items or to nothing; without the zero slot it is AEM."""

    type: Literal["zam"] = "zam"
    reference = "Ai et al., CIKM 2019, ESRT; defaults of training as in ProdSearch (Bi et al., SIGIR 2020)"
    heads: PositiveInt = 5
    """Inquiries of the attention, which are summed."""
    zero: Literal["literal", "learnable", "none"] = "literal"
    """Key of the zero slot: the zero vector (the authors' code), learned from there (later papers), or no slot: AEM."""
    mixture: Literal["sum", "mean"] = "sum"
    """The query plus the history (the paper), or half of each (the authors' code), which learns half as fast."""
    history: Literal["search", "all"] = "search"
    """Events attended to: searches alone, or recommendations as well."""
    length: PositiveInt = 10
    """Newest events that are attended to, of those that `data.max_history` shows."""

    def build(self, resources: Resources) -> Ranker:
        """See `RankerConfig.build`."""
        from gensr.rankers.zam import ZAM

        return ZAM.build(self, resources)


@RANKERS.register
class UniSARConfig(RankerConfig):
    """UniSAR: transitions within and between search and recommendation behaviour, aligned, fused, judged by experts.

    The defaults are the settings that learn. Published for Amazon, and popular items whatever the query on small sets:
    `item_features` ``["id"]``, `embedding_std` null, `search_weight` 0.01, learning rate 1e-3, batches of 1,024. For
    KuaiSAR: `item_features` ``["id", "text", "categories"]``, `embedding_std` null, `search_weight` 0.1,
    `query_item_weight` 0.001, `query_item_temperature` 0.5, `history_weight` 0.1, learning rate 1e-3, weight decay
    3e-5, batches of 1,024.
    """

    type: Literal["unisar"] = "unisar"
    reference = "Shi et al., UniSAR, SIGIR 2024"
    trainable: ClassVar[bool] = True
    training: ClassVar[Mapping[str, Any]] = {
        "epochs": 100,
        "batch_size": 256,
        "optimizer": "adam",
        "learning_rate": 3e-3,
        "weight_decay": 1e-5,
        "schedule": "plateau",
        "warmup_steps": 0,
        "clip_norm": None,
        "patience": 5,
    }
    item_features: tuple[Literal["id", "text", "categories"], ...] = ("id", "text")
    """What an item's vector is made of: its id, the words of its text, the first two levels of its category. Without
    the text, a query has to learn each item that it means, and a new item is like every other."""
    feature_dim: PositiveInt = 32
    """Width of ids and words."""
    dim: PositiveInt = 64
    """Width of items, queries, users, events and experts."""
    words: PositiveInt = 50
    """Words read of a query, and of an item's text."""
    events: PositiveInt = 30
    """Newest events of each kind that are read; `data.max_history` has to make room for both."""
    heads: PositiveInt = 2
    """Attention heads; must divide `dim`."""
    hidden: PositiveInt = 64
    """Width of the feed-forward parts."""
    dropout: float = Field(0.1, ge=0, lt=1)
    """Chance of dropping an activation in training."""
    embedding_std: PositiveFloat | None = 0.1
    """Standard deviation that ids and words start with. Null: Xavier-normal, as published, which makes the rows of a
    large table almost zero."""
    experts: Literal["ple", "mmoe"] = "ple"
    """`ple`: experts of each task beside the shared ones, as in the code. `mmoe`: all are shared."""
    shared_experts: PositiveInt = 4
    """Experts that both tasks share."""
    task_experts: PositiveInt = 4
    """Experts of each task; in `mmoe` so many more are shared, so that a gate has as many to choose from."""
    search_weight: NonNegativeFloat = 1.0
    """lambda_src, factor of the search requests' loss."""
    query_item_weight: NonNegativeFloat = 0.1
    """Factor of the query-item alignment. 0: no such loss."""
    query_item_temperature: PositiveFloat = 0.1
    """Its temperature at the start; learnt, and held at 0.01 or above."""
    pool: PositiveInt = 1024
    """Items, and queries, of the whole catalogue that a clicked pair is compared with."""
    history_weight: NonNegativeFloat = 0.01
    """Factor of the history alignment. 0: no such loss."""
    history_temperature: PositiveFloat = 0.1
    """Its temperatures at the start; learnt, and held at 0.01 or above."""

    @model_validator(mode="after")
    def _consistent(self) -> UniSARConfig:
        if self.dim % self.heads:
            raise ValueError(f"heads={self.heads} does not divide dim={self.dim}")
        if not self.item_features:
            raise ValueError("item_features is empty: expected at least one of id, text, categories")
        twice = [name for place, name in enumerate(self.item_features) if name in self.item_features[:place]]
        if twice:
            raise ValueError(f"item_features names {twice[0]} twice")
        return self

    def build(self, resources: Resources) -> Ranker:
        """See `RankerConfig.build`."""
        from gensr.rankers.unisar import UniSAR

        return UniSAR.build(self, resources)
