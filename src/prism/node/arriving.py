"""Rows of a batch that come after the first ones, as the engine asks for them."""

from __future__ import annotations

import queue
import time
from typing import Any

from prism.control import codec
from prism.errors import Cancelled, DeadlineExceeded
from prism.node.tasks import Task


class ArrivingRows:
    """The rest of a task's rows; an `engine.arriving.Rest`.

    Args:
        task: a run that more rows follow.
        timeout_s: longest wait for them.

    Attributes:
        rows: how many.
        waited_s: how long the node stood still for them.
    """

    def __init__(self, task: Task, timeout_s: float) -> None:
        self.rows: int = task.message.rest_rows
        self.waited_s = 0.0
        self._task = task
        self._timeout_s = timeout_s

    @property
    def arrived(self) -> bool:
        """Whether they are here, or will never be."""
        return not self._task.rest.empty()

    def take(self) -> dict[str, Any]:
        """Return them, once they are here; see `engine.arriving.Rest`."""
        asked_s = time.monotonic()
        try:
            rest = self._task.rest.get(timeout=self._timeout_s)
        except queue.Empty:
            raise DeadlineExceeded(
                f"{self.rows} rows did not arrive within {self._timeout_s:g} s"
            ) from None
        finally:
            self.waited_s += time.monotonic() - asked_s
        if rest is None:
            raise Cancelled(f"request {self._task.request} was given up")
        message, frames = rest
        inputs: dict[str, Any] = codec.unpack(message.inputs, frames)
        return inputs
