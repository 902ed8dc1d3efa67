"""Threads for what would hold up the event loop: reading bodies, texts and images."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from prism.server.errors import Busy

Result = TypeVar("Result")

_RETRY_AFTER_S = 1.0


class Threads:
    """A few threads that share the processor with the models; what waits for them is bounded.

    Args:
        count: threads.
        most_waiting: pieces of work that are being done or wait, at most.
    """

    def __init__(self, count: int = 2, most_waiting: int = 64) -> None:
        self._executor = ThreadPoolExecutor(count, thread_name_prefix="prism-read")
        self._most_waiting = most_waiting
        self._waiting = 0

    async def run(self, work: Callable[[], Result]) -> Result:
        """Return what `work` returns, or raise what it raises; called on the event loop's thread.

        Raises:
            Busy: too much waits already.
        """
        if self._waiting >= self._most_waiting:
            raise Busy(_RETRY_AFTER_S, "too many inputs are being read; try again later")
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._executor, work)
        finally:
            self._waiting -= 1
