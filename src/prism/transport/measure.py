"""What an exchange costs on a transport, measured while its nodes exchange at once."""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence
from itertools import pairwise
from statistics import median

import torch

from prism.transport.base import Transport

_TIMEOUT_S = 30.0


def exchange_times(
    transport: Transport, sizes: Sequence[int], repeats: int, senders: Collection[int]
) -> list[float]:
    """Return this rank's median time of an exchange, for each size; every rank calls this.

    Args:
        transport: connects the ranks.
        sizes: payload bytes of one frame.
        repeats: exchanges per size.
        senders: ranks that send to all others; the rest only receive.

    Returns:
        Seconds from the sending to the last arrival, one per size; 0 where this rank
        receives nothing.

    Raises:
        PeerLost, DeadlineExceeded: as `Handle.wait`.
    """
    others = [rank for rank in range(transport.size) if rank != transport.rank]
    send_to = others if transport.rank in senders else []
    sources = [rank for rank in others if rank in senders]
    medians = []
    for size in sizes:
        frame = torch.zeros(transport.header_bytes + size, dtype=torch.uint8)
        frames = {rank: torch.empty_like(frame) for rank in sources}
        times = []
        # The first exchange of a size warms buffers and windows; each later one makes a pair.
        for turn in range(repeats + 2):
            number = transport.take_numbers(1)
            # Posted ahead, as the engine does, and known to the senders after a meeting.
            arriving = transport.receive(number, frames)
            for _ in range(1 + turn % 2):
                _meet(transport, others)
            started_s = time.perf_counter()
            leaving = transport.send(number, frame, send_to)
            arriving.wait(_TIMEOUT_S)
            times.append(time.perf_counter() - started_s)
            leaving.wait(_TIMEOUT_S)
        pairs = [(one + other) / 2 for one, other in pairwise(times[1:])]
        medians.append(median(pairs) if sources else 0.0)
    return medians


def _meet(transport: Transport, others: Sequence[int]) -> None:
    """Wait for an empty frame of everybody, so that nobody's lateness piles up.

    A rank that comes late by less than the latency stays that late, to the good of one rank's
    exchange and the harm of the other's; every further meeting swaps the two. So exchanges after
    one and after two meetings take turns, and the mean of two neighbours is free of it.
    """
    number = transport.take_numbers(1)
    frame = torch.zeros(transport.header_bytes, dtype=torch.uint8)
    arriving = transport.receive(number, {rank: torch.empty_like(frame) for rank in others})
    leaving = transport.send(number, frame, others)
    arriving.wait(_TIMEOUT_S)
    leaving.wait(_TIMEOUT_S)
