"""Cases and a suite that need no model: what tests of timing, reports and the command line run."""

from __future__ import annotations

import sys
from types import ModuleType

import torch

from gensr.bench import run
from gensr.bench.cases import Case, Context

WEIGHT = torch.randn(64, 64)
FLOPS = 2 * 64**3
"""Of `product`."""


def case(name="plain", run=lambda: None, **changes):
    """A case of the suite "toy"; `changes` replace its other fields."""
    fields = {"suite": "toy", "workload": "sums", "units": 1, "unit": "sums"} | changes
    return Case(name=name, run=run, **fields)


class Clock:
    """Time that passes only where a call says so."""

    def __init__(self):
        self.now = 0.0
        self.calls = []

    def __call__(self):
        return self.now

    def taking(self, name, seconds):
        """A call that takes as long as `seconds` says: a number, or one number a call."""
        each = iter(seconds) if isinstance(seconds, list) else None

        def run():
            self.calls.append(name)
            self.now += next(each) if each else seconds

        return run


def product():
    return WEIGHT @ WEIGHT


def toy_cases(context):
    """Four cases in two groups: one aim is met, one is out of reach; the last has no products."""
    yield case("once", product, baseline=True, unit="candidates", units=2)
    yield case("half", lambda: WEIGHT[:32] @ WEIGHT, unit="candidates", units=2, aim=1e-9)
    yield case("twice", lambda: (product(), product()), unit="candidates", units=2, aim=1e9, dtype="bf16")
    yield case("nothing", workload="no products", baseline=True)


def install(monkeypatch, cases=toy_cases):
    """Make `cases` the suite named "toy"."""
    module = ModuleType("gensr.bench.suites.toy")
    module.cases = cases
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(run, "SUITES", (*run.SUITES, "toy"))


def quick_context(**changes):
    """What a suite is told in a test."""
    fields = {"device": "cpu", "shapes": ("tiny",), "spec": None, "quick": True}
    return Context(**fields | {"baselines": run.baselines_in(run.BASELINES)} | changes)
