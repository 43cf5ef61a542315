"""What all commands share: help, exit codes, errors in words, interrupts, closed pipes."""

from __future__ import annotations

import errno
import subprocess
import sys

import click
import pytest

from gensr import __version__
from gensr.cli.base import Group
from gensr.cli.main import COMMANDS, cli

GENSR = [sys.executable, "-m", "gensr.cli.main"]


def all_commands():
    context = click.Context(cli)
    for name in COMMANDS:
        command = cli.get_command(context, name)
        yield (name,), command
        if isinstance(command, Group):
            yield from (((name, inner), command.commands[inner]) for inner in command.commands)


def test_help_lists_every_command_with_its_summary(call):
    text = call("--help").stdout
    for name, lazy in COMMANDS.items():
        assert f"{name} " in text
        assert lazy.summary in text
    assert call("-h").stdout == text


@pytest.mark.parametrize(
    ("path", "command"), list(all_commands()), ids=lambda value: "-".join(value) if isinstance(value, tuple) else ""
)
def test_every_command_explains_itself(call, path, command):
    text = call(*path, "--help").stdout
    assert command.help
    assert "--debug" in text or isinstance(command, click.Group)
    for parameter in command.params:
        assert parameter.param_type_name == "argument" or parameter.help, parameter.name


def test_the_version_is_printed(call):
    assert call("--version").stdout == f"gensr, version {__version__}\n"


def test_a_misspelt_command_is_answered_with_the_nearest(call):
    assert "no command 'biuld'; did you mean 'build'? Known: init, spec," in call("biuld", code=2).stderr


def test_a_misspelt_flag_is_bad_usage(call):
    assert "--jsn" in call("spec", "show", "--jsn", code=2).stderr


@pytest.mark.parametrize(
    "args",
    [
        ("spec", "check", "gone.json"),
        ("spec", "show", "preset:dmeo"),
        ("spec", "check", "--set", "heads=1"),
        ("build", "--set", "ranker.soft_filter=men"),
        ("data", "show"),
        ("data", "check", "gone"),
        ("components", "soft_filtr"),
        ("evaluate", "gone"),
        ("rank", "gone", "--candidates", "a"),
    ],
    ids=" ".join,
)
def test_a_users_mistake_is_one_message_exit_code_2_and_nothing_left_behind(call, tmp_path, args):
    result = call(*args, code=2)
    assert result.stderr.startswith("gensr: ")
    assert result.stdout == ""
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("args", [("--debug", "spec", "check", "gone.json"), ("spec", "check", "gone.json", "--debug")])
def test_debug_shows_the_traceback(tmp_path, args):
    result = subprocess.run([*GENSR, *args], capture_output=True, text=True, cwd=tmp_path)
    assert result.returncode == 2
    assert "Traceback" in result.stderr
    assert "gensr: no spec file 'gone.json'" in result.stderr


def test_an_interrupt_exits_with_130(call, monkeypatch):
    def interrupt(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr("gensr.cli.spec.chosen_spec", interrupt)
    assert call("spec", "show", code=130).stderr == "gensr: interrupted\n"


@pytest.mark.parametrize(
    ("number", "text", "code"), [(errno.EIO, "Input/output error", 1), (errno.ENOSPC, "No space left on device", 2)]
)
def test_a_failing_disk_exits_with_1_a_full_one_with_2_and_both_say_where(call, monkeypatch, number, text, code):
    def fail(*args):
        raise OSError(number, text, "some/file")

    monkeypatch.setattr("gensr.cli.spec.chosen_spec", fail)
    assert call("spec", "show", code=code).stderr == f"gensr: {text}: some/file\n"


def test_a_reader_that_leaves_early_is_no_error(tmp_path):
    process = subprocess.Popen(
        [*GENSR, "spec", "schema"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path
    )
    process.stdout.read(10)
    process.stdout.close()
    assert process.stderr.read() == ""
    assert process.wait() == 0
