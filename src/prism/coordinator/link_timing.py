"""What the link between the nodes takes, timed from the coordinator."""

from __future__ import annotations

import time
from collections.abc import Sequence

from prism.control import messages as control
from prism.coordinator.coordinator import Coordinator
from prism.emulation.medium import wait_until
from prism.emulation.place import EmulatedLink

_TIMEOUT_S = 60.0


class LinkTimer:
    """Times the data plane among nodes, and the way from the coordinator to one of them.

    Args:
        coordinator: talks to the nodes.
        home: name of the node on the coordinator's own device.
        link: the emulated link of a local cluster.
    """

    def __init__(self, coordinator: Coordinator, home: str, link: EmulatedLink | None) -> None:
        self._coordinator = coordinator
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
        call = self._coordinator.call()
        try:
            group = self._coordinator.group(call, names)
            message = control.TimeExchanges(
                request=call.request,
                epoch=group.epoch,
                sizes=tuple(sizes),
                repeats=repeats,
                senders=tuple(names.index(name) for name in senders),
            )
            for name in names:
                self._coordinator.send(name, message)
            waiting, deadline_s = list(names), time.monotonic() + _TIMEOUT_S
            times: list[tuple[float, ...]] = []
            while waiting:
                name, answer, _ = self._coordinator.answer(call, deadline_s, waiting)
                waiting.remove(name)
                times.append(answer.times_s)
            return tuple(max(column) for column in zip(*times, strict=True))
        except BaseException:
            self._coordinator.new_epoch()
            raise
        finally:
            self._coordinator.end(call)

    def round_trip_s(self, name: str, nbytes: int) -> float:
        """Return how long `nbytes` to a node and a word back take.

        Raises:
            ClusterError: the node does not answer.
        """
        call = self._coordinator.call()
        try:
            arrives_s = 0.0
            if self._link is not None:
                arrives_s = self._link.arrival_s(self._home, name, nbytes)
            started_s = time.monotonic()
            probe = control.Probe(request=call.request, arrives_s=arrives_s)
            self._coordinator.send(name, probe, [memoryview(bytes(nbytes))])
            _, answer, _ = self._coordinator.answer(call, started_s + _TIMEOUT_S, [name])
            wait_until(answer.arrives_s)
            return time.monotonic() - started_s
        finally:
            self._coordinator.end(call)
