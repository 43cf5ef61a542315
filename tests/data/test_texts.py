"""Texts by row: a list to whoever reads it, one Arrow array inside."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gensr.data.texts import Texts

words = st.lists(st.text(max_size=5), max_size=12)


@given(words)
def test_it_reads_like_the_list(rows):
    listed = ["", *rows]
    texts = Texts.of(listed)
    assert len(texts) == len(listed)
    assert list(texts) == listed
    assert texts == listed
    assert [texts[row] for row in range(len(listed))] == listed
    assert texts[-1] == listed[-1]


@given(words, st.integers(-14, 14), st.integers(-14, 14), st.sampled_from([1, 2, -1]))
def test_slices_are_those_of_the_list(rows, start, stop, step):
    listed = ["", *rows]
    assert Texts.of(listed)[start:stop:step] == listed[start:stop:step]


@given(words.filter(len), st.data())
def test_take_gathers_in_the_given_order(rows, data):
    listed = ["", *rows]
    wanted = data.draw(st.lists(st.integers(0, len(rows)), max_size=9))
    assert Texts.of(listed).take(np.array(wanted, np.int64)) == [listed[row] for row in wanted]


def test_rows_beyond_the_end_are_an_index_error():
    with pytest.raises(IndexError):
        Texts.of(["", "a"])[2]


def test_the_padding_row_must_be_empty():
    with pytest.raises(ValueError, match="row 0 is padding and must be empty, got 'a'"):
        Texts.of(["a"])


def test_texts_are_read_once_and_only_when_asked_for():
    calls = []

    def load():
        calls.append(1)
        return pa.chunked_array([["a"], ["b"]])

    texts = Texts(load, 2)
    assert len(texts) == 3
    assert not calls
    assert texts[1:] == ["a", "b"]
    assert texts[2] == "b"
    assert len(calls) == 1
