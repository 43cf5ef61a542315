"""Every error the command line prints without a traceback, and the words they share."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class GensrError(Exception):
    """Something the user can act on. The command line prints it and exits with `exit_code`."""

    exit_code = 1


class BadInputError(GensrError):
    """A spec, a file or an argument is wrong: exit code 2, nothing was written."""

    exit_code = 2


class DamagedFileError(BadInputError):
    """A file that gensr wrote cannot be read any more; the message names it and the cure."""


class FullDiskError(GensrError):
    """The disk is full. Bad input as far as exit codes go: nothing half-written stays, and only the user can help."""

    exit_code = 2


class MissingExtraError(GensrError):
    """An optional dependency is needed and absent."""

    exit_code = 2

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        super().__init__(f"{purpose} needs {package}, which is not installed: pip install 'gensr[{extra}]'")


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return ``"; did you mean 'x'?"``, or nothing where no known name is close.

    Example:
        >>> did_you_mean("cross_atention", ["cross_attention", "mean"])
        "; did you mean 'cross_attention'?"
    """
    close = difflib.get_close_matches(str(name), list(known), n=1, cutoff=0.6)
    return f"; did you mean {close[0]!r}?" if close else ""
