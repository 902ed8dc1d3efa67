"""Whose turn it is on which nodes: a pure state machine, `(state, event) -> (state, actions)`.

A node works on one request at a time. A request starts when all its nodes are free and none of them
is wanted by a request that came before it: so requests for different nodes run at once, the order
on every node is that of arrival, and nothing starves.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

Nodes = frozenset[str]


@dataclass(frozen=True, slots=True)
class Schedule:
    """Who waits and who runs, each with the nodes it wants or holds.

    Attributes:
        waiting: by number of the request, in the order of arrival.
        running: by number of the request.
    """

    waiting: Mapping[int, Nodes] = field(default_factory=lambda: MappingProxyType({}))
    running: Mapping[int, Nodes] = field(default_factory=lambda: MappingProxyType({}))

    @property
    def occupied(self) -> Nodes:
        """Nodes that work on a request."""
        return frozenset().union(*self.running.values())


@dataclass(frozen=True, slots=True)
class Arrived:
    """A request wants its turn; one with a lower number goes first, also when it comes back."""

    number: int
    nodes: Nodes


@dataclass(frozen=True, slots=True)
class Left:
    """A request is done with its nodes, or gave up waiting for them."""

    number: int


Event = Arrived | Left


@dataclass(frozen=True, slots=True)
class Start:
    """It is this request's turn."""

    number: int


def step(state: Schedule, event: Event) -> tuple[Schedule, tuple[Start, ...]]:
    """Return the state after `event`, and whose turn has come."""
    waiting, running = dict(state.waiting), dict(state.running)
    if isinstance(event, Arrived):
        waiting[event.number] = event.nodes
    else:
        waiting.pop(event.number, None)
        running.pop(event.number, None)
    taken = set().union(*running.values())
    starts = []
    for number in sorted(waiting):
        nodes = waiting[number]
        if not nodes & taken:
            starts.append(Start(number))
            running[number] = waiting.pop(number)
        taken |= nodes
    ordered = {number: waiting[number] for number in sorted(waiting)}
    return Schedule(MappingProxyType(ordered), MappingProxyType(running)), tuple(starts)
