"""How every command behaves: loaded when called, mistakes told without a traceback, exit codes 0, 1, 2 and 130."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Mapping
from importlib import import_module
from typing import Any, NamedTuple

import click

from gensr.errors import FullDiskError, GensrError, did_you_mean
from gensr.files import says_full

DEBUG = "gensr.debug"


def _remember_debug(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    ctx.meta[DEBUG] = ctx.meta.get(DEBUG, False) or value


def _debug_option() -> click.Option:
    return click.Option(
        ["--debug"], is_flag=True, expose_value=False, callback=_remember_debug, help="Show the traceback of an error."
    )


class Command(click.Command):
    """A command that takes ``--debug``, as the group before it does."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.params.append(_debug_option())


class Group(click.Group):
    """A group of such commands."""

    command_class = Command


class Lazy(NamedTuple):
    """Where a command lives, and its line in the list of commands, which is printed without importing it."""

    module: str
    summary: str


class LazyGroup(click.Group):
    """The top of the command line: imports a command when it is called, and turns errors into words and exit codes."""

    def __init__(self, *args: Any, lazy: Mapping[str, Lazy], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.lazy = lazy
        self.params.append(_debug_option())

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names in the order of the table, which is the order of work."""
        return list(self.lazy)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command; a misspelt one is answered with the nearest."""
        if args[0] not in self.lazy and not args[0].startswith("-"):
            hint = did_you_mean(args[0], self.lazy) or "."
            ctx.fail(f"no command {args[0]!r}{hint} Known: {', '.join(self.lazy)}")
        return super().resolve_command(ctx, args)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the command, which bears the name of its module's attribute ``command``."""
        if cmd_name not in self.lazy:
            return None
        command = import_module(self.lazy[cmd_name].module).command
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands from the table alone."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, lazy.summary) for name, lazy in self.lazy.items()])

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; a user's mistake becomes one message and its exit code."""
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()  # so that a reader who left is noticed here and not when the interpreter ends
            return result
        except GensrError as error:
            _report(ctx, str(error), error.exit_code)
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            ctx.exit(0)
        except OSError as error:
            where = f": {error.filename}" if error.filename else ""
            code = FullDiskError.exit_code if says_full(error) else GensrError.exit_code
            _report(ctx, f"{error.strerror or error}{where}", code)
        except KeyboardInterrupt:
            _report(ctx, "interrupted", 130)


def _report(ctx: click.Context, message: str, code: int) -> None:
    if ctx.meta.get(DEBUG):
        traceback.print_exc()
    click.echo(f"gensr: {message}", err=True)
    ctx.exit(code)
