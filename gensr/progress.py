"""Progress of a build on stderr: numbered stages, and inside them bars with an ETA. Results never go here."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress


class Bar:
    """One running bar: `advance` it, and `say` what is worth seeing beside it."""

    def __init__(self, display: RichProgress, title: str, total: int | None, done: int) -> None:
        self._display = display
        self._task = display.add_task(title, total=total, completed=done, words="")

    def advance(self, count: int = 1) -> None:
        """`count` more units are done."""
        self._display.advance(self._task, count)

    def say(self, words: str) -> None:
        """Replace the words beside the bar."""
        self._display.update(self._task, words=words)


class Progress:
    """Stages with their seconds, on stderr and in a log file.

    Args:
        enabled: show anything at all; seconds and the log are kept either way.
        stages: how many stages there will be, for the numbering.
    """

    def __init__(self, *, enabled: bool = True, stages: int = 0) -> None:
        self.enabled, self.stages = enabled, stages
        self.seconds: dict[str, float] = {}
        self._console = Console(stderr=True, quiet=not enabled, highlight=False)
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
        display = RichProgress(
            TextColumn("  {task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("eta"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[words]}"),
            console=self._console,
            transient=True,
            disable=not (self.enabled and self._console.is_terminal),
        )
        with display:
            yield Bar(display, title, total, done)

    def note(self, text: str) -> None:
        """One line on the screen and in the log."""
        self._console.print(text, markup=False, soft_wrap=True)
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
