"""`torch.compile` that never stands in the way: where it fails, a message, and the work goes on without it."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar, cast

import torch

from gensr.nested import map_tensors

F = TypeVar("F", bound=Callable[..., Any])

SHOWN = 160
"""Characters of an error that are shown: compilers tell whole stories."""


class Compiler:
    """Compiles functions, and calls them as they are once compiling or running what was compiled has failed.

    Functions compile at their first call, and again for other shapes. After a failure none of this compiler's functions
    is compiled any more: what is missing (a C++ compiler, say) is missing for all of them. Errors of a function itself
    come through as without compilation, and so do a full memory and Ctrl-C. An error that the backend raises only
    in the backward pass is not caught.

    Args:
        say: receives the message of a failure, once.
        option: what the message names as the option that asked for compilation.
        mode: of `torch.compile`; "reduce-overhead" replays CUDA graphs.
        dynamic: whether shapes may vary; None lets torch find out.
        backend: of `torch.compile`.

    Example:
        >>> compiler = Compiler(print, option="training.compile")
        >>> backbone.compile_with(compiler)
    """

    def __init__(
        self,
        say: Callable[[str], None],
        *,
        option: str,
        mode: str | None = None,
        dynamic: bool | None = None,
        backend: str = "inductor",
    ) -> None:
        self._say, self._option = say, option
        self._compile = functools.partial(torch.compile, mode=mode, dynamic=dynamic, backend=backend)
        # A CUDA graph writes its results to the same memory at every call: they are copied out of it.
        self._copies = mode == "reduce-overhead"
        self.failed = False

    def __call__(self, function: F) -> F:
        """`function`, compiled when it is first called."""
        compiled: Callable[..., Any] | None = None

        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            nonlocal compiled
            if self.failed:
                return function(*args, **kwargs)
            try:
                if compiled is None:
                    compiled = self._compile(function)
                result = compiled(*args, **kwargs)
                return map_tensors(torch.clone, result) if self._copies else result
            except (MemoryError, torch.OutOfMemoryError):
                raise
            except Exception as error:
                result = function(*args, **kwargs)  # raises where it was the function and not its compilation
                self._give_up(error)
                return result

        return cast(F, call)

    def _give_up(self, error: Exception) -> None:
        self.failed = True
        cause = f"{type(error).__name__}: {error}".strip().splitlines()[0]
        cause = cause if len(cause) <= SHOWN else cause[:SHOWN] + " ..."
        self._say(f"  {self._option}: torch.compile failed and is left out from here on ({cause})")
