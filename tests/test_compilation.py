"""Compilation may fail, the work may not: what fails is said once, and goes on as it was written."""

import pytest
import torch

from gensr.compilation import SHOWN, Compiler


def double(x):
    """A function worth compiling."""
    return x * 2


def failing(error):
    """A `torch.compile` whose functions raise `error` when they are called."""

    def compile_(function, **options):
        def call(*args, **kwargs):
            raise error

        return call

    return compile_


def test_a_compiled_function_returns_what_the_function_returns():
    said = []
    compiled = Compiler(said.append, option="training.compile", backend="aot_eager")(double)
    x = torch.ones(3, requires_grad=True)
    compiled(x).sum().backward()
    assert torch.equal(compiled(x), double(x))
    assert torch.equal(x.grad, torch.full((3,), 2.0))
    assert compiled.__doc__ == double.__doc__
    assert said == []


def test_options_reach_torch_compile(monkeypatch):
    seen = {}
    monkeypatch.setattr(torch, "compile", lambda function, **options: seen.update(options) or function)
    Compiler(print, option="", mode="reduce-overhead", dynamic=False)(double)(torch.ones(1))
    assert seen == {"mode": "reduce-overhead", "dynamic": False, "backend": "inductor"}


def test_what_a_cuda_graph_returned_outlives_its_next_call(monkeypatch):
    def one_place_for_all_results(function, **options):
        place = torch.zeros(1)
        return lambda x: (place.copy_(function(x)), None)

    monkeypatch.setattr(torch, "compile", one_place_for_all_results)
    compiled = Compiler(print, option="", mode="reduce-overhead")(double)
    (first, _), (second, _) = compiled(torch.ones(1)), compiled(torch.ones(1) * 5)
    assert (first.item(), second.item()) == (2, 10)


def test_a_failure_is_said_once_and_everything_goes_on_uncompiled(monkeypatch):
    monkeypatch.setattr(torch, "compile", failing(RuntimeError("No working C++ compiler found\nand a long story")))
    said = []
    compiler = Compiler(said.append, option="training.compile")
    first, second = compiler(double), compiler(lambda x: x + 1)
    assert first(torch.tensor(3)) == 6
    assert second(torch.tensor(3)) == 4
    assert first(torch.tensor(4)) == 8
    assert compiler.failed
    assert said == [
        "  training.compile: torch.compile failed and is left out from here on "
        "(RuntimeError: No working C++ compiler found)"
    ]


def test_torch_compile_itself_may_be_what_fails(monkeypatch):
    def unsupported(function, **options):
        raise RuntimeError("not on this Python")

    monkeypatch.setattr(torch, "compile", unsupported)
    said = []
    assert Compiler(said.append, option="x")(double)(torch.tensor(1)) == 2
    assert "not on this Python" in said[0]


def test_a_long_story_is_cut(monkeypatch):
    monkeypatch.setattr(torch, "compile", failing(RuntimeError("x" * 1000)))
    said = []
    Compiler(said.append, option="training.compile")(double)(torch.tensor(1))
    assert len(said[0]) < SHOWN + 100


def test_an_error_of_the_function_itself_is_no_failure_of_the_compiler():
    def strict(x):
        raise ValueError("the function's own")

    said = []
    compiler = Compiler(said.append, option="x", backend="eager")
    with pytest.raises(ValueError, match="the function's own"):
        compiler(strict)(torch.ones(1))
    assert not compiler.failed
    assert said == []


@pytest.mark.parametrize("error", [KeyboardInterrupt(), torch.OutOfMemoryError("full"), MemoryError()])
def test_ctrl_c_and_a_full_memory_come_through(monkeypatch, error):
    monkeypatch.setattr(torch, "compile", failing(error))
    compiler = Compiler(print, option="x")
    with pytest.raises(type(error)):
        compiler(double)(torch.ones(1))
    assert not compiler.failed
