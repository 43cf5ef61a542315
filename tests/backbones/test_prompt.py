"""Prompts: the right pieces in the right order, whatever the batch."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from gensr.backbones.base import Prompt
from gensr.backbones.prompt import PADDING, PromptBuilder, by_length, distinct_prefixes, fill_slots
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


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(1, 40), min_size=1, max_size=12))
def test_requests_are_grouped_by_length_each_once_and_with_little_padding(lengths):
    blocks = torch.zeros(len(lengths), 40, dtype=torch.int64)
    mask = torch.arange(40) < torch.tensor(lengths).unsqueeze(1)
    prompt = Prompt(blocks[:, :0], mask[:, :0], blocks, blocks - 1, mask, blocks[:, 0])
    groups = by_length(prompt)
    assert sorted(torch.cat(groups).tolist()) == list(range(len(lengths)))
    for rows in groups:
        longest = max(lengths[row] for row in rows.tolist())
        assert prompt.select(rows).block_mask.shape == (len(rows), longest)
        assert min(lengths[row] for row in rows.tolist()) >= (1 - PADDING) * longest
    assert len(groups) > 1 or min(lengths) >= (1 - PADDING) * max(lengths)


def test_requests_of_one_length_stay_together():
    assert [rows.tolist() for rows in by_length(build("interleaved", [Task.RECOMMENDATION] * 3, [""] * 3))] == [
        [0, 1, 2]
    ]


def test_equal_prefixes_are_found():
    prompt = build(
        "packed", [Task.SEARCH, Task.RECOMMENDATION, Task.SEARCH, Task.RECOMMENDATION], ["red", "", "red", ""]
    )
    distinct, rows = distinct_prefixes(prompt)
    assert len(distinct) == 2
    assert torch.equal(distinct[rows], prompt.prefix)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_vectors_stand_where_the_prompt_wants_them_in_the_words_dtype(dtype):
    text, slot = torch.randn(2, 4, 3, dtype=dtype), torch.tensor([[-1, 1, 0, -1], [2, -1, 1, -1]])
    vectors = torch.randn(2, 5, 3, 3)
    filled = fill_slots(text, slot, vectors)
    assert filled.dtype == dtype
    for row, candidate, place in itertools.product(range(2), range(5), range(4)):
        number = int(slot[row, place])
        expected = text[row, place] if number < 0 else vectors[row, candidate, number].to(dtype)
        assert torch.equal(filled[row, candidate, place], expected)


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
