"""What an exchange costs on a transport, measured while its nodes exchange at once."""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence
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
        Seconds from the post to the arrival of everybody's frame, one per size; 0 where this rank
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
        for _ in range(repeats + 1):
            _meet(transport, others)
            started_s = time.perf_counter()
            handle = transport.post(frame, send_to, frames)
            handle.wait(_TIMEOUT_S)
            times.append(time.perf_counter() - started_s)
            handle.wait_sent(_TIMEOUT_S)
        # The first exchange of a size warms buffers and windows.
        medians.append(median(times[1:]) if sources else 0.0)
    return medians


def _meet(transport: Transport, others: Sequence[int]) -> None:
    """Let all ranks start together: an empty exchange, so that nobody's lateness is measured."""
    frame = torch.zeros(transport.header_bytes, dtype=torch.uint8)
    frames = {rank: torch.empty_like(frame) for rank in others}
    handle = transport.post(frame, others, frames)
    handle.wait(_TIMEOUT_S)
    handle.wait_sent(_TIMEOUT_S)
