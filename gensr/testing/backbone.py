"""What every backbone owes its rankers, as a pytest base class."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from gensr.backbones.base import Backbone, Function, Prompt
from gensr.backbones.config import BackboneConfig
from gensr.backbones.prompt import PromptBuilder
from gensr.backbones.templates import DEFAULTS, SLOTS, Layout
from gensr.data.tasks import Task
from gensr.errors import BadInputError

WORDS = ("Red Kettle", "blue mug", "steel pan for soup", "a kettle of steel")
TEXTS = (*WORDS, *(text for templates in DEFAULTS.values() for text in templates.model_dump().values()))
"""What the tokenizer of a backbone from scratch is trained on."""
TASKS = (Task.RECOMMENDATION, Task.SEARCH, Task.SEARCH, Task.RECOMMENDATION)
QUERIES = ("", "red", "steel pan for blue soup", "")


class BackboneInputs(NamedTuple):
    """Four requests of both tasks, with queries of unequal length, and three candidates each."""

    prompt: Prompt
    slots: Tensor  # [4, 3, S, D]


class BackboneContract:
    """Derive from it, set `config` to a small backbone, and pytest does the rest.

    Example:
        >>> class TestMine(BackboneContract):
        ...     config = MyBackboneConfig(width=16)
    """

    config: ClassVar[BackboneConfig]
    tolerance: ClassVar[float] = 1e-5
    """Largest difference of two margins that should be equal; float32 sums depend a little on shapes."""

    @pytest.fixture(scope="class")
    @classmethod
    def backbone(cls) -> Backbone:
        """The backbone under test: seeded, in eval mode, with trainable weights off their special starting values."""
        backbone = cls.config.build(texts=TEXTS, seed=0).eval()
        generator = torch.Generator().manual_seed(2)
        with torch.no_grad():
            for parameter in backbone.parameters():
                if parameter.requires_grad:
                    parameter.add_(0.02 * torch.randn(parameter.shape, generator=generator))
        return backbone

    @pytest.fixture(params=["packed", "interleaved"])
    def layout(self, request: pytest.FixtureRequest) -> Layout:
        """Every test of prompts runs in both layouts."""
        layout: Layout = request.param
        return layout

    def inputs(self, backbone: Backbone, layout: Layout, rows: slice = slice(None)) -> BackboneInputs:
        """The contract's requests, or those of `rows` alone, with vectors of the size of token embeddings."""
        counts = dict.fromkeys(SLOTS, 1)
        builder = PromptBuilder(
            DEFAULTS[layout], layout=layout, tokenize=backbone.tokenize, slots=counts, query_length=6
        )
        queries = backbone.tokenize(QUERIES, 6)
        generator = torch.Generator().manual_seed(1)
        slots = torch.randn(len(TASKS), 3, len(counts), backbone.width, generator=generator) * backbone.embedding_rms
        present = torch.ones(len(TASKS), len(counts), dtype=torch.bool)
        return BackboneInputs(builder(torch.tensor(TASKS)[rows], queries[rows], present[rows]), slots[rows])

    def test_tokens_are_cut_and_padded_on_the_right_with_zero(self, backbone: Backbone) -> None:
        """int64 [n, length]; 0 is padding and nothing else; an empty text is all padding."""
        ids = backbone.tokenize([*WORDS, ""], 3)
        assert ids.shape == (len(WORDS) + 1, 3)
        assert ids.dtype == torch.int64
        assert bool(((ids[:, 1:] == 0) | (ids[:, :-1] > 0)).all())
        assert bool(ids[:-1, 0].all())
        assert not ids[-1].any()
        longer = backbone.tokenize([*WORDS, ""], 40)
        assert torch.equal(longer[:, :3], ids)
        assert not longer[:, -1].any()

    def test_no_texts_give_no_rows(self, backbone: Backbone) -> None:
        """An empty list works."""
        assert backbone.tokenize([], 5).shape == (0, 5)

    def test_token_embeddings_have_the_backbones_width(self, backbone: Backbone) -> None:
        """Ids of any shape, padding included."""
        embedded = backbone.embed(backbone.tokenize(WORDS, 4).view(2, 2, 4))
        assert embedded.shape == (2, 2, 4, backbone.width)
        assert bool(embedded.isfinite().all())

    def test_equal_tokens_have_equal_embeddings_and_others_do_not(self, backbone: Backbone) -> None:
        """`embed` reads the ids that `tokenize` writes."""
        one, same, other = backbone.embed(backbone.tokenize(["steel", "steel", "mug"], 1)[:, 0])
        assert torch.equal(one, same)
        assert not torch.equal(one, other)

    def test_embedding_rms_is_the_size_of_token_embeddings(self, backbone: Backbone) -> None:
        """Within the spread of a few tokens."""
        ids = backbone.tokenize(TEXTS, 40)
        with torch.no_grad():
            rms = float(backbone.embed(ids[ids > 0]).square().mean().sqrt())
        assert backbone.embedding_rms > 0
        assert 0.3 < rms / backbone.embedding_rms < 3

    def test_shapes_are_as_promised(self, backbone: Backbone, layout: Layout) -> None:
        """Hidden states [B, C, D], margins float32 [B, C]."""
        prompt, slots = self.inputs(backbone, layout)
        with torch.no_grad():
            hidden = backbone.hidden(backbone.encode(prompt), slots)
            margins = backbone.answer(hidden, prompt.task)
        assert hidden.shape[:2] == (4, 3)
        assert margins.shape == (4, 3)
        assert margins.dtype == torch.float32
        assert bool(margins.isfinite().all())

    def test_a_margin_is_the_positive_answers_logit_less_the_negative_ones(self, backbone: Backbone) -> None:
        """Of a backbone with a vocabulary; another one refuses to give logits."""
        prompt, slots = self.inputs(backbone, "packed")
        with torch.no_grad():
            hidden = backbone.hidden(backbone.encode(prompt), slots)
            if not self.config.generative:
                with pytest.raises(BadInputError, match="no vocabulary"):
                    backbone.logits(hidden)
                return
            logits = backbone.logits(hidden)
            margins = backbone.answer(hidden, prompt.task)
        assert logits.dtype == torch.float32
        assert logits.shape[:2] == (4, 3)
        self.assert_equal(logits[..., backbone.yes] - logits[..., backbone.no], margins)

    def test_margins_stay_float32_in_mixed_precision(self, backbone: Backbone, layout: Layout) -> None:
        """bfloat16 around the backbone costs digits in the hidden states, not in the difference of two logits."""
        inputs = self.inputs(backbone, layout)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            mixed = _margins(backbone, inputs)
        exact = _margins(backbone, inputs)
        assert mixed.dtype == torch.float32
        torch.testing.assert_close(mixed, exact, atol=0.1 * float(exact.abs().max()), rtol=0.1)

    def test_a_cast_costs_digits_and_leaves_margins_in_float32(self, backbone: Backbone, layout: Layout) -> None:
        """Vectors come in float32 as before."""
        inputs = self.inputs(backbone, layout)
        exact, half = _margins(backbone, inputs), copy.deepcopy(backbone)
        half.cast(torch.bfloat16)
        found = _margins(half, inputs)
        assert found.dtype == torch.float32
        assert not torch.equal(found, exact)
        torch.testing.assert_close(found, exact, atol=0.1 * float(exact.abs().max()), rtol=0.1)

    def test_what_is_compiled_gives_the_same_margins(self, backbone: Backbone, layout: Layout) -> None:
        """The functions that are handed to a compiler are those that then run; a backbone may refuse."""
        inputs, other, calls = self.inputs(backbone, layout), copy.deepcopy(backbone), []

        def compiler(function: Function) -> Function:
            def call(*arguments: Any, **options: Any) -> Any:
                calls.append(function)
                return function(*arguments, **options)

            return call

        try:
            other.compile_with(compiler)
        except BadInputError:
            pytest.skip("it has nothing to compile")
        self.assert_equal(_margins(other, inputs), _margins(backbone, inputs))
        assert calls

    def test_recomputed_activations_give_the_same_gradients(self, backbone: Backbone, layout: Layout) -> None:
        """`checkpointing` changes memory and time, dropout or not."""
        prompt, slots = self.inputs(backbone, layout)
        slots.requires_grad_()
        other = copy.deepcopy(backbone).train()
        found: list[Tensor] = []
        for recompute in (False, True):
            other.checkpointing = recompute
            torch.manual_seed(0)
            found += torch.autograd.grad(_margins_of(other, prompt, slots).square().sum(), slots)
        scale = max(1.0, float(found[0].abs().max()))
        torch.testing.assert_close(found[1] / scale, found[0] / scale, atol=self.tolerance, rtol=0)

    def test_requests_do_not_see_each_other(self, backbone: Backbone, layout: Layout) -> None:
        """One request alone, without its batch mates' padding, gives what it gives in the batch."""
        together = _margins(backbone, self.inputs(backbone, layout))
        for row in range(len(TASKS)):
            alone = _margins(backbone, self.inputs(backbone, layout, slice(row, row + 1)))
            self.assert_equal(alone, together[row : row + 1])

    def test_candidates_do_not_see_each_other(self, backbone: Backbone, layout: Layout) -> None:
        """One candidate alone gives what it gives among others."""
        prompt, slots = self.inputs(backbone, layout)
        together = _margins(backbone, BackboneInputs(prompt, slots))
        for candidate in range(slots.shape[1]):
            part = slice(candidate, candidate + 1)
            self.assert_equal(_margins(backbone, BackboneInputs(prompt, slots[:, part])), together[:, part])

    def test_padding_does_not_matter(self, backbone: Backbone, layout: Layout) -> None:
        """Neither how much there is, nor which tokens stand under the mask of a block."""
        prompt, slots = self.inputs(backbone, layout)
        left = 0 if layout == "interleaved" else 3
        longer = prompt._replace(
            prefix=F.pad(prompt.prefix, (left, 0)),
            prefix_mask=F.pad(prompt.prefix_mask, (left, 0)),
            block=F.pad(prompt.block.masked_fill(~prompt.block_mask, 1), (0, 2), value=2),
            slot=F.pad(prompt.slot, (0, 2), value=-1),
            block_mask=F.pad(prompt.block_mask, (0, 2)),
        )
        self.assert_equal(_margins(backbone, BackboneInputs(longer, slots)), _margins(backbone, (prompt, slots)))

    def test_a_request_may_have_no_prefix_beside_some_that_have_one(self, backbone: Backbone) -> None:
        """A template may begin with a vector."""
        prompt, slots = self.inputs(backbone, "packed")
        bare = torch.tensor([True, False, False, False]).unsqueeze(1)
        prompt = prompt._replace(
            prefix=prompt.prefix.masked_fill(bare, 0), prefix_mask=prompt.prefix_mask.masked_fill(bare, False)
        )
        without = prompt._replace(prefix=prompt.prefix[:, :0], prefix_mask=prompt.prefix_mask[:, :0])
        together = _margins(backbone, (prompt, slots))
        self.assert_equal(together[:1], _margins(backbone, (without, slots))[:1])

    def test_everything_in_a_prompt_matters(self, backbone: Backbone, layout: Layout) -> None:
        """Another query, or another vector in any slot, gives other margins."""
        prompt, slots = self.inputs(backbone, layout)
        before = _margins(backbone, (prompt, slots))
        for slot in range(slots.shape[2]):
            changed = slots.clone()
            changed[:, :, slot] = -changed[:, :, slot]
            assert bool((_margins(backbone, (prompt, changed)) != before).all())
        exchanged = _margins(
            backbone, (prompt, slots[[0, 2, 1, 3]])
        )  # the vectors of one search under the other's query
        assert bool((exchanged[[2, 1]] != before[[1, 2]]).all())

    def test_gradients_reach_every_vector(self, backbone: Backbone, layout: Layout) -> None:
        """And are those that each candidate has alone."""
        prompt, slots = self.inputs(backbone, layout)
        slots.requires_grad_()
        (together,) = torch.autograd.grad(_margins_of(backbone, prompt, slots).square().sum(), slots)
        assert bool(together.isfinite().all())
        assert bool(together.any(dim=-1).all())
        for candidate in range(slots.shape[1]):
            part = slots[:, candidate : candidate + 1].detach().requires_grad_()
            (alone,) = torch.autograd.grad(_margins_of(backbone, prompt, part).square().sum(), part)
            scale = max(1.0, float(alone.abs().max()))
            torch.testing.assert_close(together[:, candidate : candidate + 1] / scale, alone / scale, atol=1e-4, rtol=0)

    def test_every_trainable_parameter_gets_a_gradient(self, backbone: Backbone, layout: Layout) -> None:
        """From one mixed batch; a parameter that no batch can move is dead weight, or a bug."""
        backbone.zero_grad()
        torch.manual_seed(0)
        backbone.train()
        _margins_of(backbone, *self.inputs(backbone, layout)).square().sum().backward()  # type: ignore[no-untyped-call]
        backbone.eval()
        gradients = {name: p.grad for name, p in backbone.named_parameters() if p.requires_grad}
        assert [name for name, gradient in gradients.items() if gradient is None or not bool(gradient.any())] == []
        assert all(bool(gradient.isfinite().all()) for gradient in gradients.values() if gradient is not None)
        backbone.zero_grad()

    def test_it_is_deterministic_in_eval_mode(self, backbone: Backbone, layout: Layout) -> None:
        """Scores must be repeatable."""
        inputs = self.inputs(backbone, layout)
        assert torch.equal(_margins(backbone, inputs), _margins(backbone, inputs))

    def test_one_seed_makes_one_backbone(self) -> None:
        """Whatever happened to the global generator in between, which is left as it was."""
        first = self.config.build(texts=TEXTS, seed=0).state_dict()
        state = torch.random.get_rng_state()
        second = self.config.build(texts=TEXTS, seed=0).state_dict()
        assert torch.equal(torch.random.get_rng_state(), state)
        assert first.keys() == second.keys()
        assert all(torch.equal(first[name], second[name]) for name in first)

    def test_a_saved_backbone_reopens_with_the_same_tokens_and_margins(
        self, backbone: Backbone, tmp_path: Path
    ) -> None:
        """From its folder and its weights, with the same names and the same ones trainable."""
        backbone.save(tmp_path / "backbone")
        again = self.config.open(tmp_path / "backbone")
        again.load_state_dict(backbone.state_dict())
        again.eval()
        assert torch.equal(again.tokenize(WORDS, 8), backbone.tokenize(WORDS, 8))
        inputs = self.inputs(backbone, "packed")
        assert torch.equal(_margins(again, inputs), _margins(backbone, inputs))
        trainable = [name for name, parameter in backbone.named_parameters() if parameter.requires_grad]
        assert [name for name, parameter in again.named_parameters() if parameter.requires_grad] == trainable

    def assert_equal(self, found: Tensor, expected: Tensor) -> None:
        """Equal within `tolerance`."""
        torch.testing.assert_close(found, expected, atol=self.tolerance, rtol=self.tolerance)


def _margins(backbone: Backbone, inputs: tuple[Prompt, Tensor]) -> Tensor:
    with torch.no_grad():
        return _margins_of(backbone, *inputs)


def _margins_of(backbone: Backbone, prompt: Prompt, slots: Tensor) -> Tensor:
    return backbone.answer(backbone.hidden(backbone.encode(prompt), slots), prompt.task)
