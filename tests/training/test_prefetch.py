"""Reading ahead changes when batches are sliced, and nothing else."""

import threading

import pytest
import torch

from gensr.data.dataset import Dataset
from gensr.data.loader import RequestLoader
from gensr.training import trainer
from gensr.training.prefetch import ahead, prefetched
from tests.toy import digest, train_toy


def readers():
    return [thread for thread in threading.enumerate() if thread.name.startswith("gensr-prefetch")]


@pytest.mark.parametrize("depth", [1, 2, 7])
def test_order_and_number_are_those_of_the_loader(data, depth):
    loader = RequestLoader(Dataset.open(data), 5)
    settings = {"seed": 1, "epoch": 0, "batch_size": 16, "negatives": 3}
    expected, found = list(loader.epoch(**settings)), list(ahead(loader.epoch(**settings), depth=depth))
    assert len(found) == len(expected) > depth
    for mine, theirs in zip(found, expected, strict=True):
        assert torch.equal(mine.request, theirs.request)
        assert torch.equal(mine.cand, theirs.cand)
    assert readers() == []


def test_it_is_never_more_than_its_depth_in_front():
    begun = []

    def items():
        for number in range(1, 20):
            begun.append(number)
            yield number

    for number in ahead(items(), depth=3):
        assert len(begun) <= number + 3


def test_nothing_comes_of_nothing():
    assert list(ahead([])) == []


def test_an_error_of_the_loader_surfaces_where_its_batch_would_have_come():
    def items():
        yield 1
        yield 2
        raise ZeroDivisionError("in the loader")

    reader = ahead(items())
    assert [next(reader), next(reader)] == [1, 2]
    with pytest.raises(ZeroDivisionError, match="in the loader"):
        next(reader)
    assert readers() == []


def test_closing_ends_the_thread_and_leaves_the_rest_unread():
    begun = []

    def endless():
        while True:
            begun.append(len(begun))
            yield begun[-1] + 1

    reader = ahead(endless(), depth=2)
    assert next(reader) == 1
    reader.close()
    assert readers() == []
    assert len(begun) <= 1 + 2 + 1


def test_leaving_the_loop_ends_the_thread():
    for _ in ahead(iter(range(1, 100))):
        break
    assert readers() == []


def test_on_a_cpu_no_thread_takes_its_time():
    source = [object(), object()]
    reader = prefetched(source, device="cpu")
    assert next(reader) is source[0]
    assert readers() == []


def test_a_training_that_reads_ahead_ends_with_the_same_weights(tmp_path, data, monkeypatch):
    plain = train_toy(tmp_path / "plain", data)[0]
    monkeypatch.setattr(trainer, "prefetched", lambda batches, *, device: ahead(batches))
    reading_ahead = train_toy(tmp_path / "ahead", data)[0]
    assert digest(reading_ahead) == digest(plain)
    assert readers() == []


def test_a_copy_is_waited_for_where_it_could_be_read_too_early(data, monkeypatch):
    """To a GPU the copy goes first in line whatever is computed there next; on the host nothing stands in line."""
    batch = next(RequestLoader(Dataset.open(data), 5).epoch(seed=1, epoch=0, batch_size=2, negatives=1))
    seen = {"cpu": set(), "cuda": set()}
    monkeypatch.setattr(torch.Tensor, "to", lambda self, to, *, non_blocking: seen[to].add(non_blocking) or self)
    for device in seen:
        batch.to(device)
    assert seen == {"cpu": {False}, "cuda": {True}}
