"""Prompts: the right pieces in the right order, whatever the batch."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from gensr.backbones.prompt import PromptBuilder
from gensr.backbones.templates import TaskTemplates, split_template
from gensr.data.tasks import Task
from gensr.errors import BadInputError
from gensr.rankers.config import GenSRConfig

TEMPLATES = TaskTemplates(
    recommendation="like {cf_history}{text_history} this {cf_candidate}{text_candidate} yes",
    search="find {query} like {cf_history}{text_history} this {cf_candidate}{text_candidate} yes",
)
VOCABULARY = {word: number for number, word in enumerate("like this yes find red blue pan".split(), start=1)}
SLOTS = {"cf_history": 2, "text_history": 2, "cf_candidate": 1, "text_candidate": 1}


def tokenize(texts, length):
    ids = torch.zeros(len(texts), length, dtype=torch.int64)
    for row, text in enumerate(texts):
        for position, word in enumerate(text.split()[:length]):
            ids[row, position] = VOCABULARY[word]
    return ids


def read(prompt, row):
    """A prompt as a person reads it: words, and slots as numbers."""
    names = {number: word for word, number in VOCABULARY.items()}
    words = [names[int(i)] for i in prompt.prefix[row][prompt.prefix_mask[row]]]
    block = zip(prompt.block[row], prompt.slot[row], prompt.block_mask[row], strict=True)
    return words, [names[int(i)] if slot < 0 else int(slot) for i, slot, real in block if real]


def build(layout, tasks, queries, present=None):
    builder = PromptBuilder(TEMPLATES, layout=layout, tokenize=tokenize, slots=SLOTS, query_length=3)
    present = torch.ones(len(tasks), 6, dtype=torch.bool) if present is None else present
    return builder(torch.tensor(tasks), tokenize(queries, 3), present)


def test_packed_puts_text_and_query_into_the_prefix():
    prompt = build("packed", [Task.SEARCH, Task.RECOMMENDATION], ["red pan", ""])
    assert read(prompt, 0) == (["find", "red", "pan", "like"], [0, 1, 2, 3, "this", 4, 5, "yes"])
    assert read(prompt, 1) == (["like"], [0, 1, 2, 3, "this", 4, 5, "yes"])
    assert prompt.prefix_mask[1].tolist() == [False, False, False, True]  # padded on the left


def test_interleaved_keeps_the_written_order_and_pads_on_the_right():
    prompt = build("interleaved", [Task.SEARCH, Task.RECOMMENDATION], ["blue", ""])
    assert read(prompt, 0) == ([], ["find", "blue", "like", 0, 1, 2, 3, "this", 4, 5, "yes"])
    assert read(prompt, 1) == ([], ["like", 0, 1, 2, 3, "this", 4, 5, "yes"])
    assert not prompt.block_mask[1, -1]


def test_absent_vectors_vanish_without_leaving_holes():
    present = torch.tensor([[True, False, True, False, True, True]])
    prompt = build("interleaved", [Task.RECOMMENDATION], [""], present)
    assert read(prompt, 0)[1] == ["like", 0, 2, "this", 4, 5, "yes"]
    assert prompt.block_mask.all()


def test_a_view_that_was_dropped_loses_its_slots():
    builder = PromptBuilder(
        TEMPLATES, layout="packed", tokenize=tokenize, slots={"text_history": 1, "text_candidate": 1}, query_length=3
    )
    prompt = builder(torch.tensor([Task.RECOMMENDATION]), tokenize([""], 3), torch.ones(1, 2, dtype=torch.bool))
    assert read(prompt, 0)[1] == [0, "this", 1, "yes"]


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(list(Task)), st.integers(0, 3)), min_size=1, max_size=6))
def test_a_prompt_is_the_same_in_any_batch(requests):
    tasks = [task for task, _ in requests]
    queries = [" ".join(["red", "blue", "pan"][:n]) if task == Task.SEARCH else "" for task, n in requests]
    for layout in ("packed", "interleaved"):
        together = build(layout, tasks, queries)
        for row in range(len(requests)):
            assert read(together, row) == read(build(layout, [tasks[row]], [queries[row]]), 0)


def test_a_text_that_would_be_cut_is_refused():
    long = TaskTemplates(recommendation="like " * 257 + "{cf_candidate}", search="{query}{cf_candidate}")
    with pytest.raises(BadInputError, match=r"the text 'like like.* has more than 256 tokens before the next marker"):
        PromptBuilder(long, layout="packed", tokenize=tokenize, slots=SLOTS, query_length=3)


def test_split_template_names_text_query_and_slots():
    assert split_template("a {query}{cf_candidate}") == [("text", "a"), ("query", ""), ("slot", "cf_candidate")]


@pytest.mark.parametrize(
    ("search", "message"),
    [
        ("find {qury} {cf_candidate}", "unknown marker {qury}; did you mean 'query'?"),
        ("find {query}", "names no candidate"),
        ("find {query} {cf_candidate} {cf_candidate}", "more than once"),
    ],
)
def test_broken_templates_are_explained(search, message):
    with pytest.raises(ValidationError, match=message.replace("{", "[{]").replace("?", "[?]")):
        TaskTemplates(recommendation="x {cf_candidate}", search=search)


def test_a_search_template_without_its_query_is_refused():
    silent = TaskTemplates(recommendation="x {cf_candidate}", search="find it {cf_candidate}")
    with pytest.raises(ValidationError, match=r"search template must hold [{]query[}]"):
        GenSRConfig(templates=silent, match_slots=False)


def test_a_packed_template_with_its_query_behind_the_vectors_is_refused():
    late = TaskTemplates(recommendation="x {cf_candidate}", search="x {cf_candidate} {query}")
    with pytest.raises(ValidationError, match=r"templates\.search: .*move it before the first vector"):
        GenSRConfig(templates=late, layout="packed", match_slots=False)
    assert GenSRConfig(templates=late, layout="interleaved", match_slots=False).templates == late
