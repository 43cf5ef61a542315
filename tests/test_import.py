"""`import gensr` and `gensr --help` stay quick because they load nothing heavy; asked in a fresh interpreter."""

from __future__ import annotations

import subprocess
import sys

import pytest

import gensr

HEAVY = ("torch", "transformers", "sentence_transformers", "implicit", "accelerate", "scipy", "pyarrow", "numpy")


def loaded_after(code: str) -> set[str]:
    script = f"import sys\n{code}\nprint('LOADED', *sorted(sys.modules))"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(result.stdout.rpartition("LOADED ")[2].split())


@pytest.mark.parametrize(
    "code",
    [
        "import gensr",
        "import gensr; gensr.load_spec, gensr.PipelineSpec, gensr.BadInputError; gensr.load_spec('preset:demo')",
        "from gensr.cli.main import cli; cli(['--help'], standalone_mode=False)",
        "from gensr.cli.main import cli; cli(['spec', 'check', 'preset:demo'], standalone_mode=False)",
        "from gensr.cli.main import cli; cli(['components', 'ranker'], standalone_mode=False)",
    ],
)
def test_nothing_heavy_is_loaded_by(code):
    assert not loaded_after(code) & set(HEAVY)


def test_help_imports_no_command():
    loaded = loaded_after("from gensr.cli.main import cli; cli(['--help'], standalone_mode=False)")
    assert not loaded & {"pydantic", "gensr.spec", "gensr.cli.build", "gensr.cli.data"}


@pytest.mark.parametrize("name", gensr.__all__)
def test_every_public_name_can_be_had(name):
    assert getattr(gensr, name) is not None
    assert name in dir(gensr)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'gensr' has no attribute 'biuld'"):
        _ = gensr.biuld
