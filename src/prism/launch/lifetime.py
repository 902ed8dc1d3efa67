"""When a node process ends from outside: a signal, or the death of whoever started it.

A watching thread, not handlers: Python runs handlers between the main thread's bytecodes, and that
thread may stand inside a long forward pass. Imports nothing heavy, so that it can watch over the
imports of the rest.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

_ENDING = (signal.SIGINT, signal.SIGTERM)
_POLL_S = 0.3
_GRACE_S = 1.0


class Lifetime:
    """Watches over this process; make it in the main thread, before other threads start.

    Args:
        parent_pid: end when this process is gone; None outlives it.
        scratch: a directory that lives as long as the cluster: end when it is gone, and remove it
            when the parent could not.
    """

    def __init__(self, parent_pid: int | None = None, scratch: Path | None = None) -> None:
        self._parent_pid = parent_pid
        self._scratch = scratch
        self._farewell: Callable[[str], None] | None = None
        # Threads inherit the mask, so that the watcher alone takes the signals.
        signal.pthread_sigmask(signal.SIG_BLOCK, _ENDING)
        threading.Thread(target=self._watch, name="prism-lifetime", daemon=True).start()

    def say_farewell_with(self, farewell: Callable[[str], None]) -> None:
        """Let `farewell(reason)` ask the main thread to end; it has a second to do so."""
        self._farewell = farewell

    def _watch(self) -> None:
        while True:
            if self._orphaned():
                self._end("the process that started this node is gone")
            if self._scratch is not None and not self._scratch.exists():
                # The cluster told its nodes, but a word to one that just came may be lost.
                self._end("the cluster that this node belonged to is closed")
            caught = signal.sigtimedwait(_ENDING, _POLL_S)
            # After a stop (SIGSTOP, a suspended machine) longer than the poll, Python returns what
            # it never filled in; a signal that really came is still there in the next turn.
            if caught is not None and caught.si_signo in _ENDING:
                self._end(f"stopped by {signal.Signals(caught.si_signo).name}")

    def _orphaned(self) -> bool:
        return self._parent_pid is not None and os.getppid() != self._parent_pid

    def _end(self, reason: str) -> None:
        # First: the main thread may end the process as soon as it is told.
        if self._orphaned() and self._scratch is not None:
            shutil.rmtree(self._scratch, ignore_errors=True)
        if self._farewell is not None:
            self._farewell(reason)
            time.sleep(_GRACE_S)
        leave(0)


def leave(code: int) -> None:
    """End the process without Python's and torch's teardown, which takes longer than the goodbye.

    Nothing is lost by it: a node keeps nothing on disk, and its sockets are closed before.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
