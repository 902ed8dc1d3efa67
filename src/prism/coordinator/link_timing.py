"""What the links take, timed from the coordinator: exchanges among nodes, and the way to one."""

from __future__ import annotations

import time
from collections.abc import Sequence

from prism.control import messages
from prism.coordinator.coordinator import Coordinator

_TIMEOUT_S = 60.0


class LinkTimer:
    """Times links.

    Args:
        coordinator: talks to the nodes.
    """

    def __init__(self, coordinator: Coordinator) -> None:
        self._coordinator = coordinator

    def exchange_times(
        self, names: Sequence[str], sizes: Sequence[int], repeats: int, senders: Sequence[str]
    ) -> tuple[float, ...]:
        """Return the median time of an exchange by frame size, of the node that waits longest.

        The nodes do it in turn with what else they compute; let them be idle.

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
            message = messages.TimeExchanges(
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
                heard = call.answer(deadline_s, waiting)
                waiting.remove(heard.name)
                times.append(heard.message.times_s)
            return tuple(max(column) for column in zip(*times, strict=True))
        except BaseException:
            self._coordinator.drop_group(names)
            raise
        finally:
            self._coordinator.end(call)

    def round_trip_s(self, name: str, nbytes: int) -> float:
        """Return how long `nbytes` to a node and a word back take, whatever it computes.

        Raises:
            ClusterError: the node does not answer.
        """
        call = self._coordinator.call()
        try:
            started_s = time.monotonic()
            probe = messages.Probe(request=call.request)
            self._coordinator.send(name, probe, [memoryview(bytes(nbytes))])
            call.answer(started_s + _TIMEOUT_S, [name])
            return time.monotonic() - started_s
        finally:
            self._coordinator.end(call)
