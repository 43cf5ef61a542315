from typing import NamedTuple

import torch

from gensr.nested import map_tensors, nbytes, tensors


class Pair(NamedTuple):
    key: torch.Tensor
    note: str


def some_state():
    key = torch.arange(4.0)
    return {"pairs": [Pair(key, "a"), Pair(key[:2], "b")], "rest": (torch.ones(3, dtype=torch.bool), None, 7)}


def test_every_tensor_is_mapped_and_everything_else_stays():
    found = map_tensors(lambda tensor: tensor + 1 if tensor.is_floating_point() else ~tensor, some_state())
    assert isinstance(found["pairs"][1], Pair)
    assert found["pairs"][1].key.tolist() == [1, 2]
    assert found["pairs"][0].note == "a"
    assert found["rest"][0].tolist() == [False] * 3
    assert found["rest"][1:] == (None, 7)


def test_tensors_come_in_order():
    assert [len(tensor) for tensor in tensors(some_state())] == [4, 2, 3]


def test_memory_is_counted_once_and_as_it_is_held():
    assert nbytes(some_state()) == 4 * 4 + 3
    assert nbytes(torch.zeros(100)[:1]) == 400  # a part keeps the whole alive
    assert nbytes((None, 3)) == 0
