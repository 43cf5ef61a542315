"""How much memory a training will hold, told before its first update, and the batch size that fits it.

Weights, gradients and AdamW's moments are counted. Activations are what else is alive at the fullest moment of a
forward and a backward pass: counted on two small batches, and drawn out as the line through both. It is an estimate:
prompts differ in length, and an allocator keeps more than it hands out.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from gensr.data.batch import Batch
from gensr.errors import BadInputError
from gensr.memory import free_memory
from gensr.rankers.base import Losses

PROBE = 16
"""Requests of the larger batch that is counted; the smaller one is a quarter of it."""
LEAST, LARGEST = 8, 512
"""Batch sizes that "auto" chooses from: small ones learn slowly, and larger ones are hardly faster."""
SHARE = 0.5
"""Of the memory, for "auto": the estimate may be wrong, and others want some as well."""


@dataclass(frozen=True)
class Footprint:
    """Bytes of a training, by the requests of a batch.

    Attributes:
        model: weights, buffers, gradients and AdamW's moments.
        shared: activations of a batch of whatever size.
        request: activations of one request more.
        available: what the process may take, with what the model already holds.
    """

    model: int
    shared: float
    request: float
    available: int

    def activations(self, requests: int) -> float:
        """Bytes that a batch takes beside the model."""
        return self.shared + self.request * requests

    def total(self, requests: int) -> float:
        """Bytes held at the fullest moment."""
        return self.model + self.activations(requests)

    def largest(self, share: float = 1.0) -> int | None:
        """The largest power of two of requests that needs no more than `share` of what is available; None: too many."""
        sizes = [1 << exponent for exponent in range(LARGEST.bit_length()) if LEAST <= 1 << exponent]
        return max((size for size in sizes if self.total(size) <= share * self.available), default=None)

    def describe(self, requests: int) -> str:
        """One line for the user."""
        parts = f"weights, gradients and Adam {_size(self.model)}, activations {_size(self.activations(requests))}"
        needs = f"about {_size(self.total(requests))} of {_size(self.available)} at batch_size {requests} ({parts})"
        if self.total(requests) <= self.available:
            return f"  memory: {needs}"
        fitting = self.largest()
        smaller = "" if fitting is None else f", batch_size {fitting}"
        return f"  memory may not suffice: {needs}; try gradient_checkpointing, precision bf16{smaller}"

    def mib(self, requests: int) -> dict[str, float]:
        """The numbers of `describe`, for the manifest."""
        values = {"model": self.model, "activations": self.activations(requests), "available": self.available}
        return {name: round(value / 2**20, 1) for name, value in values.items()}


def automatic_batch_size(footprint: Footprint) -> int:
    """The largest power of two from `LEAST` to `LARGEST` whose estimate stays within `SHARE` of the memory.

    Raises:
        BadInputError: not even `LEAST` requests do.
    """
    size = footprint.largest(SHARE)
    if size is None:
        raise BadInputError(
            f'training.batch_size "auto": even {LEAST} requests need about {_size(footprint.total(LEAST))}, more than '
            f"half of the {_size(footprint.available)} there are. Try gradient_checkpointing, precision bf16 or a "
            "smaller backbone; a number is tried whatever it needs"
        )
    return size


def measure(objective: nn.Module, optimizer: torch.optim.Optimizer, batch: Batch, *, device: str) -> Footprint:
    """The footprint of minimising `objective`.

    Args:
        objective: ``objective(batch) -> Losses``, in training mode. It is not changed, nor are its buffers; only the
            global random generators are used.
        optimizer: AdamW over its parameters.
        batch: some requests, on the device.
        device: where `objective` is.
    """
    weights = [*objective.parameters(), *objective.buffers()]
    gradients = sum(parameter.nbytes for parameter in objective.parameters() if parameter.requires_grad)
    held = sum(tensor.nbytes for tensor in weights) + _state_bytes(optimizer)
    few = batch.select(torch.arange(-(-len(batch) // 4), device=batch.task.device))
    small, large = peak_bytes(objective, few), peak_bytes(objective, batch)
    # A batch of one request gives no line but through the origin.
    slope = max(0, large - small) / (len(batch) - len(few)) if len(batch) > len(few) else large / len(batch)
    return Footprint(
        model=sum(tensor.nbytes for tensor in weights) + 3 * gradients,
        shared=max(0.0, large - slope * len(batch)),
        request=slope,
        available=free_memory(device) + held,
    )


class _Alive(TorchDispatchMode):
    """Bytes of the tensors that come to be while it is active and are alive, and the most there were.

    Args:
        apart: tensors whose memory does not count, nor that of their views.
    """

    def __init__(self, apart: Iterable[Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now, self.most = 0, 0
        # By address: no two that are alive share one, and one that dies is forgotten.
        self._sizes = {tensor.untyped_storage()._cdata: 0 for tensor in apart if tensor.layout is torch.strided}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        results = func(*args, **(kwargs or {}))
        for result in tree_leaves(results):
            if isinstance(result, Tensor) and result.layout is torch.strided:
                self._see(result.untyped_storage())
        return results

    def _see(self, storage: torch.UntypedStorage) -> None:
        place = storage._cdata
        if place not in self._sizes:
            self._sizes[place] = storage.nbytes()
            self.now += storage.nbytes()
            self.most = max(self.most, self.now)
            weakref.finalize(storage, self._forget, place)

    def _forget(self, place: int) -> None:
        self.now -= self._sizes.pop(place)


def peak_bytes(objective: nn.Module, batch: Batch) -> int:
    """Most bytes that a forward and a backward pass of `objective` hold, without weights and their gradients."""
    trained = [parameter for parameter in objective.parameters() if parameter.requires_grad]
    saved = objective.state_dict().keys()
    # What training would move, a running mean say, is moved in copies.
    buffers = {name: buffer.clone() for name, buffer in objective.named_buffers() if name in saved}
    alive = _Alive([*objective.parameters(), *objective.buffers(), *buffers.values()])
    with ExitStack() as stack:
        stack.enter_context(alive)
        for parameter in trained:
            hook = parameter.register_post_accumulate_grad_hook(_drop_gradient)  # type: ignore[no-untyped-call]
            stack.callback(hook.remove)
        losses: Losses = functional_call(objective, buffers, (batch,))
        losses.total.backward()  # type: ignore[no-untyped-call]
    return alive.most


def _drop_gradient(parameter: Tensor) -> None:
    parameter.grad = None


def _state_bytes(optimizer: torch.optim.Optimizer) -> int:
    tensors = (value for state in optimizer.state.values() for value in state.values())
    return sum(tensor.nbytes for tensor in tensors if isinstance(tensor, Tensor))


def _size(count: float) -> str:
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{count / 2**20:.0f} MiB"
