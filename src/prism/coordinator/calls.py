"""Questions to nodes and the way of their answers back to whoever asks.

The listener's thread delivers, callers wait on a queue of their own. A node that is lost, and a
caller's wish to stop, come the same way as answers do.
"""

from __future__ import annotations

import itertools
import queue
import secrets
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from prism import errors
from prism.control import messages
from prism.errors import (
    Cancelled,
    ClusterError,
    DeadlineExceeded,
    ModelFailed,
    NodeFailed,
    PeerLost,
)


@dataclass(frozen=True, slots=True)
class _Lost:
    """A node is gone."""

    reason: str


class _GivenUp:
    """The caller does not want the answer any more."""


class Heard(NamedTuple):
    """What came from a node.

    Attributes:
        name: of the node.
        message: what it says.
        frames: what followed it.
        arrived_s: when all of it was here, on `time.monotonic()`.
        carried_s: from its announcement to then; 0 where it was too small to be announced.
    """

    name: str
    message: Any
    frames: list[Any]
    arrived_s: float
    carried_s: float = 0.0


@dataclass(slots=True)
class Call:
    """One question to some nodes, and the queue its answers come to.

    Attributes:
        request: its number, which answers repeat.
    """

    request: int
    _answers: queue.SimpleQueue[Heard] = field(default_factory=queue.SimpleQueue)
    _announced_s: dict[str, float] = field(default_factory=dict)

    def deliver(self, name: str, message: Any, frames: list[Any]) -> None:
        """Take an answer, from any thread."""
        self._answers.put(Heard(name, message, frames, time.monotonic()))

    def give_up(self) -> None:
        """Let whoever waits stop waiting, from any thread."""
        self.deliver("", _GivenUp(), [])

    def answer(self, deadline_s: float, waiting_for: Sequence[str]) -> Heard:
        """Return the next answer.

        Args:
            deadline_s: on `time.monotonic()`.
            waiting_for: nodes whose loss matters.

        Raises:
            PeerLost: one of `waiting_for` is gone.
            DeadlineExceeded: nobody answered in time.
            Cancelled: the call was given up.
            PrismError: a node reported a failure; its own class.
        """
        while True:
            try:
                left_s = max(0.0, deadline_s - time.monotonic())
                heard = self._answers.get(timeout=left_s)
            except queue.Empty:
                raise DeadlineExceeded(f"{', '.join(waiting_for)} did not answer in time") from None
            name, message = heard.name, heard.message
            if isinstance(message, messages.Announce):
                self._announced_s[name] = heard.arrived_s
                continue
            if isinstance(message, _GivenUp):
                raise Cancelled("the request was cancelled")
            if isinstance(message, _Lost):
                if name in waiting_for:
                    raise _about(name, PeerLost(f"{name} is gone: {message.reason}"))
                continue
            if isinstance(message, messages.Failed):
                error = _about(name, _error_named(message.error)(message.message))
                if isinstance(error, ModelFailed):
                    error.in_step = message.in_step
                raise error
            announced_s = self._announced_s.pop(name, heard.arrived_s)
            return heard._replace(carried_s=heard.arrived_s - announced_s)


class Calls:
    """All open questions."""

    def __init__(self) -> None:
        self._open: dict[int, Call] = {}
        # An answer that was meant for another coordinator at this address must find no call here.
        self._numbers = itertools.count(1 + secrets.randbelow(1 << 40))
        self._lock = threading.Lock()
        self._closed = False

    def open(self) -> Call:
        """Open a question; end it with `end`.

        Raises:
            ClusterError: nobody can be asked any more.
        """
        with self._lock:
            if self._closed:
                raise ClusterError("this cluster is closed; open a new one")
            call = Call(next(self._numbers))
            self._open[call.request] = call
        return call

    def end(self, call: Call) -> None:
        """Stop listening for answers."""
        with self._lock:
            self._open.pop(call.request, None)

    def deliver(self, name: str, message: Any, frames: list[Any]) -> None:
        """Pass a node's answer to whoever asked; nobody may wait for it any more."""
        request = getattr(message, "request", None)
        with self._lock:
            call = self._open.get(request) if request is not None else None
        if call is not None:
            call.deliver(name, message, frames)

    def lost(self, name: str, reason: str) -> None:
        """Tell everybody who waits that a node is gone."""
        with self._lock:
            calls = list(self._open.values())
        for call in calls:
            call.deliver(name, _Lost(reason), [])

    def close(self) -> None:
        """Open no more questions."""
        with self._lock:
            self._closed = True


def _error_named(name: str) -> type[errors.PrismError]:
    found: Mapping[str, Any] = vars(errors)
    error = found.get(name)
    return error if isinstance(error, type) and issubclass(error, errors.PrismError) else NodeFailed


def _about(name: str, error: errors.PrismError) -> errors.PrismError:
    error.node = name
    return error
