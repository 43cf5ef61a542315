"""Progress on stderr: numbered stages of a build, inside them bars with an ETA. Results never go here.

Work that consists of builds has one display over all of them: see `Progress.overall`.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Task, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress
from rich.text import Text

# Two live displays on one terminal overwrite each other, and what is built inside makes its own `Progress` far below.
_OVERALL: ContextVar[RichProgress | None] = ContextVar("overall", default=None)
# Sources are read far below what shows progress, by code that need not know of it.
_READING: ContextVar[Bar | None] = ContextVar("reading", default=None)


class Bar:
    """One running bar: `advance` it, and `say` what is worth seeing beside it."""

    def __init__(self, display: RichProgress, title: str, total: int | None, done: int = 0, **fields: bool) -> None:
        self._display = display
        self._task = display.add_task(title, total=total, completed=done, words="", **fields)

    def advance(self, count: int = 1) -> None:
        """`count` more units are done."""
        self._display.advance(self._task, count)

    def say(self, words: str) -> None:
        """Replace the words beside the bar."""
        self._display.update(self._task, words=words)

    def remove(self) -> None:
        """Take the bar from the screen."""
        self._display.remove_task(self._task)


class _Eta(TimeRemainingColumn):
    """The time that is left, but for bars whose owner says it in words."""

    def render(self, task: Task) -> Text:
        return Text("") if task.fields.get("told") else Text("eta ") + super().render(task)


class Progress:
    """Stages with their seconds, on stderr and in a log file; beneath an `overall` display while there is one.

    Args:
        enabled: show anything at all; seconds and the log are kept either way.
        stages: how many stages there will be, for the numbering.
    """

    def __init__(self, *, enabled: bool = True, stages: int = 0) -> None:
        self.enabled, self.stages = enabled, stages
        self.seconds: dict[str, float] = {}
        self._above = _OVERALL.get() if enabled else None
        own = Console(stderr=True, quiet=not enabled, highlight=False)
        self._console = self._above.console if self._above is not None else own
        self._log: Path | None = None
        self._unlogged: list[str] = []

    @contextmanager
    def stage(self, name: str, title: str) -> Iterator[None]:
        """Announce a stage, and keep its seconds under `name`."""
        number = len(self.seconds) + 1
        self.note(f"[{number}/{self.stages}] {title}" if self.stages else title)
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = round(time.perf_counter() - start, 3)

    @contextmanager
    def bar(self, title: str, total: int | None, *, done: int = 0) -> Iterator[Bar]:
        """A bar with ETA, on a terminal; gone from the screen when the block ends."""
        if self._above is None:
            with self._display() as display:
                yield Bar(display, f"  {title}", total, done)
        else:
            bar = Bar(self._above, f"  {title}", total, done)
            try:
                yield bar
            finally:
                bar.remove()

    @contextmanager
    def overall(self, title: str, total: int) -> Iterator[Bar]:
        """A bar over everything in the block: whatever shows progress there shows it beneath, notes indented."""
        with self._display() as display:
            token = _OVERALL.set(display)
            try:
                yield Bar(display, title, total, told=True)
            finally:
                _OVERALL.reset(token)

    def _display(self) -> RichProgress:
        return RichProgress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            _Eta(),
            TextColumn("{task.fields[words]}", markup=False),
            console=self._console,
            transient=True,
            disable=not (self.enabled and self._console.is_terminal),
        )

    def note(self, text: str) -> None:
        """One line on the screen and in the log."""
        self._console.print("  " + text if self._above is not None else text, markup=False, soft_wrap=True)
        self.record(text)

    def record(self, text: str) -> None:
        """One line in the log alone."""
        self._unlogged.append(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}\n")
        self._flush()

    def log_to(self, path: Path) -> None:
        """Append all lines, those already shown too, to the file at `path`."""
        self._log = path
        self._flush()

    def _flush(self) -> None:
        if self._log is not None and self._unlogged:
            with self._log.open("a", encoding="utf-8") as file:
                file.writelines(self._unlogged)
            self._unlogged.clear()


@contextmanager
def reading(progress: Progress) -> Iterator[None]:
    """Show how many rows `rows_read` tells of in the block."""
    with progress.bar("rows read", None) as bar:
        token = _READING.set(bar)
        try:
            yield
        finally:
            _READING.reset(token)


def rows_read(count: int) -> None:
    """A source read `count` more rows; shown where somebody watches."""
    bar = _READING.get()
    if bar is not None:
        bar.advance(count)
