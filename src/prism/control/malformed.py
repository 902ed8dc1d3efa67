"""What is said of messages that cannot be read: a count, one line at a time.

Anybody who holds the secret can send anything, as fast as the network takes it; neither the log nor
whoever reads it must drown.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

LINE_EVERY_S = 10.0


class MalformedLog:
    """Counts malformed messages, and logs at most one line in `LINE_EVERY_S`; from any thread.

    Args:
        owner: who received them, for the line.
        clock: seconds, monotonic.
    """

    def __init__(self, owner: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._owner = owner
        self._clock = clock
        self._turn = threading.Lock()
        self._count = 0
        self._reason = ""
        self._next_line_s = clock()

    def add(self, reason: str) -> None:
        """Count a message that could not be read."""
        with self._turn:
            self._count += 1
            self._reason = reason
        self.report()

    def report(self) -> None:
        """Log what was counted since the last line, if a line is due; call it now and then."""
        with self._turn:
            now_s = self._clock()
            if not self._count or now_s < self._next_line_s:
                return
            count, self._count = self._count, 0
            self._next_line_s = now_s + LINE_EVERY_S
            reason = self._reason
        logging.getLogger(__name__).warning(
            "%s dropped %d malformed message%s; the last: %s",
            self._owner,
            count,
            "" if count == 1 else "s",
            reason,
        )
