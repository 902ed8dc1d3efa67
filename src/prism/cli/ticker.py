"""A line every few seconds on stderr while something takes long and there is no terminal."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType

from prism.cli import output

LINE_EVERY_S = 5.0


class Ticker:
    """Prints what `say` returns every few seconds, from a thread of its own, until the block ends.

    Args:
        say: the line as it is now; called from that thread.
        every_s: seconds between two lines; nothing is printed before the first have passed.
    """

    def __init__(self, say: Callable[[], str], every_s: float = LINE_EVERY_S) -> None:
        self._say, self._every_s = say, every_s
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._go, name="progress lines", daemon=True)

    def __enter__(self) -> Ticker:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._ended.set()
        self._thread.join()

    def _go(self) -> None:
        while not self._ended.wait(self._every_s):
            print(self._say(), file=sys.stderr, flush=True)


@contextmanager
def waiting(text: str) -> Iterator[None]:
    """Say on stderr what is waited for: at once on a terminal, else in lines, and for how long."""
    if on_terminal():
        with output.progress(text):
            yield
        return
    started_s = time.monotonic()
    with Ticker(lambda: f"{text}: {time.monotonic() - started_s:.0f} s"):
        yield


def on_terminal() -> bool:
    """Whether stderr is a terminal."""
    from rich.console import Console

    return Console(stderr=True).is_terminal
