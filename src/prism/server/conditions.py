"""What is true of a server's models now, asked when Prometheus reads."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice
from typing import get_args

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector
from typing_extensions import override

from prism.api.condition import NodeState
from prism.server.served import Served

# Returns how many requests wait, and their rows.
Waiting = Callable[[], tuple[int, int]]
_MODEL = ("model",)
# Of each model; a client may name any plan, and some of them may fail.
_MOST_PAUSED = 64


class Conditions(Collector):
    """Queues, nodes, links and pauses of all models that are watched."""

    def __init__(self) -> None:
        self._watched: dict[str, tuple[Served, Waiting]] = {}

    def watch(self, served: Served, waiting: Waiting) -> None:
        """Tell of a model from now on."""
        self._watched[served.name] = served, waiting

    @override
    def collect(self) -> Iterator[GaugeMetricFamily]:
        yield from self._queues()
        yield from self._nodes()
        yield from self._links()

    def _queues(self) -> Iterator[GaugeMetricFamily]:
        requests = _gauge("prism_queue_requests", "Requests that wait.")
        rows = _gauge("prism_queue_rows", "Rows of requests that wait.")
        for name, (_, waiting) in self._watched.items():
            for gauge, value in zip((requests, rows), waiting(), strict=True):
                gauge.add_metric((name,), value)
        yield requests
        yield rows

    def _nodes(self) -> Iterator[GaugeMetricFamily]:
        states = _gauge("prism_node_state", "1 for the state a node is in.", "node", "state")
        busy = _gauge("prism_node_busy_seconds", "Work that a node has accepted.", "node")
        paused = _gauge(
            "prism_paused", "1 for a plan or node left alone for a while after failures.", "what"
        )
        for name, (served, _) in self._watched.items():
            condition = served.model.condition
            load = condition.load
            for node, now in condition.states.items():
                busy.add_metric((name, node), load.free_in_s.get(node, 0.0))
                for state in get_args(NodeState):
                    states.add_metric((name, node, state), float(state == now))
            for what in islice(condition.paused, _MOST_PAUSED):
                paused.add_metric((name, what), 1.0)
        yield from (states, busy, paused)

    def _links(self) -> Iterator[GaugeMetricFamily]:
        bandwidth = _gauge(
            "prism_link_bandwidth_bps", "Believed bits per second of the link to a node.", "node"
        )
        latency = _gauge(
            "prism_link_latency_seconds", "Believed latency, one way, of the same link.", "node"
        )
        for name, (served, _) in self._watched.items():
            for node, link in served.model.condition.links.items():
                bandwidth.add_metric((name, node), link.bandwidth_bps)
                latency.add_metric((name, node), link.latency_s)
        yield from (bandwidth, latency)


def _gauge(name: str, text: str, *labels: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, text, labels=(*_MODEL, *labels))
