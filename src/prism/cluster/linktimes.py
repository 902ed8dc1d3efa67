"""What the link between the nodes takes, timed from the head."""

from __future__ import annotations

import time
from collections.abc import Sequence

from prism.cluster import control
from prism.cluster.emulated import EmulatedLink
from prism.cluster.head import Head
from prism.transport.link import wait_until

_TIMEOUT_S = 60.0


class LinkTimer:
    """Times the data plane among nodes, and the way from the head to one of them.

    Args:
        head: talks to the nodes.
        home: name of the node on the head's own device.
        link: the emulated link of a local cluster.
    """

    def __init__(self, head: Head, home: str, link: EmulatedLink | None) -> None:
        self._head = head
        self._home = home
        self._link = link

    def exchange_times(
        self, names: Sequence[str], sizes: Sequence[int], repeats: int, senders: Sequence[str]
    ) -> tuple[float, ...]:
        """Return the median time of an exchange by frame size, of the node that waits longest.

        Args:
            names: nodes that take part.
            sizes: payload bytes of one frame.
            repeats: exchanges per size.
            senders: nodes that send to all others; the rest only receive.

        Raises:
            ClusterError: a node failed.
        """
        names = tuple(names)
        call = self._head.call()
        try:
            group = self._head.group(call, names)
            message = control.TimeExchanges(
                request=call.request,
                epoch=group.epoch,
                sizes=tuple(sizes),
                repeats=repeats,
                senders=tuple(names.index(name) for name in senders),
            )
            for name in names:
                self._head.send(name, message)
            waiting, deadline_s = list(names), time.monotonic() + _TIMEOUT_S
            times: list[tuple[float, ...]] = []
            while waiting:
                name, answer, _ = self._head.answer(call, deadline_s, waiting)
                waiting.remove(name)
                times.append(answer.times_s)
            return tuple(max(column) for column in zip(*times, strict=True))
        except BaseException:
            self._head.new_epoch()
            raise
        finally:
            self._head.end(call)

    def round_trip_s(self, name: str, nbytes: int) -> float:
        """Return how long `nbytes` to a node and a word back take.

        Raises:
            ClusterError: the node does not answer.
        """
        call = self._head.call()
        try:
            arrives_s = 0.0
            if self._link is not None:
                arrives_s = self._link.arrival_s(self._home, name, nbytes)
            started_s = time.monotonic()
            probe = control.Probe(request=call.request, arrives_s=arrives_s)
            self._head.send(name, probe, [memoryview(bytes(nbytes))])
            _, answer, _ = self._head.answer(call, started_s + _TIMEOUT_S, [name])
            wait_until(answer.arrives_s)
            return time.monotonic() - started_s
        finally:
            self._head.end(call)
