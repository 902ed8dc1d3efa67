"""Control messages over an emulated link: they arrive when the link would deliver them.

The sender stamps the time of arrival behind a message; the receiver takes the stamp off and hands
the message over at that time. Messages of JSON only are small enough to slip in between the packets
of a large one: they take the link's delay, and no air time. What carries tensors queues for the air
with everything else on the link.
"""

from __future__ import annotations

import heapq
import itertools
import math
import struct
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from prism.emulation.medium import Medium

Frames = list[Any]
_STAMP = struct.Struct("=d")


class EmulatedDelivery:
    """One end's way to the others over an emulated link; see `prism.control.delivery`.

    Args:
        medium: the air all nodes share.
        places: each node's index on the medium, by name; "" is the coordinator, in the place of
            the node on its own device.
        name: who is at this end.
    """

    def __init__(self, medium: Medium, places: Mapping[str, int], name: str) -> None:
        self._medium = medium
        self._places = places
        self._place = places[name]
        self._arrivals = ArrivalQueue()
        self._changed = threading.Condition()
        self._closed = False
        self._thread: threading.Thread | None = None

    def outgoing(self, receiver: str, frames: Frames) -> Frames:
        """Return the frames with a stamp behind them."""
        return [*frames, _STAMP.pack(self._arrival_s(receiver, frames))]

    def _arrival_s(self, receiver: str, frames: Frames) -> float:
        # A stranger is treated as if it were here; only nodes of the link are on the link.
        place = self._places.get(receiver, self._place)
        now_s = time.monotonic()
        if place == self._place:
            return now_s
        sizes = [memoryview(frame).nbytes for frame in frames]
        if not sum(sizes[1:]):
            return now_s + self._medium.delay_s()
        return self._medium.reserve(self._place, sum(sizes), now_s, [place])

    def incoming(self, sender: str, frames: Frames, deliver: Callable[[Frames], None]) -> None:
        """Call `deliver` without the stamp: now, or on the timer thread when it is due."""
        frames, arrival_s = _unstamped(frames)
        with self._changed:
            if self._closed:
                return
            now_s = time.monotonic()
            waits = self._arrivals.has(sender) or arrival_s > now_s
            if waits:
                self._arrivals.add(sender, arrival_s, lambda: deliver(frames))
                self._start()
                self._changed.notify()
        if not waits:
            deliver(frames)

    def close(self) -> None:
        """Drop what has not arrived and end the timer thread. Safe to call twice."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()

    def _start(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(
                target=self._deliver, name="prism-emulated-delivery", daemon=True
            )
            self._thread.start()

    def _deliver(self) -> None:
        while (arrived := self._next()) is not None:
            arrived.action()
            with self._changed:
                self._arrivals.settle(arrived)

    def _next(self) -> Arrival | None:
        """Wait for a message to be due; None once closed."""
        with self._changed:
            while not self._closed:
                arrived = self._arrivals.pop(time.monotonic())
                if arrived is not None:
                    return arrived
                next_s = self._arrivals.next_s
                self._changed.wait(None if next_s is None else next_s - time.monotonic())
        return None


@dataclass(frozen=True, slots=True, order=True)
class Arrival:
    """A message under way.

    Attributes:
        at_s: when it arrives.
        number: tells messages of one moment apart.
        sender: where it came from.
        action: hands it over.
    """

    at_s: float
    number: int
    sender: str = field(compare=False)
    action: Callable[[], None] = field(compare=False)


class ArrivalQueue:
    """Messages by the time they arrive, those of one sender in the order they were sent.

    Knows no clock and is used under its owner's lock. A sender's messages count until they are
    settled: what comes meanwhile must not overtake the one that is being handed over.
    """

    def __init__(self) -> None:
        self._heap: list[Arrival] = []
        self._numbers = itertools.count()
        self._unsettled: dict[str, int] = {}
        self._last_s: dict[str, float] = {}

    @property
    def next_s(self) -> float | None:
        """When the next one arrives; None if nothing is under way."""
        return self._heap[0].at_s if self._heap else None

    def has(self, sender: str) -> bool:
        """Whether something of this sender is not settled."""
        return sender in self._unsettled

    def add(self, sender: str, at_s: float, action: Callable[[], None]) -> None:
        """Let a message arrive at `at_s`, but not before an earlier one of its sender."""
        at_s = max(at_s, self._last_s.get(sender, at_s))
        self._last_s[sender] = at_s
        self._unsettled[sender] = self._unsettled.get(sender, 0) + 1
        heapq.heappush(self._heap, Arrival(at_s, next(self._numbers), sender, action))

    def pop(self, now_s: float) -> Arrival | None:
        """Take the first that has arrived by `now_s`; settle it once it is handed over."""
        if not self._heap or self._heap[0].at_s > now_s:
            return None
        return heapq.heappop(self._heap)

    def settle(self, arrival: Arrival) -> None:
        """Take note that a message was handed over."""
        self._unsettled[arrival.sender] -= 1
        if not self._unsettled[arrival.sender]:
            del self._unsettled[arrival.sender], self._last_s[arrival.sender]


def _unstamped(frames: Frames) -> tuple[Frames, float]:
    """Return the frames without their stamp, and the stamp; what has none has arrived."""
    last = bytes(frames[-1]) if frames and memoryview(frames[-1]).nbytes == _STAMP.size else b""
    if not last:
        return frames, -math.inf
    (arrival_s,) = _STAMP.unpack(last)
    return frames[:-1], arrival_s if math.isfinite(arrival_s) else -math.inf
