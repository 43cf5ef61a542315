"""How fast a device could be at most: the work of a call counted, and the device's own limits measured.

The floor of a call is the longer of two times: its FLOPs at the highest rate seen in a plain matrix multiplication of
that precision, and its bytes at the rate of a plain copy. Utilisation is the share of that highest rate that was used.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from gensr.backbones.kernels import linear
from gensr.bench.cases import Case

JOBS = {"candidates": 6_822_300, "rows": 7_040_000}
"""Whole jobs by unit: a test pass of 68,223 requests x 100 candidates, and an epoch of the published training."""
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
# Rows, inner width, columns: squares, and the tall products of a language model's layers.
PRODUCTS = {
    "cpu": ((1024, 1024, 1024), (2048, 2048, 2048), (8192, 768, 768), (8192, 768, 2048)),
    "cuda": ((4096, 4096, 4096), (8192, 8192, 8192), (65536, 768, 768), (65536, 768, 2048)),
}
QUICK_PRODUCTS = ((256, 256, 256), (1024, 256, 256))
COPIED_BYTES = {"cpu": 2**28, "cuda": 2**31}
QUICK_BYTES = 2**24
TRIES = 5


@dataclass(frozen=True)
class Work:
    """What a call has to do, as far as it is dense matrix products (linear layers, attention, convolutions).

    Attributes:
        flops: multiplications and additions in them.
        bytes: what they read and write where nothing stays in a cache between two of them: what existed before the
            call (weights, tables, inputs) once however many products read it, what the call itself made once for each
            product that reads it and once for the product that wrote it; of an expanded tensor only what is stored.
            None where a case counts its FLOPs itself.

    Element-wise operations, look-ups and products of sparse matrices are in neither.
    """

    flops: int
    bytes: int | None


def count_work(case: Case) -> Work:
    """Run a case once and count; or ask it, where it counts itself."""
    if case.flops is not None:
        return Work(case.flops(), None)
    with _Counter() as counter:
        case.run()
    return Work(counter.flops, counter.bytes)


def peak(device: str, dtype: str, *, quick: bool = False) -> float:
    """FLOP/s of the fastest plain matrix product on this device, with the threads in use.

    The best of several shapes, of several tries, and of torch's own product and that of `gensr.backbones.kernels`.
    """
    return _peak(device, dtype, quick, torch.get_num_threads(), torch.get_float32_matmul_precision())


@cache
@torch.inference_mode()
def _peak(device: str, dtype: str, quick: bool, threads: int, precision: str) -> float:
    rates = []
    for rows, inner, columns in QUICK_PRODUCTS if quick else PRODUCTS[device]:
        x = torch.randn(rows, inner, device=device, dtype=DTYPES[dtype])
        layer = nn.Linear(inner, columns, bias=False, device=device, dtype=DTYPES[dtype])
        for product in (partial(torch.mm, x, layer.weight.T), partial(linear, layer, x)):
            rates.append(2 * rows * inner * columns / _best(device, product))
    return max(rates)


@cache
def copy_rate(device: str, *, quick: bool = False) -> float:
    """Bytes/s of a copy within the device's memory, those read and those written."""
    size = QUICK_BYTES if quick else COPIED_BYTES[device]
    source = torch.ones(size, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return 2 * size / _best(device, lambda: target.copy_(source))


def floor_seconds(work: Work, peak: float, copy_rate: float) -> float:
    """The longer of the time for the FLOPs and that for the bytes."""
    return max(work.flops / peak, (work.bytes or 0) / copy_rate)


def utilisation(work: Work, seconds: float, peak: float) -> float:
    """The share of the peak rate that was used, 0 to 1."""
    return work.flops / seconds / peak


def seconds_for(job: float, case: Case, seconds: float) -> float:
    """Seconds for a job of so many units, at the pace of a call that takes `seconds`."""
    return job / case.units * seconds


def _best(device: str, call: Callable[[], object]) -> float:
    found = []
    for _ in range(TRIES + 1):
        synchronise(device)
        start = time.perf_counter()
        call()
        synchronise(device)
        found.append(time.perf_counter() - start)
    return min(found[1:])


def synchronise(device: str) -> None:
    """Wait until the device has done what it was told to."""
    if device == "cuda":
        torch.cuda.synchronize()


def _attention_flops(query: Tensor, key: Tensor, value: Tensor) -> int:
    """Scores and weighted sum: [B, H, Q, d] by [B, H, K, d], and [B, H, Q, K] by [B, H, K, v]."""
    return 2 * query.shape[:-1].numel() * key.shape[-2] * (query.shape[-1] + value.shape[-1])


# What torch's own counter leaves out, by name: a build of torch may lack some. Attention is two products forwards and
# five backwards.
_CPU_KERNELS: dict[str, Callable[[Sequence[Any], Any], int]] = {
    "aten._scaled_dot_product_flash_attention_for_cpu": lambda args, out: _attention_flops(*args[:3]),
    "aten._scaled_dot_product_flash_attention_for_cpu_backward": lambda args, out: (
        _attention_flops(*args[1:4]) * 5 // 2
    ),
    "mkldnn._linear_pointwise": lambda args, out: 2 * args[0].numel() * out.shape[-1],
}


class _Counter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Watches what reaches the device and counts its dense matrix products, by torch's own formulas."""

    supports_higher_order_operators = True  # flex_attention is one

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.flops = self.bytes = 0
        self._made: set[int] = set()
        self._read: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        packet = getattr(func, "_overloadpacket", func)
        counted = packet in flop_registry or str(packet) in _CPU_KERNELS
        if not counted and hasattr(func, "decompose"):
            with self:
                out = func.decompose(*args, **kwargs)
            if out is not NotImplemented:
                return out
        out = func(*args, **kwargs)
        read, written = list(_tensors((args, kwargs))), list(_tensors(out))
        if counted and all(tensor.layout == torch.strided for tensor in (*read, *written)):
            self.flops += self._flops(packet, args, kwargs, out)
            self.bytes += sum(map(self._bytes_read, read)) + sum(map(_stored_bytes, written))
        # A view of a weight is still the weight.
        self._made |= set(map(_address, written)) - set(map(_address, read))
        return out

    @staticmethod
    def _flops(packet: Any, args: Any, kwargs: Any, out: Any) -> int:
        if str(packet) in _CPU_KERNELS:
            return _CPU_KERNELS[str(packet)](args, out)
        return int(flop_registry[packet](*args, **kwargs, out_val=out))

    def _bytes_read(self, tensor: Tensor) -> int:
        if _address(tensor) not in self._made:
            part = tensor.data_ptr()  # of one weight matrix, transposed or not; several may share a storage
            if part in self._read:
                return 0
            self._read.add(part)
        return _stored_bytes(tensor)


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict):
        yield from _tensors(list(value.values()))
    elif isinstance(value, Sequence) and not isinstance(value, str):
        for inner in value:
            yield from _tensors(inner)


def _address(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr() if tensor.layout == torch.strided else 0


def _stored_bytes(tensor: Tensor) -> int:
    sizes = (size for size, stride in zip(tensor.shape, tensor.stride(), strict=True) if stride)
    return math.prod(sizes) * tensor.element_size()
