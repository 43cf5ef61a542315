"""The `ranker` kind: GenSR, and the floors every table stands on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field, NonNegativeFloat, PositiveInt, field_validator, model_validator

from gensr.backbones.config import BACKBONES, BackboneConfig, T5Config
from gensr.backbones.templates import Layout, TaskTemplates, prefix_length, split_template
from gensr.encoders.cf.config import CF_SOURCES, ALSConfig, CFConfig, LightGCNConfig
from gensr.encoders.history.config import HISTORY_ENCODERS, HistoryConfig, TransformerConfig
from gensr.encoders.semantic.config import SEMANTIC_ENCODERS, SemanticConfig, TokensConfig
from gensr.fusion.contrastive.config import CONTRASTIVE_LOSSES, ContrastiveConfig, InfoNCEConfig
from gensr.fusion.soft_filter.config import SOFT_FILTERS, CrossAttentionConfig, SoftFilterConfig
from gensr.registry import ComponentConfig, Registry

if TYPE_CHECKING:
    from gensr.rankers.base import Ranker, Resources


class RankerConfig(ComponentConfig):
    """Base of rankers."""

    trainable: ClassVar[bool] = False
    training: ClassVar[Mapping[str, Any]] = {}
    """Its own defaults for options of the spec's training section: the settings it was published with, or learns with.
    What a spec says wins."""

    def identity(self) -> str:
        """What a new ranker depends on beside the options and the data: hashes of the files its views read."""
        return ""

    def build(self, resources: Resources) -> Ranker:
        """A new ranker from ``resources.dataset``, or the saved one from ``resources.folder``."""
        raise NotImplementedError

    def check_precision(self, precision: str) -> None:
        """Raise `ValueError` with the reason where it cannot be trained in `precision`."""

    def check_scoring(self, precision: str) -> None:
        """Raise `ValueError` with the reason where it cannot score in `precision`; see `Ranker.cast`."""
        if self.trainable and precision != "fp32":
            raise ValueError(f"a ranker of type {self.type!r} scores in fp32 only")


RANKERS = Registry("ranker", RankerConfig, builtins=("gensr.rankers.config", "gensr.rankers.peers"))


@RANKERS.register
class GenSRConfig(RankerConfig):
    """GenSR: both views of a history and of a candidate as vectors in a prompt, answered with Yes or No."""

    type: Literal["gensr"] = "gensr"
    reference = "Zhang et al., GenSR, 2025, sections 4.1-4.2"
    trainable: ClassVar[bool] = True
    cf: Annotated[CFConfig, CF_SOURCES] | None = LightGCNConfig()
    """Collaborative view. Null: the prompt loses that view's slots."""
    semantic: Annotated[SemanticConfig, SEMANTIC_ENCODERS] | None = TokensConfig()
    """Semantic view. Null: the prompt loses that view's slots."""
    history: Annotated[HistoryConfig, HISTORY_ENCODERS] | None = TransformerConfig()
    """Encoder of each view's history. Null: the item vectors are used as they are."""
    soft_filter: Annotated[SoftFilterConfig, SOFT_FILTERS] | None = CrossAttentionConfig()
    """Relevance of history items to a candidate. Null: masked mean pooling."""
    contrastive: Annotated[ContrastiveConfig, CONTRASTIVE_LOSSES] | None = InfoNCEConfig()
    """Alignment of the two views. Null: no such loss."""
    backbone: Annotated[BackboneConfig, BACKBONES] = T5Config()
    """The language model."""
    layout: Layout = "packed"
    """`interleaved`: the paper's order, read anew for each candidate. `packed`: shared prefix, a block a candidate."""
    templates: TaskTemplates | None = None
    """Prompt wording; the layout's own where absent."""
    query_length: PositiveInt = 32
    """Tokens read of a query; the rest is cut."""
    read_query: bool = True
    """Off: the query reaches neither prompt nor filter, as in the released code, and templates hold no query."""
    match_slots: bool = True
    """Add to each view's two slots a third: the product of candidate and filtered items, dimension by dimension. Off:
    the paper's four slots, between which the backbone has to learn to multiply."""
    scale_slots: bool = True
    """Scale vectors to the size of token embeddings before they enter the prompt. Off: a plain linear map, or none
    where the view has the backbone's width, as published."""
    loss: Literal["answers", "vocabulary"] = "answers"
    """Cross-entropy of the answer over the two answers alone, or over the whole vocabulary (eq. 9)."""
    listwise: NonNegativeFloat = 0.0
    """Weight of a listwise loss beside eq. 9: cross-entropy of the softmax over a request's candidates."""
    align: Literal["users", "candidates"] = "users"
    """What the contrastive loss aligns: the users' histories before the filter (eq. 10), or the filtered history of
    every (user, candidate) row, as in the released code."""
    cf_folds: Annotated[int, Field(ge=0, le=50)] = 10
    """Training requests read a CF table fitted without their own fold of the interactions. 0: one table for all, as in
    the paper; then the table has seen every training truth, and the model trusts it too much. 1 is no choice."""
    cf_dropout: float = Field(0.0, ge=0, lt=1)
    """Chance of hiding an item's CF vector in training, so that items without one are ranked well."""

    @model_validator(mode="after")
    def _consistent(self) -> GenSRConfig:
        dropped = [name for name in ("cf", "semantic") if getattr(self, name) is None]
        if len(dropped) == 2:
            raise ValueError("cf and semantic are both null: nothing is left to describe an item; keep one of them")
        if dropped and self.contrastive is not None:
            raise ValueError(
                f"contrastive compares two views, but {dropped[0]} is null; drop it as well: "
                f"--drop {dropped[0]}+contrastive"
            )
        if self.cf_folds == 1:
            raise ValueError("cf_folds=1 leaves no interaction to fit on: expected 0, or 2 and more")
        if self.loss == "vocabulary" and not type(self.backbone).generative:
            raise ValueError(
                f"loss 'vocabulary' needs a backbone that generates; {self.backbone.type} has no vocabulary: set loss "
                "to 'answers'"
            )
        for task in ("recommendation", "search") if self.templates else ():
            self._check_template(task, getattr(self.templates, task))
        return self

    def _check_template(self, task: str, text: str) -> None:
        pieces = split_template(text)
        asks = self.read_query and task == "search"
        if (("query", "") in pieces) != asks:
            needed = "must hold {query}" if asks else "must not hold {query}"
            raise ValueError(f"the {task} template {needed}" + ("" if self.read_query else " while read_query is off"))
        shown = [name for kind, name in pieces if kind == "slot"]
        views = {"cf_candidate": self.cf, "text_candidate": self.semantic}
        if not any(name in shown and view is not None for name, view in views.items()):
            missing = next(f"{{{name}}}" for name, view in views.items() if view is not None)
            raise ValueError(
                f"the {task} template shows all candidates alike: without the dropped view it needs {missing}"
            )
        matches = {"cf_match": self.cf, "text_match": self.semantic} if self.match_slots else {}
        for name, view in matches.items():
            if view is not None and name not in shown:
                raise ValueError(
                    f"the {task} template has no place for {{{name}}}: add it, or set match_slots to false"
                )
        try:
            prefix_length(pieces, self.layout)
        except ValueError as error:
            raise ValueError(f"templates.{task}: {error}") from None

    def identity(self) -> str:
        """See `RankerConfig.identity`."""
        return "".join(view.identity() for view in (self.cf, self.semantic) if view is not None)

    def check_precision(self, precision: str) -> None:
        """See `RankerConfig.check_precision`."""
        self.backbone.check_precision(precision)

    def check_scoring(self, precision: str) -> None:
        """See `RankerConfig.check_scoring`: every backbone scores in bf16."""

    def build(self, resources: Resources) -> Ranker:
        """See `RankerConfig.build`."""
        from gensr.rankers.gensr import build_gensr

        return build_gensr(self, resources)


@RANKERS.register
class RandomConfig(RankerConfig):
    """Scores by a hash of request and candidate: what knowing nothing gives."""

    type: Literal["random"] = "random"

    def build(self, resources: Resources) -> Ranker:
        """See `RankerConfig.build`."""
        from gensr.rankers.floors import RandomRanker

        return RandomRanker(seed=resources.seed)


@RANKERS.register
class PopularityConfig(RankerConfig):
    """Interactions of the item: recommendation events for recommendation, search events for search."""

    type: Literal["popularity"] = "popularity"
    counts: Literal["training", "all"] = "training"
    """Which interactions count. `all` also counts what validates and tests, the asked one included: a leak, but the way
    of the published PopRec rows (S3-Rec, CIKM 2020), which it reproduces."""

    def build(self, resources: Resources) -> Ranker:
        """See `RankerConfig.build`."""
        from gensr.rankers.floors import PopularityRanker

        return PopularityRanker.build(resources, held_out=self.counts == "all")


@RANKERS.register
class QueryPopularityConfig(RankerConfig):
    """Training clicks of the item under this query, popularity on ties."""

    type: Literal["query_popularity"] = "query_popularity"

    def build(self, resources: Resources) -> Ranker:
        """See `RankerConfig.build`."""
        from gensr.rankers.floors import QueryPopularityRanker

        return QueryPopularityRanker.build(resources)


@RANKERS.register
class LexicalConfig(RankerConfig):
    """BM25 of the query against the item text, through bm25s."""

    type: Literal["lexical"] = "lexical"
    reference = "Robertson, Zaragoza, 2009; Lu, bm25s, 2024"
    fields: tuple[Literal["title", "categories"], ...] | None = None
    """What is searched, joined into one text in this order; a field given twice counts twice. Null: the item text, as
    `data.item_text` has it."""
    k1: float = Field(1.5, gt=0)
    """Saturation of term counts."""
    b: float = Field(0.75, ge=0, le=1)
    """Length normalisation."""

    @field_validator("fields", mode="before")
    @classmethod
    def _one_field(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value

    @field_validator("fields")
    @classmethod
    def _some_field(cls, value: tuple[str, ...] | None) -> tuple[str, ...] | None:
        if value == ():
            raise ValueError("expected title, categories or both; null is the item text")
        return value

    def build(self, resources: Resources) -> Ranker:
        """See `RankerConfig.build`."""
        from gensr.rankers.lexical import LexicalRanker

        return LexicalRanker(resources.catalogue, fields=self.fields, k1=self.k1, b=self.b)


@RANKERS.register
class CFRankerConfig(RankerConfig):
    """Mean similarity of the candidate's CF vector to those of the history."""

    type: Literal["cf"] = "cf"
    reference = "item-item scoring; Sarwar et al., WWW 2001"
    cf: Annotated[CFConfig, CF_SOURCES] = ALSConfig()
    """Where the vectors come from."""
    similarity: Literal["dot", "cosine"] = "dot"
    """How two vectors are compared."""

    def identity(self) -> str:
        """See `RankerConfig.identity`."""
        return self.cf.identity()

    def build(self, resources: Resources) -> Ranker:
        """See `RankerConfig.build`."""
        from gensr.rankers.floors import CFRanker

        return CFRanker.build(resources, self)


@RANKERS.register
class InHistoryConfig(RankerConfig):
    """1 where the candidate stands in the history: an alarm for leaks, near chance on clean data."""

    type: Literal["in_history"] = "in_history"

    def build(self, resources: Resources) -> Ranker:
        """See `RankerConfig.build`."""
        from gensr.rankers.floors import InHistoryRanker

        return InHistoryRanker()
