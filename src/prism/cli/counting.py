"""How long work that is counted takes: a bar on a terminal, lines elsewhere. On stderr."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_LINE_EVERY_S = 10.0


@contextmanager
def counted(text: str, total: int) -> Iterator[Callable[[], None]]:
    """Show how far work is; gives what to call after each of `total` equal parts."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
    from rich.progress import TimeRemainingColumn as Remaining

    console = Console(stderr=True)
    if not console.is_terminal:
        yield _Lines(text, total).advance
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), Remaining())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(text, total=total)
        yield lambda: bar.advance(task)


class _Lines:
    """Says every few seconds how far work is, for a log that is read later."""

    def __init__(self, text: str, total: int) -> None:
        self._text, self._total, self._done = text, total, 0
        self._started_s = self._said_s = time.monotonic()

    def advance(self) -> None:
        """Count one part."""
        self._done += 1
        now_s = time.monotonic()
        if now_s - self._said_s < _LINE_EVERY_S:
            return
        self._said_s = now_s
        left_s = (now_s - self._started_s) / self._done * (self._total - self._done)
        print(
            f"{self._text}: {self._done} of {self._total}, {left_s:.0f} s left",
            file=sys.stderr,
            flush=True,
        )
