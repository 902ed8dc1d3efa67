"""The time of an exchange does not depend on who came late to it."""

from __future__ import annotations

import queue
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from prism.emulation.medium import wait_until
from prism.transport.base import Counters
from prism.transport.measure import exchange_times

LATENCY_S = 0.06
LATE_S = 0.045


class Wire:
    """Two ranks in one process: a frame arrives a fixed time after it was sent."""

    header_bytes = 0
    size = 2

    def __init__(self, rank, inboxes, late_s):
        self.rank, self.counters = rank, Counters()
        self._inboxes, self._late_s = inboxes, late_s

    def take_numbers(self, count):
        return 0

    def receive(self, number, buffers):
        return Arrival(self._inboxes[self.rank], len(buffers))

    def send(self, number, frame, peers):
        time.sleep(self._late_s)
        self._late_s = 0.0
        for peer in peers:
            self._inboxes[peer].put(time.monotonic() + LATENCY_S)
        return Arrival(self._inboxes[self.rank], 0)


class Arrival:
    def __init__(self, inbox, frames):
        self._inbox, self._frames = inbox, frames

    def wait(self, timeout_s):
        for _ in range(self._frames):
            wait_until(self._inbox.get(timeout=timeout_s))


@pytest.mark.parametrize("senders", [(0, 1), (0,)])
def test_a_rank_that_starts_late_makes_no_exchange_longer(senders):
    inboxes = queue.SimpleQueue(), queue.SimpleQueue()
    wires = [Wire(rank, inboxes, LATE_S * rank) for rank in range(2)]
    together = threading.Barrier(2)

    def measure(wire):
        together.wait(10)
        return exchange_times(wire, (1, 64), 3, senders)

    with ThreadPoolExecutor(2) as pool:
        own, other = pool.map(measure, wires)
    assert other == pytest.approx([LATENCY_S] * 2, rel=0.4)
    assert own == (pytest.approx([LATENCY_S] * 2, rel=0.4) if len(senders) == 2 else [0.0, 0.0])
