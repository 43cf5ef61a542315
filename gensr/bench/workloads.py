"""The standard workloads: everything the suites of the model time, made up from sizes, without any prepared data.

The structure is that of GenSR's released code: a frozen CF table of width 64, histories of 20 items, of which the
semantic view reads 10 tokens each, one-layer transformers over both, a bilinear filter pooled to one vector, four
vectors in the prompt, and five text segments with as many tokens as the released ones have.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Literal, TypeVar

import torch
from torch import Tensor

from gensr.backbones.config import BackboneConfig, DecoderConfig, DecoderSizes, T5Config, T5Sizes
from gensr.backbones.templates import Layout, TaskTemplates
from gensr.data.batch import Batch
from gensr.data.tasks import Task
from gensr.encoders.history.config import TransformerConfig
from gensr.encoders.semantic.config import TokensConfig
from gensr.errors import BadInputError, GensrError, did_you_mean
from gensr.fusion.contrastive.config import LayerNormNCEConfig
from gensr.fusion.soft_filter.config import BilinearConfig
from gensr.rankers.config import GenSRConfig

if TYPE_CHECKING:
    from gensr.backbones.base import Backbone
    from gensr.rankers.base import Ranker
    from gensr.rankers.gensr import GenSR

R = TypeVar("R", bound="Ranker")

CF_WIDTH = 64
SEMANTIC = TokensConfig(unit="token", history_tokens=10, length=32)
QUERY_WORDS = 4
"""Words, and tokens, of every query: searches of one length hold no padding."""
TOLERANCE = 1e-4
"""Largest difference of two margins that should be equal, in float32."""
TOLERANCE_BF16 = 0.2
"""The same of a margin in bfloat16 and one in float32. Those of random weights are about 1; 0.07 was the most seen."""

Wording = Literal["interleaved", "packed", "preset"]
"""The released order; the same words, all of them and the query before the four vectors; our own packed prompt."""

SLOTS = ("{cf_history}", "{text_history}", "{cf_candidate}", "{text_candidate}")
SEGMENTS = {
    Task.RECOMMENDATION: (
        "Question the user has liked each of the items that this one vector stands for",
        "and in words those items were like this vector",
        "now think of all that the user has liked before and say whether the user would also like one more item from "
        "the same shop which looks like this",
        "and in words this",
        "Decide from all of it and answer with one of the two words yes or no Answer",
    ),
    Task.SEARCH: (
        "Question the user has liked each of the items that this one vector stands for",
        "and in words those items were like this vector",
        "now think of all that the user has liked before and of the words that the user has just typed and say whether "
        "the user would also choose one item from the same shop which looks like this",
        "and in words this",
        "The user has typed {query} Decide from all of it and answer with one of the two words yes or no Answer",
    ),
}
"""The five texts P1-P5 of a prompt, a vector between each two."""
TOKENS = {Task.RECOMMENDATION: (15, 9, 29, 4, 17), Task.SEARCH: (15, 9, 38, 4, 25)}
"""Tokens of P1-P5 in the released code, the query among them: 78 and 95 with the four vectors."""


@dataclass(frozen=True)
class Shape:
    """Sizes of a workload.

    Attributes:
        name: how reports call it.
        t5: the T5; its embedding table has ``t5.vocabulary`` rows, whatever the tokenizer knows.
        decoder: a causal model of similar size.
        candidates: of a request: the usual number, and many.
        reference_candidates: of the many, those that the paths which read whole prompts are asked for; each costs them
            the same.
        requests: asked at once, on a CPU; the released code asks 14 of 100 candidates.
        rows: (request, candidate) pairs of a training step, on a CPU; in the released code 200.
        reference_rows: how many of them the per-candidate path holds in memory at once.
        items: of the catalogue.
        queries: that are asked.
        history: events of a user.
    """

    name: str
    t5: T5Sizes
    decoder: DecoderSizes
    candidates: tuple[int, int] = (100, 1000)
    reference_candidates: int = 1000
    requests: int = 2
    rows: int = 200
    reference_rows: int = 200
    items: int = 2000
    queries: int = 200
    history: int = 20


SHAPES = {
    shape.name: shape
    for shape in (
        Shape(
            "tiny",
            T5Sizes(width=32, layers=2, heads=2, head_width=16, hidden=64, vocabulary=6000),
            DecoderSizes(width=32, layers=2, heads=2, hidden=64, vocabulary=6000),
            candidates=(5, 12),
            rows=20,
            reference_rows=20,
            items=60,
            queries=30,
        ),
        Shape(
            "small",
            T5Sizes(width=256, layers=4, heads=4, head_width=64, hidden=512, vocabulary=32128),
            DecoderSizes(width=256, layers=4, heads=4, hidden=512, vocabulary=32128),
        ),
        Shape(
            "base",  # flan-t5-base
            T5Sizes(width=768, layers=12, heads=12, head_width=64, hidden=2048, vocabulary=32128),
            DecoderSizes(width=768, layers=12, heads=12, hidden=2048, vocabulary=32128),
            requests=1,  # 100 whole prompts take half a minute
            reference_candidates=100,
            rows=50,  # a released step on 200 takes minutes
            reference_rows=25,  # 5 GiB of activations
        ),
    )
}


def find_shape(name: str) -> Shape:
    """The shape of that name.

    Raises:
        BadInputError: there is none.
    """
    if name not in SHAPES:
        raise BadInputError(f"no shape named {name!r}{did_you_mean(name, SHAPES) or '.'} Known: {', '.join(SHAPES)}")
    return SHAPES[name]


def templates(wording: Wording) -> TaskTemplates | None:
    """The prompts of `wording`; None for those that the packed layout has by itself."""
    if wording == "preset":
        return None
    texts = {}
    for task, segments in SEGMENTS.items():
        if wording == "packed":
            texts[task.label] = " ".join((*segments, *SLOTS))
        else:
            texts[task.label] = " ".join(part for pair in zip(segments, (*SLOTS, ""), strict=True) for part in pair)
    return TaskTemplates(**texts)


@dataclass
class Workload:
    """A synthetic shop and one backbone, shared by rankers that differ in their prompts alone.

    Args:
        shape: sizes.
        kind: which backbone.
        device: where rankers and batches live.
        seed: of texts, weights and requests.
        dropout: of backbone and history encoders in training.
    """

    shape: Shape
    kind: Literal["t5", "decoder"] = "t5"
    device: str = "cpu"
    seed: int = 0
    dropout: float = 0.1
    titles: list[str] = field(init=False, repr=False)
    queries: list[str] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        generator = torch.Generator().manual_seed(self.seed)
        words = _words()
        lengths = torch.randint(8, 13, (self.shape.items,), generator=generator).tolist()
        self.titles = ["", *(_phrase(words, length, generator) for length in lengths)]
        self.queries = ["", *(_phrase(words, QUERY_WORDS, generator) for _ in range(self.shape.queries))]

    @cached_property
    def backbone(self) -> Backbone:
        """The language model: random weights, the published vocabulary size, a tokenizer of these texts.

        Raises:
            GensrError: the prompts would not have the released lengths.
        """
        texts = [*self.titles, *self.queries, *(text for segments in SEGMENTS.values() for text in segments)]
        build = _t5 if self.kind == "t5" else _decoder
        backbone = build(self.shape, texts, self.seed, self.dropout)
        _check_tokens(backbone, [*self.titles, *self.queries])
        return backbone.to(self.device).eval()

    def ranker(self, wording: Wording, *, loss: Literal["answers", "vocabulary"] = "answers") -> GenSR:
        """A GenSR in evaluation mode; all of a workload hold its backbone, and equal weights beside it."""
        from gensr.rankers.gensr import GenSR

        config = self._config(wording, loss)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            cf_items = torch.randn(self.shape.items + 1, CF_WIDTH)
            cf_items[0] = 0.0
            ranker = GenSR(
                config,
                backbone=self.backbone,
                semantic=SEMANTIC.build(texts=self.titles, backbone=self.backbone),
                num_items=self.shape.items,
                query_texts=self.queries,
                cf_items=cf_items,
                max_history=self.shape.history,
            )
        return ranker.to(self.device).eval()

    def requests(self, tasks: Sequence[Task], candidates: int, *, seed: int = 1) -> Batch:
        """Requests with full histories, each of another user and (up to `Shape.queries`) another query, one truth each.

        Args:
            tasks: one a request.
            candidates: of each request.
            seed: of histories and candidates.
        """
        shape, count = self.shape, len(tasks)
        generator = torch.Generator().manual_seed(seed)
        task = torch.tensor([int(code) for code in tasks])
        number = torch.arange(count)
        history = torch.randint(1, shape.items + 1, (count, shape.history), generator=generator)
        truth = torch.randint(candidates, (count,), generator=generator)
        cand = torch.rand(count, shape.items, generator=generator).topk(candidates).indices + 1
        return Batch(
            task=task,
            user=number + 1,
            time=torch.zeros_like(number),
            query=torch.where(task == Task.SEARCH, number % shape.queries + 1, 0),
            hist_item=history,
            hist_task=1 + history % 2,
            hist_query=torch.zeros_like(history),
            hist_time=torch.zeros_like(history),
            cand=cand,
            cand_mask=torch.ones_like(cand, dtype=torch.bool),
            label=torch.nn.functional.one_hot(truth, candidates).float(),
            request=-torch.ones_like(number),
        ).to(self.device)

    def _config(self, wording: Wording, loss: Literal["answers", "vocabulary"]) -> GenSRConfig:
        layout: Layout = "interleaved" if wording == "interleaved" else "packed"
        backbone: BackboneConfig = T5Config(scratch=self.shape.t5)
        if self.kind == "decoder":
            backbone = DecoderConfig(scratch=self.shape.decoder)
        return GenSRConfig(
            semantic=SEMANTIC,
            history=TransformerConfig(positions=False, task_types=False, dropout=self.dropout),
            soft_filter=BilinearConfig(context=False),
            contrastive=LayerNormNCEConfig(weight=0.01),
            backbone=backbone,
            layout=layout,
            templates=templates(wording),
            match_slots=wording == "preset",
            scale_slots=False,
            align="candidates",
            loss=loss,
            cf_folds=0,
        )


def in_bf16(ranker: R) -> R:
    """A copy that scores in bfloat16."""
    copied = copy.deepcopy(ranker)
    copied.cast("bf16")
    return copied


def one_at_a_time(batch: Batch) -> Batch:
    """Every candidate of `batch` [B, C] as a request of its own [B * C, 1]."""
    rows = torch.arange(len(batch), device=batch.task.device).repeat_interleave(batch.cand.shape[1])
    alone = {name: getattr(batch, name).reshape(-1, 1) for name in ("cand", "cand_mask", "label")}
    return batch.select(rows).replace(**alone)


def require_equal(what: str, margins: Tensor, expected: Tensor, *, tolerance: float = TOLERANCE) -> None:
    """Refuse to time a fast path that is a wrong one.

    Raises:
        GensrError: two margins differ by more than `tolerance`.
    """
    difference = float((margins - expected).abs().max())
    if not difference <= tolerance:
        raise GensrError(
            f"bench: {what}: margins differ by {difference:.2g}, more than {tolerance:.2g}; a speed would mean nothing"
        )


def _check_tokens(backbone: Backbone, phrases: list[str]) -> None:
    """See that every word is one token, so that prompts are as long as the released ones.

    Raises:
        GensrError: one is not.
    """

    def count(texts: list[str]) -> list[int]:
        return [int(number) for number in (backbone.tokenize(texts, 64) > 0).sum(1)]

    for task, segments in SEGMENTS.items():
        found = tuple(
            sum(count([text.strip() for text in segment.split("{query}")])) + QUERY_WORDS * segment.count("{query}")
            for segment in segments
        )
        if found != TOKENS[task]:
            raise GensrError(f"bench: the {task.label} prompt's texts have {found} tokens, expected {TOKENS[task]}")
    if count(phrases) != [len(phrase.split()) for phrase in phrases]:
        raise GensrError("bench: a word of the synthetic shop is more than one token")


def _t5(shape: Shape, texts: list[str], seed: int, dropout: float) -> Backbone:
    from gensr.backbones.t5 import T5Backbone, random_t5
    from gensr.backbones.tokenizer import train_tokenizer

    answers = T5Config().answers
    sizes = shape.t5.model_copy(update={"dropout": dropout})
    model = random_t5(sizes, vocabulary=sizes.vocabulary, seed=seed)
    tokenizer = train_tokenizer(texts, vocabulary=sizes.vocabulary, answers=answers)
    return T5Backbone(model, tokenizer, answers=answers)


def _decoder(shape: Shape, texts: list[str], seed: int, dropout: float) -> Backbone:
    from gensr.backbones.decoder import DecoderBackbone, random_decoder
    from gensr.backbones.tokenizer import train_tokenizer

    answers = DecoderConfig().answers
    sizes = shape.decoder.model_copy(update={"dropout": dropout})
    model = random_decoder(sizes, vocabulary=sizes.vocabulary, seed=seed)
    tokenizer = train_tokenizer(texts, vocabulary=sizes.vocabulary, answers=answers)
    return DecoderBackbone(model, tokenizer, answers=answers)


def _words() -> list[str]:
    """Made-up words of three syllables; lower case, so that none holds an answer."""
    syllables = [consonant + vowel for consonant in "bdfgklmnprstvz" for vowel in "aeiou"]
    return [
        first + second + syllables[(3 * row + 5 * column) % len(syllables)]
        for row, first in enumerate(syllables[:20])
        for column, second in enumerate(syllables[:30])
    ]


def _phrase(words: list[str], length: int, generator: torch.Generator) -> str:
    return " ".join(words[place] for place in torch.randint(len(words), (length,), generator=generator).tolist())
