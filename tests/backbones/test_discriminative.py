"""Shared encoder, a head a task: the reader is T5's own, the answer is the task's."""

import pytest
import torch
import transformers
from pydantic import ValidationError

from gensr.backbones.config import DiscriminativeConfig, T5Config, T5Sizes
from gensr.backbones.discriminative import DiscriminativeBackbone
from gensr.data.tasks import Task
from gensr.errors import BadInputError
from gensr.testing.backbone import TEXTS
from tests.backbones.prompts import inputs, margins, one_by_one, states_under_the_block_mask, whole_sequence

SIZES = T5Sizes(width=32, layers=2, heads=2, head_width=8, hidden=48, vocabulary=300)


@pytest.fixture(scope="module")
def backbone() -> DiscriminativeBackbone:
    return DiscriminativeConfig(scratch=SIZES).build(texts=TEXTS, seed=0).eval()


def head_by_hand(backbone, task: Task, state: torch.Tensor) -> torch.Tensor:
    first, _, _, last = backbone.heads[task.label]
    return torch.clamp(state @ first.weight.T + first.bias, min=0) @ last.weight[0] + last.bias[0]


def test_interleaved_margins_equal_the_published_paradigm_on_transformers_own_encoder(backbone):
    """Mean of the encoder's states, then the head of the request's task (Figure 1(a))."""
    given = inputs(backbone, "interleaved")

    def margin(row: int, candidate: int) -> torch.Tensor:
        states = backbone.model(inputs_embeds=whole_sequence(backbone, given, row, candidate)).last_hidden_state[0]
        return head_by_hand(backbone, Task(int(given.prompt.task[row])), states.mean(0))

    with torch.no_grad():
        torch.testing.assert_close(margins(backbone, given), one_by_one(given, margin), atol=1e-4, rtol=1e-4)


def test_packed_margins_pool_the_block_that_reads_its_prefix(backbone):
    given = inputs(backbone, "packed")

    def margin(row: int, candidate: int) -> torch.Tensor:
        states = states_under_the_block_mask(backbone, given, row, candidate)[0]
        block = states[int(given.prompt.prefix_mask[row].sum()) :]
        return head_by_hand(backbone, Task(int(given.prompt.task[row])), block.mean(0))

    with torch.no_grad():
        torch.testing.assert_close(margins(backbone, given), one_by_one(given, margin), atol=1e-4, rtol=1e-4)


def test_each_task_has_its_own_parameters(backbone):
    """Gradients of search rows reach the shared encoder and the search head, and no other head."""
    given = inputs(backbone)
    hidden = backbone.hidden(backbone.encode(given.prompt), given.slots)
    search = given.prompt.task == Task.SEARCH
    backbone.zero_grad()
    backbone.answer(hidden, given.prompt.task)[search].square().sum().backward()
    touched = {name for name, parameter in backbone.heads.named_parameters() if bool(parameter.grad.any())}
    assert touched == {name for name, _ in backbone.heads.named_parameters() if name.startswith("search.")}
    assert bool(backbone.model.shared.weight.grad.any())
    backbone.zero_grad()


def test_one_hidden_state_is_answered_by_task(backbone):
    hidden = torch.randn(1, 2, 32).expand(2, 2, 32)
    with torch.no_grad():
        answers = backbone.answer(hidden, torch.tensor([Task.SEARCH, Task.RECOMMENDATION]))
        for row, task in enumerate((Task.SEARCH, Task.RECOMMENDATION)):
            torch.testing.assert_close(answers[row, 1], head_by_hand(backbone, task, hidden[row, 1]))
    assert not torch.allclose(answers[0], answers[1])


def test_its_reader_starts_as_that_of_the_t5_it_is_compared_with(backbone):
    generative = T5Config(scratch=SIZES).build(texts=TEXTS, seed=0)
    whole = generative.state_dict()
    mine = {name: value for name, value in backbone.state_dict().items() if name.startswith("model.")}
    assert mine
    assert all(torch.equal(value, whole[name]) for name, value in mine.items())
    assert generative.tokenizer.get_vocab() == backbone.tokenizer.get_vocab()


def test_a_pretrained_t5_gives_its_encoder(tmp_path):
    generative = T5Config(scratch=SIZES).build(texts=TEXTS, seed=0)
    generative.model.save_pretrained(tmp_path)
    generative.tokenizer.save_pretrained(tmp_path)
    again = DiscriminativeConfig(pretrained=str(tmp_path)).build(texts=[], seed=0)
    assert not any("decoder" in name or "lm_head" in name for name, _ in again.named_parameters())
    assert torch.equal(again.model.shared.weight, generative.model.shared.weight)
    assert torch.equal(
        again.model.encoder.block[1].layer[0].SelfAttention.q.weight,
        generative.model.encoder.block[1].layer[0].SelfAttention.q.weight,
    )


def test_another_architecture_is_refused(tmp_path):
    transformers.GPT2Config().save_pretrained(tmp_path)
    with pytest.raises(BadInputError, match="is a gpt2, expected a t5"):
        DiscriminativeConfig(pretrained=str(tmp_path)).build(texts=[], seed=0)


def test_decoder_layers_are_refused():
    with pytest.raises(ValidationError, match=r"scratch\.decoder_layers: this backbone has no decoder"):
        DiscriminativeConfig(scratch=T5Sizes(decoder_layers=2))


def test_it_says_that_it_does_not_generate():
    assert not DiscriminativeConfig.generative
    assert T5Config.generative
    with pytest.raises(ValueError, match="fp16 overflows"):
        DiscriminativeConfig().check_precision("fp16")
