"""One generative model for search and recommendation.

Public names are imported on first use, so that ``import gensr`` stays quick and loads no torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gensr.ablation import ablate as ablate
    from gensr.data.batch import Batch as Batch
    from gensr.data.tasks import Task as Task
    from gensr.errors import BadInputError as BadInputError
    from gensr.errors import GensrError as GensrError
    from gensr.evaluation.grouping import compare as compare
    from gensr.pipeline import build as build
    from gensr.runs import Item as Item
    from gensr.runs import Run as Run
    from gensr.runs import open_run as open_run
    from gensr.spec import PipelineSpec as PipelineSpec
    from gensr.spec import load_spec as load_spec

__version__ = "0.1.0"

_MODULES = {
    "BadInputError": "gensr.errors",
    "Batch": "gensr.data.batch",
    "GensrError": "gensr.errors",
    "Item": "gensr.runs",
    "PipelineSpec": "gensr.spec",
    "Run": "gensr.runs",
    "Task": "gensr.data.tasks",
    "ablate": "gensr.ablation",
    "build": "gensr.pipeline",
    "compare": "gensr.evaluation.grouping",
    "load_spec": "gensr.spec",
    "open_run": "gensr.runs",
}

__all__ = [
    "BadInputError",
    "Batch",
    "GensrError",
    "Item",
    "PipelineSpec",
    "Run",
    "Task",
    "__version__",
    "ablate",
    "build",
    "compare",
    "load_spec",
    "open_run",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'gensr' has no attribute {name!r}")
    value = getattr(import_module(_MODULES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
